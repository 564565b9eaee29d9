//! Rights of a database role for workers: what they do, and nothing else. A worker that was taken
//! over reads no keys, makes no tenants, and deletes no job, file or model.
//!
//! Leases do not depend on it: a write with an old token changes nothing, whoever sends it.

use sqlx::{AssertSqlSafe, PgPool};

/// Rights by table and view.
pub const WORKER: [(&str, &str); 21] = [
    // Claims and ends of attempts count running jobs; shares and limits are the operator's.
    ("tenants", "select, update (running, vtime)"),
    ("workers", "select, insert, update, delete"),
    // The file with the metrics of a job that succeeded is its worker's to add.
    (
        "files",
        "select, update, insert (id, tenant_id, filename, purpose, bytes, sha256, status)",
    ),
    // Garbage collection ends uploads whose time is over, and forgets them.
    ("uploads", "select, update (status), delete"),
    ("models", "select, insert, update"),
    ("exports", "select, update (object, failure)"),
    ("jobs", "select, update"),
    ("tenant_turns", "select"),
    // A claim locks its job through the view, which takes the right to update.
    ("claimable_jobs", "select, update"),
    ("work", "select, insert, update, delete"),
    ("attempts", "select, insert, update"),
    ("checkpoints", "select, insert, update, delete"),
    ("job_events", "select, insert"),
    ("job_evaluations", "select, insert, update"),
    ("job_samples", "select, insert, update"),
    ("job_steps", "select, insert, update"),
    ("job_traces", "select"),
    ("rankings", "select, insert, update"),
    (
        "pushes",
        "select, update (status, commit_id, error, finished_at)",
    ),
    ("scores", "select, insert, delete"),
    ("_sqlx_migrations", "select"),
];

/// Tables and views of which a worker needs nothing.
pub const NOT_OF_WORKERS: [&str; 7] = [
    "api_keys",
    "job_step_weeks",
    "sessions",
    "upload_parts",
    // Servers send webhooks. A trigger with its owner's rights queues them when a worker ends a
    // job.
    "webhooks",
    "webhook_events",
    "webhook_deliveries",
];

/// The statements that give a role these rights and take all others. Partitions of a table are
/// reached through it, and need none.
pub fn statements(role: &str) -> Vec<String> {
    let role = format!("\"{}\"", role.replace('"', "\"\""));
    let mut statements = vec![
        format!("revoke all on all tables in schema public from {role}"),
        format!("revoke all on all sequences in schema public from {role}"),
        format!("revoke create on schema public from {role}"),
        format!("grant usage on schema public to {role}"),
    ];
    let of_table = |(table, rights): &(&str, &str)| format!("grant {rights} on {table} to {role}");
    statements.extend(WORKER.iter().map(of_table));
    statements.push(format!("grant usage on sequence work_tokens to {role}"));
    statements.push(format!(
        "grant execute on function add_job_step_weeks(timestamptz), drop_job_step_weeks(interval), \
            delete_expired_file(uuid), delete_expired_sessions() to {role}"
    ));
    statements
}

/// Gives a role the rights of a worker, and takes all others that it had on tables.
///
/// # Errors
/// There is no such role; the tables do not exist; this connection does not own them.
pub async fn grant_worker(pool: &PgPool, role: &str) -> sqlx::Result<()> {
    let mut transaction = super::begin(pool).await?;
    for statement in statements(role) {
        // The name of the role is quoted, and the rest is made of literals.
        sqlx::query(AssertSqlSafe(statement))
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_a_quoted_name() {
        for statement in statements(r#"x"; drop table jobs; --"#) {
            assert!(
                statement.contains(r#""x""; drop table jobs; --""#),
                "{statement}"
            );
        }
    }
}
