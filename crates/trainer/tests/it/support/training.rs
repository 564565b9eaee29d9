//! The trainer alone: a job folder of small real data, and the executable that works in it.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Lines},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
};

use rehead_domain::{
    base_model::{Preprocessing, SourceTask},
    id::{FileId, JobId},
    input::Input,
    progress::{Progress, Validated},
    recipe::{Adapter, Inherited, Recipe},
    request,
    work::{DatasetLimits, PLAN, PlanModel, PlanWeights, TrainPlan},
};
pub(crate) use rehead_test_support::recipe::recipe;
use rehead_trainer::{
    data::validate,
    models::{architecture::Architecture, registry},
    train::output::checkpoint::hash_file,
};
use serde_json::{Value, json};
use tch::{Device, Tensor, nn};
use tempfile::TempDir;

use super::{data, device, numbers};

/// Weights over a base model's, as a plan names them: a whole network's, or what a checkpoint
/// trained.
pub(crate) fn over(weights: &Path, whole: bool) -> PlanWeights {
    PlanWeights {
        weights: weights.to_owned(),
        sha256: hash_file(weights).unwrap().1,
        whole,
    }
}

/// Goes on with a head of these labels, of which the first `known` have rows already.
pub(crate) fn inherits(labels: &[&str], known: u32) -> Option<Inherited> {
    let labels = labels.iter().map(|&label| label.to_owned()).collect();
    Some(Inherited { labels, known })
}

/// Names of the architecture's parameters that begin with one of these.
pub(crate) fn parameters(architecture: &str, parts: &[&str]) -> Vec<String> {
    let architecture = registry::find(architecture).unwrap();
    registry::layers(architecture, &architecture.input)
        .tensors
        .into_iter()
        .filter(|tensor| tensor.trainable && parts.iter().any(|part| tensor.name.starts_with(part)))
        .map(|tensor| tensor.name)
        .collect()
}

/// Adapters on the architecture's linear layers, as a request for `asked` gives them; `type` need
/// not be said.
pub(crate) fn adapter(architecture: &str, asked: Value) -> Adapter {
    find_adapter(architecture, asked).unwrap()
}

/// The same; `None` where the architecture has no linear layers.
pub(crate) fn find_adapter(architecture: &str, mut asked: Value) -> Option<Adapter> {
    let architecture = registry::find(architecture).unwrap();
    let layers = registry::layers(architecture, &architecture.input);
    asked["type"] = json!("lora");
    let body = json!({"model": "m", "training_file": FileId::new(),
        "method": {"type": "transfer", "transfer": {"adapter": asked}}});
    let request = request::parse(&body).unwrap();
    let asked = request.transfer.adapter.unwrap();
    rehead_domain::resolve::resolve_adapter(&asked, &layers, &layers).ok()
}

/// A small side of images that the architecture takes.
pub(crate) fn small_side(architecture: &Architecture) -> u32 {
    let smallest = architecture.smallest_side().max(64);
    let patch = architecture.patch();
    patch.map_or(smallest, |patch| patch * (56 / patch).max(4))
}

/// An architecture's usual input with sides of its own.
pub(crate) fn input(architecture: &Architecture, side: u32) -> Input {
    Input::Image(Preprocessing {
        input_size: side,
        ..architecture.input.image().unwrap().clone()
    })
}

/// A base model of usual input whose weights follow the rules of the parity recordings, in a file
/// in `folder`.
pub(crate) fn base_model(architecture: &str, folder: &Path) -> PlanModel {
    let architecture = registry::find(architecture).unwrap();
    base_model_for(architecture, &architecture.input, folder)
}

/// The same for this input.
pub(crate) fn base_model_for(
    architecture: &Architecture,
    input: &Input,
    folder: &Path,
) -> PlanModel {
    let vs = nn::VarStore::new(Device::Cpu);
    let named = architecture.build(&vs.root(), input).named();
    let recording = numbers::recording(architecture.name);
    numbers::fill_for(&named, &recording.unwrap_or_default());
    let weights = folder.join("base.safetensors");
    Tensor::write_safetensors(&named, &weights).unwrap();
    PlanModel {
        id: architecture.name.to_owned(),
        architecture: architecture.name.to_owned(),
        source_task: SourceTask {
            name: "none".to_owned(),
            classes: None,
            dataset: None,
        },
        input: input.clone(),
        weights,
        weights_sha256: "0".repeat(64),
        over: Vec::new(),
    }
}

/// Material that all runs of one test share: a pack of clip art, a network's weights, a cache.
pub(crate) struct Material {
    pub(crate) dir: TempDir,
    base: PlanModel,
}

impl Material {
    /// For ResNet-18.
    pub(crate) fn new(per_class: usize) -> Self {
        Self::of("resnet18", per_class)
    }

    /// Two categories.
    pub(crate) fn of(architecture: &str, per_class: usize) -> Self {
        Self::with(architecture, &["animals", "food"], per_class)
    }

