//! A private Postgres for each test, from a template data folder that the first test makes; and
//! what holds in it always.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rehead::{
    db,
    postgres::{Postgres, StartOptions},
};
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::process::descendants;

/// Starts an empty server in `dir/postgres`. To be called on the test's own thread: it ends with
/// the server.
pub(crate) fn start(dir: &Path) -> Postgres {
    // The server's user passes through, when root runs the tests.
    fs::set_permissions(dir, Permissions::from_mode(0o711)).unwrap();
    let home = dir.join("postgres");
    if !home.exists() {
        fs::create_dir(&home).unwrap();
        fs::set_permissions(&home, Permissions::from_mode(0o711)).unwrap();
        let template = template();
        let copied = Command::new("cp")
            .args(["-a", "--reflink=auto"])
            .arg(template)
            .arg(home.join("data"))
            .status();
        assert!(copied.unwrap().success());
    }
    Postgres::start(&StartOptions {
        bin: None,
        dir: home,
        fsync: false,
    })
    .unwrap()
}

/// The data folder of a server that was started and stopped once, in this machine's folder for
/// temporary files.
fn template() -> std::path::PathBuf {
    let user = nix::unistd::geteuid();
    let folder = std::env::temp_dir().join(format!("rehead-it-postgres-{user}"));
    fs::create_dir_all(&folder).unwrap();
    fs::set_permissions(&folder, Permissions::from_mode(0o711)).unwrap();
    let lock = File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    if !folder.join("done").exists() {
        let started = Postgres::start(&StartOptions {
            bin: None,
            dir: folder.clone(),
            fsync: false,
        });
        drop(started.unwrap());
        File::create(folder.join("done")).unwrap();
    }
    folder.join("data")
}

/// A server's processes: first its own, then those of its connections and other children.
pub(crate) fn processes(postgres: &Postgres) -> Vec<i32> {
    let postmaster = postgres.pid().cast_signed();
    let mut all = descendants(postmaster);
    all.insert(0, postmaster);
    all
}

/// Kills a server and the processes of all its connections.
pub(crate) fn kill_server(postgres: &Postgres) {
    for pid in processes(postgres) {
        // Some end by themselves when the postmaster does.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// A migrated database, in a folder of its own. Both end when dropped.
pub(crate) struct Database {
    pub(crate) pool: PgPool,
    postgres: Option<Postgres>,
    dir: tempfile::TempDir,
}

impl Database {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("rehead-it-")
            .tempdir()
            .unwrap();
        let postgres = start(dir.path());
        let pool = db::connect(&postgres.url(), 40).await.unwrap();
        db::migrate(&pool).await.unwrap();
        Self {
            pool,
            postgres: Some(postgres),
            dir,
        }
    }

    /// Kills the server and the processes of all its connections.
    pub(crate) fn kill(&self) {
        kill_server(self.postgres.as_ref().unwrap());
    }

    /// Starts it again on the same data, under the same URL.
    pub(crate) fn restart(&mut self) {
        // The old one must be gone, not only dead, or the new one takes it for alive.
        self.postgres = None;
        self.postgres = Some(start(self.dir.path()));
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        check_at_end(self.pool.connect_options().as_ref().clone(), None);
    }
}

/// Asserts at the end of a test what holds at every moment, unless the test has failed already.
/// `objects` is the folder of the object store, where the test has one.
pub(crate) fn check_at_end(options: PgConnectOptions, objects: Option<&Path>) {
    if std::thread::panicking() {
        return;
    }
    let check = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(async {
            let pool = PgPoolOptions::new()
                .max_connections(1)
                .connect_with(options)
                .await;
            let pool = pool.expect("the database is there at the end of the test");
            invariants(&pool).await;
            if let Some(objects) = objects {
                rows_have_their_objects(&pool, objects).await;
            }
        });
    };
    // The test's own runtime, of either kind, may be the one that drops.
    let checked = std::thread::scope(|scope| scope.spawn(check).join());
    if let Err(payload) = checked {
        std::panic::resume_unwind(payload);
    }
}

/// No row names an object that is not complete.
async fn rows_have_their_objects(pool: &PgPool, objects: &Path) {
    let queries = [
        "select objects || 'manifest.json' from checkpoints where state = 'committed'",
        "select 'files/' || replace(id::text, '-', '') || '/content' from files where sha256 is not null",
        "select objects || 'model.safetensors' from models where kind = 'fine_tuned'",
    ];
    for query in queries {
        let named = || sqlx::query_scalar::<_, String>(query).fetch_all(pool);
        let mut missing: Vec<String> = named().await.unwrap();
        missing.retain(|key| !objects.join(key).is_file());
        // A worker that still runs may have deleted row and object since.
        let still = named().await.unwrap();
        missing.retain(|key| still.contains(key));
        assert!(
            missing.is_empty(),
            "rows name objects that are not there: {missing:?}"
        );
    }
}

