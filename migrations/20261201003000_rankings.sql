-- Rankings of base models by how well their features fit a data set, and jobs whose model is chosen
-- by one.

create table scores (
    tenant_id bigint not null,
    key text not null,
    pack_sha256 text not null,
    scores jsonb not null,
    created_at timestamptz not null default now(),
    constraint scores_pk primary key (tenant_id, key),
    constraint scores_tenant_fk foreign key (tenant_id) references tenants (id)
);
create index scores_pack on scores (tenant_id, pack_sha256);
comment on table scores is 'Scores of base models on data sets, kept so that asking again computes nothing. Garbage collection deletes those of data sets that are gone.';
comment on column scores.key is 'Hash of everything that the scores depend on: domain::ranking.';
comment on column scores.scores is 'domain::ranking::Scores.';

create table rankings (
    id uuid primary key,
    tenant_id bigint not null,
    training_file uuid not null,
    validation_file uuid,
    status text not null default 'queued',
    candidates jsonb not null,
    excluded jsonb not null,
    failures jsonb not null default '{}',
    ranked jsonb,
    error jsonb,
    seconds double precision,
    created_at timestamptz not null default now(),
    finished_at timestamptz,
    constraint rankings_tenant_fk foreign key (tenant_id) references tenants (id),
    constraint rankings_status_known check (status in ('queued', 'succeeded', 'failed')),
    constraint rankings_finished_iff_ended check ((status = 'queued') = (finished_at is null)),
    constraint rankings_succeeded_iff_ranked check ((status = 'succeeded') = (ranked is not null)),
    constraint rankings_failed_iff_error check ((status = 'failed') = (error is not null))
);
create index rankings_list on rankings (tenant_id, id desc);
create index rankings_file on rankings (training_file) where status = 'queued';
comment on table rankings is 'Rankings of base models for a data set. One that is leased runs.';
comment on column rankings.validation_file is 'Of the job that asked for the ranking: its features are kept for the same data sets.';
comment on column rankings.candidates is 'List of domain::ranking::Candidate, as they were at its creation.';
comment on column rankings.excluded is 'List of domain::ranking::Excluded; at the end with those that could not be scored.';
comment on column rankings.failures is 'domain::progress::Failure of each candidate that could not be scored, by model.';
comment on column rankings.ranked is 'List of domain::ranking::RankedModel, the best one first.';
comment on column rankings.error is 'domain::progress::Failure.';
comment on column rankings.seconds is 'Time that scoring took, without scores that were kept.';

alter table work drop constraint work_kind_known;
alter table work add constraint work_kind_known
    check (kind in ('train', 'validate', 'import', 'export', 'download', 'rank'));
comment on column work.kind is
    'train: a job. A job waits in jobs, in the order of tenant_turns and claimable_jobs, and has a row here only while it is leased. validate: a file. import: a base model. export: a fine-tuned model as a file. download: a file. rank: a ranking.';

alter table jobs alter column model drop not null;
alter table jobs add column ranking uuid;
alter table jobs add column model_reason text;
alter table jobs add constraint jobs_ranking_fk foreign key (ranking) references rankings (id) on delete set null;
alter table jobs add constraint jobs_model_before_recipe check (model is not null or recipe is null);
alter table jobs drop constraint jobs_phase_known;
alter table jobs add constraint jobs_phase_known check (phase in
    ('waiting', 'choosing', 'preparing', 'caching_features', 'probing', 'training', 'evaluating', 'exporting'));
create index jobs_ranking on jobs (ranking) where ranking is not null;
comment on column jobs.model is
    'Row of models that holds its network: the base model, or the fine-tuned model that it, or its parent, continues from. Null until it is chosen.';
comment on column jobs.ranking is 'The ranking that chose its model, or will; null also once that is deleted.';
comment on column jobs.model_reason is 'Why its model was chosen; null where the request names one.';

create function notify_ranking() returns trigger language plpgsql as $$
begin
    perform pg_notify('rehead_ranking', 'rank-' || replace(new.id::text, '-', ''));
    return null;
end $$;
comment on function notify_ranking is 'rehead_ranking: a ranking ended.';
create trigger notify_ranking after update of status on rankings
    for each row execute function notify_ranking();
