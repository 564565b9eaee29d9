-- Jobs that go on from a fine-tuned model, or from a checkpoint of another job.

alter table jobs
    add column parent jsonb,
    add column parent_checkpoint uuid;
create index jobs_parent_checkpoint on jobs (parent_checkpoint) where finished_at is null and parent_checkpoint is not null;
comment on column jobs.model is
    'The row of models that its network is of: the base model, or the fine-tuned model that it, or its parent, goes on from.';
comment on column jobs.parent is
    'domain::parent::Parent: what it goes on from; null where it starts from the base model. Its id may be a checkpoint''s.';
comment on column jobs.parent_checkpoint is 'The checkpoint that it goes on from: kept while this job has not ended.';

alter table models
    add column base_model text,
    add column base_weights_sha256 text,
    add column recipe jsonb;
comment on column models.parent is 'What a fine-tuned one started from: a base model, a fine-tuned model or a checkpoint.';
comment on column models.base_model is 'The base model at the root of a fine-tuned one; it may be gone.';
comment on column models.base_weights_sha256 is 'Of that base model''s weights, at models/<sha256>/, which stay.';
comment on column models.recipe is 'domain::recipe::Recipe that a fine-tuned one was trained by.';
-- No job went on so far. Bundles of before have no weights_sha256: nothing goes on from those.
update models made set base_model = made.parent, recipe = j.recipe, base_weights_sha256 = base.weights_sha256
from jobs j, models base
where made.kind = 'fine_tuned' and j.id = made.job_id and base.tenant_id = made.tenant_id and base.id = made.parent;
