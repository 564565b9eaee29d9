//! Every metric, declared once: name, labels, meaning. docs/operations/metrics.md is this list, and
//! a test compares them.
//!
//! The value of a label is a `Label`, which is never made of a user's text: the number of series
//! stays bounded.

use std::{borrow::Cow, time::Duration};

use ::metrics::{Key, KeyName, Level, Metadata, Unit, with_recorder};

/// Bounds of buckets for answers to requests, in seconds.
const ANSWERS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 120.0,
];
/// Bounds of buckets for waits and attempts, in seconds: up to a day.
const WAITS: &[f64] = &[
    0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 86_400.0,
];

static METADATA: Metadata<'static> = Metadata::new("rehead", Level::INFO, None);

/// The value of a label: a word of the program, or one of few names that an operator gave.
#[derive(Debug, Clone)]
pub struct Label(Cow<'static, str>);

impl Label {
    /// A name of which there are few: the pattern of a route, a device. Never text from a request.
    pub fn bounded(name: impl Into<String>) -> Self {
        Self(Cow::Owned(name.into()))
    }
}

impl From<&'static str> for Label {
    fn from(word: &'static str) -> Self {
        Self(Cow::Borrowed(word))
    }
}

/// The type of a metric, as Prometheus has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// The processes that expose a metric. `rehead up` is both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Server,
    Worker,
    Both,
}

/// A declared metric.
#[derive(Debug, Clone, Copy)]
pub struct Declaration {
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub role: Role,
    pub help: &'static str,
    /// Upper bounds of the buckets of a histogram.
    pub buckets: &'static [f64],
}

/// Name and label names of a metric, with as many label values in each use.
#[derive(Debug)]
struct Series<const LABELS: usize> {
    name: &'static str,
    labels: [&'static str; LABELS],
}

impl<const LABELS: usize> Series<LABELS> {
    fn key(&self, values: [Label; LABELS]) -> Key {
        let labels = self.labels.iter().zip(values);
        let labels = labels.map(|(name, value)| ::metrics::Label::new(*name, value.0));
        Key::from_parts(self.name, labels.collect::<Vec<_>>())
    }
}

/// A number that only grows.
#[derive(Debug)]
pub struct Counter<const LABELS: usize>(Series<LABELS>);

impl<const LABELS: usize> Counter<LABELS> {
    /// The counter of these labels, for many additions.
    pub fn handle(&self, labels: [Label; LABELS]) -> ::metrics::Counter {
        let key = self.0.key(labels);
        with_recorder(|recorder| recorder.register_counter(&key, &METADATA))
    }

    pub fn add(&self, labels: [Label; LABELS], count: u64) {
        self.handle(labels).increment(count);
    }
}

/// A number that is measured.
#[derive(Debug)]
pub struct Gauge<const LABELS: usize>(Series<LABELS>);

impl<const LABELS: usize> Gauge<LABELS> {
    pub fn set(&self, labels: [Label; LABELS], value: f64) {
        let key = self.0.key(labels);
        with_recorder(|recorder| recorder.register_gauge(&key, &METADATA).set(value));
    }

