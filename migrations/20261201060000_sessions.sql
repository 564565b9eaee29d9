-- Sessions of the dashboard: a browser that has sent an API key once holds a cookie instead.

create table sessions (
    sha256 bytea,
    tenant_id bigint not null,
    key_prefix text not null,
    created_at timestamptz not null default now(),
    last_used_at timestamptz not null default now(),
    expires_at timestamptz not null,
    constraint sessions_pk primary key (sha256),
    constraint sessions_tenant_fk foreign key (tenant_id) references tenants (id),
    constraint sessions_key_fk foreign key (key_prefix) references api_keys (prefix) on delete cascade,
    constraint sessions_sha256_length check (octet_length(sha256) = 32)
);
create index sessions_key on sessions (key_prefix, last_used_at);
create index sessions_expiry on sessions (expires_at);
comment on table sessions is 'Sessions of browsers. The token in the cookie is never stored.';
comment on column sessions.sha256 is 'SHA-256 of the token, which is 256 random bits.';
comment on column sessions.key_prefix is 'The key that it was begun with, whose rights it has.';
comment on column sessions.last_used_at is 'Last use, recorded about once a minute.';
comment on column sessions.expires_at is 'Time from which it is refused, unless it is used before; recorded with the last use.';

create function end_sessions() returns trigger language plpgsql as $$
begin
    delete from sessions where key_prefix = new.prefix;
    return null;
end $$;
comment on function end_sessions is 'Ends the sessions of a key that was revoked.';
create trigger end_sessions after update of revoked_at on api_keys
    for each row when (new.revoked_at is not null) execute function end_sessions();

-- Workers collect garbage, and may read no session.
create function delete_expired_sessions() returns bigint language sql security definer as $$
    with gone as (
        delete from sessions s using api_keys k
        where k.prefix = s.key_prefix and (s.expires_at <= now() or k.expires_at <= now()) returning 1
    )
    select count(*) from gone
$$;
comment on function delete_expired_sessions is
    'Deletes sessions whose time, or whose key''s time, is over; returns how many. It runs with its owner''s rights.';
do $$
begin
    execute format('alter function delete_expired_sessions() set search_path = %I, pg_temp', current_schema());
end $$;
revoke execute on function delete_expired_sessions() from public;
