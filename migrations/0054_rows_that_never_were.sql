-- What no statement of ours does, and so no statement may: a job that begins anywhere but at its beginning, a lease or a
-- checkpoint of an attempt that never was, a history that changes.

create function guard_new_job() returns trigger language plpgsql as $$
begin
    if new.status not in ('validating_files', 'queued') then
        raise exception 'a job cannot begin as %', new.status
            using errcode = 'check_violation', constraint = 'jobs_begin_at_the_beginning';
    end if;
    return new;
end $$;
create trigger guard_new_job before insert on jobs for each row execute function guard_new_job();

alter table job_leases add constraint job_leases_attempt_fk
    foreign key (job_id, token) references attempts (job_id, token) on delete cascade;
alter table checkpoints add constraint checkpoints_attempt_fk
    foreign key (job_id, token) references attempts (job_id, token) on delete cascade;

create function guard_event() returns trigger language plpgsql as $$
begin
    raise exception 'event % of job % is history: it never changes', old.seq, old.job_id
        using errcode = 'check_violation', constraint = 'job_events_never_change';
end $$;
create trigger guard_event before update on job_events for each row execute function guard_event();
