//! SGD and AdamW over tensors, with their state in plain sight so that it can be saved: `tch`'s own
//! expose none. Each is what PyTorch's computes with `fused=True`.
#![expect(
    unsafe_code,
    reason = "threads share tensors, which tch does not allow by itself"
)]

use std::collections::{BTreeMap, HashMap, HashSet};

use tch::{Device, Tensor};

use super::fused::{self, Tensors};
use crate::{
    domain::recipe,
    process::{
        error::TrainError,
        parallel::{self, Shared},
    },
    train::network::{
        Network,
        parameter::{Group, Parameter},
    },
};

const MOMENTUM: f64 = 0.9;
const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPSILON: f64 = 1e-8;
/// Keeps the clipping factor finite when all gradients are 0, as `torch.nn.utils.clip_grad_norm_`.
const CLIP_EPSILON: f64 = 1e-6;
/// Numbers of a piece: few enough that four tensors and what is between them stay in a cache, and
/// each operation is worth its call.
const PIECE: i64 = 1 << 18;

/// Numbers of all parameters from which on threads share a step.
const SHARED_NUMBERS: usize = 1 << 20;

/// The rates of one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    pub head: f64,
    /// The rate of the backbone's last stage.
    pub backbone: f64,
    /// The factor from each stage to the one before it.
    pub layer_decay: f64,
    /// Steps over which parameters that join later warm up.
    pub warmup: u64,
}

impl Rates {
    /// The recipe's peak rates times `factor`.
    pub fn at(recipe: &recipe::Recipe, factor: f64) -> Self {
        Self {
            head: factor * recipe.learning_rate,
            backbone: factor * recipe.backbone_learning_rate,
            layer_decay: recipe.layer_decay,
            warmup: 0,
        }
    }

    /// The factor of a parameter's rate in its step `own_step` (from 1) after joining a run under
    /// way: the run's warm-up, over again.
    pub fn joining(self, own_step: u64) -> f64 {
        (own_step as f64 / (self.warmup + 1) as f64).min(1.0)
    }

    /// Layer-wise decay as BEiT's and timm's `param_groups_layer_decay`, a layer being a stage.
    pub fn of(self, group: Group) -> f64 {
        match group {
            Group::Head => self.head,
            Group::Backbone { depth } => self.backbone * self.layer_decay.powi(depth),
        }
    }
}

/// Updates parameters from gradients.
#[derive(Debug)]
pub struct Optimizer {
    kind: recipe::Optimizer,
    weight_decay: f64,
    gradient_clip: Option<f64>,
    ema_decay: Option<f64>,
    /// In parameter order.
    states: Vec<State>,
}

/// The state of one parameter.
#[derive(Debug)]
struct State {
    name: String,
    /// The step after which it joined.
    joined: u64,
    /// SGD's momentum buffer, or AdamW's first moment.
    first: Tensor,
    /// AdamW's second moment.
    second: Option<Tensor>,
    /// The average of the weights, or, while that is in the network, the weights; with `ema_decay`.
    average: Option<Tensor>,
}

impl Optimizer {
    /// A fresh state: all zeros.
    pub fn new(recipe: &recipe::Recipe, parameters: &[Parameter]) -> Self {
        let mut optimizer = Self {
            kind: recipe.optimizer,
            weight_decay: recipe.weight_decay,
            gradient_clip: recipe.gradient_clip,
            ema_decay: recipe.ema_decay,
            states: Vec::new(),
        };
        optimizer.regroup(parameters, 0);
        optimizer
    }

