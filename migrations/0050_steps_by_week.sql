-- Steps lie by the week in which their job was created, so that old ones go with their table and not row by row
-- (docs/adr/0008). An id of a job begins with its time of creation: a range of ids is a stretch of time.

create function first_job_id(since timestamptz) returns uuid language sql stable as $$
    select (lpad(to_hex(floor(extract(epoch from since) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;
comment on function first_job_id is 'No job that was created later has a smaller id: 48 bits of milliseconds since 1970 (UUIDv7).';

create table job_step_weeks (
    name text primary key,
    ends_at timestamptz not null,
    constraint job_step_weeks_ends_at_unique unique (ends_at)
);
comment on table job_step_weeks is 'The partitions of job_steps but for the default one, each up to a Monday.';

-- What there is stays where it is, with what this week brings.
alter table job_steps rename to job_steps_first;
alter index job_steps_pk rename to job_steps_first_pk;
create table job_steps (like job_steps_first including defaults) partition by range (job_id);
alter table job_steps
    add constraint job_steps_pk primary key (job_id, step),
    add constraint job_steps_job_fk foreign key (job_id) references jobs (id) on delete cascade;
comment on table job_steps is
    'One row for each optimizer step; of a long job every k-th. A resumed attempt writes the same steps again.';
create function week_behind(moment timestamptz) returns timestamptz language sql stable as $$
    select date_trunc('week', moment, 'UTC') + interval '7 days'
$$;
alter table job_steps attach partition job_steps_first
    for values from (minvalue) to (first_job_id(week_behind(now())));
insert into job_step_weeks values ('job_steps_first', week_behind(now()));
-- Of servers whose clock is ahead, until their week has its partition.
create table job_steps_rest partition of job_steps default;

-- Makes the partitions up to a week behind `until`. Weeks in which nobody asked are in one with the next.
create function add_job_step_weeks(until timestamptz) returns void language plpgsql set lock_timeout = '2s' as $$
declare
    begins timestamptz;
    ends timestamptz;
    week text;
begin
    perform pg_advisory_xact_lock(hashtext('job_step_weeks'));
    loop
        select max(ends_at) into begins from job_step_weeks;
        exit when begins >= week_behind(until) + interval '7 days';
        ends := greatest(begins + interval '7 days', week_behind(now()));
        week := 'job_steps_' || to_char(begins at time zone 'UTC', 'IYYY_IW');
        execute format('create table %I (like job_steps including all)', week);
        execute format(
            'with early as (delete from job_steps_rest where job_id >= %1$L and job_id < %2$L returning *)
            insert into %3$I select * from early', first_job_id(begins), first_job_id(ends), week);
        execute format('alter table job_steps attach partition %I for values from (%L) to (%L)',
            week, first_job_id(begins), first_job_id(ends));
        insert into job_step_weeks values (week, ends);
    end loop;
end $$;

-- Drops what is older than `age`, unless a job of that time has not ended yet; says how many weeks went.
create function drop_job_step_weeks(age interval) returns bigint language plpgsql set lock_timeout = '2s' as $$
declare
    old record;
    dropped bigint := 0;
begin
    perform pg_advisory_xact_lock(hashtext('job_step_weeks'));
    for old in
        select name, ends_at from job_step_weeks
        -- The last one stays: the next begins where it ends.
        where ends_at < now() - age and ends_at < (select max(ends_at) from job_step_weeks) order by ends_at
    loop
        exit when exists (select from jobs where finished_at is null and id < first_job_id(old.ends_at));
        execute format('drop table %I', old.name);
        delete from job_step_weeks where name = old.name;
        dropped := dropped + 1;
    end loop;
    return dropped;
end $$;
