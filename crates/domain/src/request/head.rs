//! `head`: the new layers, as asked for.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::Auto;
use crate::{
    fields::{Fields, INVALID_VALUE, OUT_OF_RANGE, Read, integer, number, word, wrong_type},
    limits,
    problem::suggestion,
    recipe::{HeadInit, HeadLayer},
};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RequestedHead {
    pub layers: Auto<Vec<HeadLayer>>,
    pub init: Auto<HeadInit>,
}

impl RequestedHead {
    /// The layers before the last linear one; none while that is not settled.
    pub fn layers(&self) -> &[HeadLayer] {
        match &self.layers {
            Auto::Value(layers) => layers,
            Auto::Auto => &[],
        }
    }
}

pub(super) fn head(fields: Fields<'_>) -> RequestedHead {
    let head = RequestedHead {
        layers: fields.auto("layers", head_layers),
        init: fields.auto("init", word(&["zero", "normal", "probe"])),
    };
    fields.finish();
    head
}

fn head_layers(value: &Value) -> Read<Vec<HeadLayer>> {
    let Value::Array(layers) = value else {
        return Err(wrong_type("a list of layers", value));
    };
    if layers.len() > limits::HEAD_LAYERS {
        return Err((
            OUT_OF_RANGE,
            format!(
                "must hold at most {} layers, not {}",
                limits::HEAD_LAYERS,
                layers.len()
            ),
        ));
    }
    layers
        .iter()
        .enumerate()
        .map(|(i, layer)| {
            head_layer(layer).map_err(|(code, message)| (code, format!("[{i}] {message}")))
        })
        .collect()
}

fn head_layer(value: &Value) -> Read<HeadLayer> {
    let kinds = [
        "linear",
        "relu",
        "gelu",
        "dropout",
        "batch_norm",
        "layer_norm",
    ];
    let on = Value::Bool(true);
    let (name, setting) = match value {
        Value::String(name) => (name, &on),
        Value::Object(layer) if layer.len() == 1 => layer.iter().next().expect("it has one entry"),
        other => {
            let expected = "an object of one entry, such as {\"dropout\": 0.2}";
            return Err(wrong_type(expected, other));
        }
    };
    let plain = |layer| match setting {
        Value::Bool(true) => Ok(layer),
        other => Err(wrong_type("true", other)),
    };
    match name.as_str() {
        "dropout" => number(0.0..1.0)(setting).map(HeadLayer::Dropout),
        "linear" => {
            integer(limits::HEAD_WIDTH)(setting).map(|width| HeadLayer::Linear(width as u32))
        }
        "relu" => plain(HeadLayer::Relu),
        "gelu" => plain(HeadLayer::Gelu),
        "batch_norm" => plain(HeadLayer::BatchNorm),
        "layer_norm" => plain(HeadLayer::LayerNorm),
        other => Err((
            INVALID_VALUE,
            format!("has no layer `{other}`; {}", suggestion(other, kinds)),
        )),
    }
    .map_err(|(code, message)| (code, format!("`{name}` {message}")))
}
