//! Small made-up networks and data sets for tests.

use crate::{
    base_model::{LayerTensor, Layers, Stage, StageCost},
    file::{Class, Dataset, SplitSizes},
    input::Modality,
    recipe::Task,
};

/// Three stages of two blocks, with 10, 20 and 70 parameters.
pub(crate) fn layers() -> Layers {
    let mut stages = Vec::new();
    let mut tensors = Vec::new();
    for (stage, count) in [("stem", 10_u32), ("layer1", 20), ("layer2", 70)] {
        let blocks = vec![format!("{stage}.0"), format!("{stage}.1")];
        for block in &blocks {
            tensors.push(tensor(
                &format!("{block}.conv.weight"),
                stage,
                block,
                count / 2,
                true,
            ));
            tensors.push(tensor(
                &format!("{block}.bn.running_mean"),
                stage,
                block,
                2,
                false,
            ));
        }
        stages.push(Stage {
            name: stage.to_owned(),
            blocks,
            parameters: u64::from(count),
            channels: 8,
        });
    }
    Layers {
        costs: Vec::new(),
        picoseconds_per_mac: None,
        feature_dim: 8,
        stages,
        tensors,
    }
}

fn tensor(name: &str, stage: &str, block: &str, count: u32, trainable: bool) -> LayerTensor {
    let (stage, block) = (stage.to_owned(), block.to_owned());
    LayerTensor {
        name: name.to_owned(),
        shape: vec![count],
        stage,
        block,
        trainable,
    }
}

/// A transformer of two blocks, 8 wide, after a table that is no linear layer.
pub(crate) fn transformer_layers() -> Layers {
    let mut tensors = Vec::new();
    let mut tensor = |stage: &str, name: &str, shape: &[u32]| {
        tensors.push(LayerTensor {
            name: name.to_owned(),
            shape: shape.into(),
            stage: stage.to_owned(),
            block: stage.to_owned(),
            trainable: true,
        });
    };
    tensor("embed", "table.weight", &[10, 8]);
    tensor("embed", "patch.weight", &[8, 3, 2, 2]);
    tensor("embed", "patch.bias", &[8]);
    for block in ["blocks.0", "blocks.1"] {
        tensor(block, &format!("{block}.norm1.weight"), &[8]);
        tensor(block, &format!("{block}.norm1.bias"), &[8]);
        for (layer, outputs, inputs) in [
            ("attn.qkv", 24, 8),
            ("attn.proj", 8, 8),
            ("mlp.fc1", 32, 8),
            ("mlp.fc2", 8, 32),
        ] {
            let name = format!("{block}.{layer}");
            tensor(block, &format!("{name}.weight"), &[outputs, inputs]);
            tensor(block, &format!("{name}.bias"), &[outputs]);
        }
    }
    let stage = |name: &str| Stage {
        name: name.to_owned(),
        blocks: Vec::new(),
        parameters: tensors
            .iter()
            .filter(|tensor| tensor.stage == name)
            .map(LayerTensor::count)
            .sum(),
        channels: 8,
    };
    let stages: Vec<Stage> = ["embed", "blocks.0", "blocks.1"].map(stage).into();
    // 5 tokens, each once through a block's 768 numbers.
    let cost = StageCost {
        macs: 5 * 768,
        kept: 1_000,
        largest: 100,
    };
    Layers {
        feature_dim: 8,
        costs: vec![cost; stages.len()],
        picoseconds_per_mac: None,
        stages,
        tensors,
    }
}

/// A data set of images with this many samples of each class.
pub(crate) fn dataset(classes: &[&str], train: u64, validation: u64) -> Dataset {
    let class = |name: &&str| Class {
        name: (*name).to_owned(),
        train,
        validation,
        test: 0,
    };
    let n = classes.len() as u64;
    Dataset {
        modality: Modality::Image,
        task: Task::SingleLabelClassification,
        target: None,
        classes: classes.iter().map(class).collect(),
        samples: n * (train + validation),
        splits: SplitSizes {
            train: n * train,
            validation: n * validation,
            test: 0,
        },
        split_by: "hash".into(),
        unusable: 0,
        duplicates: 0,
    }
}
