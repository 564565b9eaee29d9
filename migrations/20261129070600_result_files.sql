-- Files that jobs make: their training metrics as CSV.

alter table files
    drop constraint files_purpose_known,
    add constraint files_purpose_known check (purpose in ('fine-tune', 'weights', 'fine-tune-results'));
alter table jobs add column result_file uuid;
comment on column jobs.result_file is 'File with its metrics as CSV, made when it succeeded; it may be deleted by now.';