    /// Adds 1 until the answer is dropped.
    pub fn hold(&'static self, labels: [Label; LABELS]) -> Held {
        let key = self.0.key(labels);
        let gauge = with_recorder(|recorder| recorder.register_gauge(&key, &METADATA));
        gauge.increment(1.0);
        Held(gauge)
    }
}

/// A share of 1 in a gauge.
#[must_use]
pub struct Held(::metrics::Gauge);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// A distribution of durations.
#[derive(Debug)]
pub struct Histogram<const LABELS: usize>(Series<LABELS>);

impl<const LABELS: usize> Histogram<LABELS> {
    pub fn record(&self, labels: [Label; LABELS], took: Duration) {
        let key = self.0.key(labels);
        with_recorder(|recorder| {
            let histogram = recorder.register_histogram(&key, &METADATA);
            histogram.record(took.as_secs_f64());
        });
    }
}

/// Declares metrics: `NAME: Kind(Role) = "name" ["label", …] buckets, "help";`.
macro_rules! metrics {
    ($($constant:ident: $kind:ident($role:ident) = $name:literal [$($label:literal),*] $buckets:expr, $help:literal;)*) => {
        $(
            #[doc = $help]
            pub static $constant: $kind<{ <[&str]>::len(&[$($label),*]) }> =
                $kind(Series { name: $name, labels: [$($label),*] });
        )*

        /// Every metric of this program, in the order of docs/operations/metrics.md.
        pub static ALL: &[Declaration] = &[$(Declaration {
            name: $name,
            kind: Kind::$kind,
            labels: &[$($label),*],
            role: Role::$role,
            help: $help,
            buckets: $buckets,
        }),*];
    };
}

metrics! {
    // HTTP
    HTTP_REQUESTS: Counter(Server) = "rehead_http_requests_total" ["method", "route", "status"] &[],
        "Requests, by method, pattern of the route and status";
    HTTP_SECONDS: Histogram(Server) = "rehead_http_request_seconds" ["method", "route"] ANSWERS,
        "Time from request headers to response headers";
    HTTP_IN_FLIGHT: Gauge(Server) = "rehead_http_requests_in_flight" [] &[],
        "Requests whose response has not been sent completely; event streams are among them";
    HTTP_RECEIVED: Counter(Server) = "rehead_http_received_bytes_total" [] &[],
        "Bytes of request bodies";
    HTTP_SENT: Counter(Server) = "rehead_http_sent_bytes_total" [] &[],
        "Bytes of response bodies";
    HTTP_CONNECTIONS_REFUSED: Counter(Server) = "rehead_http_connections_refused_total" [] &[],
        "Connections that found no place, because all are busy";
    EVENT_STREAMS: Gauge(Server) = "rehead_event_streams" [] &[],
        "Open event streams";
    EVENT_STREAMS_MAX: Gauge(Server) = "rehead_event_streams_max" [] &[],
        "Limit of open event streams (`--max-streams`)";
    UPLOADED: Counter(Server) = "rehead_uploaded_bytes_total" [] &[],
        "Bytes of uploaded files";
    PREDICTIONS: Counter(Server) = "rehead_predictions_total" ["outcome"] &[],
        "Images sent for prediction: `predicted`, `refused` (one of the request cannot be decoded), `failed`";
    PREDICTION_SECONDS: Histogram(Server) = "rehead_prediction_seconds" [] ANSWERS,
        "Time from a complete prediction request to its answer, loading the model included";
    PREDICTIONS_WAITING: Gauge(Server) = "rehead_predictions_waiting" [] &[],
        "Prediction requests that are being received, wait or are answered";
    PREDICTIONS_WAITING_MAX: Gauge(Server) = "rehead_predictions_waiting_max" [] &[],
        "Limit of such requests (`--max-predict-waiting`)";
    WEBHOOK_DELIVERIES: Counter(Server) = "rehead_webhook_deliveries_total" ["outcome"] &[],
        "Tries to deliver an event to a webhook: `succeeded`, `retried` (failed, and will be tried again), `failed` (given up)";

    // The queue, as read from the database. Every server reports the same numbers.
    DATABASE_UP: Gauge(Server) = "rehead_database_up" [] &[],
        "1 when the last count of the queue succeeded; 0 when the database did not answer, and the numbers of the queue are old";
    JOBS: Gauge(Server) = "rehead_jobs" ["status"] &[],
        "Jobs that have not ended, by status";
    JOBS_OLDEST: Gauge(Server) = "rehead_jobs_oldest_seconds" ["status"] &[],
        "Age of the oldest of them: since it could be claimed (`queued`), since its first start (`running`, `pausing`), otherwise since its creation";
    WORK: Gauge(Server) = "rehead_work" ["kind", "state"] &[],
        "Validations, imports and exports that wait (`waiting`) or are being done (`leased`)";
    WORK_OLDEST: Gauge(Server) = "rehead_work_oldest_seconds" ["kind"] &[],
        "Time that the oldest waiting one has waited";
    WORKERS: Gauge(Server) = "rehead_workers" ["state"] &[],
        "Worker processes of the last day, by state; `lost`: silent for a minute";

    // Work
    JOB_START_SECONDS: Histogram(Worker) = "rehead_job_start_seconds" ["attempt"] WAITS,
        "Time from when a job could be claimed to its claim, for `first` and `later` attempts";
    ATTEMPTS: Counter(Both) = "rehead_attempts_total" ["outcome"] &[],
        "Ended attempts of jobs; `lost`: the lease expired, counted by whoever noticed it";
    ATTEMPT_SECONDS: Histogram(Worker) = "rehead_attempt_seconds" ["outcome"] WAITS,
        "Duration of attempts that this worker ended";
    JOBS_ENDED: Counter(Both) = "rehead_jobs_ended_total" ["status"] &[],
        "Jobs that ended with an attempt";
    LEASES_LOST: Counter(Worker) = "rehead_leases_lost_total" ["kind"] &[],
        "Leases that this worker lost: nothing more was written";
    LEASES_EXPIRED: Counter(Both) = "rehead_leases_expired_total" ["kind"] &[],
        "Expired leases that this process took back";
    WORK_GIVEN_UP: Counter(Both) = "rehead_work_given_up_total" ["kind"] &[],
        "Validations, imports and exports that crashed or timed out too often";
    WORK_DONE: Counter(Worker) = "rehead_work_total" ["kind", "outcome"] &[],
        "Validations, imports and exports by outcome: `done`, `crashed`, `full` (no disk space), `stopped`, `lost`";
    TRAINED_STEPS: Counter(Worker) = "rehead_training_steps_total" ["device"] &[],
        "Optimizer steps";
    TRAINED_SAMPLES: Counter(Worker) = "rehead_training_samples_total" ["device"] &[],
        "Samples of these steps";
    DOWNLOADS: Counter(Worker) = "rehead_downloads_total" ["outcome"] &[],
        "Files downloaded by URL: `succeeded`, `failed`";
    SLOTS: Gauge(Worker) = "rehead_slots" ["device"] &[],
        "Slots for training";
    SLOTS_BUSY: Gauge(Worker) = "rehead_slots_busy" ["device"] &[],
        "Slots that train";
    DEVICE_FREE: Gauge(Worker) = "rehead_device_free_bytes" ["device"] &[],
        "Memory of the device that a further job may take";
    DEVICE_CAPACITY: Gauge(Worker) = "rehead_device_capacity_bytes" ["device"] &[],
        "Memory of the device that one job could have if this worker ran no other";
    CACHE: Gauge(Worker) = "rehead_cache_bytes" [] &[],
        "Size of the cache of data sets, weights and features";
    CACHE_MAX: Gauge(Worker) = "rehead_cache_max_bytes" [] &[],
        "Limit of that cache (`--cache-bytes`)";

    // The process and its machine
    CHILD_STARTS: Counter(Both) = "rehead_child_starts_total" ["role"] &[],
        "Started child processes, by what they do; `serve` more than once: the inference process was started again";
    DATABASE_CONNECTIONS: Gauge(Both) = "rehead_database_connections" ["pool", "state"] &[],
        "Connections to Postgres, `used` or `idle`, of the pool `main` or `heartbeats`";
    DATABASE_CONNECTIONS_MAX: Gauge(Both) = "rehead_database_connections_max" ["pool"] &[],
        "Limit of these connections";
    DISK_FREE: Gauge(Both) = "rehead_disk_free_bytes" ["folder"] &[],
        "Free disk space of `objects`, `scratch` (server) and `work` (worker)";
    DISK_SIZE: Gauge(Both) = "rehead_disk_size_bytes" ["folder"] &[],
        "Size of that disk";
    HOST_MEMORY_AVAILABLE: Gauge(Both) = "rehead_host_memory_available_bytes" [] &[],
        "Memory of the machine, or of the container where that has less, that is available";
    BUILD_INFO: Gauge(Both) = "rehead_build_info" ["version"] &[],
        "1; the version is a label";
    PROCESS_START: Gauge(Both) = "process_start_time_seconds" [] &[],
        "Start of the process, in Unix seconds";
    PROCESS_CPU: Gauge(Both) = "process_cpu_seconds_total" [] &[],
        "CPU time of the process, without its children";
    PROCESS_RESIDENT: Gauge(Both) = "process_resident_memory_bytes" [] &[],
        "Resident memory of the process, without its children";
    PROCESS_FDS: Gauge(Both) = "process_open_fds" [] &[],
        "Open file descriptors";
    PROCESS_FDS_MAX: Gauge(Both) = "process_max_fds" [] &[],
        "Limit of open file descriptors";
}

/// Tells the recorder what each metric means.
pub(super) fn describe() {
    for metric in ALL {
        let (name, help) = (KeyName::from_const_str(metric.name), metric.help.into());
        let unit = None::<Unit>;
        with_recorder(|recorder| match metric.kind {
            Kind::Counter => recorder.describe_counter(name, unit, help),
            Kind::Gauge => recorder.describe_gauge(name, unit, help),
            Kind::Histogram => recorder.describe_histogram(name, unit, help),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names follow Prometheus' rules: a unit at the end, and `_total` for counters alone.
    #[test]
    fn names_follow_the_conventions() {
        for metric in ALL {
            let counts = metric.name.ends_with("_total");
            // Its name is a convention of all clients; the recorder's counters have no fractions.
            let cpu = metric.name == "process_cpu_seconds_total";
            assert_eq!(counts && !cpu, metric.kind == Kind::Counter, "{metric:?}");
            let seconds = metric.name.ends_with("_seconds");
            assert!(metric.kind != Kind::Histogram || seconds, "{metric:?}");
            assert_eq!(
                metric.buckets.is_empty(),
                metric.kind != Kind::Histogram,
                "{metric:?}"
            );
            assert!(metric.buckets.is_sorted(), "{metric:?}");
        }
    }
}
