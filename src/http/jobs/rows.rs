//! The rows that a job's object is made of.

use std::collections::HashMap;

use sqlx::PgConnection;

use crate::db::{self, attempts::Attempt, jobs::Job, phases::PhaseSpan, tenants::TenantId};

/// A job with the rows of other tables that its object contains, read in one transaction.
pub(crate) struct JobRows {
    pub job: Job,
    pub attempts: Vec<Attempt>,
    pub phases: Vec<PhaseSpan>,
}

impl JobRows {
    /// Adds the rows of other tables to jobs that were read in `transaction`.
    pub(crate) async fn complete(
        transaction: &mut PgConnection,
        tenant: TenantId,
        jobs: Vec<Job>,
    ) -> sqlx::Result<Vec<Self>> {
        let ids: Vec<_> = jobs.iter().map(|job| job.id.0).collect();
        let mut phases = db::phases::list(&mut *transaction, tenant, &ids).await?;
        let mut attempts = match jobs.iter().any(|job| job.attempts > 0) {
            true => db::attempts::list(&mut *transaction, tenant, &ids).await?,
            false => HashMap::new(),
        };
        let rows = jobs.into_iter().map(|job| Self {
            attempts: attempts.remove(&job.id).unwrap_or_default(),
            phases: phases.remove(&job.id).unwrap_or_default(),
            job,
        });
        Ok(rows.collect())
    }
}
