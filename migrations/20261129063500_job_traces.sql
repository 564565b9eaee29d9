create table job_traces (
    job_id uuid primary key,
    context text not null,
    constraint job_traces_job_fk foreign key (job_id) references jobs (id) on delete cascade,
    constraint job_traces_context_length check (char_length(context) between 1 and 100)
);
comment on table job_traces is 'Trace contexts of the requests that created jobs; only of requests that were traced.';
comment on column job_traces.context is 'In the form of W3C''s traceparent.';
