//! Continuing from a finished model or a checkpoint: loads its weights over the base model's,
//! strictly. A tensor that the network does not have is an error, so that a renamed one never
//! leaves the base model's in use. Only the old head is ignored where a new one is asked for.

use tch::{Device, Tensor};

use crate::{
    domain::{recipe::Inherited, work::PlanModel},
    models::{
        backbone::Backbone,
        head::{self, Head},
        lora,
        weights::{self, Tensors},
    },
    process::error::TrainError,
};

/// Puts what lies over the base model's weights into `backbone`, which is cut already, and into
/// `head`; `classifier` is timm's name for a linear head. Returns what the backbone is now, for the
/// cache: the base model's hash where every number is still the base model's.
///
/// # Errors
/// `Weights` for everything that does not fit.
pub(super) fn load(
    base: &PlanModel,
    inherited: Option<&Inherited>,
    backbone: &Backbone,
    head: &Head,
    classifier: &str,
) -> Result<String, TrainError> {
    let mut is_base = true;
    for (place, over) in base.over.iter().enumerate() {
        let unfit = |reason: String| {
            TrainError::Weights(format!(
                "the weights of the parent model or checkpoint do not fit: {reason}"
            ))
        };
        let unread = |error| TrainError::of_weights(error, unfit);
        let tensors = weights::read_safetensors(&over.weights).map_err(unread)?;
        let (mut of_head, mut of_backbone): (Tensors, Tensors) = tensors
            .into_iter()
            .partition(|(name, _)| is_of_head(name, classifier));
        // Only a checkpoint has adapters; a finished model has them in its weights.
        let metadata = weights::read_metadata(&over.weights).map_err(unread)?;
        if let Some(scale) = metadata
            .get(lora::SCALE)
            .and_then(|scale| scale.parse().ok())
        {
            lora::merge(&mut of_backbone, &backbone.named(), scale);
        }
        // The backbone's tensors that the file must fill: all, or those that it names.
        let mut into = backbone.named();
        into.retain(|(name, _)| over.whole || of_backbone.contains_key(name));
        let report = weights::check(&into, &of_backbone, &[]);
        if !report.is_empty() {
            return Err(unfit(report.to_string()));
        }
        is_base &= into.iter().all(|(name, tensor)| {
            tensor
                .to_device(Device::Cpu)
                .equal(&of_backbone[name].to_kind(tensor.kind()))
        });
        weights::load_strict(&into, &of_backbone, &[])
            .map_err(|report| unfit(report.to_string()))?;
        let is_parent = place + 1 == base.over.len();
        if let Some(inherited) = inherited.filter(|it| it.keeps_head())
            && is_parent
        {
            let named = head.named_as(classifier);
            if inherited.grows() {
                grow(&named, &mut of_head, i64::from(inherited.known));
            }
            weights::load_strict(&named, &of_head, &[])
                .map_err(|report| unfit(report.to_string()))?;
        }
    }
    if is_base {
        return Ok(base.weights_sha256.clone());
    }
    let over = base.over.iter().map(|over| over.sha256.as_str());
    let all: Vec<&str> = std::iter::once(base.weights_sha256.as_str())
        .chain(over)
        .collect();
    Ok(all.join("+"))
}

/// True for tensors of a head: timm's classifier, or an element of a `Sequential` named `head`.
fn is_of_head(name: &str, classifier: &str) -> bool {
    let after = |prefix: &str| name.strip_prefix(prefix)?.strip_prefix('.');
    let in_sequence = after(head::NAME).and_then(|rest| rest.split('.').next());
    let is_place = |place: &str| !place.is_empty() && place.bytes().all(|c| c.is_ascii_digit());
    matches!(after(classifier), Some("weight" | "bias")) || in_sequence.is_some_and(is_place)
}

/// Gives the last layer of a saved head the rows of `named` beyond its own `known`, shifted to the
/// mean of its own: a new class begins with the mean of the old logits, which is never the largest,
/// so that no prediction changes before the first step. (Of a head that began at zero and was
/// trained by SGD that mean is zero: cross-entropy's gradient adds up to zero over the classes.) A
/// file of another number of rows is left for the strict load to refuse.
fn grow(named: &[(String, Tensor)], of_head: &mut Tensors, known: i64) {
    // The last layer's weight and bias come last.
    for (name, fresh) in &named[named.len() - 2..] {
        let Some(old) = of_head.get_mut(name) else {
            continue;
        };
        let rows = fresh.size()[0];
        if old.size().first() == Some(&known) && known < rows {
            let fresh = fresh.detach().to_device(Device::Cpu);
            let new =
                fresh.narrow(0, known, rows - known) + old.mean_dim(&[0i64][..], true, old.kind());
            *old = Tensor::cat(&[old.shallow_clone(), new], 0);
        }
    }
}
