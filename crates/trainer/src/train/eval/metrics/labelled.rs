//! Logits beside labels.

/// Logits of some samples beside their labels: a class each, or several.
#[derive(Debug, Clone)]
pub struct Labelled<L> {
    /// Row after row, `labels.len() * classes` values.
    pub logits: Vec<f32>,
    /// One entry a sample; several labels are ascending.
    pub labels: Vec<L>,
    pub classes: usize,
}

/// One class a sample.
pub type SingleLabel = Labelled<usize>;

/// Any number of labels a sample.
pub type MultiLabel = Labelled<Vec<usize>>;

impl<L> Labelled<L> {
    /// Each sample's logits and label.
    pub fn rows(&self) -> impl Iterator<Item = (&[f32], &L)> {
        self.logits.chunks_exact(self.classes).zip(&self.labels)
    }
}
