//! The tensors of a pickle that has run.

use std::collections::{BTreeMap, HashMap};

use tch::Tensor;

use super::pickle::{Machine, Value, View};
use crate::models::weights::{self, TENSORS, Tensors, WeightsError};

/// Where training scripts put the state dict among other things, in the order tried: averaged
/// weights, which are the better ones, first.
const WRAPPERS: [&str; 12] = [
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "module",
    "net",
    "network",
    "teacher",
    "student",
];
/// The prefix that `torch.nn.DataParallel` adds to every name.
const PARALLEL: &str = "module.";
/// Wrappers in wrappers that are looked into.
const WRAPPER_DEPTH: usize = 3;

/// A pickle that has run, and the bytes of the storages it mentions.
#[derive(Debug)]
pub(super) struct Saved<'a> {
    pub(super) value: Value,
    pub(super) machine: Machine,
    /// By key; exactly as long as the pickle says.
    pub(super) storages: HashMap<String, &'a [u8]>,
}

impl Saved<'_> {
    pub(super) fn tensors(&self, file_bytes: u64) -> Result<Tensors, WeightsError> {
        let named = self.named_views()?;
        if named.is_empty() {
            return Err(WeightsError::format("this file holds no tensors"));
        }
        if named.len() > TENSORS {
            return Err(WeightsError::too_large(format!(
                "{} tensors in one file; at most {TENSORS}",
                named.len()
            )));
        }
        // Tensors may share a storage (tied weights); a file whose tensors come to far more than
        // its bytes is hostile.
        let total: u64 = named
            .values()
            .map(|view| count(view).saturating_mul(self.element_bytes(view)))
            .sum();
        if total > file_bytes.saturating_mul(2) {
            return Err(WeightsError::too_large(
                "the tensors of this file would take more than twice its size",
            ));
        }
        named
            .into_iter()
            .map(|(name, view)| {
                let tensor = self.tensor(&name, view)?;
                Ok((name, tensor))
            })
            .collect()
    }

    /// The state dict's entries by name.
    fn named_views(&self) -> Result<BTreeMap<String, &View>, WeightsError> {
        let mut dict = self.value;
        for _ in 0..WRAPPER_DEPTH {
            let inside = |key: &&str| self.machine.lookup(dict, key);
            let mut inside = WRAPPERS.iter().filter_map(inside);
            match inside.find(|value| matches!(value, Value::Dict(_))) {
                Some(found) => dict = found,
                None => break,
            }
        }
        let pairs = self.machine.pairs(dict).ok_or_else(|| {
            WeightsError::format("this file holds no state dict: save `model.state_dict()`")
        })?;
        let mut named = BTreeMap::new();
        for (key, value) in pairs {
            let name = self.machine.text(key)?;
            weights::check_name(name)?;
            let Value::Tensor(place) = value else {
                let message =
                    format!("`{name}` in this file is no tensor: save `model.state_dict()` alone");
                return Err(WeightsError::format(message));
            };
            named.insert(name.to_owned(), &self.machine.views[place]);
        }
        if named.keys().all(|name| name.starts_with(PARALLEL)) {
            let short = |(name, view): (String, _)| (name[PARALLEL.len()..].to_owned(), view);
            named = named.into_iter().map(short).collect();
        }
        Ok(named)
    }

    fn element_bytes(&self, view: &View) -> u64 {
        self.machine.storages[view.storage].kind.elt_size_in_bytes() as u64
    }

    fn tensor(&self, name: &str, view: &View) -> Result<Tensor, WeightsError> {
        let storage = &self.machine.storages[view.storage];
        if !lies_within(view, storage.count) {
            return Err(WeightsError::format(format!(
                "`{name}` reaches outside its storage"
            )));
        }
        let bytes = self.storages.get(&storage.key);
        let bytes = bytes.ok_or_else(|| {
            WeightsError::format(format!("the numbers of `{name}` are not in the file"))
        })?;
        let make = || {
            let element = storage.kind.elt_size_in_bytes();
            let end = view.offset as usize + span(view).unwrap_or(0) as usize;
            let part = &bytes[view.offset as usize * element..end * element];
            let flat = Tensor::f_from_data_size(
                part,
                &[(end - view.offset as usize) as i64],
                storage.kind,
            )?;
            flat.f_as_strided(&view.size, &view.stride, 0i64)?
                .f_contiguous()
        };
        make().map_err(|error| WeightsError::unmade(name, &error))
    }
}

/// How many numbers a view shows; saturating.
fn count(view: &View) -> u64 {
    view.size.iter().fold(1u64, |product, &side| {
        product.saturating_mul(side.max(0).unsigned_abs())
    })
}

/// How many numbers of the storage lie between a view's first and last, both included. `None` past
/// 63 bits.
fn span(view: &View) -> Option<i64> {
    if view.size.contains(&0) {
        return Some(0);
    }
    let reach = |sum: i64, (&side, &stride): (&i64, &i64)| {
        sum.checked_add(side.checked_sub(1)?.checked_mul(stride)?)
    };
    view.size.iter().zip(&view.stride).try_fold(1, reach)
}

/// True when all numbers of a view lie in a storage of `storage_count` numbers, and none is shown
/// more than once.
fn lies_within(view: &View, storage_count: u64) -> bool {
    let negative = |numbers: &[i64]| numbers.iter().any(|&number| number < 0);
    if view.size.len() != view.stride.len()
        || view.offset < 0
        || negative(&view.size)
        || negative(&view.stride)
    {
        return false;
    }
    let end = span(view).and_then(|span| span.checked_add(view.offset));
    end.is_some_and(|end| end.unsigned_abs() <= storage_count)
        && count(view) <= storage_count.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(offset: i64, size: &[i64], stride: &[i64]) -> View {
        View {
            storage: 0,
            offset,
            size: size.to_vec(),
            stride: stride.to_vec(),
        }
    }

    #[test]
    fn a_view_stays_within_its_storage() {
        assert!(lies_within(&view(0, &[2, 3], &[3, 1]), 6));
        assert!(lies_within(&view(0, &[3, 2], &[1, 3]), 6));
        assert!(lies_within(&view(4, &[2], &[1]), 6));
        assert!(lies_within(&view(0, &[], &[]), 1));
        assert!(lies_within(&view(0, &[0, 5], &[5, 1]), 0));
        for (hostile, storage) in [
            (view(5, &[2], &[1]), 6),
            (view(-1, &[2], &[1]), 6),
            (view(0, &[2], &[-1]), 6),
            (view(0, &[-2], &[1]), 6),
            (view(0, &[2, 3], &[3]), 6),
            (view(0, &[1 << 40], &[0]), 1),
            (view(0, &[1 << 40, 1 << 40], &[0, 0]), 1),
            (view(0, &[i64::MAX], &[i64::MAX]), u64::MAX),
            (view(i64::MAX, &[2], &[1]), u64::MAX),
            (view(0, &[], &[]), 0),
        ] {
            assert!(!lies_within(&hostile, storage), "{hostile:?}");
        }
    }
}
