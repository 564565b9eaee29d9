-- What may be deleted, and with what: a job's rows go with the job, and some checkpoints stay whatever is superseded.

alter table job_leases drop constraint job_leases_job_fk,
    add constraint job_leases_job_fk foreign key (job_id) references jobs (id) on delete restrict;
alter table attempts drop constraint attempts_job_fk,
    add constraint attempts_job_fk foreign key (job_id) references jobs (id) on delete cascade;
alter table checkpoints drop constraint checkpoints_job_fk,
    add constraint checkpoints_job_fk foreign key (job_id) references jobs (id) on delete cascade;
alter table job_events drop constraint job_events_job_fk,
    add constraint job_events_job_fk foreign key (job_id) references jobs (id) on delete cascade;
alter table job_steps drop constraint job_steps_job_fk,
    add constraint job_steps_job_fk foreign key (job_id) references jobs (id) on delete cascade;
alter table job_evaluations drop constraint job_evaluations_job_fk,
    add constraint job_evaluations_job_fk foreign key (job_id) references jobs (id) on delete cascade;

create function guard_job_deletion() returns trigger language plpgsql as $$
begin
    if old.finished_at is null then
        raise exception 'job % has not ended: it is %', old.id, old.status
            using errcode = 'check_violation', constraint = 'jobs_only_ended_ones_go';
    end if;
    return old;
end $$;
create trigger guard_job_deletion before delete on jobs for each row execute function guard_job_deletion();

-- The checkpoints that a job cannot do without: the last two, and the best.
create function kept_checkpoints(job uuid) returns setof uuid language sql stable as $$
    (select id from checkpoints where job_id = job and state = 'committed' order by step desc, token desc limit 2)
    union select best_checkpoint from jobs where id = job and best_checkpoint is not null
$$;
comment on function kept_checkpoints is 'Of one job: every other checkpoint may be deleted.';

comment on table job_steps is
    'One row for each optimizer step; of a long job every k-th. A resumed attempt writes the same steps again.';
