//! Shared by all operations: their tensors, how a pass runs, and activations.

use std::{cell::RefCell, ops::Deref};

use tch::{Kind, Tensor, nn};

/// Initial values from N(0, 0.02²), as transformers have them.
pub(super) const NORMAL: nn::Init = nn::Init::Randn {
    mean: 0.0,
    stdev: 0.02,
};
pub(super) const ZEROS: nn::Init = nn::Init::Const(0.0);
pub(super) const ONES: nn::Init = nn::Init::Const(1.0);

/// Momentum of BatchNorm's running statistics (PyTorch's default).
const MOMENTUM: f64 = 0.1;

/// A tensor of a network under its name in timm's state dict.
#[derive(Debug)]
pub struct Param {
    pub name: String,
    tensor: Tensor,
    /// True for parameters, false for BatchNorm's running statistics.
    pub trainable: bool,
}

impl Param {
    /// A parameter of this dotted name, such as `layer1.0.conv1.weight`.
    pub(super) fn new(root: &nn::Path, name: String, dims: &[i64], init: nn::Init) -> Self {
        let (module, leaf) = at(root, &name);
        let tensor = module.var(leaf, dims, init);
        Self {
            name,
            tensor,
            trainable: true,
        }
    }

    /// A statistic of each channel, which starts as `value`.
    pub(super) fn statistic(root: &nn::Path, name: String, channels: i64, value: f64) -> Self {
        let (module, leaf) = at(root, &name);
        let values = Tensor::full([channels], value, (Kind::Float, root.device()));
        let tensor = module.add(leaf, values, false);
        Self {
            name,
            tensor,
            trainable: false,
        }
    }

    /// Another tensor in its place.
    pub(super) fn replaced(&self, tensor: Tensor) -> Self {
        Self {
            name: self.name.clone(),
            tensor,
            trainable: self.trainable,
        }
    }
}

impl Deref for Param {
    type Target = Tensor;

    fn deref(&self) -> &Tensor {
        &self.tensor
    }
}

/// Copies the numbers, for inference: weights of convolutions are laid out channels last.
impl Clone for Param {
    fn clone(&self) -> Self {
        self.replaced(tch::no_grad(|| channels_last(&self.tensor.copy())))
    }
}

/// The same numbers, laid out channels last; no copy where they already are, or for other than four
/// dimensions.
pub(super) fn channels_last(x: &Tensor) -> Tensor {
    if x.dim() != 4 {
        return x.shallow_clone();
    }
    x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
}

/// A tensor that follows from a network's shape alone, and is in no file. Copies share it.
#[derive(Debug)]
pub struct Constant(Tensor);

impl Constant {
    /// These numbers, where the network's parameters are.
    pub(super) fn new(root: &nn::Path, numbers: &Tensor) -> Self {
        Self(numbers.to_device(root.device()))
    }
}

impl Deref for Constant {
    type Target = Tensor;

    fn deref(&self) -> &Tensor {
        &self.0
    }
}

impl Clone for Constant {
    fn clone(&self) -> Self {
        Self(self.0.shallow_clone())
    }
}

/// Which statistics BatchNorm uses; see `Backbone::forward`.
#[derive(Debug, Clone, Copy)]
pub enum Norm<'a> {
    /// The running ones, which stay.
    Running,
    /// The batch's where the layer trains, and the updated running ones are noted; the running ones
    /// elsewhere.
    Batch(&'a Statistics),
}

/// Running statistics as a pass in training leaves them, in its order. The network's own change
/// only by `keep`, so that several shards of a step can pass at the same time.
#[derive(Debug, Default)]
pub struct Statistics(RefCell<Vec<Updated>>);

#[derive(Debug)]
struct Updated {
    /// The network's own.
    running: Tensor,
    updated: Tensor,
}

impl Statistics {
    /// Copies of a layer's statistics that the pass updates.
    fn of(&self, running: [&Tensor; 2]) -> [Tensor; 2] {
        running.map(|running| {
            let updated = tch::no_grad(|| running.copy());
            self.0.borrow_mut().push(Updated {
                running: running.shallow_clone(),
                updated: updated.shallow_clone(),
            });
            updated
        })
    }

    /// Makes the network's own the mean of what the shards of a step left.
    pub fn keep(shards: impl IntoIterator<Item = Self>) {
        let _no_grad = tch::no_grad_guard();
        let mut shards: Vec<_> = shards
            .into_iter()
            .map(|shard| shard.0.into_inner().into_iter())
            .collect();
        loop {
            let next: Vec<Updated> = shards.iter_mut().filter_map(Iterator::next).collect();
            let Some(first) = next.first() else { break };
            let updated: Vec<&Tensor> = next.iter().map(|one| &one.updated).collect();
            let mean = match updated[..] {
                [only] => only.shallow_clone(),
                _ => Tensor::stack(&updated, 0).mean_dim([0i64].as_slice(), false, None),
            };
            first.running.shallow_clone().copy_(&mean);
        }
    }
}

