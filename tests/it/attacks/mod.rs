//! Attacks: what hostile users send, and what must become of it. Each table is a row of
//! docs/security.md, "Attacks"; inputs are made here, and go through real processes.
//!
//! An attack must get its status and code, leave no file behind, and cost the server nothing: its
//! memory and descriptors are read from /proc before and after.

mod access;
mod archives;
mod ids;
mod images;
mod labels;
mod limits;
mod memory;
mod requests;
mod weights;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    events::queued_job,
    support::{
        process::{eventually, open_descriptors, resident_memory},
        service::Service,
    },
};

/// Part of the name of every file that an attack tries to create.
const MARKER: &str = "rehead-attack-escaped";
/// Growth of the server's memory that a table may cause: the allocator keeps what it once had, and
/// buffers of connections grow to their limit.
const MEMORY_TOLERANCE: u64 = 48 << 20;
/// Descriptors that may be open after a table and were not before: connections that the client and
/// the database keep.
const DESCRIPTOR_TOLERANCE: usize = 12;

/// A hostile file, and the code it must get.
struct Attack {
    name: &'static str,
    bytes: Vec<u8>,
    code: &'static str,
}

fn attack(name: &'static str, bytes: impl Into<Vec<u8>>, code: &'static str) -> Attack {
    let bytes = bytes.into();
    Attack { name, bytes, code }
}

/// Memory and descriptors of a server, to be compared with later ones. Taken after a warm-up.
struct Footprint {
    pid: i32,
    memory: u64,
    descriptors: usize,
}

impl Footprint {
    fn of(service: &Service) -> Self {
        let pid = service.server.pid();
        Self {
            pid,
            memory: resident_memory(pid),
            descriptors: open_descriptors(pid),
        }
    }

    /// Asserts that the server needs no more than before.
    #[track_caller]
    fn assert_kept(&self) {
        let memory = resident_memory(self.pid);
        let grown = memory.saturating_sub(self.memory);
        assert!(
            grown <= MEMORY_TOLERANCE,
            "the server grew by {grown} bytes, from {}",
            self.memory
        );
        // A connection that was broken off is closed a moment later.
        eventually(Duration::from_secs(15), "closed descriptors", || {
            let open = open_descriptors(self.pid);
            (open <= self.descriptors + DESCRIPTOR_TOLERANCE).then_some(())
        });
    }
}

/// Files that an attack created where it must not: in the folders above a worker's, and in those
/// that absolute paths of the attacks name.
fn escaped(service: &Service) -> Vec<PathBuf> {
    let above = service.dir.path().ancestors();
    let named = ["/", "/etc", "/root", "/home", "/var/tmp"].map(Path::new);
    let mut found = Vec::new();
    for folder in above.chain(named) {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let paths = entries.map(|entry| entry.path());
        found.extend(paths.filter(|path| path.to_string_lossy().contains(MARKER)));
    }
    found
}

/// Asserts that no attack created a file outside the folders of the service, or ran a command that
/// did.
#[track_caller]
fn assert_nothing_escaped(service: &Service) {
    assert_eq!(escaped(service), Vec::<PathBuf>::new());
}

/// Every table that a server takes as it is started by default, twice against one server: what each
/// leaves behind would add up. Tables that need other settings compare the server that they start;
/// that of metrics needs one without a worker, whose jobs make series of their own.
#[tokio::test(flavor = "multi_thread")]
async fn all_tables_leave_the_server_as_it_was() {
    let service = Service::start().await;
    let job = queued_job(&service).await;
    let _worker = service.worker("worker", &[]);
    let all = async || {
        ids::hostile_ids_on_every_route(&service).await;
        ids::paths_with_dots_on_the_wire(&service).await;
        requests::hostile_values_at_every_place(&service).await;
        requests::bodies_beyond_the_limit(&service).await;
        requests::forms_without_a_part(&service).await;
        requests::numbers_beyond_their_field(&service).await;
        requests::heads_that_do_not_fit_a_machine(&service, &job).await;
        requests::texts_that_forge_the_log(&service, &job).await;
        archives::hostile_archives(&service).await;
        archives::sizes_in_pax_headers(&service).await;
        weights::hostile_weights(&service).await;
        labels::hostile_labels(&service).await;
        limits::http2(&service).await;
    };
    all().await;
    let before = Footprint::of(&service);
    all().await;
    before.assert_kept();
    assert_nothing_escaped(&service);
}
