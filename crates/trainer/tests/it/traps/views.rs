//! Images as training and as evaluation see them.

use std::io;

use rehead_domain::{
    augmentation::{Augmentation, ColorJitter, RandAugment, RandomResizedCrop},
    recipe::{BatchNorm, Head, HeadInit, HeadLayer, Recipe},
    work::TrainPlan,
};
use rehead_trainer::{
    data::batch,
    process::protocol::{Interrupt, Reporter},
    train::{
        input::{
            augmented_views::Views,
            feature_cache,
            inputs::{Batch, Inputs},
            meter::Meter,
            pixel_cache::{self, Form},
            preparation::Preparation,
            samples::Samples,
        },
        network::Network,
        step::{
            gradients::{Criterion, Window},
            objective::Objective,
        },
    },
};
use tch::{Device, Tensor};

use super::layer4;
use crate::support::training::{Material, recipe};

/// A run that is about to train.
struct Run {
    samples: Samples,
    network: Network,
    inputs: Inputs,
}

fn silent() -> Reporter {
    Reporter::new(io::sink(), Interrupt::default())
}

fn prepare(plan: &TrainPlan) -> Run {
    tch::set_num_threads(1);
    let samples = Samples::open(plan).unwrap();
    let classes = samples.classes.len();
    let network = Network::build(&plan.base_model, &plan.recipe, classes, Device::Cpu).unwrap();
    let (interrupt, mut reporter) = (Interrupt::default(), silent());
    let run = Preparation {
        plan,
        samples: &samples,
        device: Device::Cpu,
        interrupt: &interrupt,
    };
    let start = feature_cache::of_samples(&run, &network, &mut reporter).unwrap();
    let inputs = Inputs::prepare(&run, &network, &start, &mut reporter);
    Run {
        inputs: inputs.unwrap(),
        samples,
        network,
    }
}

impl Run {
    fn features_train(&self, samples: &[usize], epoch: u32) -> Tensor {
        let batch = Batch {
            samples,
            epoch,
            mixed: None,
        };
        self.inputs.read_train(&self.network, batch).unwrap()
    }

    fn logits(&self) -> Vec<u32> {
        let logits = self.inputs.logits(&self.network, &self.samples.validation);
        logits
            .unwrap()
            .iter()
            .map(|logit| logit.to_bits())
            .collect()
    }
}

fn flipped() -> Augmentation {
    Augmentation {
        horizontal_flip: 0.5,
        ..Augmentation::default()
    }
}

fn cropped() -> Augmentation {
    Augmentation {
        random_resized_crop: Some(RandomResizedCrop::default()),
        ..Augmentation::default()
    }
}

fn normal_head(layers: Vec<HeadLayer>) -> Head {
    Head {
        layers,
        init: HeadInit::Normal,
    }
}

/// u8 [N, S, S, 3] of samples as an epoch sees them.
fn images(plan: &TrainPlan, samples: &[usize], epoch: u32) -> Tensor {
    std::fs::create_dir_all(&plan.cache).unwrap();
    let source = &Samples::open(plan).unwrap().sources[0];
    let views = Views::of(plan).unwrap().unwrap();
    let form = views.form().unwrap_or(Form::Square);
    let mut reporter = silent();
    let mut meter = Meter::new(&mut reporter, source.pack.len());
    let interrupt = Interrupt::default();
    let found = pixel_cache::of_pack(plan, source, &[form], &interrupt, &mut meter).unwrap();
    views.images(&found[0], samples, epoch).unwrap()
}

#[test]
fn a_image_is_the_same_whatever_the_threads_and_the_order() {
    let material = Material::new(20);
    for augmentation in [flipped(), cropped()] {
        let mut plan = material.plan(Recipe {
            augmentation: Some(augmentation),
            ..layer4(BatchNorm::Frozen)
        });
        let train = Samples::open(&plan).unwrap().train;
        let members = &train[..12];
        let one = images(&plan, members, 3);
        plan.threads = 4;
        let mut turned = members.to_vec();
        turned.reverse();
        assert_eq!(images(&plan, &turned, 3).flip([0]), one);
        assert_eq!(images(&plan, &members[5..6], 3).get(0), one.get(5));
        assert_ne!(images(&plan, members, 4), one);
        plan.recipe.seed += 1;
        assert_ne!(images(&plan, members, 3), one);
    }
}

