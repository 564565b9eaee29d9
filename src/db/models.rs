//! Models: base models with their import by a worker, and fine-tuned ones, which `queue::finish`
//! makes.

use std::collections::BTreeMap;

use serde::Serialize;
use sqlx::{PgConnection, PgPool, types::Json};
use time::{OffsetDateTime, serde::timestamp};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Page, Slice, convert,
    idempotency::{self, Idempotency},
    tenants::TenantId,
    work::{Lease, MAX_CRASHES, end_work},
};
use crate::domain::{
    base_model::{AskedPreprocessing, Layers, SourceTask},
    checkpoint::{ManifestEntry, Metrics},
    id::{FileId, JobId},
    input::{Input, Modality},
    object::{Bundle, Descriptor, MODEL},
    problem::Problem,
    report::Report,
    words,
    work::Imported,
};

words! {
    pub enum Owner {
        Base = "base",
        User = "user",
    }
}

impl Owner {
    /// The column `kind` of its models.
    fn kind(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::User => "fine_tuned",
        }
    }
}

words! {
    /// State of a model.
    pub enum ModelStatus {
        /// Its weights are being checked and converted.
        Importing = "importing",
        Ready = "ready",
        /// Its weights were refused; registering the same id again replaces it.
        Error = "error",
    }
}

/// A base model or a fine-tuned model.
// Its layers are large and read separately (`layers`).
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ModelObject)]
pub struct Model {
    pub id: String,
    /// `model`.
    pub object: &'static str,
    /// Unix seconds.
    #[serde(with = "timestamp")]
    #[schema(value_type = i64)]
    pub created: OffsetDateTime,
    /// `base` for base models, `user` for fine-tuned models.
    pub owned_by: Owner,
    pub status: ModelStatus,
    pub architecture: String,
    pub modality: Modality,
    /// Number of parameters.
    pub parameters: Option<u64>,
    /// Task that the weights of its base model were trained for.
    pub source_task: SourceTask,
    /// Preprocessing of its input.
    pub input: Option<Input>,
    pub license: Option<String>,
    /// Model or checkpoint that its job started from.
    pub parent: Option<String>,
    /// Base model that it derives from; it may have been deleted.
    pub base_model: Option<String>,
    /// Job that made it.
    pub job: Option<JobId>,
    /// Metrics of its checkpoint.
    pub metrics: Option<Metrics>,
    /// Class names, in label order.
    pub labels: Option<Vec<String>>,
    /// SHA-256 of its `model.safetensors`, lower-case hex.
    pub weights_sha256: Option<String>,
    /// Problems of a refused import.
    pub problems: Vec<Problem>,
    /// Prefix in the object store, with its last `/`, once it is ready.
    #[serde(skip)]
    pub objects: Option<String>,
    /// Those objects, where all are known.
    #[serde(skip)]
    pub files: Option<BTreeMap<String, ManifestEntry>>,
}

impl Model {
    /// Its objects, once it is ready.
    pub fn bundle(&self) -> Option<Bundle> {
        let (prefix, sha256) = (self.objects.as_ref()?, self.weights_sha256.as_ref()?);
        Some(bundle(&self.id, prefix, sha256, self.files.clone()))
            .filter(|_| self.status == ModelStatus::Ready)
    }
}

/// The objects below `prefix`, which ends in `/`.
pub(super) fn bundle(
    id: &str,
    prefix: &str,
    weights_sha256: &str,
    files: Option<BTreeMap<String, ManifestEntry>>,
) -> Bundle {
    Bundle {
        weights: Descriptor::of_hash(format!("model `{id}`"), prefix, MODEL, weights_sha256),
        files,
    }
}

/// Conditions of a list of models; all must hold.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub owned_by: Option<Owner>,
    pub architecture: Option<String>,
    /// Name of the task that the original weights were trained for.
    pub source_task: Option<String>,
}

/// A base model to import.
#[derive(Debug, Clone)]
pub struct NewBaseModel {
    pub tenant: TenantId,
    pub id: String,
    pub architecture: String,
    pub modality: Modality,
    pub weights_file: FileId,
    /// If `classes` is left out, it is filled in from the head of the weights.
    pub source_task: SourceTask,
    /// Values left out follow the weights, then the default of the architecture.
    pub preprocessing: Option<AskedPreprocessing>,
    pub license: Option<String>,
    pub idempotency: Option<Idempotency>,
}

/// The result of `insert_importing`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    Yes,
    /// The same idempotency key came with the same body before and made this model.
    Replayed,
    /// The same key came with another body.
    KeyConflict,
    /// A model of this id exists and is not in error.
    NameTaken,
    /// There is no such file with purpose `weights`.
    NoSuchFile,
    /// The file has not been downloaded, or its download failed.
    NoContent,
}

