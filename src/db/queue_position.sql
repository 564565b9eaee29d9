-- The position of job $1 of tenant $2: see `queue_position.rs`.
with job as (
    select * from jobs where id = $1 and tenant_id = $2 and status = 'queued'
), measured as (
    select percentile_cont(array[0.5, 0.9]) within group (order by (
        select sum(extract(epoch from a.ended_at - a.started_at)) from attempts a where a.job_id = recent.id
    )) as durations
    from (select id from jobs where status = 'succeeded' order by finished_at desc limit $3) recent
), running as (
    select count(*) as busy, array[
        coalesce(sum(greatest(measured.durations[1] - held.seconds, 0)), 0),
        coalesce(sum(greatest(measured.durations[2] - held.seconds, 0)), 0)]::double precision[] as remaining
    from measured, (
        select extract(epoch from now() - a.started_at) as seconds
        from work l join attempts a on a.job_id = l.job_id and a.token = l.token
    ) held
), able as (
    select coalesce(sum(w.slots), 0) as slots, coalesce(bool_or(room.is_there and not room.is_kept), false) as fits,
        coalesce(bool_or(room.is_there and room.is_kept), false) as reserved,
        coalesce(bool_or(coalesce(w.capacity_mb, job.device_mb) >= job.device_mb), false) as possible
    from job join workers w on w.spec_version >= job.spec_version and w.state = 'active'
        and w.last_seen_at > now() - make_interval(secs => $4)
    cross join lateral (
        select w.slots > (select count(*) from work l where l.worker_id = w.id and l.kind = 'train')
                and coalesce(w.free_mb, job.device_mb) >= job.device_mb as is_there,
            -- The condition `reserved` of a claim.
            exists (
                select from claimable_jobs large
                join tenant_turns owner on owner.tenant_id = large.tenant_id and owner.open
                where large.resource_class = job.resource_class
                    and large.device_mb > w.free_mb and large.device_mb <= w.capacity_mb
                    and large.run_at < now() - w.reserve and large.spec_version <= w.spec_version
            ) as is_kept
    ) room
), own as (
    select count(*) as ahead from job join claimable_jobs other on other.tenant_id = job.tenant_id
        and other.resource_class = job.resource_class and (other.priority, other.seq) < (job.priority, job.seq)
), mine as (
    -- Each start of the jobs before it adds 1 / weight to the tenant's turn.
    select turns.tenant_id, turns.turn + own.ahead / turns.weight as turn
    from job join tenant_turns turns on turns.tenant_id = job.tenant_id, own
), others as (
    -- The starts of other tenants before that turn, as far as they have jobs.
    select coalesce(sum(jobs.waiting), 0)::bigint as ahead
    from (
        select other.tenant_id, other.tenant_id < mine.tenant_id as wins_ties,
            (mine.turn - other.turn) * other.weight as starts
        from tenant_turns other, mine where other.tenant_id <> mine.tenant_id and other.open
    ) other cross join job cross join lateral (
        select count(*) as waiting from (
            select from claimable_jobs j
            where j.tenant_id = other.tenant_id and j.resource_class = job.resource_class
            limit greatest(case when other.wins_ties then floor(other.starts) + 1 else ceil(other.starts) end, 0)
        ) waiting
    ) jobs
)
select own.ahead as "own_ahead!", others.ahead as "others_ahead!", t.max_running,
    job.run_at, now() as "now!", t.paused as tenant_paused, t.running >= t.max_running as "at_cap!",
    able.slots as "slots!", able.fits as "fits!", able.reserved as "reserved!",
    able.possible as "possible!", running.busy as "busy!",
    measured.durations as "durations: Vec<f64>", running.remaining as "left!: Vec<f64>"
from job join tenants t on t.id = job.tenant_id, own, others, measured, running, able
