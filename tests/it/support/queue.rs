//! Jobs for tests of the queue: a base model, a data set and a recipe that are rows only, on a real
//! Postgres.

use std::{collections::BTreeMap, time::Duration};

use rehead::{
    db::{
        checkpoints::CheckpointObjects,
        events,
        files::{self, NewFile},
        idempotency::Idempotency,
        jobs::{self, Created, NewJob},
        models::{self, NewBaseModel},
        parents::Origin,
        queue::{self, Claimed, DEFAULT_CLASS, NewCheckpoint, NewModel, Offer, Trace},
        reap,
        tenants::{self, TenantId},
        work::{self, Heartbeat, Kind, Lease},
    },
    domain::{
        base_model::{Interpolation, Layers, Preprocessing, SourceTask},
        checkpoint::{ManifestEntry, Metrics},
        file::{Class, Dataset, FileReport, Purpose, Split, SplitSizes},
        id::{FileId, JobId, WorkerId},
        input::Input,
        job::{JobStatus, Outcome},
        problem::Problem,
        ranking::CandidateOptions,
        recipe::{
            EarlyStopping, Head, HeadInit, HeadLayer, Metric, Optimizer, Recipe, Schedule, Task,
        },
        report::{Report, Scores, SingleLabelScores},
        request::{Auto, Freeze, HeadOptions, JobRequest, Transfer},
        resolve::Resolution,
        work::Imported,
    },
};
use sqlx::PgPool;

use rehead_test_support::recipe::recipe;

use super::postgres::Database;

pub(crate) const HOUR: Duration = Duration::from_secs(3_600);

/// A database with a base model and a validated data set.
pub(crate) struct Queue {
    pub(crate) database: Database,
    pub(crate) tenant: TenantId,
    pub(crate) worker: WorkerId,
    pub(crate) file: FileId,
}

impl Queue {
    pub(crate) async fn start() -> Self {
        let database = Database::start().await;
        let (tenant, _) = tenants::default_tenant(&database.pool).await.unwrap();
        let mut queue = Self {
            database,
            tenant,
            worker: WorkerId::new(),
            file: FileId::new(),
        };
        queue.file = queue.data_set(tenant).await;
        queue.base_model(tenant, "net").await;
        queue
    }

    pub(crate) fn pool(&self) -> &PgPool {
        &self.database.pool
    }

    pub(crate) async fn upload(&self, tenant: TenantId, purpose: Purpose) -> FileId {
        let id = FileId::new();
        let (filename, sha256) = ("pets.zip".to_owned(), "ab".repeat(32));
        files::insert(
            self.pool(),
            &NewFile {
                id,
                tenant,
                filename,
                purpose,
                bytes: 1_000,
                sha256,
                lifetime: None,
                idempotency: None,
            },
        )
        .await
        .unwrap();
        id
    }

    /// A validated data set.
    pub(crate) async fn data_set(&self, tenant: TenantId) -> FileId {
        let id = self.upload(tenant, Purpose::FineTune).await;
        let lease = self.claim_work(Kind::Validate, HOUR).await.unwrap();
        assert_eq!(lease.subject, id.0);
        let validated = validated(usable(), 2_000);
        let accepted = files::accept(self.pool(), &lease, &validated);
        assert!(accepted.await.unwrap());
        id
    }

    /// A base model that is ready.
    pub(crate) async fn base_model(&self, tenant: TenantId, id: &str) {
        self.register(tenant, id).await;
        let lease = self.claim_work(Kind::Import, HOUR).await.unwrap();
        let model = models::to_import(self.pool(), lease.subject).await.unwrap();
        assert_eq!(model.unwrap().id, id);
        let (imported, sha256) = (imported(), "ef".repeat(32));
        let accepted = models::accept_import(self.pool(), &lease, &imported, &sha256);
        assert!(accepted.await.unwrap());
    }

    /// A base model in `importing`.
    pub(crate) async fn register(&self, tenant: TenantId, id: &str) {
        let weights_file = self.upload(tenant, Purpose::Weights).await;
        let model = NewBaseModel {
            tenant,
            id: id.to_owned(),
            architecture: "resnet18".to_owned(),
            modality: rehead_domain::input::Modality::Image,
            weights_file,
            source_task: SourceTask {
                name: "image classification".to_owned(),
                classes: None,
                dataset: None,
            },
            preprocessing: None,
            license: None,
            idempotency: None,
        };
        assert_eq!(
            models::insert_importing(self.pool(), &model).await.unwrap(),
            models::Inserted::Yes
        );
    }

    pub(crate) fn new_job(&self) -> NewJob {
        NewJob {
            id: JobId::new(),
            tenant: self.tenant,
            request: request(self.file),
            origin: Some(Origin::base("net")),
            seed: u64::MAX - 7,
            resolution: Some(resolution()),
            idempotency: None,
        }
    }