/// The result of `delete`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    /// The row is deleted. If `objects_unused`, no other model has the same objects, and the caller
    /// must delete them.
    Yes {
        objects_unused: bool,
    },
    NotFound,
    /// This job, which has not ended, needs it.
    InUse(JobId),
}

/// Weights to check and convert.
#[derive(Debug, Clone)]
pub struct ToImport {
    pub id: String,
    pub architecture: String,
    pub weights_file: FileId,
    pub preprocessing: Option<AskedPreprocessing>,
}

/// Adds a base model in status `importing`, and its import to the queue of work; or finds the one
/// that its idempotency key made.
pub async fn insert_importing(pool: &PgPool, model: &NewBaseModel) -> sqlx::Result<Inserted> {
    let mut connection = pool.acquire().await?;
    match insert_importing_within(&mut connection, model, false).await {
        Err(error) if is_key_taken(&error) => {
            made_by_key(&mut connection, model).await?.ok_or(error)
        }
        inserted => inserted,
    }
}

/// True where a request with the same idempotency key came first, a moment ago. A transaction has
/// failed then.
pub(super) fn is_key_taken(error: &sqlx::Error) -> bool {
    let constraint = error
        .as_database_error()
        .and_then(|error| error.constraint());
    constraint == Some("models_idempotency_key_unique")
}

/// The result of an earlier request with this model's idempotency key; `None` without one.
pub(super) async fn made_by_key(
    connection: &mut PgConnection,
    model: &NewBaseModel,
) -> sqlx::Result<Option<Inserted>> {
    let Some(idempotency) = &model.idempotency else {
        return Ok(None);
    };
    let earlier = sqlx::query_scalar!(
        "select body_sha256 from models where tenant_id = $1 and idempotency_key = $2",
        model.tenant.0,
        idempotency.key
    );
    let earlier = earlier.fetch_optional(connection).await?;
    Ok(earlier.map(
        |body_sha256| match idempotency.is_same(body_sha256.as_deref()) {
            true => Inserted::Replayed,
            false => Inserted::KeyConflict,
        },
    ))
}

/// As `insert_importing`. The import of one whose weights are `downloading` is added to the queue
/// by the end of the download.
///
/// # Errors
/// `is_key_taken` among others.
pub(super) async fn insert_importing_within(
    connection: &mut PgConnection,
    model: &NewBaseModel,
    downloading: bool,
) -> sqlx::Result<Inserted> {
    if let Some(inserted) = made_by_key(&mut *connection, model).await? {
        return Ok(inserted);
    }
    let requested = model.preprocessing.as_ref().map(Json);
    let (key, body_sha256) = idempotency::columns(model.idempotency.as_ref());
    let done = sqlx::query!(
        "with file as (
            select id from files where id = $5 and tenant_id = $1 and purpose = 'weights'
                and status = case when $9 then 'downloading' else 'processed' end for share
        ), model as (
            insert into models (tenant_id, id, kind, status, architecture, modality, weights_file, source_task,
                requested_preprocessing, license, import_id, idempotency_key, body_sha256)
            select $1, $2, 'base', 'importing', $3, $4, file.id, $6, $7, $8, gen_random_uuid(), $10, $11 from file
            on conflict (tenant_id, id) do update set status = 'importing', architecture = $3, modality = $4,
                weights_file = $5, source_task = $6, requested_preprocessing = $7, license = $8, problems = null,
                import_id = gen_random_uuid(), created_at = now(), idempotency_key = $10, body_sha256 = $11
            where models.status = 'error'
            returning import_id
        ), work as (
            insert into work (kind, subject, tenant_id) select 'import', import_id, $1 from model where not $9
        )
        select import_id from model",
        model.tenant.0,
        model.id,
        model.architecture,
        model.modality.as_str(),
        model.weights_file.0,
        Json(&model.source_task) as Json<&SourceTask>,
        requested as Option<Json<&AskedPreprocessing>>,
        model.license,
        downloading,
        key,
        body_sha256
    )
    .fetch_optional(&mut *connection)
    .await?;
    if done.is_some() {
        return Ok(Inserted::Yes);
    }
    let file = sqlx::query_scalar!(
        "select sha256 from files where id = $1 and tenant_id = $2 and purpose = 'weights'",
        model.weights_file.0,
        model.tenant.0
    );
    Ok(match file.fetch_optional(connection).await? {
        None => Inserted::NoSuchFile,
        Some(None) if !downloading => Inserted::NoContent,
        Some(_) => Inserted::NameTaken,
    })
}

