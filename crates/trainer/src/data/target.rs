//! The target of a sample: its label, labels or number.

/// A sample's label, labels or number.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// Its class, as an index into the classes.
    Class(usize),
    /// All its labels, as ascending indices into the classes; there may be none.
    Classes(Vec<usize>),
    /// Its number, in its own unit.
    Value(f64),
}

impl Target {
    /// The classes it has.
    pub fn classes(&self) -> &[usize] {
        match self {
            Self::Class(class) => std::slice::from_ref(class),
            Self::Classes(classes) => classes,
            Self::Value(_) => &[],
        }
    }
}
