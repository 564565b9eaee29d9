-- Workers may have a role of their own, which owns no table (src/db/grants.rs). It still rotates
-- the partitions of job_steps: these two functions run with the rights of their owner, and find
-- tables only where this migration did, never among a caller's temporary ones.

do $$
begin
    execute format('alter function add_job_step_weeks(timestamptz) security definer set search_path = %I, pg_temp',
        current_schema());
    execute format('alter function drop_job_step_weeks(interval) security definer set search_path = %I, pg_temp',
        current_schema());
end $$;

revoke execute on function add_job_step_weeks(timestamptz), drop_job_step_weeks(interval) from public;
