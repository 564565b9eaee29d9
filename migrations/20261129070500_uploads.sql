-- Uploads in parts; files that expire; idempotency keys of every request that creates something.

alter table files
    add column expires_at timestamptz,
    add column idempotency_key text,
    add column body_sha256 bytea,
    add constraint files_idempotency_key_unique unique (tenant_id, idempotency_key),
    add constraint files_idempotency_key_length check (char_length(idempotency_key) between 1 and 255),
    add constraint files_idempotency_key_with_body check ((idempotency_key is null) = (body_sha256 is null));
create index files_expiring on files (expires_at) where expires_at is not null;
comment on column files.expires_at is 'When garbage collection may delete it; null for never.';
comment on column files.body_sha256 is 'SHA-256 of what the idempotency key came with: purpose, name, expiry and content.';

alter table models
    add column idempotency_key text,
    add column body_sha256 bytea,
    add constraint models_idempotency_key_unique unique (tenant_id, idempotency_key),
    add constraint models_idempotency_key_length check (char_length(idempotency_key) between 1 and 255),
    add constraint models_idempotency_key_with_body check ((idempotency_key is null) = (body_sha256 is null));
comment on column models.idempotency_key is 'Key of the request that registered a base model.';
comment on column models.body_sha256 is 'SHA-256 of the request body that the idempotency key came with.';

create table uploads (
    id uuid primary key,
    tenant_id bigint not null,
    filename text not null,
    purpose text not null,
    bytes bigint not null,
    file_lifetime interval,
    status text not null default 'pending',
    parts int not null default 0,
    part_bytes bigint not null default 0,
    completed_with uuid[],
    file_id uuid,
    idempotency_key text,
    body_sha256 bytea,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    constraint uploads_tenant_fk foreign key (tenant_id) references tenants (id),
    constraint uploads_idempotency_key_unique unique (tenant_id, idempotency_key),
    constraint uploads_idempotency_key_length check (char_length(idempotency_key) between 1 and 255),
    constraint uploads_idempotency_key_with_body check ((idempotency_key is null) = (body_sha256 is null)),
    constraint uploads_purpose_known check (purpose in ('fine-tune', 'weights')),
    constraint uploads_status_known check (status in ('pending', 'completed', 'cancelled', 'expired')),
    constraint uploads_bytes_range check (bytes > 0),
    constraint uploads_completed_iff_file check ((status = 'completed') = (file_id is not null)),
    constraint uploads_completed_iff_parts check ((status = 'completed') = (completed_with is not null))
);
create index uploads_pending on uploads (tenant_id) where status = 'pending';
create index uploads_expiring on uploads (expires_at);
comment on table uploads is 'Files that arrive in parts. A completed one became a row of files.';
comment on column uploads.bytes is 'Size of the whole file, as announced; the parts that complete it must have as many.';
comment on column uploads.file_lifetime is 'Time after its creation at which the file expires; null for never.';
comment on column uploads.parts is 'Number of parts so far.';
comment on column uploads.part_bytes is 'Size of all parts so far, also of those that were sent again.';
comment on column uploads.completed_with is 'The parts that the file was made of, in order.';
comment on column uploads.file_id is 'The file that it became, which may be deleted by now.';
comment on column uploads.expires_at is 'A pending upload ends at this time; a day later the row is deleted.';

create table upload_parts (
    id uuid primary key,
    upload_id uuid not null,
    bytes bigint not null,
    sha256 text not null,
    idempotency_key text,
    created_at timestamptz not null default now(),
    constraint upload_parts_upload_fk foreign key (upload_id) references uploads (id) on delete cascade,
    constraint upload_parts_idempotency_key_unique unique (upload_id, idempotency_key),
    constraint upload_parts_idempotency_key_length check (char_length(idempotency_key) between 1 and 255),
    constraint upload_parts_bytes_range check (bytes > 0)
);
comment on table upload_parts is 'Parts of uploads. The bytes are at uploads/<upload in hex>/<id in hex>/content in the object store.';
comment on column upload_parts.sha256 is 'SHA-256 of the part, lower-case hex; compared again when the file is made.';

create function delete_expired_file(file uuid) returns boolean language plpgsql security definer as $$
begin
    -- The validation before the file, in the order in which its end locks them.
    perform from work where kind = 'validate' and subject = file for update;
    perform from files where id = file and expires_at <= now() for update;
    if not found
        or exists (select from jobs where finished_at is null and file in (training_file, validation_file))
        or exists (select from models where status = 'importing' and weights_file = file)
    then
        return false;
    end if;
    delete from work where kind = 'validate' and subject = file;
    delete from files where id = file;
    return true;
end $$;
comment on function delete_expired_file is
    'Deletes a file whose time is over, unless a job or import that has not ended needs it. It runs with its owner''s rights: workers may delete no other file.';
do $$
begin
    execute format('alter function delete_expired_file(uuid) set search_path = %I, pg_temp', current_schema());
end $$;
revoke execute on function delete_expired_file(uuid) from public;
