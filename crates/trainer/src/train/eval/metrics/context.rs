//! Context of a report.

/// Facts that a report needs besides the scored samples.
#[derive(Debug)]
pub struct ReportContext<'a> {
    /// In label order.
    pub classes: &'a [String],
    pub decoding: &'a OutputDecoding,
    /// The most common label of the training split.
    pub majority_label: usize,
    /// Mean of the numbers of the training split.
    pub mean: f64,
}

/// The rule from outputs to predictions, fitted on the validation split, never on the test split.
#[derive(Debug, Clone, PartialEq)]
pub enum OutputDecoding {
    /// Softmax of the logits divided by this temperature.
    Temperature(f64),
    /// The least probability of a predicted label, for each class.
    Thresholds(Vec<f64>),
    /// Outputs are the predictions.
    Plain,
}