    /// Lets the network enter the phases of the freeze schedule that have begun by epoch `epoch`
    /// (from 1), one after the other, and takes over their parameters. An epoch has `epoch_steps`
    /// steps. Returns whether there was a phase to enter.
    ///
    /// # Errors
    /// `Plan` for a parameter that does not exist.
    pub fn enter_phases(
        &mut self,
        network: &mut Network,
        recipe: &recipe::Recipe,
        epoch: u32,
        epoch_steps: u64,
    ) -> Result<bool, TrainError> {
        let mut entered = false;
        while let Some(at_epoch) = network.enter_next_phase(recipe, epoch)? {
            self.regroup(&network.parameters, u64::from(at_epoch) * epoch_steps);
            entered = true;
        }
        Ok(entered)
    }

    /// Takes over other parameters after step `step`: those that stay keep their state, those that
    /// are new begin with a fresh one, those that are gone lose theirs and keep their weights.
    pub fn regroup(&mut self, parameters: &[Parameter], step: u64) {
        let mut known: HashMap<String, State> = std::mem::take(&mut self.states)
            .into_iter()
            .map(|state| (state.name.clone(), state))
            .collect();
        let has_second = self.kind == recipe::Optimizer::Adamw;
        let fresh = |parameter: &Parameter| {
            let weight = parameter.tensor.detach();
            State {
                name: parameter.name.clone(),
                joined: step,
                first: weight.zeros_like(),
                second: has_second.then(|| weight.zeros_like()),
                average: self.ema_decay.map(|_| weight.copy()),
            }
        };
        let states = parameters.iter().map(|parameter| {
            let state = known.remove(&parameter.name);
            state.unwrap_or_else(|| fresh(parameter))
        });
        self.states = states.collect();
    }

    /// Takes step `step` (from 1): changes `parameters` in place. Gradients are in parameter order
    /// and are used up.
    pub fn step(
        &mut self,
        parameters: &mut [Parameter],
        gradients: Vec<Tensor>,
        step: u64,
        rates: Rates,
    ) {
        let _no_grad = tch::no_grad_guard();
        let threads = threads(parameters);
        let pairs = gradients.into_iter().zip(&*parameters);
        let gradients: Vec<Tensor> = pairs
            .map(|(gradient, parameter)| laid_out_as(&parameter.tensor, gradient))
            .collect();
        let factor = self
            .gradient_clip
            .and_then(|limit| clip_factor(&gradients, limit, threads));
        let own_steps = self.own_steps(parameters, step);
        let pieces: Vec<(usize, Piece)> = (0..)
            .zip(parameters.iter())
            .flat_map(|(place, parameter)| {
                pieces(&parameter.tensor)
                    .into_iter()
                    .map(move |piece| (place, piece))
            })
            .collect();
        // SAFETY: each piece is another part of the tensors, and one thread changes it.
        let read = (&*self, &*parameters, &gradients, &factor, &own_steps);
        let shared = unsafe { Shared::new(read) };
        parallel::over(&pieces, threads, |&(place, piece)| {
            let (optimizer, parameters, gradients, factor, own_steps) = *shared;
            let _no_grad = tch::no_grad_guard();
            let (parameter, state) = (&parameters[place], &optimizer.states[place]);
            // A parameter that joined later has its own steps for warm-up and bias correction.
            let own_step = step - state.joined;
            let rate = match state.joined {
                0 => rates.of(parameter.group),
                _ => rates.of(parameter.group) * rates.joining(own_step),
            };
            let gradient = piece.of(&gradients[place]);
            let tensors = Tensors {
                weight: piece.of(&parameter.tensor),
                gradient: match factor {
                    Some(factor) => gradient * factor,
                    None => gradient,
                },
                first: piece.of(&state.first),
                second: state.second.as_ref().map(|second| piece.of(second)),
            };
            match state.second {
                Some(_) => {
                    let decays = parameter.tensor.dim() >= 2;
                    let own_step = &own_steps[&state.joined];
                    optimizer.adamw(tensors, own_step, rate, decays);
                }
                None => optimizer.sgd(tensors, rate),
            }
        });
        self.average(parameters, step);
    }

