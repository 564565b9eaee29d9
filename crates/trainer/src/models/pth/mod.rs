//! Reads the files of `torch.save(model.state_dict())`, both the zip container of torch 1.6 and later and the format
//! before it. It can produce tensors and nothing else (`pickle`); libtorch's own reader never sees the bytes. Which of
//! the two formats a file has is told by its content. All sizes are checked against the file's own length.

mod archive;
mod legacy;
mod pickle;
mod saved;

use super::weights::{Tensors, WeightsError};

/// True when these bytes begin like a zip file or a pickle.
pub(super) fn is_pth(bytes: &[u8]) -> bool {
    bytes.starts_with(archive::MAGIC) || matches!(bytes, [0x80, 2..=5, ..])
}

/// The tensors of a file's bytes, contiguous.
///
/// # Errors
/// What is not a state dict, with the name that a pickle asks for; sizes that the file does not bear out.
pub fn parse(bytes: &[u8]) -> Result<Tensors, WeightsError> {
    let saved = if bytes.starts_with(archive::MAGIC) {
        archive::open(bytes)?
    } else {
        legacy::open(bytes)?
    };
    saved.tensors(bytes.len() as u64)
}

/// A pickle that has run, and the bytes of the storages it mentions.
#[derive(Debug)]
struct Saved<'a> {
    value: Value,
    machine: Machine,
    /// By key; exactly as long as the pickle says.
    storages: HashMap<String, &'a [u8]>,
}

impl Saved<'_> {
    fn tensors(&self, file_bytes: u64) -> Result<Tensors, WeightsError> {
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
        // Tensors may share a storage (tied weights); a file whose tensors come to far more than its bytes is hostile.
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
        let wrapped = WRAPPERS
            .iter()
            .find_map(|key| self.machine.lookup(self.value, key));
        let dict = wrapped
            .filter(|value| matches!(value, Value::Dict(_)))
            .unwrap_or(self.value);
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
            named = named
                .into_iter()
                .map(|(name, view)| (name[PARALLEL.len()..].to_owned(), view))
                .collect();
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

/// How many numbers of the storage lie between a view's first and last, both included. `None` past 63 bits.
fn span(view: &View) -> Option<i64> {
    if view.size.contains(&0) {
        return Some(0);
    }
    let reach = |sum: i64, (&side, &stride): (&i64, &i64)| {
        sum.checked_add(side.checked_sub(1)?.checked_mul(stride)?)
    };
    view.size.iter().zip(&view.stride).try_fold(1, reach)
}

/// Whether a view's every number lies in a storage of `count` numbers, and none is shown more often than it is there.
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
