-- What an attempt was, for whoever looks at it later; and how many jobs a worker runs at once.

alter table attempts
    add column host text,
    add column exit_code int,
    add column exit_signal text,
    add column reached_step bigint,
    add constraint attempts_one_exit check (exit_code is null or exit_signal is null);
comment on column attempts.host is 'Of the worker, whose own row may be gone by now.';
comment on column attempts.exit_code is 'Of the trainer, where it ended by itself.';
comment on column attempts.exit_signal is 'What ended the trainer, such as SIGKILL.';
comment on column attempts.reached_step is 'The last step that the trainer told of; null when it never was ready.';
comment on column attempts.log_tail is 'The last lines of the trainer''s standard error.';

alter table jobs add column error_permanent boolean;
-- The one change of ended rows that there ever is: what was not known of them.
alter table jobs disable trigger guard_job;
update jobs set error_permanent = false where status = 'failed';
alter table jobs enable trigger guard_job;
alter table jobs add constraint jobs_failed_iff_permanence check ((status = 'failed') = (error_permanent is not null));
comment on column jobs.error_permanent is 'Whether another try would fail the same way: the request or the data must change.';

alter table workers add column slots int not null default 1;
alter table workers add constraint workers_slots_range check (slots >= 0);
comment on column workers.slots is 'Jobs that it runs at once.';
