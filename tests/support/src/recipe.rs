use rehead_domain::recipe::{EarlyStopping, Metric, Recipe, Task};

/// A frozen backbone under a zero head; tests change what they are about.
pub fn recipe() -> Recipe {
    Recipe {
        early_stopping: EarlyStopping {
            patience: None,
            metric: Metric::ValidLoss,
            min_delta: 0.0,
        },
        checkpoint_every_seconds: 3_600,
        seed: 7,
        ..Recipe::base(Task::SingleLabelClassification)
    }
}