    /// The number of step `step` for the parameters that joined after each step, as torch takes it.
    fn own_steps(&self, parameters: &[Parameter], step: u64) -> HashMap<u64, Tensor> {
        let device = parameters
            .first()
            .map_or(Device::Cpu, |one| one.tensor.device());
        let joined: HashSet<u64> = self.states.iter().map(|state| state.joined).collect();
        let own_step = |joined| Tensor::from((step - joined) as f32).to_device(device);
        let joined = joined.into_iter();
        joined.map(|joined| (joined, own_step(joined))).collect()
    }

    /// Takes this step's weights into their averages (Polyak & Juditsky 1992). Early on less of the
    /// past is kept, `(1 + step) / (10 + step)`, as TensorFlow's `ExponentialMovingAverage` does:
    /// the first weights weigh little.
    fn average(&mut self, parameters: &[Parameter], step: u64) {
        let Some(decay) = self.ema_decay else {
            return;
        };
        let kept = decay.min((1.0 + step as f64) / (10.0 + step as f64));
        for (average, parameter) in self.averages().zip(parameters) {
            let _ = average.lerp_(&parameter.tensor, 1.0 - kept);
        }
    }

    /// Exchanges weights and their averages, in place; a second call puts them back. Nothing
    /// without `ema_decay`.
    pub fn swap_averages(&mut self, parameters: &mut [Parameter]) {
        let _no_grad = tch::no_grad_guard();
        for (average, parameter) in self.averages().zip(parameters) {
            let weights = parameter.tensor.copy();
            parameter.tensor.copy_(average);
            average.copy_(&weights);
        }
    }

    /// One for each parameter, or none without `ema_decay`.
    fn averages(&mut self) -> impl Iterator<Item = &mut Tensor> {
        let states = self.states.iter_mut();
        states.filter_map(|state| state.average.as_mut())
    }

    /// `torch.optim.SGD(momentum=0.9)` (Sutskever et al. 2013): weight decay is L2 on every tensor.
    /// A momentum buffer of zeros makes the first step PyTorch's, which starts the buffer as the
    /// gradient.
    fn sgd(&self, tensors: Tensors, rate: f64) {
        let rates = fused::Rates {
            rate,
            weight_decay: self.weight_decay,
            beta1: MOMENTUM,
            beta2: 0.0,
            epsilon: 0.0,
        };
        fused::sgd(tensors, self.kind == recipe::Optimizer::Nesterov, rates);
    }

    /// `torch.optim.AdamW` (Loshchilov & Hutter 2019), bias-corrected: weight decay is decoupled,
    /// and only on tensors of two or more dimensions (no bias, no normalization).
    fn adamw(&self, tensors: Tensors, own_step: &Tensor, rate: f64, decays: bool) {
        let rates = fused::Rates {
            rate,
            weight_decay: if decays { self.weight_decay } else { 0.0 },
            beta1: BETA1,
            beta2: BETA2,
            epsilon: EPSILON,
        };
        fused::adamw(tensors, own_step, rates);
    }

    /// The state under stable names: `momentum.<parameter>`, or `first.<parameter>` and
    /// `second.<parameter>`; and with averages, which are the network's tensors then
    /// (`swap_averages`), the weights as `weights.<parameter>`.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let tensors = self.named();
        tensors
            .map(|(name, tensor)| (name, tensor.copy()))
            .collect()
    }

    fn named(&self) -> impl Iterator<Item = (String, &Tensor)> {
        let first = match self.kind {
            recipe::Optimizer::Sgd | recipe::Optimizer::Nesterov => "momentum",
            recipe::Optimizer::Adamw => "first",
        };
        let of_kind = move |kind: &'static str, tensor: fn(&State) -> Option<&Tensor>| {
            let states = self.states.iter();
            states.filter_map(move |state| Some((format!("{kind}.{}", state.name), tensor(state)?)))
        };
        of_kind(first, |state| Some(&state.first))
            .chain(of_kind("second", |state| state.second.as_ref()))
            .chain(of_kind("weights", |state| state.average.as_ref()))
    }

    /// Takes over a saved state.
    ///
    /// # Errors
    /// Names the first tensor that is missing or has another shape.
    pub fn restore(&mut self, saved: &BTreeMap<String, Tensor>) -> Result<(), String> {
        let _no_grad = tch::no_grad_guard();
        for (name, tensor) in self.named() {
            let source = saved
                .get(&name)
                .ok_or_else(|| format!("has no tensor `{name}`"))?;
            if source.size() != tensor.size() {
                return Err(format!(
                    "tensor `{name}` is {:?}, not {:?}",
                    source.size(),
                    tensor.size()
                ));
            }
            tensor.shallow_clone().copy_(source);
        }
        Ok(())
    }
}

