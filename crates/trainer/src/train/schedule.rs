//! The learning rate as a pure function of the step: nothing to save, nothing to restore.

use crate::domain::recipe::{Recipe, Schedule};

/// What the peak rates are multiplied by at `step` (from 1) of `steps`.
///
/// Warm-up: step s of w takes s / (w + 1) of the peak, so that the step after it is the first at the peak (Goyal et al. 2017).
/// Cosine: half a cosine over what is left, as PyTorch's `CosineAnnealingLR` with `eta_min` 0 (Loshchilov & Hutter 2016).
pub fn factor(recipe: &Recipe, step: u64, steps: u64) -> f64 {
    let warmup = warmup_steps(recipe.warmup_fraction, steps);
    if step <= warmup {
        return step as f64 / (warmup + 1) as f64;
    }
    match recipe.schedule {
        Schedule::Constant => 1.0,
        Schedule::Cosine => {
            let progress = (step - 1 - warmup) as f64 / (steps - warmup).max(1) as f64;
            0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
        }
    }
}

fn warmup_steps(fraction: f64, steps: u64) -> u64 {
    ((fraction.clamp(0.0, 1.0) * steps as f64).round() as u64).min(steps.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::test_recipe;

    #[test]
    fn warm_up_rises_to_the_peak_and_cosine_falls_to_nearly_nothing() {
        let recipe = Recipe {
            schedule: Schedule::Cosine,
            warmup_fraction: 0.1,
            ..test_recipe()
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
            ..test_recipe()
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

    #[test]
    fn extremes_stay_in_bounds() {
        for fraction in [0.0, 0.5, 1.0] {
            for schedule in [Schedule::Constant, Schedule::Cosine] {
                let recipe = Recipe {
                    schedule,
                    warmup_fraction: fraction,
                    ..test_recipe()
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
