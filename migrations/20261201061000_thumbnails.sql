-- Thumbnails of data sets, and data sets that are made from others.

alter table files
    add column thumbnails_bytes bigint,
    add column thumbnails_failed boolean not null default false,
    add constraint files_thumbnails_of_packs check (thumbnails_bytes is null or pack_sha256 is not null);
comment on column files.thumbnails_bytes is
    'Size of files/<id in hex>/thumbnails; null for data sets that were validated before there were any.';
comment on column files.thumbnails_failed is 'True when the last try to make them crashed too often.';

alter table files
    add column corrected_from uuid,
    add column corrections jsonb,
    add constraint files_corrections_of_a_file check ((corrected_from is null) = (corrections is null));
alter table files drop constraint files_usable_has_content;
alter table files add constraint files_usable_has_content
    check (status in ('downloading', 'error') or sha256 is not null or (status = 'uploaded' and corrected_from is not null));
create index files_corrected on files (corrected_from) where corrected_from is not null and status = 'uploaded';
comment on column files.corrected_from is 'The data set that it is made from, which may be deleted by now; null for an upload.';
comment on column files.corrections is 'domain::corrections::Corrections of that data set.';

alter table work drop constraint work_kind_known;
alter table work add constraint work_kind_known
    check (kind in ('train', 'validate', 'import', 'export', 'download', 'rank', 'push', 'thumbnails', 'correct'));
comment on column work.kind is
    'train: a job. A job waits in jobs, in the order of tenant_turns and claimable_jobs, and has a row here only while it is leased. validate: a file. import: a base model. export: a fine-tuned model as a file. download: a file. rank: a ranking. push: a push. thumbnails: those of a data set. correct: a data set that is made from another.';
create index work_corrections on work (tenant_id) where kind = 'correct';

create trigger notify_thumbnails after update of thumbnails_bytes, thumbnails_failed on files
    for each row execute function notify_file();

create or replace function delete_expired_file(file uuid) returns boolean language plpgsql security definer as $$
begin
    -- Its work before the file, in the order in which its end locks them.
    perform from work where kind in ('validate', 'thumbnails', 'correct') and subject = file for update;
    perform from files where id = file and expires_at <= now() for update;
    if not found
        or exists (select from jobs where finished_at is null and file in (training_file, validation_file))
        or exists (select from models where status = 'importing' and weights_file = file)
        or exists (select from files where status = 'uploaded' and corrected_from = file)
    then
        return false;
    end if;
    delete from work where kind in ('validate', 'thumbnails', 'correct') and subject = file;
    delete from files where id = file;
    return true;
end $$;
do $$
begin
    execute format('alter function delete_expired_file(uuid) set search_path = %I, pg_temp', current_schema());
end $$;
