//! Which part of the backbone trains, and when.

use super::{adapter, freeze, network};
use crate::{
    parent::Start,
    problem::Problem,
    recipe::{Adapter, FreezePhase},
    request::{Auto, Transfer},
};

/// The trainable part of a backbone.
pub(super) struct Trained {
    pub(super) adapter: Option<Adapter>,
    /// The trainable parameters of each phase, in order; the first phase begins at epoch 0.
    pub(super) phases: Vec<FreezePhase>,
    /// True when the backbone has BatchNorm layers.
    pub(super) has_batch_norm: bool,
}

impl Trained {
    /// `None` if the choice is left to the data.
    ///
    /// # Errors
    /// Layers that the request names and the model does not have.
    pub(super) fn of(asked: &Transfer, start: Start<'_>) -> Result<Option<Self>, Vec<Problem>> {
        let left = network::layers_left(asked, start)?;
        let (adapter, phases) = match (&asked.adapter, &asked.freeze) {
            (Some(adapter), _) => {
                let adapter = adapter::resolve(adapter, start.layers, &left)?;
                let phase = FreezePhase {
                    at_epoch: 0,
                    trainable: adapter.tensors(),
                };
                (Some(adapter), vec![phase])
            }
            (None, Auto::Value(policy)) => (None, freeze::phases(policy, start.layers, &left)?),
            (None, Auto::Auto) => return Ok(None),
        };
        Ok(Some(Self {
            adapter,
            phases,
            has_batch_norm: start.layers.has_batch_norm(),
        }))
    }

    /// True when the backbone and any adapters stay as they are in every phase.
    pub(super) fn head_only(&self) -> bool {
        self.phases.iter().all(|phase| phase.trainable.is_empty())
    }

    /// Epochs, out of `n_epochs`, before anything of the backbone trains.
    pub(super) fn frozen_epochs(&self, n_epochs: u64) -> u64 {
        let mut phases = self.phases.iter();
        let first = phases.find(|phase| !phase.trainable.is_empty());
        first.map_or(n_epochs, |phase| n_epochs.min(phase.at_epoch.into()))
    }

    /// The epoch at which the last phase begins.
    pub(super) fn last_phase(&self) -> u64 {
        self.phases.last().map_or(0, |phase| phase.at_epoch.into())
    }
}

/// Checks what needs no data: the cut, the adapters, each phase of the freeze policy.
///
/// # Errors
/// Layers that the request names and the model does not have.
pub fn check_layers(asked: &Transfer, start: Start<'_>) -> Result<(), Vec<Problem>> {
    Trained::of(asked, start).map(|_| ())
}
