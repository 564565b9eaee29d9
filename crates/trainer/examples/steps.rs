//! Steps of a full fine-tune, images per second, beside `bench/steps.py`.
//! Usage: steps ARCHITECTURE SIDE BATCH THREADS STEPS [bfloat16] [update] [shards=N]; `update` lets
//! BatchNorm take the batch's statistics, `shards` divides a batch by other than two.
//! REHEAD_BENCH_DEVICE names another device than the CPU.

#![allow(
    unsafe_code,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement whose threads share tensors; its result is what it prints"
)]

use std::time::Instant;

use rehead_domain::{
    base_model::{Preprocessing, SourceTask},
    input::Input,
    recipe::{self, BatchNorm, Precision, Recipe, Task},
    work::PlanModel,
};
use rehead_trainer::{
    data::source::BatchSource,
    models::{registry, weights},
    process::{
        device, memory,
        parallel::{self, Shared},
    },
    train::{
        network::{Network, Shard},
        step::{
            gradients::{self, Passed},
            loss_functions,
            optimizer::{self, Optimizer, Rates},
        },
    },
};
use tch::{Device, Kind, Tensor, nn};

const CLASSES: i64 = 10;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |place: usize| -> i64 { arguments[place].parse().unwrap() };
    let has = |word: &str| arguments.iter().any(|argument| argument == word);
    let (side, size, threads, steps) = (number(1), number(2), number(3), number(4));
    parallel::use_threads(threads as usize);
    memory::keep_freed();
    let folder = tempfile::tempdir().unwrap();
    let architecture = registry::find(&arguments[0]).unwrap();
    let device = std::env::var("REHEAD_BENCH_DEVICE").unwrap_or_else(|_| "cpu".to_owned());
    let device = device::open(&device).unwrap();
    let vs = nn::VarStore::new(Device::Cpu);
    let input = Input::Image(Preprocessing {
        input_size: side as u32,
        ..architecture.input.image().unwrap().clone()
    });
    let backbone = architecture.build(&vs.root(), &input);
    let path = folder.path().join("weights.safetensors");
    weights::write_safetensors(&path, &backbone.named(), &Default::default()).unwrap();
    let base = PlanModel {
        id: architecture.name.to_owned(),
        architecture: architecture.name.to_owned(),
        source_task: SourceTask {
            name: "none".to_owned(),
            classes: None,
            dataset: None,
        },
        input,
        weights: path,
        weights_sha256: String::new(),
        over: Vec::new(),
    };
    let names = backbone.tensors().into_iter().filter(|one| one.trainable);
    let mut asked = arguments.iter();
    let shards = asked.find_map(|argument| argument.strip_prefix("shards="));
    let recipe = Recipe {
        trainable: names.map(|one| one.name).collect(),
        batch_size: size as u32,
        shards: shards.map_or(2, |count| count.parse().unwrap()),
        optimizer: recipe::Optimizer::Adamw,
        learning_rate: 1e-3,
        backbone_learning_rate: 1e-4,
        weight_decay: 0.01,
        gradient_clip: Some(1.0),
        batch_norm: match has("update") {
            true => BatchNorm::Update,
            false => BatchNorm::Frozen,
        },
        precision: match has("bfloat16") {
            true => Precision::Bfloat16,
            false => Precision::Float32,
        },
        ..Recipe::base(Task::SingleLabelClassification)
    };
    let mut network = Network::build(&base, &recipe, CLASSES as usize, device).unwrap();
    let mut optimizer = Optimizer::new(&recipe, &network.parameters);
    let pixels = Tensor::randint(256, [size, side, side, 3], (Kind::Uint8, Device::Cpu));
    let labels = Tensor::randint(CLASSES, [size], (Kind::Int64, device));
    let batches = BatchSource::new(&base.input).unwrap();
    let mut step = |number: u64| {
        let count = match device {
            Device::Cpu => recipe.shards_of(size as usize),
            _ => 1,
        };
        // SAFETY: a step's passes only read.
        let shared = unsafe { Shared::new((&network, &pixels, &labels)) };
        let made = gradients::in_shards(count, size as usize, |places| {
            let (network, pixels, labels) = *shared;
            let of = |all: &Tensor| all.narrow(0, places.start as i64, places.len() as i64);
            let images = batches.collate(&of(pixels), device);
            let shard = Shard {
                step: number,
                first: places.start,
                ..Shard::default()
            };
            let logits = network.logits_train(&network.features_train(&images, &shard), &shard);
            let loss = loss_functions::cross_entropy(&logits, &of(labels), None, 0.0);
            let loss = loss * (places.len() as f64 / size as f64);
            Ok(Passed {
                gradients: optimizer::gradients(&loss, &network.parameters)?,
                loss: loss.detach(),
                statistics: shard.statistics,
            })
        });
        let (loss, gradients) = made.unwrap();
        let rates = Rates::at(&recipe, 1.0);
        optimizer.step(&mut network.parameters, gradients, number, rates);
        loss
    };
    // A GPU is waited for.
    let mut steps_of = |numbers: std::ops::RangeInclusive<u64>| {
        let loss = numbers.map(&mut step).last();
        assert!(loss.unwrap().double_value(&[]).is_finite());
    };
    steps_of(1..=2);
    let start = Instant::now();
    steps_of(3..=2 + steps as u64);
    let seconds = start.elapsed().as_secs_f64();
    println!("{:.2}", (steps * size) as f64 / seconds);
}
