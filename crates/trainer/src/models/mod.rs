//! Architectures, their weights, and the heads on top. Runs in children only. In reading order: `registry` lists what
//! there is, `backbone`, `ops`, `channels` and `attention` are what networks are made of, one file per family builds them (`text` those that read tokens), `head` is what is new in
//! a fine-tuned model and `lora` what linear layers may gain, `weights` and `pth` read files that nobody needs to trust, `adapt` changes weights for another input, `import` joins these for an uploaded
//! base model, and `fast` computes features of a backbone that does not train.

pub mod registry;

pub mod backbone;

pub mod ops;

pub mod channels;

pub mod attention;

mod inverted;

pub mod convnext;

pub mod efficientnet;

pub mod mobilenetv2;

pub mod mobilenetv3;

pub mod resnet;

pub mod squeezenet;

pub mod vit;

pub mod text;

pub mod head;

pub mod lora;

mod draws;

pub mod weights;

pub mod pth;

pub mod adapt;

pub mod import;

pub mod fast;

/// What a sample costs, stage by stage.
pub mod cost;

pub use registry::layers;

/// Whether this text of a C++ exception says that memory ran out.
pub(crate) fn lacks_memory(text: &str) -> bool {
    let lower = text.to_lowercase();
    let says = |words: &str| lower.contains(words);
    // oneDNN does not say why; once an operation has its descriptor, memory is what it can still lack.
    let primitive = (says("could not create a primitive") && !says("primitive descriptor"))
        || says("could not execute a primitive");
    primitive
        || ["out of memory", "can't allocate memory", "bad_alloc"]
            .into_iter()
            .any(says)
}