/// BatchNorm of x [N, C, ..] by a layer's weight, bias, running mean and variance: in training, on
/// the batch's statistics, with the updated running ones `noted`; else on the running ones.
pub(super) fn batch_norm(
    x: &Tensor,
    [weight, bias, mean, variance]: [&Tensor; 4],
    noted: Option<&Statistics>,
    eps: f64,
    cudnn: bool,
) -> Tensor {
    let running = [mean, variance];
    let updated = noted.map(|noted| noted.of(running));
    let [mean, variance] = updated.as_ref().map_or(running, |all| all.each_ref());
    x.batch_norm(
        Some(weight),
        Some(bias),
        Some(mean),
        Some(variance),
        updated.is_some(),
        MOMENTUM,
        eps,
        cudnn,
    )
}

/// Keyed dropout masks of some samples of a step: a sample has the same ones whatever samples pass
/// together with it.
#[derive(Debug, Clone, Copy)]
pub struct Masks {
    /// Key of the step's masks.
    pub key: u64,
    /// Samples of the step before the first of these.
    pub first: usize,
}

impl Masks {
    /// The masks of one of several layers.
    pub(super) fn of_layer(self, index: u64) -> Self {
        Self {
            key: self.key.wrapping_add(index << 32),
            ..self
        }
    }
}

/// How one pass runs through the operations.
#[derive(Debug, Clone, Copy)]
pub struct Pass<'a> {
    pub norm: Norm<'a>,
    /// In training, the masks of adapters' dropout; `None` drops nothing.
    pub dropout: Option<Masks>,
    /// For texts: [N, T], 1 for a token and 0 behind the text's end. `None` for images, and for
    /// texts of one length.
    pub mask: Option<&'a Tensor>,
}

impl<'a> From<Norm<'a>> for Pass<'a> {
    fn from(norm: Norm<'a>) -> Self {
        Self {
            norm,
            dropout: None,
            mask: None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    None,
    Relu,
    /// `min(max(x, 0), 6)`
    Relu6,
    /// `x * sigmoid(x)`, also called swish.
    Silu,
    /// `x * relu6(x + 3) / 6`
    HardSwish,
    /// `x * Φ(x)`, exact.
    Gelu,
    /// `x * sigmoid(1.702 x)`, as OpenAI trained CLIP.
    QuickGelu,
}

impl Activation {
    /// Takes `x` over: its memory is used again where that is safe for the gradient.
    pub fn apply(self, mut x: Tensor) -> Tensor {
        match self {
            Self::None => x,
            Self::Relu => x.relu_(),
            Self::Relu6 => x.relu6_(),
            // Its gradient needs its input.
            Self::Silu if !x.requires_grad() => x.silu_(),
            Self::Silu => x.silu(),
            Self::HardSwish if !x.requires_grad() => x.hardswish_(),
            Self::HardSwish => x.hardswish(),
            Self::Gelu => x.gelu("none"),
            Self::QuickGelu => (&x * 1.702).sigmoid() * x,
        }
    }
}

/// The path of the module in a dotted name, and the last part of that name.
fn at<'a, 'b>(root: &nn::Path<'a>, name: &'b str) -> (nn::Path<'a>, &'b str) {
    let mut parts = name.split('.');
    let leaf = parts.next_back().unwrap_or(name);
    (parts.fold(root.clone(), |path, part| path / part), leaf)
}

/// Applies `f`, which works on the last dimension, to the channels: the second dimension of maps
/// [N, C, h, w], the last of tokens [N, T, C].
pub(super) fn over_channels(x: &Tensor, f: impl Fn(&Tensor) -> Tensor) -> Tensor {
    if x.dim() == 4 {
        f(&x.permute([0, 2, 3, 1])).permute([0, 3, 1, 2])
    } else {
        f(x)
    }
}

/// The positions of a map [N, C, h, w] as tokens [N, h * w, C]; tokens stay.
pub(super) fn tokens(x: &Tensor) -> Tensor {
    if x.dim() == 4 {
        x.flatten(2, 3).transpose(1, 2)
    } else {
        x.shallow_clone()
    }
}

/// Applies `f`, which takes tokens and gives as many, to tokens or to the positions of a map.
pub(super) fn over_tokens(x: &Tensor, f: impl Fn(Tensor) -> Tensor) -> Tensor {
    let out = f(tokens(x));
    if x.dim() == 4 {
        let size = x.size();
        out.transpose(1, 2).unflatten(2, [size[2], size[3]])
    } else {
        out
    }
}