    /// A queued job.
    pub(crate) async fn job(&self) -> JobId {
        self.job_of(self.tenant, self.file, 2).await
    }

    pub(crate) async fn job_of(&self, tenant: TenantId, file: FileId, priority: u8) -> JobId {
        let mut job = NewJob {
            tenant,
            ..self.new_job()
        };
        job.request.training_file = file;
        job.request.priority = priority;
        match jobs::create(self.pool(), &job).await.unwrap() {
            Created::New(_) => job.id,
            other => panic!("not created: {other:?}"),
        }
    }

    /// A further tenant, with a model and a data set.
    pub(crate) async fn tenant(&self, name: &str) -> (TenantId, FileId) {
        let tenant = tenants::find_or_create(self.pool(), name).await.unwrap();
        self.base_model(tenant, "net").await;
        (tenant, self.data_set(tenant).await)
    }

    pub(crate) async fn claim(&self) -> Option<Claimed> {
        claim(self.pool(), self.worker, HOUR).await
    }

    /// Claims work other than a job.
    pub(crate) async fn claim_work(&self, kind: Kind, ttl: Duration) -> Option<Lease> {
        let claimed = work::claim(self.pool(), self.worker, &[kind], ttl).await;
        claimed.unwrap()
    }

    /// Ends an attempt, with a model if it succeeded. The job's status then, unless the attempt had
    /// lost its lease.
    pub(crate) async fn end(&self, claimed: &Claimed, outcome: &Outcome) -> Option<JobStatus> {
        let model = (*outcome == Outcome::Succeeded).then(|| new_model(claimed));
        let (job, token, trace) = (claimed.job, claimed.token, Trace::default());
        queue::finish(self.pool(), job, token, outcome, model.as_ref(), &trace)
            .await
            .unwrap()
    }

    /// Kinds of a job's events.
    pub(crate) async fn told(&self, job: JobId) -> Vec<String> {
        let events = events::after(self.pool(), self.tenant, job, 0, 1_000)
            .await
            .unwrap();
        events.into_iter().map(|event| event.kind).collect()
    }

    pub(crate) async fn run(&self, statement: &'static str) {
        sqlx::query(statement).execute(self.pool()).await.unwrap();
    }
}

/// Makes jobs that wait after a failure claimable now.
pub(crate) async fn skip_backoff(pool: &PgPool) {
    // Several call it at once: whatever another has its hands on is another's.
    sqlx::query(
        "update jobs set run_at = now() where id in (
            select id from jobs where status = 'queued' and run_at > now() for update skip locked)",
    )
    .execute(pool)
    .await
    .unwrap();
}

pub(crate) async fn claim(pool: &PgPool, worker: WorkerId, ttl: Duration) -> Option<Claimed> {
    let offer = Offer {
        worker,
        class: DEFAULT_CLASS,
        device_mb: 1_000,
        capacity_mb: 1_000,
        reserve: HOUR,
        ttl,
    };
    queue::claim(pool, offer).await.unwrap()
}

/// A worker's heartbeat for an attempt.
pub(crate) async fn heartbeat(
    pool: &PgPool,
    job: JobId,
    token: i64,
    ttl: Duration,
) -> sqlx::Result<Option<Heartbeat>> {
    work::renew(pool, &Lease::of_job(job, token), ttl).await
}

/// Ends one attempt whose lease expired.
pub(crate) async fn reap(
    pool: &PgPool,
    grace: Duration,
) -> sqlx::Result<Option<(JobId, JobStatus)>> {
    let reaped = reap::expired(pool, grace).await?;
    Ok(reaped.map(|reaped| (JobId(reaped.lease.subject), reaped.job.unwrap())))
}

pub(crate) fn idempotency(key: &str, body: u8) -> Option<Idempotency> {
    Some(Idempotency {
        key: key.to_owned(),
        body_sha256: [body; 32],
    })
}

pub(crate) fn request(training_file: FileId) -> JobRequest {
    JobRequest {
        model: "net".to_owned(),
        candidates: CandidateOptions::default(),
        training_file,
        validation_file: None,
        suffix: Some("pets".to_owned()),
        seed: None,
        metadata: BTreeMap::from([("team".to_owned(), "zoo".to_owned())]),
        priority: 2,
        timeout_seconds: 3_600,
        transfer: Transfer {
            freeze: Auto::Value(Freeze::All),
            head: HeadOptions {
                layers: Auto::Value(vec![HeadLayer::Dropout(0.2)]),
                init: Auto::Auto,
            },
            ..Transfer::default()
        },
    }
}

