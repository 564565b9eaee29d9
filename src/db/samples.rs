//! Sample reports: written by the attempt that ends a job, read one page at a time in the order of
//! a measure.

use serde_json::json;
use sqlx::{PgPool, types::Json};

use super::{Page, Slice, convert, retry, tenants::TenantId, work::under_lease};
use crate::domain::{file::Split, id::JobId, sample_report::SampleRecord, words};

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
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter {
    pub split: Option<Split>,
    pub likely_wrong_label: bool,
    pub near_duplicate: bool,
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

/// A page of a job's sample report, sorted by `measure`, then by number.
pub async fn list(
    pool: &PgPool,
    (tenant, job): (TenantId, JobId),
    filter: Filter,
    measure: Measure,
    page: Page<u32>,
) -> sqlx::Result<Slice<SampleRecord>> {
    let records = sqlx::query!(
        r#"with report as (
            select s.*, coalesce(case $7 when 'loss' then s.loss when 'probability' then s.probability
                when 'margin' then s.margin else s.sample end, 0) * case when $4 then -1 else 1 end as key
            from job_samples s join jobs j on j.id = s.job_id where s.job_id = $1 and j.tenant_id = $2
        )
        select to_jsonb(l) as "record!: Json<SampleRecord>"
        from report l left join report cursor on cursor.sample = $3
        where ($3::int is null or (l.key, l.sample) > (cursor.key, cursor.sample))
            and ($6::text is null or l.split = $6) and (not $8 or l.likely_wrong_label)
            and (not $9 or l.near_duplicate_of is not null)
        order by l.key, l.sample limit $5"#,
        job.0,
        tenant.0,
        page.after.map(convert::from_small),
        page.descending,
        i64::from(page.limit) + 1,
        filter.split.map(Split::as_str),
        measure.as_str(),
        filter.likely_wrong_label,
        filter.near_duplicate
    )
    .map(|row| row.record.0);
    Ok(Slice::of(records.fetch_all(pool).await?, page.limit))
}
