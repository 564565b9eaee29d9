-- Base models whose weights are several files: they are downloaded into one tar.
alter table files add column parts jsonb;
comment on column files.parts is 'The files that a download puts into one tar, each with its URL; null where the URL is the file.';
