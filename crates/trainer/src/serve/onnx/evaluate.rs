//! Evaluates an ONNX file as its specification says (<https://onnx.ai/onnx/operators>), on torch's
//! operators: what a runtime would make of the bytes. It knows the operators that exports have.

use std::collections::HashMap;

use prost::{Message as _, bytes::Bytes};
use tch::{Kind, Tensor};

use crate::models::onnx::proto::{self, Attribute, FLOAT, INT64, Model, Node};

/// A file that was read.
#[derive(Debug)]
pub(super) struct Program {
    nodes: Vec<Node>,
    constants: HashMap<String, Tensor>,
    input: String,
    output: String,
    /// Place of the last node that reads a value.
    last_uses: HashMap<String, usize>,
}

impl Program {
    /// # Errors
    /// A reason that follows "the file".
    pub(super) fn read(bytes: Vec<u8>) -> Result<Self, String> {
        let model = Model::decode(Bytes::from(bytes));
        let model = model.map_err(|error| format!("cannot be read: {error}"))?;
        let graph = model.graph.ok_or("has no graph")?;
        let ([input], [output]) = (&graph.input[..], &graph.output[..]) else {
            return Err("has other than one input and one output".to_owned());
        };
        let (input, output) = (input.name.clone(), output.name.clone());
        let constants = graph.initializer.into_iter();
        let constants = constants.map(|one| Ok((one.name.clone(), constant(&one)?)));
        let constants = constants.collect::<Result<_, String>>()?;
        let mut last_uses = HashMap::new();
        for (place, node) in graph.node.iter().enumerate() {
            let inputs = node.input.iter().cloned();
            last_uses.extend(inputs.map(|name| (name, place)));
        }
        Ok(Self {
            nodes: graph.node,
            constants,
            input,
            output,
            last_uses,
        })
    }

    /// The output for this input.
    ///
    /// # Errors
    /// As `read`.
    pub(super) fn run(&self, input: &Tensor) -> Result<Tensor, String> {
        let mut values = HashMap::from([(self.input.as_str(), input.shallow_clone())]);
        for (place, node) in self.nodes.iter().enumerate() {
            let value = |name: &String| {
                let known = values.get(name.as_str()).or(self.constants.get(name));
                known
                    .map(Tensor::shallow_clone)
                    .ok_or_else(|| format!("reads `{name}` before it is there"))
            };
            let inputs: Vec<Tensor> = node.input.iter().map(value).collect::<Result<_, _>>()?;
            let outputs = Call { node }.evaluate(&inputs)?;
            if outputs.len() != node.output.len() {
                return Err(format!("has a wrong number of outputs of `{}`", node.name));
            }
            values.extend(node.output.iter().map(String::as_str).zip(outputs));
            let is_used = |name: &str| self.last_uses.get(name).is_some_and(|&last| last > place);
            values.retain(|name, _| is_used(name) || *name == self.output);
        }
        let output = values.remove(self.output.as_str());
        output.ok_or_else(|| "does not compute its output".to_owned())
    }
}

fn constant(tensor: &proto::Tensor) -> Result<Tensor, String> {
    let (kind, width) = match tensor.data_type {
        FLOAT => (Kind::Float, 4),
        INT64 => (Kind::Int64, 8),
        other => return Err(format!("has `{}` of type {other}", tensor.name)),
    };
    if tensor.dims.iter().product::<i64>() * width != tensor.raw_data.len() as i64 {
        return Err(format!("has too few or many bytes of `{}`", tensor.name));
    }
    Ok(Tensor::from_data_size(&tensor.raw_data, &tensor.dims, kind))
}

/// One node.
struct Call<'a> {
    node: &'a Node,
}

