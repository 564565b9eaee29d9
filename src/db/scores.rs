//! Scores of base models on data sets, kept so that asking again computes nothing.

use sha2::{Digest as _, Sha256};
use sqlx::{PgPool, types::Json};

use super::tenants::TenantId;
use crate::domain::ranking::{Candidate, Scores, VERSION};

/// Name of a candidate's scores on at most so many training samples of a data set: a hash of all
/// that they depend on.
pub fn key(candidate: &Candidate, pack_sha256: &str, samples: u64) -> String {
    let Candidate {
        architecture,
        input,
        weights_sha256,
        ..
    } = candidate;
    let all = serde_json::json!([
        VERSION,
        pack_sha256,
        weights_sha256,
        architecture,
        input,
        samples
    ]);
    hex::encode(Sha256::digest(all.to_string()))
}

/// The scores with this key, where they are known.
///
/// # Errors
/// Those of the database.
pub async fn get(pool: &PgPool, tenant: TenantId, key: &str) -> sqlx::Result<Option<Scores>> {
    let scores = sqlx::query_scalar!(
        r#"select scores as "scores: Json<Scores>" from scores where tenant_id = $1 and key = $2"#,
        tenant.0,
        key
    );
    Ok(scores
        .fetch_optional(pool)
        .await?
        .map(|Json(scores)| scores))
}

/// Deletes the scores of data sets that no file has any more. Returns their number.
///
/// # Errors
/// Those of the database.
pub async fn delete_unused(pool: &PgPool) -> sqlx::Result<u64> {
    let deleted = sqlx::query!(
        "delete from scores s where not exists (
            select from files f where f.tenant_id = s.tenant_id and f.pack_sha256 = s.pack_sha256
        )"
    );
    Ok(deleted.execute(pool).await?.rows_affected())
}
