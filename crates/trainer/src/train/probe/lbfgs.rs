//! Limited-memory BFGS (Nocedal & Wright 2006, algorithm 7.5) for smooth convex functions of a flat
//! f64 tensor.

use std::collections::VecDeque;

use tch::Tensor;

/// Pairs of steps and gradient changes that stand for the curvature.
const MEMORY: usize = 20;
/// Share of the linear prediction that a step must gain (Armijo).
const ARMIJO: f64 = 1e-4;
/// Halvings of one step before rounding, not the step, must be what is in the way.
const MAX_HALVINGS: u32 = 40;

/// The result of a search.
#[derive(Debug)]
pub struct Minimum {
    /// f64, flat.
    pub point: Tensor,
    pub value: f64,
    pub iterations: u32,
}

struct Pair {
    step: Tensor,
    change: Tensor,
    /// 1 / (step · change)
    rho: f64,
}

/// Walks from `start` until `is_done(value, squared norm of the gradient)`, or no step gains
/// anything, or `max_iterations`. `evaluate` gives the value and the gradient at a point.
pub fn minimize(
    start: &Tensor,
    max_iterations: u32,
    evaluate: impl Fn(&Tensor) -> (f64, Tensor),
    mut is_done: impl FnMut(f64, f64) -> bool,
) -> Minimum {
    let mut point = start.copy();
    let (mut value, mut gradient) = evaluate(&point);
    let mut pairs: VecDeque<Pair> = VecDeque::with_capacity(MEMORY);
    let mut iterations = 0;
    while iterations < max_iterations && !is_done(value, dot(&gradient, &gradient)) {
        let direction = direction(&gradient, &pairs);
        let slope = dot(&gradient, &direction);
        let Some((new_point, new_value, new_gradient)) =
            search(&point, value, &direction, slope, &evaluate)
        else {
            break;
        };
        let (step, change) = (&new_point - &point, &new_gradient - &gradient);
        let curvature = dot(&step, &change);
        if curvature > 0.0 {
            if pairs.len() == MEMORY {
                pairs.pop_front();
            }
            pairs.push_back(Pair {
                step,
                change,
                rho: 1.0 / curvature,
            });
        }
        (point, value, gradient) = (new_point, new_value, new_gradient);
        iterations += 1;
    }
    Minimum {
        point,
        value,
        iterations,
    }
}

/// The two-loop recursion (Nocedal & Wright 2006, algorithm 7.4): minus the inverse Hessian times
/// the gradient.
fn direction(gradient: &Tensor, pairs: &VecDeque<Pair>) -> Tensor {
    let Some(newest) = pairs.back() else {
        // Nothing is known of the curvature yet: a step of length 1 at most.
        return gradient * (-1.0 / dot(gradient, gradient).sqrt().max(1.0));
    };
    let mut direction = -gradient;
    let mut shares = Vec::with_capacity(pairs.len());
    for pair in pairs.iter().rev() {
        let share = pair.rho * dot(&pair.step, &direction);
        direction -= &pair.change * share;
        shares.push(share);
    }
    direction *= 1.0 / (newest.rho * dot(&newest.change, &newest.change));
    for (pair, share) in pairs.iter().zip(shares.into_iter().rev()) {
        let back = pair.rho * dot(&pair.change, &direction);
        direction += &pair.step * (share - back);
    }
    direction
}

/// The first of the steps 1, 1/2, 1/4 … that gains enough.
fn search(
    point: &Tensor,
    value: f64,
    direction: &Tensor,
    slope: f64,
    evaluate: &impl Fn(&Tensor) -> (f64, Tensor),
) -> Option<(Tensor, f64, Tensor)> {
    let mut length = 1.0;
    for _ in 0..MAX_HALVINGS {
        let tried = point + direction * length;
        let (new_value, gradient) = evaluate(&tried);
        if new_value <= value + ARMIJO * length * slope && new_value < value {
            return Some((tried, new_value, gradient));
        }
        length /= 2.0;
    }
    None
}

fn dot(a: &Tensor, b: &Tensor) -> f64 {
    a.dot(b).double_value(&[])
}
