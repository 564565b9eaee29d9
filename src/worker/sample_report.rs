//! Stores the sample report of a finished job folder as rows.

use std::path::Path;

use sqlx::PgPool;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

use super::{fault::Fault, files::plain_file};
use crate::{
    db::{self, persist::persist, queue::Claimed},
    domain::{
        limits,
        sample_report::{SAMPLES, SampleRecord},
    },
    objects::At,
};

/// Rows written by one statement.
const ROWS: usize = 2_000;
/// Longest line in bytes: a path, and the names of many classes.
const LINE_BYTES: u64 = 16 << 20;

/// Writes the model's prediction for each sample.
///
/// # Errors
/// `Lost`; a file that is not a sample report.
pub(super) async fn store(
    pool: &PgPool,
    claimed: &Claimed,
    job_folder: &Path,
) -> Result<(), Fault> {
    let path = plain_file(job_folder, SAMPLES)?;
    let file = tokio::fs::File::open(&path).await.at(&path)?;
    let mut lines = BufReader::new(file);
    let mut written = 0;
    loop {
        let mut records: Vec<SampleRecord> = Vec::with_capacity(ROWS);
        while records.len() < ROWS {
            let mut line = Vec::new();
            let mut limited = (&mut lines).take(LINE_BYTES);
            if limited.read_until(b'\n', &mut line).await.at(&path)? == 0 {
                break;
            }
            let record = serde_json::from_slice(&line).map_err(|error| {
                Fault::result(format!("invalid `{SAMPLES}` in the result: {error}"))
            })?;
            records.push(record);
        }
        if records.is_empty() {
            return Ok(());
        }
        written += records.len();
        if written > limits::SAMPLE_REPORT_ROWS {
            return Err(Fault::result(format!(
                "`{SAMPLES}` has more than {} samples",
                limits::SAMPLE_REPORT_ROWS
            )));
        }
        let write = || db::samples::write(pool, claimed.job, claimed.token, &records);
        if !persist("write the sample report", write).await? {
            return Err(Fault::Lost);
        }
    }
}
