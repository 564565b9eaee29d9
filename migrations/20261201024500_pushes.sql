-- Pushes of fine-tuned models to repositories of a hub.

create table pushes (
    id uuid primary key,
    tenant_id bigint not null,
    model text not null,
    repository text not null,
    branch text not null,
    private boolean not null,
    message text not null,
    status text not null default 'queued',
    commit_id text,
    error jsonb,
    created_at timestamptz not null default now(),
    finished_at timestamptz,
    constraint pushes_tenant_fk foreign key (tenant_id) references tenants (id),
    constraint pushes_status_known check (status in ('queued', 'succeeded', 'failed')),
    constraint pushes_finished_iff_ended check ((status = 'queued') = (finished_at is null)),
    constraint pushes_succeeded_iff_committed check ((status = 'succeeded') = (commit_id is not null)),
    constraint pushes_failed_iff_error check ((status = 'failed') = (error is not null))
);
create index pushes_list on pushes (tenant_id, id desc);
comment on table pushes is 'Pushes of models to repositories of a hub. One that is leased runs. They stay when their model is deleted.';
comment on column pushes.model is 'Id of a model, which may have been deleted.';
comment on column pushes.private is 'Whether a repository that does not exist is created as a private one.';
comment on column pushes.commit_id is 'The commit in which the branch has the files.';
comment on column pushes.error is 'domain::progress::Failure.';

alter table work drop constraint work_kind_known;
alter table work add constraint work_kind_known
    check (kind in ('train', 'validate', 'import', 'export', 'download', 'rank', 'push'));
comment on column work.kind is
    'train: a job. A job waits in jobs, in the order of tenant_turns and claimable_jobs, and has a row here only while it is leased. validate: a file. import: a base model. export: a fine-tuned model as a file. download: a file. rank: a ranking. push: a push.';

create function notify_push() returns trigger language plpgsql as $$
begin
    perform pg_notify('rehead_model', 'push-' || replace(new.id::text, '-', ''));
    return null;
end $$;
comment on function notify_push is 'rehead_model: a push of a model ended.';
create trigger notify_push after update of status on pushes
    for each row execute function notify_push();
