alter table workers add column reserve interval;
comment on column workers.reserve is
    'After so long a job that could run here, but needs more memory than is free, has the room kept for it. Null: not known.';
