//! Sample reports: written by the attempt that ends a job, read one page at a time in the order of
//! a measure.

use serde_json::json;
use sqlx::{PgPool, types::Json};

use super::{Page, Slice, convert, retry, tenants::TenantId, work::under_lease};
use crate::domain::{
    file::Split,
    id::{FileId, JobId},
    sample_report::SampleRecord,
    words,
};

words! {
    /// Sort key of a list of samples.
    pub enum Measure {
        Loss = "loss",
        Probability = "probability",
        Margin = "margin",
        /// The number of the sample.
        Sample = "sample",
    }
}

/// Conditions of a list of samples; all must hold.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub split: Option<Split>,
    pub likely_wrong_label: bool,
    pub near_duplicate: bool,
    /// Its label, or one of its labels.
    pub label: Option<String>,
    /// The same of its prediction.
    pub prediction: Option<String>,
    /// A part of its path, in whichever case.
    pub text: Option<String>,
}

/// A sample of a report, and where it is among the job's files.
#[derive(Debug, Clone)]
pub struct Sample {
    pub record: SampleRecord,
    pub file: FileId,
    /// Its number in that file; `None` when the file before it was deleted.
    pub file_sample: Option<u32>,
}

/// Writes a part of a sample report, replacing samples that exist. Returns `false` and writes
/// nothing if the lease is lost.
pub async fn write(
    pool: &PgPool,
    job: JobId,
    token: i64,
    records: &[SampleRecord],
) -> sqlx::Result<bool> {
    let rows = json!(records);
    let write = || {
        under_lease!(query_scalar, "train", r#", written as (
                insert into job_samples (job_id, sample, split, path, label, prediction, probability, loss, margin,
                    likely_wrong_label, near_duplicate_of)
                select lease.subject, r.* from lease, jsonb_to_recordset($3) as r (sample int, split text, path text,
                    label jsonb, prediction jsonb, probability double precision, loss double precision,
                    margin double precision, likely_wrong_label boolean, near_duplicate_of text)
                on conflict (job_id, sample) do update set split = excluded.split, path = excluded.path,
                    label = excluded.label, prediction = excluded.prediction, probability = excluded.probability,
                    loss = excluded.loss, margin = excluded.margin, likely_wrong_label = excluded.likely_wrong_label,
                    near_duplicate_of = excluded.near_duplicate_of
                returning 1
            )
            select exists (select from lease) as "held!" from (select count(*) from written) all_of_them"#,
            job.0,
            token,
            rows
        )
        .fetch_one(pool)
    };
    retry(write).await
}

/// A query for a job's samples, `l`, that fulfill a filter: `$1` to `$8` are the job, the tenant
/// and the filter. The class is found as a whole and as one of several; nothing is a pattern.
macro_rules! query_samples {
    ($query:ident, $head:literal, $tail:literal, ($job:expr, $tenant:expr, $filter:expr), $($bindings:tt)*) => {
        sqlx::$query!(
            $head + r#" from job_samples l join jobs j on j.id = l.job_id and j.tenant_id = $2
            where l.job_id = $1 and ($3::text is null or l.split = $3) and (not $4 or l.likely_wrong_label)
                and (not $5 or l.near_duplicate_of is not null)
                and ($6::text is null or l.label ? $6) and ($7::text is null or l.prediction ? $7)
                and ($8::text is null or strpos(lower(l.path), lower($8)) > 0)"# + $tail,
            $job.0,
            $tenant.0,
            $filter.split.map(Split::as_str),
            $filter.likely_wrong_label,
            $filter.near_duplicate,
            $filter.label,
            $filter.prediction,
            $filter.text,
            $($bindings)*
        )
    };
}

/// A page of a job's sample report, sorted by `measure`, then by number.
pub async fn list(
    pool: &PgPool,
    (tenant, job): (TenantId, JobId),
    filter: &Filter,
    measure: Measure,
    page: Page<u32>,
) -> sqlx::Result<Slice<Sample>> {
    let samples = query_samples!(
        query,
        r#"with report as (
            select s.sample, coalesce(case $9 when 'loss' then s.loss when 'probability' then s.probability
                when 'margin' then s.margin else s.sample end, 0) * case when $10 then -1 else 1 end as key
            from job_samples s where s.job_id = $1
        ), training as (
            select f.id, (f.dataset ->> 'samples')::int as samples
            from jobs j join files f on f.id = j.training_file and f.tenant_id = j.tenant_id where j.id = $1
        ), matching as (
            select to_jsonb(l) as record, l.sample, j.training_file, j.validation_file"#,
        r#")
        select m.record as "record!: Json<SampleRecord>", m.training_file as "training_file!", m.validation_file,
            (select samples from training) as samples
        from matching m join report r on r.sample = m.sample
            left join report cursor on cursor.sample = $11
        where $11::int is null or (r.key, r.sample) > (cursor.key, cursor.sample)
        order by r.key, r.sample limit $12"#,
        (job, tenant, filter),
        measure.as_str(),
        page.descending,
        page.after.map(convert::from_small),
        i64::from(page.limit) + 1
    )
    .map(|row| {
        let record = row.record.0;
        let training = row.samples.map(convert::to_small);
        // Samples of a validation file are counted behind those of the training file.
        let (file, file_sample) = match row.validation_file {
            None => (row.training_file, Some(record.sample)),
            Some(validation) => match training {
                Some(samples) if record.sample < samples => {
                    (row.training_file, Some(record.sample))
                }
                Some(samples) => (validation, Some(record.sample - samples)),
                // With a validation file, all of it validates, and nothing else does.
                None if record.split == Split::Validation => (validation, None),
                None => (row.training_file, Some(record.sample)),
            },
        };
        Sample {
            record,
            file: FileId(file),
            file_sample,
        }
    });
    Ok(Slice::of(samples.fetch_all(pool).await?, page.limit))
}

/// Number of a job's samples that fulfill a filter, up to `limit`.
pub async fn count(
    pool: &PgPool,
    (tenant, job): (TenantId, JobId),
    filter: &Filter,
    limit: u32,
) -> sqlx::Result<u32> {
    let count = query_samples!(
        query_scalar,
        r#"select count(*) as "count!" from (select 1 as one"#,
        " limit $9) found",
        (job, tenant, filter),
        i64::from(limit)
    );
    let count = count.fetch_one(pool).await?;
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}
