//! The source of batches: how samples of each modality are decoded, collated and altered. The rest
//! of the trainer asks here; a further modality is a further variant, and the compiler names the
//! methods that need code for it.

use tch::{Device, Kind, Tensor};

use super::{
    augment::Augmenter,
    batch::{self, BatchError},
    image::{self, DecodeError},
    pack::Pack,
};
use crate::domain::{
    augmentation::Augmentation,
    base_model::Preprocessing,
    input::{Input, Modality},
};

/// Makes batches for one model.
#[derive(Debug, Clone)]
pub enum BatchSource {
    Image(Preprocessing),
}

/// The modality has no source of batches yet.
#[derive(Debug, thiserror::Error)]
#[error("the model reads {0}, for which there is no training and no prediction yet")]
pub struct UnsupportedModality(pub Modality);

impl BatchSource {
    /// The source for a model's input.
    ///
    /// # Errors
    /// A modality that no batches can be made for.
    pub fn new(input: &Input) -> Result<Self, UnsupportedModality> {
        match input {
            Input::Image(preprocessing) => Ok(Self::Image(preprocessing.clone())),
            Input::Text(_) => Err(UnsupportedModality(input.modality())),
        }
    }

    /// Decodes samples of a pack on `threads` threads: a row of bytes each, in the order of
    /// `samples`.
    ///
    /// # Errors
    /// The first sample that cannot be decoded.
    pub fn load(
        &self,
        pack: &Pack,
        samples: &[usize],
        threads: usize,
    ) -> Result<Tensor, BatchError> {
        match self {
            Self::Image(preprocessing) => batch::load(pack, samples, preprocessing, threads),
        }
    }

    /// Decodes one sample's file to a row of bytes. `limit` bounds its decoded size, in pixels of
    /// an image.
    ///
    /// # Errors
    /// A file that is not a sample of this modality, or beyond the limit.
    pub fn decode(&self, bytes: &[u8], limit: u64) -> Result<Vec<u8>, DecodeError> {
        match self {
            Self::Image(preprocessing) => image::preprocess(bytes, limit, preprocessing),
        }
    }

    /// Joins decoded rows to the tensor that `collate` takes.
    ///
    /// # Errors
    /// An error of torch, such as a lack of memory.
    pub fn stack(&self, rows: &[u8], count: i64) -> Result<Tensor, tch::TchError> {
        let shape = match self {
            Self::Image(preprocessing) => {
                let side = i64::from(preprocessing.input_size);
                [count, side, side, i64::from(preprocessing.channels)]
            }
        };
        Tensor::f_from_data_size(rows, &shape, Kind::Uint8)
    }

    /// Decoded rows as the network's input on `device`.
    pub fn collate(&self, rows: &Tensor, device: Device) -> Tensor {
        match self {
            Self::Image(preprocessing) => batch::normalize(rows, preprocessing, device),
        }
    }

    /// Alters samples for training.
    pub fn augmenter(&self, augmentation: &Augmentation) -> Augmenter {
        match self {
            Self::Image(preprocessing) => Augmenter::new(augmentation, preprocessing),
        }
    }
}

/// A batch of `count` blank samples, to measure what a sample costs.
pub fn probe(input: &Input, count: i64) -> Tensor {
    match input {
        Input::Image(preprocessing) => {
            let side = i64::from(preprocessing.input_size);
            let shape = [count, i64::from(preprocessing.channels), side, side];
            Tensor::zeros(shape, (Kind::Float, Device::Cpu))
        }
        Input::Text(tokenization) => {
            let shape = [count, i64::from(tokenization.max_tokens)];
            Tensor::zeros(shape, (Kind::Int64, Device::Cpu))
        }
    }
}
