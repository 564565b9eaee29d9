-- What early stopping may go by: measured only where a job asks for it.
alter table job_evaluations add column valid_roc_auc double precision;