    /// The same with inputs of `side` pixels.
    pub(crate) fn sized(architecture: &str, per_class: usize, side: u32) -> Self {
        Self::made(
            architecture,
            &data::clipart_subset(&["animals", "food"], per_class),
            side,
        )
    }

    /// These categories with `per_class` images each; inputs are 64 pixels wide.
    pub(crate) fn with(architecture: &str, classes: &[&str], per_class: usize) -> Self {
        let other = device::archive();
        let archive = other.unwrap_or_else(|| data::clipart_subset(classes, per_class));
        Self::of_archive(architecture, &archive)
    }

    /// Any archive.
    pub(crate) fn of_archive(architecture: &str, bytes: &[u8]) -> Self {
        Self::made(architecture, bytes, 64)
    }

    fn made(architecture: &str, bytes: &[u8], side: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("data.zip");
        fs::write(&archive, bytes).unwrap();
        let limits = DatasetLimits {
            entries: 1_000,
            unpacked_bytes: 1 << 30,
            entry_bytes: 1 << 28,
            ratio: 100,
            page_bytes: 16 << 20,
            pixels: 50_000_000,
            report_problems: 10,
            thumbnails: 100,
        };
        let said = validate::run(&archive, &limits, 1, dir.path());
        assert_eq!(said, Validated::Accepted);
        let architecture = registry::find(architecture).unwrap();
        let base = base_model_for(architecture, &input(architecture, side), dir.path());
        Self { dir, base }
    }

    /// A plan for a folder named `name`.
    pub(crate) fn plan(&self, recipe: Recipe) -> TrainPlan {
        TrainPlan {
            job: JobId(uuid::Uuid::from_u128(1)),
            recipe,
            base_model: self.base.clone(),
            fine_tuned_model: "ft:resnet18::1".to_owned(),
            pack: self.dir.path().join(validate::PACK),
            pack_sha256: "1".repeat(64),
            validation_pack: None,
            validation_pack_sha256: None,
            resume: None,
            micro_batch: None,
            cache: self.dir.path().join("cache"),
            device: device::name(),
            threads: 1,
        }
    }

    pub(crate) fn start(&self, name: &str, plan: &TrainPlan) -> Trainer {
        let folder = self.dir.path().join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::create_dir_all(&plan.cache).unwrap();
        fs::write(folder.join(PLAN), serde_json::to_vec(plan).unwrap()).unwrap();
        Trainer::start(folder)
    }
}

/// A running trainer; killed when dropped.
pub(crate) struct Trainer {
    pub(crate) folder: PathBuf,
    child: Child,
    input: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Trainer {
    fn start(folder: PathBuf) -> Self {
        let mut child = Command::new(device::trainer())
            .arg("train")
            .arg(&folder)
            // A worker removes it too: a backtrace that finds no memory may never end.
            .env_remove("RUST_BACKTRACE")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            folder,
            input: child.stdin.take(),
            lines: BufReader::new(child.stdout.take().unwrap()).lines(),
            child,
        }
    }

    /// The next line but reports of work; `None` when the trainer has ended.
    pub(crate) fn next(&mut self) -> Option<Progress> {
        loop {
            let line = self.lines.next()?.unwrap();
            let said = serde_json::from_str(&line);
            match said.unwrap_or_else(|error| panic!("{error}: {line}")) {
                Progress::Working(_) => {}
                said => return Some(said),
            }
        }
    }

    /// Waits until it has said so.
    pub(crate) fn until(&mut self, what: impl Fn(&Progress) -> bool) -> Progress {
        while let Some(said) = self.next() {
            if what(&said) {
                return said;
            }
        }
        panic!("it ended before it said that: {:?}", self.child.wait());
    }

    /// Closes its standard input: "save and exit".
    pub(crate) fn interrupt(&mut self) {
        self.input = None;
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Everything it still says, and how it ended.
    pub(crate) fn end(&mut self) -> (Vec<Progress>, ExitStatus) {
        let mut said = Vec::new();
        while let Some(line) = self.next() {
            said.push(line);
        }
        (said, self.child.wait().unwrap())
    }

    /// The newest checkpoint that is whole.
    pub(crate) fn newest_checkpoint(&self) -> PathBuf {
        let entries = fs::read_dir(self.folder.join("checkpoints")).unwrap();
        let whole = entries
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.join("manifest.json").exists());
        // Named by their steps.
        let step = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u64>().ok();
        whole.max_by_key(step).expect("no checkpoint was saved")
    }

    /// The result: weights and report, byte for byte.
    pub(crate) fn result(&self) -> BTreeMap<&'static str, Vec<u8>> {
        ["bundle/model.safetensors", "report.json"]
            .map(|name| (name, fs::read(self.folder.join(name)).unwrap()))
            .into()
    }
}

impl Drop for Trainer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
