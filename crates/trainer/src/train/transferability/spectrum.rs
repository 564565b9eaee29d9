//! The singular values of a feature matrix, which LogME and ridge regression both are functions of.

use tch::{Kind, Tensor};

/// Left singular vectors and squared singular values of features, without those that are 0.
#[derive(Debug)]
pub(super) struct Spectrum {
    /// [N, rank] f64, orthonormal columns
    pub(super) left: Tensor,
    /// `[rank]` f64, ascending
    pub(super) squares: Tensor,
}

impl Spectrum {
    /// Decomposes features [N, D], f64 on the CPU, by the smaller of the two Gram matrices.
    pub(super) fn of(features: &Tensor) -> Self {
        let size = features.size();
        if size[0] < size[1] {
            Self::of_samples(features)
        } else {
            Self::of_features(features)
        }
    }

    /// From the N×N products of samples.
    pub(super) fn of_samples(features: &Tensor) -> Self {
        let (squares, left) = positive_part(features, &features.matmul(&features.tr()));
        Self { left, squares }
    }

    /// From the D×D products of features.
    pub(super) fn of_features(features: &Tensor) -> Self {
        let (squares, right) = positive_part(features, &features.tr().matmul(features));
        Self {
            left: features.matmul(&right) / squares.sqrt(),
            squares,
        }
    }

    /// N.
    pub(super) fn samples(&self) -> i64 {
        self.left.size()[0]
    }
}

/// The eigenvalues of a Gram matrix that are above what rounding makes of 0, and their vectors as
/// columns.
fn positive_part(features: &Tensor, gram: &Tensor) -> (Tensor, Tensor) {
    let (values, vectors) = gram.linalg_eigh("L");
    let longest = features.size().into_iter().max().unwrap_or(1);
    let floor = values.max().double_value(&[]) * longest as f64 * f64::EPSILON;
    let rank = values.gt(floor).sum(Kind::Int64).int64_value(&[]);
    // They are in ascending order.
    let zeros = values.size()[0] - rank;
    (
        values.narrow(0, zeros, rank),
        vectors.narrow(1, zeros, rank),
    )
}

/// The numbers of a vector of f64.
pub(super) fn numbers(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(&tensor.contiguous()).expect("a vector of f64: this is a bug")
}
