-- Who may claim what: memory, versions, workers that should not, and tenants' turns.

alter table jobs add column spec_version int not null default 1;
comment on column jobs.spec_version is 'domain::recipe::SPEC_VERSION of whoever settled the recipe; older workers leave it alone.';
comment on column jobs.device_mb is
    'Device memory it needs, in MiB: estimated when it is settled, raised to what an attempt was measured to take.';
create index jobs_large on jobs (resource_class, device_mb, run_at) where status = 'queued';

alter table workers
    drop constraint workers_state_known,
    add constraint workers_state_known
        check (state in ('active', 'unfit', 'quarantined', 'draining', 'stopped')),
    add column spec_version int not null default 1,
    add column free_mb int,
    add column capacity_mb int,
    add column reason text;
comment on column workers.state is
    'unfit: its device fails the self-test. quarantined: jobs failed on it one after the other. Neither claims jobs.';
comment on column workers.spec_version is 'The newest jobs.spec_version that it understands.';
comment on column workers.free_mb is 'Device memory that a further job may take, as last measured.';
comment on column workers.capacity_mb is 'Device memory that one job could have if this worker had no other.';
comment on column workers.reason is 'Why it is unfit or quarantined.';

comment on column tenants.vtime is
    'Jobs started so far, divided by weight: the tenant with the least goes first. One that was away does not fall behind those that run.';
