-- Roles, expiry and revocation of API keys; limits of single tenants and keys.

alter table api_keys
    add column role text not null default 'user',
    add column expires_at timestamptz,
    add column revoked_at timestamptz,
    add column last_used_at timestamptz,
    add constraint api_keys_role_known check (role in ('admin', 'user')),
    add constraint api_keys_name_length check (char_length(name) between 1 and 64);
create index api_keys_list on api_keys (created_at, prefix);
comment on column api_keys.name is 'A label for people; the name of the tenant unless another was given.';
comment on column api_keys.role is 'user: the rows of its tenant; admin: also keys, workers, metrics.';
comment on column api_keys.expires_at is 'Time from which the key is refused; never when null.';
comment on column api_keys.revoked_at is 'Time of its revocation. The row stays, so that a service with revoked keys only does not open.';
comment on column api_keys.last_used_at is 'Last use, recorded about once a minute.';

-- Limits, where they differ from those of the service.

alter table tenants
    add column requests_per_minute int,
    add column max_stored_bytes bigint,
    add column max_streams int,
    add column max_waits int,
    add column max_predicts int,
    add column max_uploads int,
    add constraint tenants_limits_range check (
        requests_per_minute >= 0 and max_stored_bytes >= 0 and max_streams >= 0 and max_waits >= 0
        and max_predicts >= 0 and max_uploads >= 0
    );
comment on column tenants.requests_per_minute is 'Maximum number of requests in a minute; null, as in the columns below: that of the service.';
comment on column tenants.max_stored_bytes is 'Maximum size of all its files together.';
comment on column tenants.max_streams is 'Maximum number of open event streams, for each server process, as below.';
comment on column tenants.max_waits is 'Maximum number of waiting requests.';
comment on column tenants.max_predicts is 'Maximum number of predictions in progress.';
comment on column tenants.max_uploads is 'Maximum number of uploads in progress.';

alter table api_keys
    add column requests_per_minute int,
    add constraint api_keys_requests_per_minute_range check (requests_per_minute >= 0);
comment on column api_keys.requests_per_minute is 'Maximum number of requests in a minute, within that of its tenant; null: none of its own.';
