//! Origins of jobs: a base model, a fine-tuned model, or a checkpoint of another job.

use sqlx::{PgPool, types::Json};

use super::tenants::TenantId;
use crate::domain::{
    file::Dataset,
    id::CheckpointId,
    parent::{Parent, ParentWeights},
    recipe::Recipe,
};

/// Where the network of a job comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct Origin {
    /// The row of `models` that holds the network. It is kept until the job ends.
    pub model: String,
    /// The base model at the root, which the result is named after.
    pub base_model: String,
    /// `None` when the job starts from the base model itself.
    pub parent: Option<Parent>,
    /// Checkpoints whose weights are loaded on top of each other, oldest first; empty unless the
    /// parent is a checkpoint. They are kept until the job ends.
    pub checkpoints: Vec<CheckpointId>,
}

impl Origin {
    /// The base model of this id.
    pub fn base(id: &str) -> Self {
        Self {
            model: id.to_owned(),
            base_model: id.to_owned(),
            parent: None,
            checkpoints: Vec::new(),
        }
    }
}

/// Finds a fine-tuned model to continue from.
pub async fn of_model(pool: &PgPool, tenant: TenantId, id: &str) -> sqlx::Result<Option<Origin>> {
    let row = sqlx::query!(
        r#"select base_model as "base_model!", objects as "objects!", weights_sha256 as "weights_sha256!",
            labels as "labels!: Json<Vec<String>>", recipe as "recipe!: Json<Recipe>"
        from models where tenant_id = $1 and id = $2 and kind = 'fine_tuned'"#,
        tenant.0,
        id
    );
    let row = row.fetch_optional(pool).await?;
    Ok(row.map(|row| {
        let weights = ParentWeights::Model {
            objects: row.objects,
            sha256: row.weights_sha256,
        };
        Origin {
            model: id.to_owned(),
            base_model: row.base_model,
            parent: Some(parent(id, row.recipe.0, row.labels.0, vec![weights])),
            checkpoints: Vec::new(),
        }
    }))
}

/// Finds a checkpoint to continue from. Returns `None` if it, a checkpoint below it, the origin of
/// its job, or its labels are deleted.
pub async fn of_checkpoint(
    pool: &PgPool,
    tenant: TenantId,
    id: CheckpointId,
) -> sqlx::Result<Option<Origin>> {
    let row = sqlx::query!(
        r#"select c.objects, c.manifest_sha256, j.model as "model!", j.parent as "parent: Json<Parent>", j.parent_checkpoints,
            j.recipe as "recipe!: Json<Recipe>", coalesce(start.base_model, start.id) as "base_model!",
            made.labels as "labels?: Json<Vec<String>>", f.dataset as "dataset?: Json<Dataset>"
        from checkpoints c
        join jobs j on j.id = c.job_id
        join models start on start.tenant_id = j.tenant_id and start.id = j.model
        left join models made on made.tenant_id = j.tenant_id and made.job_id = j.id
        left join files f on f.tenant_id = j.tenant_id and f.id = j.training_file
        where c.id = $1 and j.tenant_id = $2 and c.state = 'committed' and j.recipe is not null
            and cardinality(j.parent_checkpoints)
                = (select count(*) from checkpoints p where p.id = any(j.parent_checkpoints) and p.state = 'committed')"#,
        id.0,
        tenant.0
    );
    let Some(row) = row.fetch_optional(pool).await? else {
        return Ok(None);
    };
    let recipe = row.recipe.0;
    let labels = match (&recipe.inherited, row.labels, row.dataset) {
        (Some(inherited), ..) => inherited.labels.clone(),
        (None, Some(labels), _) => labels.0,
        (None, None, Some(dataset)) => {
            let classes = dataset.0.classes.into_iter();
            classes.map(|class| class.name).collect()
        }
        (None, None, None) => return Ok(None),
    };
    let mut weights = row.parent.map_or_else(Vec::new, |parent| parent.0.weights);
    weights.push(ParentWeights::Checkpoint {
        objects: row.objects,
        manifest_sha256: row.manifest_sha256,
    });
    let below = row.parent_checkpoints.into_iter().map(CheckpointId);
    let checkpoints = below.chain([id]).collect();
    Ok(Some(Origin {
        model: row.model,
        base_model: row.base_model,
        parent: Some(parent(&id.to_string(), recipe, labels, weights)),
        checkpoints,
    }))
}

/// SHA-256 of the weights at the root of a model: its own, or those of its base model. They are at
/// `models/<sha256>/model.safetensors`.
pub async fn base_weights(
    pool: &PgPool,
    tenant: TenantId,
    model: &str,
) -> sqlx::Result<Option<String>> {
    let sha256 = sqlx::query_scalar!(
        "select coalesce(base_weights_sha256, weights_sha256) from models where tenant_id = $1 and id = $2",
        tenant.0,
        model
    );
    Ok(sha256.fetch_optional(pool).await?.flatten())
}

fn parent(id: &str, recipe: Recipe, labels: Vec<String>, weights: Vec<ParentWeights>) -> Parent {
    Parent {
        id: id.to_owned(),
        task: recipe.task,
        cut: recipe.cut,
        head: recipe.head.layers,
        labels,
        weights,
    }
}
