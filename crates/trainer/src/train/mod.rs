//! The trainer: a job folder in, a job folder out. Knows no Postgres, no HTTP, no bucket, and opens no socket.
//!
//! Read `run` first: it is the whole of a run, in the order in which it happens. The other modules are its parts.

/// A training run from plan to bundle.
pub mod run;

/// Packs, labels and splits.
pub mod samples;

/// Backbone and head; what trains and what does not.
pub mod network;

/// Going on from a finished model or a checkpoint.
pub mod parent;

/// Features or pixels, made once.
pub mod inputs;

/// Features of a frozen backbone, through the cache.
pub mod features;

/// Decoded images, through the cache.
pub mod pixels;

/// Altered images of training samples, and their features.
pub mod views;

/// Random choices as functions of the seed and of where they are made.
pub mod order;

/// Losses.
pub mod loss;

/// Mixup and CutMix.
pub mod mix;

/// Smaller batches when memory runs out.
pub mod memory;

/// Targets, and the loss that is taken of them.
pub mod objective;

/// Loss and gradients of a step.
pub mod gradients;

/// SGD and AdamW with savable state.
pub mod optimizer;

/// The linear probe that a head may start at.
pub mod probe;

/// The learning rate as a function of the step.
pub mod schedule;

/// Losses that wait on the device; divergence.
pub mod losses;

/// From outputs to a report.
pub mod metrics;

/// The temperature of probabilities.
pub mod calibration;

/// How the network does on some samples.
pub mod evaluation;

/// ReportContext classes, before and after.
pub mod forgetting;

/// How well a frozen backbone's features fit the task.
pub mod transferability;

/// The best evaluation, and early stopping.
pub mod selection;

/// When and what to save.
pub mod saver;

/// Checkpoint folders.
pub mod checkpoint;

/// What the finished network says of each sample.
pub mod sample_report;

/// The bundle.
pub mod export;

/// What must come out of a bundle.
pub mod golden;

/// The same network as TorchScript.
pub mod torchscript;

/// Its README.
pub mod model_card;

/// The inference child.
pub mod infer;

/// The warm warm trainer.
pub mod warm_trainer;

/// CPU or CUDA.
pub mod device;

/// Talking to the parent.
pub mod protocol;

/// Why there is no result.
pub mod error;

#[cfg(test)]
mod distortion;

#[cfg(test)]
mod test_data;

#[cfg(test)]
fn test_recipe() -> crate::domain::recipe::Recipe {
    use crate::domain::recipe::*;
    Recipe {
        task: Task::SingleLabelClassification,
        cut: crate::domain::cut::PRE_LOGITS.to_owned(),
        trainable: Vec::new(),
        later_phases: Vec::new(),
        adapter: None,
        head: Head {
            layers: Vec::new(),
            init: HeadInit::Zero,
        },
        inherited: None,
        n_epochs: 1,
        batch_size: 8,
        accumulate: 1,
        optimizer: Optimizer::Sgd,
        learning_rate: 0.1,
        backbone_learning_rate: 0.01,
        layer_decay: 1.0,
        weight_decay: 0.0,
        schedule: Schedule::Constant,
        warmup_fraction: 0.0,
        loss: Loss::CrossEntropy,
        label_smoothing: 0.0,
        augmentation: None,
        augmented_views: 0,
        mixup: 0.0,
        cutmix: 0.0,
        class_weights: None,
        gradient_clip: None,
        ema_decay: None,
        batch_norm: BatchNorm::Frozen,
        precision: Precision::Float32,
        early_stopping: EarlyStopping {
            patience: None,
            metric: Metric::ValidAccuracy,
            min_delta: 0.0,
        },
        evaluate_every: EvaluateEvery::default(),
        checkpoint_every_seconds: 300,
        seed: 1,
    }
}