#[tokio::test]
async fn a_test_that_leaves_broken_rows_fails() {
    let database = Database::start().await;
    sqlx::query("update tenants set running = 1")
        .execute(&database.pool)
        .await
        .unwrap();
    let dropped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(database)));
    let payload = dropped.expect_err("the end of the test did not look");
    let message = payload.downcast_ref::<String>().unwrap();
    assert!(
        message.contains("a tenant's running jobs are its leases"),
        "{message}"
    );
}

/// Asserts what holds at every moment, whoever was killed: each is a query for rows that break it.
pub(crate) async fn invariants(pool: &PgPool) {
    let queries = [
        (
            "a job runs exactly when it has a lease, with its token",
            "select j.id::text from jobs j full join (select * from work where kind = 'train') l on l.job_id = j.id
            where (j.status in ('running', 'pausing')) is distinct from (l.job_id is not null) or l.token <> j.token",
        ),
        (
            "a file or base model has work exactly while it is unfinished",
            "select coalesce(w.subject, unfinished.subject)::text from (
                select case when status = 'downloading' then 'download' when corrected_from is null then 'validate'
                    else 'correct' end as kind, id as subject
                from files where status in ('uploaded', 'downloading')
                union all select 'import', import_id from models m where status = 'importing'
                    and not exists (select from files f where f.id = m.weights_file and f.status = 'downloading')
            ) unfinished full join (select * from work where kind in ('validate', 'import', 'download', 'correct')) w
                on w.kind = unfinished.kind and w.subject = unfinished.subject
            where w.subject is null or unfinished.subject is null",
        ),
        (
            "thumbnails are made of data sets that have none",
            "select w.subject::text from work w left join files f on f.id = w.subject
            where w.kind = 'thumbnails' and (f.pack_sha256 is null or f.thumbnails_bytes is not null)",
        ),
        (
            "what is exported is there",
            "select w.subject::text from work w left join exports e on e.id = w.subject
            where w.kind = 'export' and e.id is null",
        ),
        (
            "a tenant's running jobs are its leases",
            "select t.name from tenants t
            where t.running <> (select count(*) from work l where l.tenant_id = t.id and l.kind = 'train')",
        ),
        (
            "an ended job has one last event, of its status, and it comes last",
            "select j.id::text from jobs j where (
                select count(*) from job_events e
                where e.job_id = j.id and e.kind in ('succeeded', 'failed', 'cancelled') and e.kind = j.status
                    and e.seq = j.events
            ) <> (j.finished_at is not null)::int",
        ),
        (
            "events are numbered from 1 without gaps",
            "select j.id::text from jobs j left join job_events e on e.job_id = j.id group by j.id, j.events
            having count(e.seq) <> j.events or coalesce(max(e.seq), 0) <> j.events",
        ),
        (
            "a model's job succeeded and names it (the model of a job may be deleted)",
            "select j.id::text from jobs j join models m on m.job_id = j.id
            where j.status <> 'succeeded' or m.id is distinct from j.fine_tuned_model",
        ),
        (
            "every claim is an attempt, and only the last one of a running job is open",
            "select j.id::text from jobs j left join attempts a on a.job_id = j.id group by j.id, j.token, j.status
            having count(a.token) <> j.token
                or count(*) filter (where a.token is not null and a.ended_at is null) <> (j.status in ('running', 'pausing'))::int",
        ),
        (
            "no attempt was ended twice",
            "select j.id::text from jobs j left join job_events e on e.job_id = j.id and e.kind = 'requeued'
            group by j.id, j.failures, j.crashes, j.preemptions, j.status
            having count(e.seq) > j.failures + j.crashes + j.preemptions",
        ),
        (
            "a checkpoint's token is that of a claim",
            "select c.id::text from checkpoints c join jobs j on j.id = c.job_id where c.token > j.token or c.token < 1",
        ),
    ];
    for (says, query) in queries {
        let broken: Vec<String> = sqlx::query_scalar(query).fetch_all(pool).await.unwrap();
        assert!(broken.is_empty(), "{says}: not so for {broken:?}");
    }
}