#[test]
fn trap_6_every_change_of_images_reaches_training() {
    let material = Material::new(20);
    let plain = Recipe {
        head: normal_head(Vec::new()),
        ..layer4(BatchNorm::Frozen)
    };
    let gradient = |recipe: Recipe, epoch: u32| {
        let run = prepare(&material.plan(recipe.clone()));
        let window = Window {
            members: &run.samples.train[..8],
            step: 1,
            epoch,
        };
        let criterion = Criterion::new(&recipe, Objective::new(&recipe, &run.samples, Device::Cpu));
        let (_, gradients) = criterion
            .gradients(&run.network, &run.inputs, window)
            .unwrap();
        Vec::<f32>::try_from(&gradients[0].reshape([-1])).unwrap()
    };
    let with = |change: &dyn Fn(&mut Augmentation)| {
        let mut augmentation = Augmentation::default();
        change(&mut augmentation);
        let altered = Recipe {
            augmentation: Some(augmentation),
            ..plain.clone()
        };
        gradient(altered, 1)
    };
    let crop = |scale, aspect_ratio| RandomResizedCrop {
        scale,
        aspect_ratio,
    };
    let jitter = ColorJitter::default();
    let ops = |n_ops, magnitude| RandAugment { n_ops, magnitude };
    let cut = Recipe {
        cutmix: 1.0,
        ..plain.clone()
    };
    let mixed = Recipe {
        mixup: 1.0,
        ..plain.clone()
    };
    let results = [
        gradient(plain.clone(), 1),
        gradient(cut, 1),
        gradient(mixed, 1),
        with(&|all| all.random_resized_crop = Some(crop([0.5, 1.0], [0.75, 1.25]))),
        with(&|all| all.random_resized_crop = Some(crop([0.2, 1.0], [0.75, 1.25]))),
        with(&|all| all.random_resized_crop = Some(crop([0.5, 1.0], [0.5, 1.25]))),
        with(&|all| all.horizontal_flip = 1.0),
        with(&|all| {
            all.color_jitter = Some(ColorJitter {
                brightness: 0.5,
                ..jitter
            })
        }),
        with(&|all| {
            all.color_jitter = Some(ColorJitter {
                contrast: 0.5,
                ..jitter
            })
        }),
        with(&|all| {
            all.color_jitter = Some(ColorJitter {
                saturation: 0.5,
                ..jitter
            })
        }),
        with(&|all| all.color_jitter = Some(ColorJitter { hue: 0.5, ..jitter })),
        with(&|all| all.rand_augment = Some(ops(2, 9))),
        with(&|all| all.rand_augment = Some(ops(1, 9))),
        with(&|all| all.rand_augment = Some(ops(2, 20))),
        with(&|all| all.random_erasing = 1.0),
    ];
    for (i, one) in results.iter().enumerate() {
        for (j, other) in results[..i].iter().enumerate() {
            assert_ne!(one, other, "variants {j} and {i} train alike");
        }
    }
    assert_eq!(results[0], gradient(plain.clone(), 2));
    let erased = Recipe {
        augmentation: Some(Augmentation {
            random_erasing: 1.0,
            ..Augmentation::default()
        }),
        ..plain.clone()
    };
    assert_ne!(results[14], gradient(erased, 2));
}