impl Call<'_> {
    fn evaluate(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        if let ("Split", [x]) = (self.node.op_type.as_str(), inputs) {
            return Ok(x.chunk(self.node.output.len() as i64, self.integer("axis", 0)?));
        }
        self.single(inputs).map(|output| vec![output])
    }

    fn single(&self, inputs: &[Tensor]) -> Result<Tensor, String> {
        Ok(match (self.node.op_type.as_str(), inputs) {
            ("Add", [a, b]) => a + b,
            ("Mul", [a, b]) => a * b,
            ("Div", [a, b]) => a / b,
            ("MatMul", [a, b]) => a.matmul(b),
            ("Relu", [x]) => x.relu(),
            ("Sigmoid", [x]) => x.sigmoid(),
            ("Erf", [x]) => x.erf(),
            ("HardSwish", [x]) => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
            ("HardSigmoid", [x]) => {
                let (alpha, beta) = (self.float("alpha", 0.2)?, self.float("beta", 0.5)?);
                (x * alpha + beta).clamp(0.0, 1.0)
            }
            ("Clip", [x, least, most]) => x.clamp_tensor(Some(least), Some(most)),
            ("Softmax", [x]) => x.softmax(self.integer("axis", -1)?, Kind::Float),
            ("Conv", [x, weight]) => self.conv(x, weight, None)?,
            ("Conv", [x, weight, bias]) => self.conv(x, weight, Some(bias))?,
            ("MaxPool", [x]) => self.max_pool(x)?,
            ("AveragePool", [x]) => self.average_pool(x)?,
            ("GlobalAveragePool", [x]) => x.mean_dim(&[2i64, 3][..], true, None),
            ("BatchNormalization", [x, weight, bias, mean, variance]) => {
                let epsilon = self.float("epsilon", 1e-5)?;
                let all = [weight, bias, mean, variance].map(Some);
                let [weight, bias, mean, variance] = all;
                x.batch_norm(weight, bias, mean, variance, false, 0.0, epsilon, false)
            }
            ("LayerNormalization", [x, weight, bias]) if self.integer("axis", -1)? == -1 => {
                let epsilon = self.float("epsilon", 1e-5)?;
                x.layer_norm(weight.size(), Some(weight), Some(bias), epsilon, false)
            }
            ("Transpose", [x]) => x.permute(self.integers("perm")?),
            ("Reshape", [x, target]) => x.reshape(sides(x, target)?),
            ("Flatten", [x]) => x.flatten(self.integer("axis", 1)?, -1),
            ("Concat", _) => Tensor::cat(inputs, self.integer("axis", 0)?),
            ("Pad", [x, pads]) => pad(x, pads)?,
            ("Gather", [x, index]) if index.dim() == 0 => {
                x.select(self.integer("axis", 0)?, index.int64_value(&[]))
            }
            ("Gather", [x, indices]) if indices.dim() == 1 => {
                x.index_select(self.integer("axis", 0)?, indices)
            }
            ("ReduceMean", [x]) if self.integer("keepdims", 1)? == 1 => {
                x.mean_dim(self.integers("axes")?, true, None)
            }
            ("ReduceL2", [x]) if self.integer("keepdims", 1)? == 1 => {
                let squares = x.square();
                let sums = squares.sum_dim_intlist(self.integers("axes")?, true, None);
                sums.sqrt()
            }
            (op_type, _) => {
                let (name, count) = (&self.node.name, inputs.len());
                return Err(format!(
                    "has `{op_type}` of {count} inputs (node `{name}`), which this version does not write"
                ));
            }
        })
    }

    fn conv(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor, String> {
        let (x, stride, groups) = (
            self.padded(x, 0.0)?,
            self.integers("strides")?,
            self.integer("group", 1)?,
        );
        Ok(x.conv2d(weight, bias, stride, [0, 0], [1, 1], groups))
    }

    fn max_pool(&self, x: &Tensor) -> Result<Tensor, String> {
        let (kernel, stride) = (self.integers("kernel_shape")?, self.integers("strides")?);
        let x = self.padded(x, f64::NEG_INFINITY)?;
        Ok(x.max_pool2d(kernel, stride, [0, 0], [1, 1], false))
    }

    /// The mean of what is not padding, or of both.
    fn average_pool(&self, x: &Tensor) -> Result<Tensor, String> {
        let (kernel, stride) = (self.integers("kernel_shape")?, self.integers("strides")?);
        let mean = |x: &Tensor| x.avg_pool2d(kernel, stride, [0, 0], false, false, None);
        if self.integer("count_include_pad", 0)? == 1 {
            return Ok(mean(&self.padded(x, 0.0)?));
        }
        let counted = x.narrow(0, 0, 1).narrow(1, 0, 1).ones_like();
        Ok(mean(&self.padded(x, 0.0)?) / mean(&self.padded(&counted, 0.0)?))
    }

    /// A map [N, C, h, w] with its `pads`: top, left, bottom, right.
    fn padded(&self, x: &Tensor, value: f64) -> Result<Tensor, String> {
        let &[top, left, bottom, right] = self.integers("pads")? else {
            return Err(format!("has no four `pads` at node `{}`", self.node.name));
        };
        Ok(x.pad([left, right, top, bottom], "constant", value))
    }

    fn attribute(&self, name: &str) -> Option<&Attribute> {
        let mut all = self.node.attribute.iter();
        all.find(|attribute| attribute.name == name)
    }

    fn integer(&self, name: &str, default: i64) -> Result<i64, String> {
        match self.attribute(name) {
            Some(attribute) => attribute.i.ok_or_else(|| self.wrong(name)),
            None => Ok(default),
        }
    }

    fn float(&self, name: &str, default: f64) -> Result<f64, String> {
        match self.attribute(name) {
            Some(attribute) => attribute.f.map(f64::from).ok_or_else(|| self.wrong(name)),
            None => Ok(default),
        }
    }

    fn integers(&self, name: &str) -> Result<&[i64], String> {
        let found = self.attribute(name).map(|attribute| &attribute.ints[..]);
        found.ok_or_else(|| self.wrong(name))
    }

    fn wrong(&self, attribute: &str) -> String {
        format!("has no valid `{attribute}` at node `{}`", self.node.name)
    }
}

/// The sides that a reshaping asks for: 0 is the input's side in its place.
fn sides(x: &Tensor, target: &Tensor) -> Result<Vec<i64>, String> {
    let target = whole_numbers(target)?;
    let sides = target.iter().enumerate().map(|(place, &side)| match side {
        0 => x.size()[place],
        side => side,
    });
    Ok(sides.collect())
}

/// Zeros around `x`: `pads` has the number before each side, then after each.
fn pad(x: &Tensor, pads: &Tensor) -> Result<Tensor, String> {
    let pads = whole_numbers(pads)?;
    let (before, after) = pads.split_at(pads.len() / 2);
    // torch begins with the last side.
    let pairs = before.iter().zip(after).rev();
    let all: Vec<i64> = pairs
        .flat_map(|(&before, &after)| [before, after])
        .collect();
    Ok(x.constant_pad_nd(all))
}

fn whole_numbers(tensor: &Tensor) -> Result<Vec<i64>, String> {
    Vec::try_from(tensor).map_err(|error| format!("has no list of whole numbers: {error}"))
}