/// A query for models: their columns, read here only, and the rest of the statement with its
/// bindings.
macro_rules! query_models {
    ($tail:literal, $($bindings:tt)+) => {
        sqlx::query!(
            r#"select m.id, m.kind, m.status, m.architecture, m.modality,
                m.source_task as "source_task: Json<SourceTask>", m.license,
                m.input as "input: Json<Input>", m.parameters, m.weights_sha256, m.objects, m.parent,
                m.base_model, m.job_id, m.labels as "labels: Json<Vec<String>>", m.metrics as "metrics: Json<Metrics>",
                m.problems as "problems: Json<Vec<Problem>>", m.files as "files: Json<BTreeMap<String, ManifestEntry>>",
                m.created_at
            from models m "# + $tail,
            $($bindings)+
        )
        .try_map(|row| {
            Ok(Model {
                id: row.id,
                object: "model",
                created: row.created_at,
                owned_by: if row.kind == "base" { Owner::Base } else { Owner::User },
                status: convert::parse("models.status", &row.status)?,
                architecture: row.architecture,
                modality: convert::parse("models.modality", &row.modality)?,
                parameters: row.parameters.map(convert::to_count),
                source_task: row.source_task.0,
                input: row.input.map(|input| input.0),
                license: row.license,
                parent: row.parent,
                base_model: row.base_model,
                job: row.job_id.map(JobId),
                metrics: row.metrics.map(|metrics| metrics.0),
                labels: row.labels.map(|labels| labels.0),
                weights_sha256: row.weights_sha256,
                problems: row.problems.map_or_else(Vec::new, |problems| problems.0),
                objects: row.objects,
                files: row.files.map(|files| files.0),
            })
        })
    };
}

pub async fn get(pool: &PgPool, tenant: TenantId, id: &str) -> sqlx::Result<Option<Model>> {
    query_models!("where m.tenant_id = $1 and m.id = $2", tenant.0, id)
        .fetch_optional(pool)
        .await
}

/// A page of models in order of creation. The cursor is a model's id.
pub async fn list(
    pool: &PgPool,
    tenant: TenantId,
    page: Page<String>,
    filter: &Filter,
) -> sqlx::Result<Slice<Model>> {
    let models = query_models!(
        "left join models cursor on cursor.tenant_id = m.tenant_id and cursor.id = $2
        where m.tenant_id = $1 and ($5::text is null or m.kind = $5) and ($6::text is null or m.architecture = $6)
            and ($7::text is null or m.source_task ->> 'name' = $7)
            and ($2::text is null or case when $3 then (m.created_at, m.id) < (cursor.created_at, cursor.id)
                else (m.created_at, m.id) > (cursor.created_at, cursor.id) end)
        order by case when $3 then m.created_at end desc, case when $3 then m.id end desc, m.created_at, m.id
        limit $4",
        tenant.0,
        page.after,
        page.descending,
        i64::from(page.limit) + 1,
        filter.owned_by.map(Owner::kind),
        filter.architecture,
        filter.source_task
    );
    let names = |model: &Model| {
        let labels = model.labels.as_ref().map_or(0, Vec::len);
        labels + model.problems.len()
    };
    Slice::read(models.fetch(pool), page.limit, names).await
}

/// Layers of a model that is ready; of a fine-tuned model, those of its base model.
pub async fn layers(pool: &PgPool, tenant: TenantId, id: &str) -> sqlx::Result<Option<Layers>> {
    let layers = sqlx::query_scalar!(
        r#"select layers as "layers: Json<Layers>" from models where tenant_id = $1 and id = $2"#,
        tenant.0,
        id
    );
    let layers = layers.fetch_optional(pool).await?.flatten();
    Ok(layers.map(|Json(layers)| layers))
}

/// Report of a fine-tuned model.
pub async fn report(pool: &PgPool, tenant: TenantId, id: &str) -> sqlx::Result<Option<Report>> {
    let report = sqlx::query_scalar!(
        r#"select report as "report: Json<Report>" from models where tenant_id = $1 and id = $2"#,
        tenant.0,
        id
    );
    let report = report.fetch_optional(pool).await?.flatten();
    Ok(report.map(|Json(report)| report))
}

/// Report of the model that a job produced.
pub async fn report_of_job(
    pool: &PgPool,
    tenant: TenantId,
    job: JobId,
) -> sqlx::Result<Option<Report>> {
    let report = sqlx::query_scalar!(
        r#"select report as "report: Json<Report>" from models where tenant_id = $1 and job_id = $2"#,
        tenant.0,
        job.0
    );
    let report = report.fetch_optional(pool).await?.flatten();
    Ok(report.map(|Json(report)| report))
}

/// Deletes the row, unless a job that has not ended starts from it.
pub async fn delete(pool: &PgPool, tenant: TenantId, id: &str) -> sqlx::Result<Deleted> {
    // The row is locked first. `jobs::create` locks it too, so no job can start from it meanwhile.
    let mut transaction = super::begin(pool).await?;
    let deleted = delete_locked(&mut transaction, tenant, id).await?;
    // A dropped transaction would keep its locks until its connection is used again.
    transaction.commit().await?;
    Ok(deleted)
}

