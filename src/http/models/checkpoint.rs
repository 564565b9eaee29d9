//! Finds everything that predicting with a checkpoint takes: the network that its job started from,
//! and the weights over it.

use anyhow::Context as _;

use crate::{
    db::{self, tenants::TenantId},
    domain::{
        id::CheckpointId,
        work::{CheckpointModel, PlanModel},
    },
    http::api::{error::ApiError, state::AppState},
    serving::checkpoint::StoredCheckpoint,
};

/// The checkpoint with this id, as it lies in the store.
///
/// # Errors
/// There is no such checkpoint, or what its job started from is deleted.
pub(crate) async fn find(
    state: &AppState,
    tenant: TenantId,
    id: CheckpointId,
) -> Result<StoredCheckpoint, ApiError> {
    let pool = &state.pool;
    if db::checkpoints::get(pool, tenant, id).await?.is_none() {
        return Err(ApiError::unknown(id));
    }
    let gone = || {
        let message = format!(
            "the model that the job of `{id}` started from was deleted, so the checkpoint cannot be used any more"
        );
        ApiError::conflict("input_gone", message)
    };
    let origin = db::parents::of_checkpoint(pool, tenant, id).await?;
    let origin = origin.ok_or_else(gone)?;
    let model = db::models::get(pool, tenant, &origin.model).await?;
    let model = model.ok_or_else(gone)?;
    let weights_sha256 = db::parents::base_weights(pool, tenant, &model.id).await?;
    let parent = origin.parent.context("a checkpoint has no parent")?;
    Ok(StoredCheckpoint {
        id,
        model: CheckpointModel {
            base_model: PlanModel {
                id: model.id,
                architecture: model.architecture,
                source_task: model.source_task,
                input: model.input.context("a model that is ready has no input")?,
                weights: Default::default(),
                weights_sha256: weights_sha256.ok_or_else(gone)?,
                over: Vec::new(),
            },
            task: parent.task,
            cut: parent.cut,
            head: parent.head,
            labels: parent.labels,
        },
        over: parent.weights,
    })
}