#[test]
fn trap_9_cached_features_are_those_of_evaluation_mode() {
    let material = Material::new(20);
    let plan = |layers| {
        material.plan(Recipe {
            head: normal_head(layers),
            ..recipe()
        })
    };
    let run = prepare(&plan(vec![HeadLayer::Dropout(0.9)]));
    let source = &run.samples.sources[0];
    let all: Vec<usize> = (0..source.pack.len()).collect();
    let plain = plan(vec![]);
    let preprocessing = plain.base_model.input.image().unwrap();
    for chunk in all.chunks(32) {
        let pixels = batch::load(&source.pack, chunk, preprocessing, 1).unwrap();
        let images = batch::normalize(&pixels, preprocessing, Device::Cpu);
        assert_eq!(run.features_train(chunk, 1), run.network.features(&images));
    }
    // The same head without dropout says the same.
    assert_eq!(run.logits(), prepare(&plan(vec![])).logits());
    assert_eq!(run.logits(), run.logits());
    // By pixels, in evaluation batches of the same size as the cache's.
    let unfrozen = prepare(&material.plan(Recipe {
        head: normal_head(vec![HeadLayer::Dropout(0.9)]),
        ..layer4(BatchNorm::Frozen)
    }));
    let interrupt = Interrupt::default();
    let live = unfrozen
        .inputs
        .features(&unfrozen.network, &all, &interrupt);
    let apart = (live.unwrap() - run.features_train(&all, 1)).abs().max();
    let scale = run.features_train(&all, 1).abs().max();
    assert!((apart / scale).double_value(&[]) < 1e-5);
}

/// As on a GPU, where images are read while it computes.
#[test]
fn images_that_were_read_ahead_are_those_of_their_samples_and_epoch() {
    let material = Material::new(20);
    let run = prepare(&material.plan(Recipe {
        augmentation: Some(flipped()),
        ..layer4(BatchNorm::Frozen)
    }));
    let members: Vec<usize> = run.samples.train[..6].to_vec();
    let expected = [1, 2].map(|epoch| run.features_train(&members, epoch));
    assert_ne!(expected[0], expected[1]);
    // Asked for; for another epoch; for other samples; asked for twice.
    run.inputs.read_ahead(&members, 2);
    assert_eq!(run.features_train(&members, 2), expected[1]);
    run.inputs.read_ahead(&members, 2);
    assert_eq!(run.features_train(&members, 1), expected[0]);
    run.inputs.read_ahead(&members[1..], 1);
    assert_eq!(run.features_train(&members, 1), expected[0]);
    assert_eq!(run.features_train(&members, 1), expected[0]);
}

#[test]
fn a_frozen_backbone_trains_on_views_and_is_evaluated_without() {
    let material = Material::new(20);
    let plan = material.plan(Recipe {
        augmentation: Some(flipped()),
        augmented_views: 3,
        head: normal_head(vec![]),
        ..recipe()
    });
    let run = prepare(&plan);
    let members = &run.samples.train;
    let of = |epoch| run.features_train(members, epoch);
    assert_eq!(of(1), of(4));
    assert_eq!(of(3), of(6));
    assert!(of(1) != of(2) && of(2) != of(3) && of(1) != of(3));
    // Each view is what an epoch with that number would see.
    let preprocessing = plan.base_model.input.image().unwrap();
    let chunk = &members[..members.len().min(32)];
    for epoch in 1..=3 {
        let images = batch::normalize(&images(&plan, chunk, epoch), preprocessing, Device::Cpu);
        let live = run.network.features(&images);
        assert_eq!(of(epoch).narrow(0, 0, chunk.len() as i64), live, "{epoch}");
    }
    let plain = material.plan(Recipe {
        head: normal_head(vec![]),
        ..recipe()
    });
    assert_eq!(run.logits(), prepare(&plain).logits());

    // Nothing is computed again, and another seed has other views.
    let files = || std::fs::read_dir(&plan.cache).unwrap().count();
    let before = files();
    prepare(&plan);
    assert_eq!(files(), before);
    let mut other = plan.clone();
    other.recipe.seed += 1;
    assert_ne!(prepare(&other).features_train(members, 1), of(1));
    assert_eq!(files(), before + 3);
}