async fn delete_locked(
    transaction: &mut PgConnection,
    tenant: TenantId,
    id: &str,
) -> sqlx::Result<Deleted> {
    // Its work before the model itself, in the order in which the end of a lease locks them.
    sqlx::query!(
        "select from work where (kind, subject) in (
            select 'import', import_id from models where tenant_id = $1 and id = $2
            union all select 'export', id from exports where tenant_id = $1 and model = $2
        ) for update",
        tenant.0,
        id
    )
    .execute(&mut *transaction)
    .await?;
    let kind = sqlx::query_scalar!(
        "select kind from models where tenant_id = $1 and id = $2 for update",
        tenant.0,
        id
    );
    let Some(kind) = kind.fetch_optional(&mut *transaction).await? else {
        return Ok(Deleted::NotFound);
    };
    let job = sqlx::query_scalar!(
        "select id from jobs where tenant_id = $1 and finished_at is null and model = $2 limit 1",
        tenant.0,
        id
    );
    if let Some(job) = job.fetch_optional(&mut *transaction).await? {
        return Ok(Deleted::InUse(JobId(job)));
    }
    let deleted = sqlx::query!(
        "with model as (
            delete from models where tenant_id = $1 and id = $2 returning import_id
        )
        delete from work where (kind, subject) in (
            select 'import', import_id from model
            union all select 'export', id from exports where tenant_id = $1 and model = $2
        )",
        tenant.0,
        id
    );
    deleted.execute(&mut *transaction).await?;
    Ok(Deleted::Yes {
        objects_unused: kind == "fine_tuned",
    })
}

/// The base model of an import; `None` when it was deleted meanwhile.
pub async fn to_import(pool: &PgPool, import: Uuid) -> sqlx::Result<Option<ToImport>> {
    let row = sqlx::query!(
        r#"select id, architecture, weights_file as "weights_file!",
            requested_preprocessing as "preprocessing: Json<AskedPreprocessing>"
        from models where import_id = $1 and status = 'importing'"#,
        import
    );
    let import = row.map(|row| ToImport {
        id: row.id,
        architecture: row.architecture,
        weights_file: FileId(row.weights_file),
        preprocessing: row.preprocessing.map(|preprocessing| preprocessing.0),
    });
    import.fetch_optional(pool).await
}

/// Marks a base model as ready: its weights are at `models/<weights_sha256>/model.safetensors`.
/// `false`: the lease is lost.
pub async fn accept_import(
    pool: &PgPool,
    lease: &Lease,
    imported: &Imported,
    weights_sha256: &str,
) -> sqlx::Result<bool> {
    end_work!(
        pool,
        lease,
        "import",
        " update models m set status = 'ready', import_id = null, input = $4, layers = $5, parameters = $6,
            weights_sha256 = $7, objects = 'models/' || $7 || '/',
            source_task = case when source_task ->> 'classes' is null
                then source_task || jsonb_build_object('classes', $8::bigint) else source_task end
        from lease where m.import_id = lease.subject",
        Json(&imported.input) as Json<&Input>,
        Json(&imported.layers) as Json<&Layers>,
        convert::from_count(imported.parameters),
        weights_sha256,
        imported.classes.map(i64::from)
    )
    .await
}

/// Marks a base model as unusable until `take_refused`. `false`: the lease is lost.
pub async fn refuse_import(
    pool: &PgPool,
    lease: &Lease,
    problems: &[Problem],
) -> sqlx::Result<bool> {
    end_work!(
        pool,
        lease,
        "import",
        " update models m set status = 'error', import_id = null, problems = $4
        from lease where m.import_id = lease.subject",
        Json(problems) as Json<&[Problem]>
    )
    .await
}

/// Marks a base model as unusable because its import crashed too often.
pub async fn give_up_import(pool: &PgPool, lease: &Lease) -> sqlx::Result<bool> {
    let message = format!(
        "the check of these weights crashed or timed out {MAX_CRASHES} times; check that the file loads elsewhere, then register the model again"
    );
    let problems = [Problem::new("weights", "validation_crashed", message)];
    refuse_import(pool, lease, &problems).await
}

/// Removes a refused import and returns its problems. Returns `None` if it is not in error.
pub async fn take_refused(
    pool: &PgPool,
    tenant: TenantId,
    id: &str,
) -> sqlx::Result<Option<Vec<Problem>>> {
    let problems = sqlx::query_scalar!(
        r#"delete from models where tenant_id = $1 and id = $2 and kind = 'base' and status = 'error'
        returning problems as "problems!: Json<Vec<Problem>>""#,
        tenant.0,
        id
    );
    let problems = problems.fetch_optional(pool).await?;
    Ok(problems.map(|Json(problems)| problems))
}
