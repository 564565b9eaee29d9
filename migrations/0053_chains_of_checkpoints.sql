-- A job that goes on from a checkpoint needs every checkpoint that this one goes on from itself.

alter table jobs add column parent_checkpoints uuid[] not null default '{}';
comment on column jobs.parent_checkpoints is
    'The checkpoints whose weights lie over each other at its start, oldest first: kept while this job has not ended.';

with recursive chain as (
    select id, parent_checkpoint as checkpoint, array[parent_checkpoint] as found from jobs where parent_checkpoint is not null
    union all
    select chain.id, made.parent_checkpoint, made.parent_checkpoint || chain.found
    from chain join checkpoints c on c.id = chain.checkpoint join jobs made on made.id = c.job_id
    where made.parent_checkpoint is not null
)
update jobs set parent_checkpoints = longest.found
from (select distinct on (id) id, found from chain order by id, cardinality(found) desc) longest
where longest.id = jobs.id;

-- With its index.
alter table jobs drop column parent_checkpoint;
create index jobs_parent_checkpoints on jobs using gin (parent_checkpoints)
    where finished_at is null and parent_checkpoints <> '{}';