/// The factor of all gradients so that their common norm is at most `limit`, as
/// `torch.nn.utils.clip_grad_norm_`; no host sync. `None` where there are none.
fn clip_factor(gradients: &[Tensor], limit: f64, threads: usize) -> Option<Tensor> {
    if gradients.is_empty() {
        return None;
    }
    let places: Vec<usize> = (0..gradients.len()).collect();
    // SAFETY: gradients are only read.
    let shared = unsafe { Shared::new(gradients) };
    let norms = parallel::over(&places, threads, |&place| {
        let _no_grad = tch::no_grad_guard();
        shared[place].norm()
    });
    let norm = Tensor::stack(&norms, 0).norm();
    Some(((norm + CLIP_EPSILON).reciprocal() * limit).clamp_max(1.0))
}

/// Threads that share a step: one where they would find too little to do, and for a GPU.
fn threads(parameters: &[Parameter]) -> usize {
    let on_cpu = |parameter: &&Parameter| parameter.tensor.device() == Device::Cpu;
    let on_cpu = parameters.iter().filter(on_cpu);
    let numbers: usize = on_cpu.map(|parameter| parameter.tensor.numel()).sum();
    if numbers < SHARED_NUMBERS {
        return 1;
    }
    parallel::threads()
}

/// A part of a tensor along its first dimension.
#[derive(Debug, Clone, Copy)]
struct Piece {
    start: i64,
    rows: i64,
}

impl Piece {
    fn of(self, tensor: &Tensor) -> Tensor {
        if self.rows == tensor.size().first().copied().unwrap_or(self.rows) {
            return tensor.detach();
        }
        tensor.detach().narrow(0, self.start, self.rows)
    }
}

/// A tensor in pieces that stay in a processor's cache through all operations of a step; on a GPU,
/// where each operation has a price of its own, in one.
fn pieces(tensor: &Tensor) -> Vec<Piece> {
    let rows = tensor.size().first().copied().unwrap_or(1);
    let width = tensor.numel() as i64 / rows.max(1);
    let most = match tensor.device() {
        Device::Cpu => (PIECE / width.max(1)).max(1),
        _ => rows,
    };
    let starts = (0..rows).step_by(most.max(1) as usize);
    starts
        .map(|start| Piece {
            start,
            rows: most.min(rows - start),
        })
        .collect()
}

/// The same numbers in the order in memory that `tensor` has.
fn laid_out_as(tensor: &Tensor, numbers: Tensor) -> Tensor {
    if numbers.stride() == tensor.stride() {
        return numbers;
    }
    let mut same = tensor.detach().empty_like();
    same.copy_(&numbers);
    same
}

/// The gradients of `loss` with respect to `parameters`, in their order.
///
/// # Errors
/// `Torch` with C++'s text, `OutOfMemory` when that is what it says.
pub fn gradients(loss: &Tensor, parameters: &[Parameter]) -> Result<Vec<Tensor>, TrainError> {
    let tensors: Vec<&Tensor> = parameters
        .iter()
        .map(|parameter| &parameter.tensor)
        .collect();
    Ok(Tensor::f_run_backward(&[loss], &tensors, false, false)?)
}