pub(crate) fn resolution() -> Resolution {
    let recipe = Recipe {
        head: Head {
            layers: vec![HeadLayer::Dropout(0.2)],
            init: HeadInit::Zero,
        },
        n_epochs: 3,
        batch_size: 32,
        optimizer: Optimizer::Adamw,
        learning_rate: 1e-3,
        backbone_learning_rate: 1e-4,
        weight_decay: 0.01,
        schedule: Schedule::Cosine,
        warmup_fraction: 0.1,
        early_stopping: EarlyStopping {
            patience: None,
            metric: Metric::ValidAccuracy,
            min_delta: 0.0,
        },
        checkpoint_every_seconds: 300,
        seed: u64::MAX - 7,
        ..recipe()
    };
    Resolution {
        recipe,
        resolved: Vec::new(),
        device_mb: 0,
    }
}

/// A report that accepts a data set.
pub(crate) fn usable() -> FileReport {
    let class = |name: &str| Class {
        name: name.to_owned(),
        train: 8,
        validation: 2,
        test: 0,
    };
    let dataset = Dataset {
        modality: rehead_domain::input::Modality::Image,
        task: Task::SingleLabelClassification,
        target: None,
        classes: vec![class("cats"), class("dogs")],
        samples: 20,
        splits: SplitSizes {
            train: 16,
            validation: 4,
            test: 0,
        },
        split_by: "hash".to_owned(),
        unusable: 0,
        duplicates: 0,
    };
    FileReport {
        dataset: Some(dataset),
        errors: Vec::new(),
        warnings: Vec::new(),
        warnings_omitted: 0,
    }
}

/// The results of a validation, with a pack of this size.
pub(crate) fn validated(report: FileReport, bytes: u64) -> files::Validated {
    let sha256 = "cd".repeat(32);
    files::Validated {
        report,
        pack: ManifestEntry { bytes, sha256 },
        thumbnails_bytes: 0,
    }
}

/// A report that refuses a data set.
pub(crate) fn unusable() -> FileReport {
    let errors = vec![Problem::new(
        "",
        "no_images",
        "no image could be read; check that the archive holds any",
    )];
    FileReport {
        dataset: None,
        errors,
        warnings: Vec::new(),
        warnings_omitted: 0,
    }
}

pub(crate) fn imported() -> Imported {
    Imported {
        architecture: "resnet18".to_owned(),
        layers: Layers {
            costs: Vec::new(),
            picoseconds_per_mac: None,
            feature_dim: 512,
            stages: Vec::new(),
            tensors: Vec::new(),
        },
        input: Input::Image(Preprocessing {
            input_size: 224,
            channels: 3,
            crop_fraction: 0.875,
            interpolation: Interpolation::Bicubic,
            mean: vec![0.5; 3].into(),
            std: vec![0.5; 3].into(),
        }),
        parameters: 11_000_000,
        classes: Some(1_000),
    }
}

pub(crate) fn metrics(step: u64) -> Metrics {
    let epoch = u32::try_from(step).unwrap();
    Metrics {
        step,
        epoch,
        train_loss: Some(0.5),
        valid_loss: 0.6,
        valid_accuracy: Some(0.75),
        valid_balanced_accuracy: Some(0.7),
        ..Metrics::default()
    }
}

/// Steps of checkpoints, as the prefixes of `checkpoint` have them.
pub(crate) fn steps(checkpoints: &[CheckpointObjects]) -> Vec<u64> {
    let step = |one: &CheckpointObjects| {
        let (_, name) = one.objects.trim_end_matches('/').rsplit_once('/')?;
        name.split_once('-')?.0.parse().ok()
    };
    checkpoints.iter().map(|one| step(one).unwrap()).collect()
}

pub(crate) fn checkpoint(claimed: &Claimed, step: u64, best: bool) -> NewCheckpoint {
    NewCheckpoint {
        step,
        epoch: u32::try_from(step).unwrap(),
        objects: format!(
            "checkpoints/{}/{step}-{}/",
            claimed.job.0.simple(),
            claimed.token
        ),
        bytes: 100,
        manifest_sha256: "01".repeat(32),
        metrics: Some(metrics(step)),
        best,
        stall_ms: 0,
    }
}

pub(crate) fn new_model(claimed: &Claimed) -> NewModel {
    let report = Report {
        split: Split::Validation,
        samples: 4,
        step: 3,
        epoch: 3,
        scores: Scores::SingleLabelClassification(SingleLabelScores {
            accuracy: 0.75,
            accuracy_interval: [0.3, 0.95],
            majority_baseline: 0.5,
            balanced_accuracy: 0.75,
            macro_f1: 0.73,
            roc_auc: None,
            log_loss: 0.6,
            calibration: None,
            classes: Vec::new(),
            confusion: None,
            forgetting: None,
            transferability: None,
        }),
    };
    NewModel {
        labels: vec!["cats".to_owned(), "dogs".to_owned()],
        metrics: metrics(3),
        report,
        objects: format!("bundles/{}/{}/", claimed.job.0.simple(), claimed.token),
        parameters: 11_001_000,
        weights_sha256: "ab".repeat(32),
        files: BTreeMap::new(),
        results: None,
    }
}
