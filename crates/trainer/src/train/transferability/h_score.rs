//! H-score: how much of the features' spread is between classes (Bao et al. 2019), with a
//! covariance that is shrunk so that it has an inverse (Ibrahim, Ponomareva & Mazumder 2021).

use tch::{Device, Kind, Tensor};

/// Least shrinkage: the covariance must have an inverse also where no shrinkage is the best
/// estimate.
const MIN_SHRINKAGE: f64 = 1e-9;

/// Trace of the shrunk covariance's inverse times the covariance of the class means, of features
/// [N, D] f64 and one-hot labels [N, C]. From 0, where all classes have the same mean; higher is
/// better. At most D, and less than C.
pub(super) fn score(features: &Tensor, one_hot: &Tensor) -> f64 {
    let centered = features - features.mean_dim([0i64].as_slice(), true, Kind::Double);
    let (samples, width) = (centered.size()[0], centered.size()[1]);
    let wide = samples < width;
    // The smaller of the two Gram matrices: their traces, squares and inverses are equivalent.
    let gram = if wide {
        centered.matmul(&centered.tr())
    } else {
        centered.tr().matmul(&centered)
    };
    let variance = gram.trace().double_value(&[]) / (samples * width) as f64;
    if variance <= 0.0 {
        return 0.0;
    }
    let shrinkage = shrinkage(&centered, &gram, variance).max(MIN_SHRINKAGE);
    let identity = Tensor::eye(gram.size()[0], (Kind::Double, Device::Cpu));
    let covariance =
        gram * ((1.0 - shrinkage) / samples as f64) + identity * (shrinkage * variance);
    // Sums of each class's centered features over the root of its size: their squares are the
    // spread of the means.
    let sizes = one_hot.sum_dim_intlist([0i64].as_slice(), true, Kind::Double);
    let share = one_hot / sizes.sqrt();
    let between = centered.tr().matmul(&share);
    // Whichever side: tr(Bᵀ(XᵀX + c)⁻¹B) with B = Xᵀs is tr((X B)ᵀ(XXᵀ + c)⁻¹s).
    let (left, right) = if wide {
        (centered.matmul(&between), share)
    } else {
        (between.shallow_clone(), between)
    };
    let factor = covariance.linalg_cholesky(false);
    let solved = right.cholesky_solve(&factor, false);
    let trace = (left * solved).sum(Kind::Double).double_value(&[]);
    (1.0 - shrinkage) * trace / (samples - 1) as f64
}

/// Ledoit and Wolf's (2004): the weight of `variance` times the identity beside the sample
/// covariance that is least wrong in mean square.
fn shrinkage(centered: &Tensor, gram: &Tensor, variance: f64) -> f64 {
    let (samples, width) = (centered.size()[0] as f64, centered.size()[1] as f64);
    let squared = |tensor: &Tensor| tensor.square().sum(Kind::Double).double_value(&[]);
    let covariance = squared(gram) / samples.powi(2);
    let lengths = centered
        .square()
        .sum_dim_intlist([1i64].as_slice(), false, Kind::Double);
    let noise = (squared(&lengths) / samples - covariance) / (samples * width);
    let distance = covariance / width - variance.powi(2);
    let noise = noise.clamp(0.0, distance.max(0.0));
    if noise == 0.0 { 0.0 } else { noise / distance }
}
