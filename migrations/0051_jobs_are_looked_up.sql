-- A commit that notifies holds a lock that every other one which notifies waits for, until its own is on disk. So events no longer
-- do: `serve` looks up the jobs that somebody waits for (docs/adr/0009).
drop trigger notify_job_event on job_events;
drop function notify_job_event();
