-- Models as files of several formats.

create table exports (
    id uuid default gen_random_uuid(),
    tenant_id bigint not null,
    model text not null,
    format text not null,
    object jsonb,
    failure jsonb,
    constraint exports_pk primary key (id),
    constraint exports_one_of_a_format unique (tenant_id, model, format),
    constraint exports_model_fk foreign key (tenant_id, model) references models (tenant_id, id) on delete cascade,
    constraint exports_format_known check (format in ('torchscript', 'onnx'))
);
comment on table exports is
    'Files that fine-tuned models were requested as, other than the model bundle; without an object and a failure until it is written first.';
comment on column exports.id is 'work.subject while it is being written.';
comment on column exports.format is 'domain::export::NetworkFormat.';
comment on column exports.object is 'Size and SHA-256 of scripts/<job in hex>/model.<extension>, as it was written last.';
comment on column exports.failure is 'domain::progress::Failure of the last export; null when it succeeded.';

-- Work that is queued keeps its subject.
insert into exports (id, tenant_id, model, format, object, failure)
select job_id, tenant_id, id, 'torchscript', torchscript, export_failure from models
where torchscript is not null or export_failure is not null
    or exists (select from work where kind = 'export' and subject = job_id);

comment on column models.torchscript is 'Unused since the table exports.';
comment on column models.export_failure is 'Unused since the table exports.';
comment on column work.kind is
    'train: a job. A job waits in jobs, in the order of tenant_turns and claimable_jobs, and has a row here only while it is leased. validate: a file. import: a base model. export: a fine-tuned model as a file. download: a file.';
comment on column work.subject is 'Id of the job or file, models.import_id, or exports.id.';

create function notify_export() returns trigger language plpgsql as $$
begin
    perform pg_notify('rehead_model', new.model);
    return null;
end $$;
comment on function notify_export is 'Wakes the request that waits for an export.';
create trigger notify_export after update of object, failure on exports
    for each row execute function notify_export();
