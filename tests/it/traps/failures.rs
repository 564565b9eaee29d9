//! What cannot train ends with a code.

use rehead_domain::{progress::Progress, recipe::Recipe};

use super::evaluations;
use crate::support::training::{Material, recipe};

#[test]
fn trap_26_what_cannot_train_is_an_error_with_a_code() {
    let material = Material::new(10);
    let boundless = Recipe {
        learning_rate: 3e38,
        n_epochs: 5,
        ..recipe()
    };
    let mut run = material.start("boundless", &material.plan(boundless));
    let (said, _) = run.end();
    let Some(Progress::Failed(failure)) = said.last() else {
        panic!("{said:?}");
    };
    assert_eq!(failure.code, "diverged");
    // Clipping where nothing but the head trains, and a batch of more samples than there are, are no errors.
    let lone = Recipe {
        gradient_clip: Some(1.0),
        batch_size: 1_000,
        ..recipe()
    };
    assert_eq!(evaluations(&material, "lone", lone).len(), 1);
}
