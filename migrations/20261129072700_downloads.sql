-- Files that a worker downloads by URL.

alter table files alter column sha256 drop not null;
alter table files add column url text;
alter table files add column requested_sha256 text;
alter table files drop constraint files_status_known;
alter table files add constraint files_status_known check (status in ('downloading', 'uploaded', 'processed', 'error'));
alter table files add constraint files_usable_has_content check (status in ('downloading', 'error') or sha256 is not null);
alter table files add constraint files_downloading_has_url check (status <> 'downloading' or (url is not null and sha256 is null));
comment on column files.sha256 is 'SHA-256 of the content, lower-case hex; null when there is none: the download has not ended, or failed.';
comment on column files.url is 'Where it is downloaded from; null for an upload.';
comment on column files.requested_sha256 is 'SHA-256 that the download must have, if its user gave one.';

alter table work drop constraint work_kind_known;
alter table work add constraint work_kind_known check (kind in ('train', 'validate', 'import', 'export', 'download'));
comment on column work.kind is
    'train: a job. A job waits in jobs, in the order of tenant_turns and claimable_jobs, and has a row here only while it is leased. validate: a file. import: a base model. export: a fine-tuned model as TorchScript. download: a file.';
create index work_downloads on work (tenant_id) where kind = 'download';
