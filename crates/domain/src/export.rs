//! The formats that models are exported in.

use crate::words;

words! {
    /// The form in which a model is exported.
    #[derive(PartialOrd, Ord)]
    pub enum ExportFormat {
        /// The model bundle, not compressed because weights do not shrink.
        Zip = "zip",
        /// A file for `torch.jit.load`: preprocessed images [N, C, S, S] in, logits [N, outputs]
        /// out. Written on the first request, and checked against the bundle's golden logits.
        Torchscript = "torchscript",
        /// A file for ONNX Runtime, OpenVINO and others, of the same inputs and outputs.
        Onnx = "onnx",
    }
}

words! {
    /// A file that computes what a fine-tuned model does, written from its bundle by a worker.
    #[derive(PartialOrd, Ord)]
    pub enum NetworkFormat {
        Torchscript = "torchscript",
        Onnx = "onnx",
    }
}

impl ExportFormat {
    /// The file that a worker writes; `None` for the bundle itself.
    pub fn network(self) -> Option<NetworkFormat> {
        match self {
            Self::Zip => None,
            Self::Torchscript => Some(NetworkFormat::Torchscript),
            Self::Onnx => Some(NetworkFormat::Onnx),
        }
    }
}

impl NetworkFormat {
    /// The format's name in messages.
    pub fn title(self) -> &'static str {
        match self {
            Self::Torchscript => "TorchScript",
            Self::Onnx => "ONNX",
        }
    }

    /// The usual end of a file's name.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Torchscript => "pt",
            Self::Onnx => "onnx",
        }
    }

    /// The name of a model's file in the object store.
    pub fn file_name(self) -> String {
        format!("model.{}", self.extension())
    }
}
