//! The learning rate as a pure function of the step: nothing to save, nothing to restore.

use crate::domain::recipe::{Recipe, Schedule};

/// The factor of the peak rates at `step` (from 1) of `steps`.
///
/// Warm-up: step s of w takes s / (w + 1) of the peak, so that the step after it is the first at
/// the peak (Goyal et al. 2017). Cosine: half a cosine over what is left, as PyTorch's
/// `CosineAnnealingLR` with `eta_min` 0 (Loshchilov & Hutter 2016). Linear: a line over what is
/// left that would reach 0 one step after the last, as `get_linear_schedule_with_warmup` of Hugging
/// Face's transformers. Step: the tenth part from the first step after half of all steps, the
/// hundredth from the first after three quarters. One cycle: PyTorch's `OneCycleLR` with its
/// defaults; no other warm-up.
pub fn factor(recipe: &Recipe, step: u64, steps: u64) -> f64 {
    if recipe.schedule == Schedule::OneCycle {
        return one_cycle(step, steps);
    }
    let warmup = warmup_steps(recipe.warmup_fraction, steps);
    if step <= warmup {
        return step as f64 / (warmup + 1) as f64;
    }
    let progress = (step - 1 - warmup) as f64 / (steps - warmup).max(1) as f64;
    match recipe.schedule {
        Schedule::Constant => 1.0,
        Schedule::Cosine => cosine(1.0, 0.0, progress),
        Schedule::Linear => 1.0 - progress,
        Schedule::Step => match (step - 1) * 4 {
            taken if taken >= 3 * steps => 0.01,
            taken if taken >= 2 * steps => 0.1,
            _ => 1.0,
        },
        Schedule::OneCycle => one_cycle(step, steps),
    }
}

/// PyTorch's `OneCycleLR` with `pct_start=0.3`, `anneal_strategy="cos"`, `div_factor=25`,
/// `final_div_factor=1e4` and a peak of 1. Step `step` (from 1) of `steps` is its step `step - 1`.
fn one_cycle(step: u64, steps: u64) -> f64 {
    const FIRST: f64 = 1.0 / 25.0;
    const LAST: f64 = FIRST / 1e4;
    let (place, peak, end) = (
        (step - 1) as f64,
        0.3 * steps as f64 - 1.0,
        steps as f64 - 1.0,
    );
    if place <= peak {
        // A peak at the very first step has nothing to rise over.
        let progress = if peak > 0.0 { place / peak } else { 1.0 };
        cosine(FIRST, 1.0, progress)
    } else {
        cosine(1.0, LAST, (place - peak) / (end - peak))
    }
}

/// Half a cosine from `from` to `to`, `progress` of the way.
fn cosine(from: f64, to: f64, progress: f64) -> f64 {
    to + (from - to) * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
}

/// Steps of the warm-up, of `steps` in all.
pub fn warmup_steps(fraction: f64, steps: u64) -> u64 {
    ((fraction.clamp(0.0, 1.0) * steps as f64).round() as u64).min(steps.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rehead_test_support::recipe::recipe;

    #[test]
    fn warm_up_rises_to_the_peak_and_cosine_falls_to_nearly_nothing() {
        let recipe = Recipe {
            schedule: Schedule::Cosine,
            warmup_fraction: 0.1,
            ..recipe()
        };
        let rates: Vec<f64> = (1..=40).map(|step| factor(&recipe, step, 40)).collect();
        assert_eq!(rates[..5], [0.2, 0.4, 0.6, 0.8, 1.0]);
        assert!(rates[4..].is_sorted_by(|a, b| a > b));
        assert!(
            (rates[39] - 0.5 * (1.0 + (std::f64::consts::PI * 35.0 / 36.0).cos())).abs() < 1e-15
        );
    }

    #[test]
    fn without_warm_up_it_is_pytorchs_cosine() {
        // torch.optim.lr_scheduler.CosineAnnealingLR(optimizer with lr 1, T_max=4), 4 steps.
        let recipe = Recipe {
            schedule: Schedule::Cosine,
            warmup_fraction: 0.0,
            ..recipe()
        };
        for (step, expected) in [
            (1, 1.0),
            (2, 0.853_553_390_593_273_8),
            (3, 0.5),
            (4, 0.146_446_609_406_726_24),
        ] {
            assert!(
                (factor(&recipe, step, 4) - expected).abs() < 1e-12,
                "{step}"
            );
        }
    }

    fn rates(schedule: Schedule, warmup_fraction: f64, steps: u64) -> Vec<f64> {
        let recipe = Recipe {
            schedule,
            warmup_fraction,
            ..recipe()
        };
        (1..=steps)
            .map(|step| factor(&recipe, step, steps))
            .collect()
    }

    fn assert_close(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
    }

    /// The targets of PyTorch's own test of `OneCycleLR` (10 steps, cosine), with its default
    /// divisors and a peak of 1: the middle of the rise, the peak at the third step, sevenths of
    /// the fall.
    #[test]
    fn one_cycle_is_pytorchs() {
        let fall = |seventh: f64| {
            let (peak, last) = (1.0, 4e-6);
            last + (peak - last) / 2.0 * ((std::f64::consts::PI * seventh / 7.0).cos() + 1.0)
        };
        let mut expected = vec![0.04, 0.52, 1.0];
        expected.extend((1..=7).map(|seventh| fall(f64::from(seventh))));
        assert_close(&rates(Schedule::OneCycle, 0.0, 10), &expected);
        assert!((expected[3] - 0.950_484_632_013_473_7).abs() < 1e-12);
    }

    #[test]
    fn linear_and_step_are_what_they_say() {
        assert_close(&rates(Schedule::Linear, 0.0, 4), &[1.0, 0.75, 0.5, 0.25]);
        assert_close(
            &rates(Schedule::Linear, 0.2, 5),
            &[0.5, 1.0, 0.75, 0.5, 0.25],
        );
        let (peak, tenth, hundredth) = (1.0, 0.1, 0.01);
        assert_close(
            &rates(Schedule::Step, 0.0, 8),
            &[peak, peak, peak, peak, tenth, tenth, hundredth, hundredth],
        );
        assert_close(
            &rates(Schedule::Step, 0.0, 5),
            &[peak, peak, peak, tenth, hundredth],
        );
    }

    #[test]
    fn extremes_stay_in_bounds() {
        for fraction in [0.0, 0.5, 1.0] {
            for schedule in Schedule::ALL {
                let recipe = Recipe {
                    schedule,
                    warmup_fraction: fraction,
                    ..recipe()
                };
                for steps in 1..5 {
                    for step in 1..=steps {
                        let factor = factor(&recipe, step, steps);
                        assert!(
                            factor > 0.0 && factor <= 1.0,
                            "{fraction} {schedule:?} {step}/{steps}: {factor}"
                        );
                    }
                }
            }
        }
    }
}
