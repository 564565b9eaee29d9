use rehead_domain::recipe::{
    BatchNorm, EarlyStopping, EvaluateEvery, Head, HeadInit, Loss, Metric, Optimizer, Precision,
    Recipe, Schedule, Task,
};

/// A frozen backbone under a zero head; tests change what they are about.
pub fn recipe() -> Recipe {
    Recipe {
        task: Task::SingleLabelClassification,
        cut: "pre_logits".to_owned(),
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
        learning_rate: 0.01,
        backbone_learning_rate: 0.001,
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
            metric: Metric::ValidLoss,
            min_delta: 0.0,
        },
        evaluate_every: EvaluateEvery::default(),
        checkpoint_every_seconds: 3_600,
        seed: 7,
    }
}
