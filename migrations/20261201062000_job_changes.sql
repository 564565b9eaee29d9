-- The time of each job's last change, for lists that are kept current without a stream for each
-- job.

alter table jobs add column changed_at timestamptz not null default now();
create index jobs_changed on jobs (tenant_id, changed_at);
comment on column jobs.changed_at is
    'Time of the last update of the row, or of its creation. Visible a moment later, when its transaction commits: readers look back two seconds.';

create or replace function guard_new_job() returns trigger language plpgsql as $$
begin
    if new.status not in ('validating_files', 'queued') then
        raise exception 'a job cannot begin as %', new.status
            using errcode = 'check_violation', constraint = 'jobs_begin_at_the_beginning';
    end if;
    new.changed_at := clock_timestamp();
    return new;
end $$;

create or replace function guard_job() returns trigger language plpgsql as $$
begin
    if old.finished_at is not null then
        raise exception 'job % has ended as %: its row never changes again', old.id, old.status
            using errcode = 'check_violation', constraint = 'jobs_terminal_rows_never_change';
    end if;
    if new.status <> old.status and not job_may_move(old.status, new.status) then
        raise exception 'job % cannot go from % to %', old.id, old.status, new.status
            using errcode = 'check_violation', constraint = 'jobs_legal_moves';
    end if;
    if new.token < old.token then
        raise exception 'the token of job % would shrink', old.id
            using errcode = 'check_violation', constraint = 'jobs_token_never_shrinks';
    end if;
    new.version := old.version + 1;
    new.changed_at := clock_timestamp();
    return new;
end $$;
