-- Webhooks: the addresses that are told of ended jobs, and the outbox of what they are told.

create function new_id() returns uuid language sql volatile as $$
    select (lpad(to_hex(floor(extract(epoch from clock_timestamp()) * 1000)::bigint), 12, '0')
        || '7' || substr(replace(gen_random_uuid()::text, '-', ''), 14))::uuid
$$;
comment on function new_id is 'A UUIDv7: it sorts by time, as ids made by the service do.';

create table webhooks (
    id uuid primary key,
    tenant_id bigint not null,
    url text not null,
    events text[] not null,
    secret bytea not null,
    previous_secret bytea,
    previous_secret_until timestamptz,
    enabled boolean not null default true,
    disabled_reason text,
    idempotency_key text,
    body_sha256 bytea,
    created_at timestamptz not null default now(),
    constraint webhooks_tenant_fk foreign key (tenant_id) references tenants (id),
    constraint webhooks_events_some check (cardinality(events) > 0),
    constraint webhooks_secret_length check (octet_length(secret) = 32),
    constraint webhooks_previous_secret_until check ((previous_secret is null) = (previous_secret_until is null)),
    constraint webhooks_enabled_without_reason check (not enabled or disabled_reason is null),
    constraint webhooks_idempotency_key_unique unique (tenant_id, idempotency_key),
    constraint webhooks_idempotency_key_length check (char_length(idempotency_key) between 1 and 255),
    constraint webhooks_idempotency_key_with_body check ((idempotency_key is null) = (body_sha256 is null))
);
create index webhooks_list on webhooks (tenant_id, id desc);
comment on table webhooks is 'URLs that are told when jobs of their tenant end.';
comment on column webhooks.events is 'Words of domain::webhook::EventType.';
comment on column webhooks.secret is 'Key of the signatures. It is needed to sign, so it is not hashed.';
comment on column webhooks.previous_secret is 'The key before the last rotation; deliveries are signed by both until previous_secret_until.';
comment on column webhooks.body_sha256 is 'SHA-256 of the request body that the idempotency key came with.';
comment on column webhooks.disabled_reason is 'Why the service disabled it; null when its user did.';

create table webhook_events (
    id uuid primary key,
    tenant_id bigint not null,
    type text not null,
    job_id uuid,
    body text,
    created_at timestamptz not null default now(),
    constraint webhook_events_tenant_fk foreign key (tenant_id) references tenants (id),
    constraint webhook_events_has_content check (job_id is not null or body is not null)
);
create index webhook_events_by_age on webhook_events (created_at);
comment on table webhook_events is 'What webhooks are told. One event goes to every webhook that wants its type.';
comment on column webhook_events.type is 'A word of domain::webhook::EventType, or domain::webhook::TEST_EVENT.';
comment on column webhook_events.job_id is 'The job that ended; it may be deleted by now.';
comment on column webhook_events.body is 'JSON that is sent, the same at each try; null before the first one.';

create table webhook_deliveries (
    id uuid primary key,
    webhook_id uuid not null,
    event_id uuid not null,
    status text not null default 'pending',
    attempts int not null default 0,
    queued_at timestamptz not null default now(),
    next_attempt_at timestamptz not null default now(),
    lease_expires_at timestamptz,
    response_status int,
    error text,
    ended_at timestamptz,
    constraint webhook_deliveries_webhook_fk foreign key (webhook_id) references webhooks (id) on delete cascade,
    constraint webhook_deliveries_event_fk foreign key (event_id) references webhook_events (id) on delete cascade,
    constraint webhook_deliveries_status_known check (status in ('pending', 'succeeded', 'failed')),
    constraint webhook_deliveries_ended_iff_not_pending check ((status = 'pending') = (ended_at is null)),
    constraint webhook_deliveries_lease_while_pending check (status = 'pending' or lease_expires_at is null)
);
create index webhook_deliveries_due on webhook_deliveries (next_attempt_at) where status = 'pending';
create index webhook_deliveries_leased on webhook_deliveries (webhook_id) where lease_expires_at is not null;
create index webhook_deliveries_list on webhook_deliveries (webhook_id, id desc);
create index webhook_deliveries_by_event on webhook_deliveries (event_id);
comment on table webhook_deliveries is 'The outbox: an event on its way to a webhook. Written in the transaction that ends the job.';
comment on column webhook_deliveries.attempts is 'Tries so far. Also the fencing token of the current one: a result with another number changes nothing.';
comment on column webhook_deliveries.queued_at is 'When it was made, or requested again. It is given up some time after that.';
comment on column webhook_deliveries.lease_expires_at is 'End of the current try, if its process dies; null while nobody tries.';
comment on column webhook_deliveries.response_status is 'Status of the last answer; null when there was none.';
comment on column webhook_deliveries.error is 'Why the last try failed.';

-- A webhook that is being deleted is skipped: the end of a job waits for nobody, and fails for
-- nobody.
create function announce_job_end() returns trigger language plpgsql as $$
declare
    ended text := 'fine_tuning.job.' || new.status;
    event uuid;
    webhook uuid;
begin
    for webhook in
        select id from webhooks where tenant_id = new.tenant_id and enabled and ended = any (events)
        order by id for key share skip locked
    loop
        if event is null then
            event := new_id();
            insert into webhook_events (id, tenant_id, type, job_id) values (event, new.tenant_id, ended, new.id);
        end if;
        insert into webhook_deliveries (id, webhook_id, event_id) values (new_id(), webhook, event);
    end loop;
    return null;
end $$;
-- Workers, which may have a role without rights on these tables, end jobs too.
do $$
begin
    execute format('alter function announce_job_end() security definer set search_path = %I, pg_temp', current_schema());
end $$;
create trigger announce_job_end after update of status on jobs
    for each row when (new.finished_at is not null and old.finished_at is null) execute function announce_job_end();
