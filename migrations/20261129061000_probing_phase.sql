-- The linear probe is a phase of its own: it may take minutes with many classes.

alter table jobs drop constraint jobs_phase_known, add constraint jobs_phase_known
    check (phase in ('waiting', 'preparing', 'caching_features', 'probing', 'training', 'evaluating', 'exporting'));
