//! Gradients with the activations of one stage at a time.

use tch::{Kind, Tensor};

use super::{Network, Shard, parameter::Group};
use crate::{models::backbone::pool, process::error::TrainError};

impl Network {
    /// The loss of a shard's images [N, C, S, S], a scalar that `loss` makes of their features
    /// [N, `feature_dim`], and its gradients in parameter order: those of `features_train` bit for
    /// bit. A first pass keeps the input of each stage only; each stage then passes again when its
    /// gradients are due (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost"). That
    /// takes one more forward pass and the memory of the largest stage.
    ///
    /// # Errors
    /// `Torch` with C++'s text, `OutOfMemory` when that is what it says.
    pub fn recompute(
        &self,
        images: &Tensor,
        shard: &Shard,
        loss: impl FnOnce(&Tensor) -> Tensor,
    ) -> Result<(Tensor, Vec<Tensor>), TrainError> {
        let stages = &self.backbone.stages[self.frozen_stages..];
        let first_pass = Shard {
            step: shard.step,
            first: shard.first,
            ..Shard::default()
        };
        let mut inputs = vec![self.input_of_trained(images)];
        tch::no_grad(|| {
            for stage in stages {
                let next = stage.forward(&inputs[inputs.len() - 1], self.pass(&first_pass));
                inputs.push(next);
            }
        });

        let end = leaf(inputs.pop());
        let loss = loss(&pool(&end.to_kind(Kind::Float)));
        let (mut slope, of_head) = self.passed_back(&loss, &end, Group::Head)?;
        drop(end);
        let mut gradients = vec![of_head];
        for (depth, stage) in (0..).zip(stages.iter().rev()) {
            let input = leaf(inputs.pop());
            let output = stage.forward(&input, self.pass(shard));
            // Its gradient with respect to the output is `slope`.
            let scalar = (output * slope).sum(None);
            let group = Group::Backbone { depth };
            let of_stage;
            (slope, of_stage) = self.passed_back(&scalar, &input, group)?;
            gradients.push(of_stage);
        }
        gradients.reverse();
        Ok((loss.detach(), gradients.into_iter().flatten().collect()))
    }

    /// Gradients of a scalar with respect to the input, and to the parameters of a group.
    fn passed_back(
        &self,
        scalar: &Tensor,
        input: &Tensor,
        group: Group,
    ) -> Result<(Tensor, Vec<Tensor>), TrainError> {
        let of_group = self.parameters.iter().filter(|one| one.group == group);
        let asked = std::iter::once(input).chain(of_group.map(|one| &one.tensor));
        let asked: Vec<&Tensor> = asked.collect();
        let mut gradients = Tensor::f_run_backward(&[scalar], &asked, false, false)?;
        Ok((gradients.remove(0), gradients))
    }
}

/// The same numbers, from which a graph begins.
fn leaf(x: Option<Tensor>) -> Tensor {
    let x = x.expect("each stage has an input: this is a bug");
    x.detach().set_requires_grad(true)
}
