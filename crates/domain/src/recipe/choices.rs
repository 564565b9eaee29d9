//! The values that options of a training choose from.

use crate::{
    limits,
    options::choices,
    rules::{Integer, number},
    words,
};

words! {
    /// The kind of prediction that a model makes.
    pub enum Task {
        /// Each sample has one class.
        SingleLabelClassification = "single_label_classification",
        /// Each sample has any number of labels.
        MultiLabelClassification = "multi_label_classification",
        /// Each sample has a number.
        Regression = "regression",
    }
}

choices! {
    /// A layer of the head, before its last linear one.
    #[derive(Copy)]
    pub enum HeadLayer {
        /// Share of the features that is dropped in training.
        Dropout(f64) = "dropout": number(0.0..1.0),
        /// A linear layer with this many outputs.
        Linear(u32) = "linear": Integer(limits::HEAD_WIDTH),
        Relu = "relu" | true,
        /// The exact form, by the error function (Hendrycks & Gimpel 2016).
        Gelu = "gelu" | true,
        /// Uses the batch's statistics in training; the running ones are saved with the weights.
        BatchNorm = "batch_norm" | true,
        LayerNorm = "layer_norm" | true,
    }
}

/// True when a head of these layers is one linear layer in evaluation, as timm's classifiers are.
pub fn is_linear_head<'a>(layers: impl IntoIterator<Item = &'a HeadLayer>) -> bool {
    let mut layers = layers.into_iter();
    layers.all(|layer| matches!(layer, HeadLayer::Dropout(_)))
}

words! {
    /// How a head's weights are initialized.
    pub enum HeadInit {
        /// Weights and bias 0 (BiT's `zero_head`): the first loss is exactly ln(classes). New rows
        /// of an inherited head start at the mean of its old ones.
        Zero = "zero",
        /// Weights from N(0, 0.01), bias 0; around the mean of the old rows in an inherited head.
        Normal = "normal",
        /// The best linear classifier on the base model's features, by convex optimization (LP-FT,
        /// Kumar et al. 2022).
        Probe = "probe",
    }
}

words! {
    /// The rule by which gradients change weights.
    pub enum Optimizer {
        /// Momentum 0.9.
        Sgd = "sgd",
        /// Momentum 0.9, in Nesterov's form.
        Nesterov = "nesterov",
        /// Betas 0.9 and 0.999, epsilon 1e-8, bias-corrected.
        Adamw = "adamw",
    }
}

impl Optimizer {
    /// Numbers that it keeps for each number that trains.
    pub(crate) fn moments(self) -> u64 {
        match self {
            Self::Sgd | Self::Nesterov => 1,
            Self::Adamw => 2,
        }
    }
}

words! {
    /// How learning rates change from step to step.
    pub enum Schedule {
        Constant = "constant",
        /// Half a cosine, from the peak to 0.
        Cosine = "cosine",
        /// A straight line, from the peak to 0.
        Linear = "linear",
        /// The peak, a tenth of it after half of all steps, a hundredth after three quarters.
        Step = "step",
        /// Over 30 % of all steps half a cosine from a 25th of the peak up to it, then half a
        /// cosine down to a 10,000th of the start (Smith & Topin 2018). Includes a warm-up.
        OneCycle = "one_cycle",
    }
}

words! {
    /// How BatchNorm runs in the part that trains. The frozen part always uses its running
    /// statistics and never updates them.
    pub enum BatchNorm {
        Frozen = "frozen",
        Update = "update",
    }
}

words! {
    /// The number format in which the trained part of the backbone computes, or a wholly frozen one
    /// that computes features. Weights, normalizations, head, loss, gradients and optimizer are
    /// float32 either way, and so are the frozen part of a backbone that trains and its evaluation.
    #[derive(Default)]
    pub enum Precision {
        #[default]
        Float32 = "float32",
        /// Has float32's range, so no loss scaling is needed, and three significant digits. Faster
        /// only on devices that support it natively.
        Bfloat16 = "bfloat16",
    }
}

choices! {
    /// How much training lies between two evaluations on the validation split.
    #[derive(Copy, Eq)]
    pub enum EvaluateEvery {
        /// At the end of every n-th epoch.
        Epochs(u32) = "epochs": Integer(limits::EPOCHS),
        /// After every n steps, wherever epochs end.
        Steps(u64) = "steps": Integer(limits::EVALUATION_STEPS),
    }
}

impl Default for EvaluateEvery {
    fn default() -> Self {
        Self::Epochs(1)
    }
}

impl EvaluateEvery {
    /// True when an evaluation is due after step `step` of epoch `epoch` (both from 1).
    pub fn is_due(self, step: u64, epoch: u32, ends_epoch: bool) -> bool {
        match self {
            Self::Epochs(epochs) => ends_epoch && epoch.is_multiple_of(epochs),
            Self::Steps(steps) => step.is_multiple_of(steps),
        }
    }
}

words! {
    /// The metric that chooses the best checkpoint.
    #[derive(PartialOrd, Ord)]
    pub enum Metric {
        ValidLoss = "valid_loss",
        ValidAccuracy = "valid_accuracy",
        ValidBalancedAccuracy = "valid_balanced_accuracy",
        ValidMacroF1 = "valid_macro_f1",
        ValidMicroF1 = "valid_micro_f1",
        ValidMeanAveragePrecision = "valid_mean_average_precision",
        ValidRocAuc = "valid_roc_auc",
        ValidR2 = "valid_r2",
        ValidMae = "valid_mae",
        ValidRmse = "valid_rmse",
    }
}

impl Metric {
    /// True when evaluations of this task measure it.
    pub fn is_of(self, task: Task) -> bool {
        use Task::{
            MultiLabelClassification as Multi, Regression, SingleLabelClassification as Single,
        };
        match self {
            Self::ValidLoss => true,
            Self::ValidAccuracy | Self::ValidBalancedAccuracy => task == Single,
            Self::ValidMacroF1 | Self::ValidRocAuc => matches!(task, Single | Multi),
            Self::ValidMicroF1 | Self::ValidMeanAveragePrecision => task == Multi,
            Self::ValidR2 | Self::ValidMae | Self::ValidRmse => task == Regression,
        }
    }

    /// The metric that a task's best checkpoint is chosen by, unless the request names another.
    pub fn default_of(task: Task) -> Self {
        match task {
            Task::SingleLabelClassification => Self::ValidAccuracy,
            Task::MultiLabelClassification => Self::ValidMeanAveragePrecision,
            Task::Regression => Self::ValidRmse,
        }
    }

    pub fn is_higher_better(self) -> bool {
        !matches!(self, Self::ValidLoss | Self::ValidMae | Self::ValidRmse)
    }
}

words! {
    /// The function that training minimizes.
    pub enum Loss {
        /// Negative log-likelihood of a sample's one class, in nats.
        CrossEntropy = "cross_entropy",
        /// Negative log-likelihood of each label by itself, mean over the classes, in nats.
        BinaryCrossEntropy = "binary_cross_entropy",
        /// The square of the error, in standard deviations of the training split.
        Mse = "mse",
        /// Half the square of an error below one standard deviation of the training split, a
        /// straight line beyond it (Huber 1964).
        Huber = "huber",
    }
}

impl Loss {
    /// The losses of a task; the first is the default.
    pub fn of(task: Task) -> &'static [Self] {
        match task {
            Task::SingleLabelClassification => &[Self::CrossEntropy],
            Task::MultiLabelClassification => &[Self::BinaryCrossEntropy],
            Task::Regression => &[Self::Mse, Self::Huber],
        }
    }
}
