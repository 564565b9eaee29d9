//! Builds an ONNX graph node by node. Each value knows its shape, but for the number of samples,
//! which each run of the graph chooses.

use std::collections::HashMap;

use prost::bytes::Bytes;
use tch::{Kind, Tensor};

use super::proto::{
    self, ATTRIBUTE_FLOAT, ATTRIBUTE_INT, ATTRIBUTE_INTS, Attribute, Dimension, FLOAT, INT64, Node,
    Shape, Side, TensorType, Type, ValueInfo,
};
use crate::models::{
    conv::{BatchNorm, Conv},
    pass::Activation,
    weights::contiguous_bytes,
};

/// The first side of every value that depends on the input.
const SAMPLES: i64 = -1;

/// A value of the graph.
#[derive(Debug, Clone)]
pub(super) struct Value {
    name: String,
    /// The shape; the first side is `SAMPLES` where it depends on the input.
    pub(super) dims: Vec<i64>,
}

impl Value {
    /// All sides but the first and the last.
    fn with_last(&self, last: i64) -> Vec<i64> {
        let (_, before) = self.dims.split_last().expect("a value has sides");
        [before, &[last]].concat()
    }
}

/// A graph that grows. Methods are named after ONNX's operators; axes count the samples as axis 0.
#[derive(Debug, Default)]
pub(super) struct GraphBuilder {
    nodes: Vec<Node>,
    constants: Vec<proto::Tensor>,
    /// How often each name was wanted.
    names: HashMap<String, u32>,
}

impl GraphBuilder {
    /// The graph's input [N, ..].
    pub(super) fn input(&mut self, name: &str, dims: &[i64]) -> Value {
        Value {
            name: self.unique(name),
            dims: [&[SAMPLES], dims].concat(),
        }
    }

    /// The finished graph: the last node's output is its own, called `name`.
    pub(super) fn finish(mut self, input: &Value, output: &Value, name: &str) -> proto::Graph {
        let last = self.nodes.last_mut().map(|node| &mut node.output[..]);
        match last {
            Some([last]) if *last == output.name => name.clone_into(last),
            other => panic!("{other:?} is not {output:?}: this is a bug"),
        }
        proto::Graph {
            node: self.nodes,
            name: "network".to_owned(),
            initializer: self.constants,
            input: vec![described(&input.name, &input.dims)],
            output: vec![described(name, &output.dims)],
        }
    }

    /// Numbers that the file holds.
    pub(super) fn constant(&mut self, name: &str, numbers: &Tensor) -> Value {
        let (kind, data_type) = match numbers.kind() {
            Kind::Int64 => (Kind::Int64, INT64),
            _ => (Kind::Float, FLOAT),
        };
        let name = self.unique(name);
        self.constants.push(proto::Tensor {
            dims: numbers.size(),
            data_type,
            name: name.clone(),
            raw_data: Bytes::from(contiguous_bytes(&numbers.to_kind(kind))),
        });
        Value {
            name,
            dims: numbers.size(),
        }
    }

    pub(super) fn scalar(&mut self, number: f64) -> Value {
        self.constant("scalar", &Tensor::from(number as f32))
    }

    fn integers(&mut self, numbers: &[i64]) -> Value {
        self.constant("integers", &Tensor::from_slice(numbers))
    }

    /// A name that nothing else has.
    fn unique(&mut self, wanted: &str) -> String {
        let count = self.names.entry(wanted.to_owned()).or_default();
        *count += 1;
        match *count {
            1 => wanted.to_owned(),
            number => format!("{wanted}_{number}"),
        }
    }

    /// Adds a node with one output, of these sides.
    fn node(
        &mut self,
        op_type: &str,
        inputs: &[&Value],
        attributes: Vec<Attribute>,
        dims: Vec<i64>,
    ) -> Value {
        let [value] = self.nodes_of(op_type, inputs, attributes, [dims]);
        value
    }

    fn nodes_of<const OUTPUTS: usize>(
        &mut self,
        op_type: &str,
        inputs: &[&Value],
        attribute: Vec<Attribute>,
        dims: [Vec<i64>; OUTPUTS],
    ) -> [Value; OUTPUTS] {
        let outputs = dims.map(|dims| Value {
            name: self.unique(op_type),
            dims,
        });
        self.nodes.push(Node {
            input: inputs.iter().map(|value| value.name.clone()).collect(),
            output: outputs.iter().map(|value| value.name.clone()).collect(),
            name: outputs[0].name.clone(),
            op_type: op_type.to_owned(),
            attribute,
        });
        outputs
    }

    /// A function of each number, such as `Relu` or `Sigmoid`.
    pub(super) fn unary(&mut self, op_type: &str, x: &Value) -> Value {
        self.node(op_type, &[x], Vec::new(), x.dims.clone())
    }

    /// `Add`, `Mul` or `Div`; the smaller value is repeated along the sides that it lacks.
    pub(super) fn binary(&mut self, op_type: &str, a: &Value, b: &Value) -> Value {
        let count = a.dims.len().max(b.dims.len());
        let side = |value: &Value, place: usize| {
            let lacking = count - value.dims.len();
            place.checked_sub(lacking).map_or(1, |at| value.dims[at])
        };
        let dims = (0..count).map(|place| match (side(a, place), side(b, place)) {
            (1, other) | (other, 1) => other,
            (one, other) => {
                assert_eq!(one, other, "{op_type} of {a:?} and {b:?}: this is a bug");
                one
            }
        });
        let dims = dims.collect();
        self.node(op_type, &[a, b], Vec::new(), dims)
    }

    pub(super) fn add(&mut self, a: &Value, b: &Value) -> Value {
        self.binary("Add", a, b)
    }

    pub(super) fn mul(&mut self, a: &Value, b: &Value) -> Value {
        self.binary("Mul", a, b)
    }

    /// `x` times a number.
    pub(super) fn scale(&mut self, x: &Value, factor: f64) -> Value {
        let factor = self.scalar(factor);
        self.mul(x, &factor)
    }

    pub(super) fn activation(&mut self, x: Value, activation: Activation) -> Value {
        match activation {
            Activation::None => x,
            Activation::Relu => self.unary("Relu", &x),
            Activation::Relu6 => {
                let bounds = [0.0, 6.0].map(|bound| self.scalar(bound));
                let inputs = [&x, &bounds[0], &bounds[1]];
                self.node("Clip", &inputs, Vec::new(), x.dims.clone())
            }
            Activation::Silu => {
                let gate = self.unary("Sigmoid", &x);
                self.mul(&x, &gate)
            }
            Activation::HardSwish => self.unary("HardSwish", &x),
            Activation::Gelu => {
                // In the order in which runtimes look for it; the operator is of a later set.
                let root = self.scalar(std::f64::consts::SQRT_2);
                let scaled = self.binary("Div", &x, &root);
                let erf = self.unary("Erf", &scaled);
                let one = self.scalar(1.0);
                let twice = self.add(&erf, &one);
                let product = self.mul(&x, &twice);
                self.scale(&product, 0.5)
            }
            Activation::QuickGelu => {
                let scaled = self.scale(&x, 1.702);
                let gate = self.unary("Sigmoid", &scaled);
                self.mul(&x, &gate)
            }
        }
    }

    /// `relu6(x + 3) / 6`
    pub(super) fn hard_sigmoid(&mut self, x: &Value) -> Value {
        let attributes = vec![float("alpha", 1.0 / 6.0), float("beta", 0.5)];
        self.node("HardSigmoid", &[x], attributes, x.dims.clone())
    }

    /// [N, C, h, w] to [N, outputs, h', w'].
    pub(super) fn conv(&mut self, x: &Value, conv: &Conv) -> Value {
        let shape = conv.shape;
        let weight = self.constant(&conv.weight.name, &conv.weight);
        let bias = conv.bias.as_ref();
        let bias = bias.map(|bias| self.constant(&bias.name, bias));
        let padding = conv.padding_of([x.dims[2], x.dims[3]]);
        let window = Window {
            kernel: shape.kernel,
            stride: shape.stride,
            padding,
        };
        let mut attributes = window.attributes();
        attributes.push(integer("group", shape.groups));
        let inputs: Vec<&Value> = [x, &weight].into_iter().chain(&bias).collect();
        let [height, width] = window.sides([x.dims[2], x.dims[3]]);
        let dims = vec![SAMPLES, shape.outputs, height, width];
        self.node("Conv", &inputs, attributes, dims)
    }

    /// `MaxPool` or `AveragePool`; the mean leaves the padding out.
    pub(super) fn pool(&mut self, op_type: &str, x: &Value, window: Window) -> Value {
        self.pool_with(op_type, x, window, None)
    }

    /// `AveragePool` that counts the padding, zeros.
    pub(super) fn padded_average_pool(&mut self, x: &Value, window: Window) -> Value {
        self.pool_with("AveragePool", x, window, Some("count_include_pad"))
    }

    fn pool_with(&mut self, op_type: &str, x: &Value, window: Window, flag: Option<&str>) -> Value {
        let [height, width] = window.sides([x.dims[2], x.dims[3]]);
        let dims = vec![SAMPLES, x.dims[1], height, width];
        let flag = flag.map(|flag| integer(flag, 1));
        let attributes = window.attributes().into_iter().chain(flag).collect();
        self.node(op_type, &[x], attributes, dims)
    }

    /// The mean over a map's positions, as a map [N, C, 1, 1].
    pub(super) fn global_average_pool(&mut self, x: &Value) -> Value {
        let dims = vec![SAMPLES, x.dims[1], 1, 1];
        self.node("GlobalAveragePool", &[x], Vec::new(), dims)
    }

    /// BatchNorm on its running statistics, over the second side.
    pub(super) fn batch_norm(&mut self, x: &Value, norm: &BatchNorm) -> Value {
        let tensors = [
            &norm.weight,
            &norm.bias,
            &norm.running_mean,
            &norm.running_var,
        ];
        let tensors = tensors.map(|param| (param.name.as_str(), &**param));
        self.batch_norm_of(x, tensors, norm.eps)
    }

    /// The same of weight, bias, mean and variance.
    pub(super) fn batch_norm_of(
        &mut self,
        x: &Value,
        all: [(&str, &Tensor); 4],
        epsilon: f64,
    ) -> Value {
        let all = all.map(|(name, tensor)| self.constant(name, tensor));
        let [weight, bias, mean, variance] = &all;
        let inputs = [x, weight, bias, mean, variance];
        let attributes = vec![float("epsilon", epsilon)];
        self.node("BatchNormalization", &inputs, attributes, x.dims.clone())
    }

    /// Layer normalization over the last side, by a weight and a bias.
    pub(super) fn layer_norm(
        &mut self,
        x: &Value,
        all: [(&str, &Tensor); 2],
        epsilon: f64,
    ) -> Value {
        let [weight, bias] = all.map(|(name, tensor)| self.constant(name, tensor));
        let attributes = vec![integer("axis", -1), float("epsilon", epsilon)];
        let inputs = [x, &weight, &bias];
        self.node("LayerNormalization", &inputs, attributes, x.dims.clone())
    }

    /// The product of matrices: [.., m, k] and [.., k, n], or [k, n].
    pub(super) fn matmul(&mut self, a: &Value, b: &Value) -> Value {
        let columns = b.dims[b.dims.len() - 1];
        self.node("MatMul", &[a, b], Vec::new(), a.with_last(columns))
    }

    /// A linear layer over the last side: weight [outputs, inputs] and bias.
    pub(super) fn linear(&mut self, x: &Value, [weight, bias]: [(&str, &Tensor); 2]) -> Value {
        let product = self.product(x, weight);
        let bias = self.constant(bias.0, bias.1);
        self.add(&product, &bias)
    }

    /// The same without a bias.
    pub(super) fn product(&mut self, x: &Value, (name, weight): (&str, &Tensor)) -> Value {
        let weight = self.constant(name, &weight.transpose(0, 1));
        self.matmul(x, &weight)
    }

    pub(super) fn softmax(&mut self, x: &Value) -> Value {
        self.node("Softmax", &[x], vec![integer("axis", -1)], x.dims.clone())
    }

    /// The axes in another order.
    pub(super) fn transpose(&mut self, x: &Value, order: &[i64]) -> Value {
        let dims = order.iter().map(|&axis| x.dims[axis as usize]).collect();
        self.node("Transpose", &[x], vec![integers("perm", order)], dims)
    }

    /// The same numbers as [samples, dims..]; the number of samples follows from the others.
    pub(super) fn reshape(&mut self, x: &Value, dims: &[i64]) -> Value {
        let numbers = |dims: &[i64]| dims.iter().product::<i64>();
        let keeps_samples = numbers(&x.dims[1..]) == numbers(dims);
        let first = if keeps_samples { 0 } else { -1 };
        let target = self.integers(&[&[first], dims].concat());
        let dims = [&[SAMPLES], dims].concat();
        self.node("Reshape", &[x, &target], Vec::new(), dims)
    }

    /// Equal parts along the last side.
    pub(super) fn split<const PARTS: usize>(&mut self, x: &Value) -> [Value; PARTS] {
        let axis = x.dims.len() - 1;
        let dims = x.with_last(x.dims[axis] / PARTS as i64);
        let attributes = vec![integer("axis", axis as i64)];
        let dims = std::array::from_fn(|_| dims.clone());
        self.nodes_of("Split", &[x], attributes, dims)
    }

    pub(super) fn concat(&mut self, parts: &[&Value], axis: usize) -> Value {
        let mut dims = parts[0].dims.clone();
        dims[axis] = parts.iter().map(|part| part.dims[axis]).sum();
        let attributes = vec![integer("axis", axis as i64)];
        self.node("Concat", parts, attributes, dims)
    }

    /// As many zeros before the second side.
    pub(super) fn zeros_before(&mut self, x: &Value, count: i64) -> Value {
        self.pad(x, [count, 0])
    }

    /// A zero behind the second side.
    pub(super) fn zero_after(&mut self, x: &Value) -> Value {
        self.pad(x, [0, 1])
    }

    fn pad(&mut self, x: &Value, [before, after]: [i64; 2]) -> Value {
        let sides = x.dims.len();
        let mut pads = vec![0; 2 * sides];
        (pads[1], pads[sides + 1]) = (before, after);
        let pads = self.integers(&pads);
        let mut dims = x.dims.clone();
        dims[1] += before + after;
        self.node("Pad", &[x, &pads], Vec::new(), dims)
    }

    /// Entries of the side `axis`, in this order.
    pub(super) fn entries(&mut self, x: &Value, axis: usize, indices: &[i64]) -> Value {
        let mut dims = x.dims.clone();
        dims[axis] = indices.len() as i64;
        let indices = self.integers(indices);
        let attributes = vec![integer("axis", axis as i64)];
        self.node("Gather", &[x, &indices], attributes, dims)
    }

    /// The entry `index` of the second side, which goes.
    pub(super) fn entry(&mut self, x: &Value, index: i64) -> Value {
        let index = self.constant("index", &Tensor::from(index));
        let mut dims = x.dims.clone();
        dims.remove(1);
        self.node("Gather", &[x, &index], vec![integer("axis", 1)], dims)
    }

    /// `ReduceMean` or `ReduceL2` over these axes, which become 1.
    pub(super) fn reduce(&mut self, op_type: &str, x: &Value, axes: &[i64]) -> Value {
        let mut dims = x.dims.clone();
        axes.iter().for_each(|&axis| dims[axis as usize] = 1);
        let attributes = vec![integers("axes", axes), integer("keepdims", 1)];
        self.node(op_type, &[x], attributes, dims)
    }

    /// [N, ..] to [N, all]
    pub(super) fn flatten(&mut self, x: &Value) -> Value {
        let dims = vec![SAMPLES, x.dims[1..].iter().product()];
        self.node("Flatten", &[x], vec![integer("axis", 1)], dims)
    }
}

/// Rectangles that move over a map. Padding is before and after, of rows, then of columns.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    /// Height and width.
    pub(super) kernel: [i64; 2],
    pub(super) stride: i64,
    pub(super) padding: [(i64, i64); 2],
}

impl Window {
    /// Squares from the first pixel on; those that the edge cuts off count, if `ceil`. They become
    /// whole by padding, because runtimes differ in what `ceil_mode` means.
    pub(super) fn unpadded(
        [height, width]: [i64; 2],
        (kernel, stride): (i64, i64),
        ceil: bool,
    ) -> Self {
        let after = |side: i64| {
            let lacking = (kernel - side).rem_euclid(stride);
            (0, if ceil { lacking } else { 0 })
        };
        Self {
            kernel: [kernel; 2],
            stride,
            padding: [after(height), after(width)],
        }
    }

    fn sides(self, sides: [i64; 2]) -> [i64; 2] {
        let side = |place: usize| {
            let (before, after) = self.padding[place];
            (sides[place] + before + after - self.kernel[place]) / self.stride + 1
        };
        [side(0), side(1)]
    }

    fn attributes(self) -> Vec<Attribute> {
        let [rows, columns] = self.padding;
        vec![
            integers("kernel_shape", &self.kernel),
            integers("strides", &[self.stride; 2]),
            integers("pads", &[rows.0, columns.0, rows.1, columns.1]),
        ]
    }
}

fn described(name: &str, dims: &[i64]) -> ValueInfo {
    let side = |&side: &i64| Dimension {
        value: Some(match side {
            SAMPLES => Side::Named("N".to_owned()),
            side => Side::Fixed(side),
        }),
    };
    ValueInfo {
        name: name.to_owned(),
        kind: Some(Type {
            tensor_type: Some(TensorType {
                elem_type: FLOAT,
                shape: Some(Shape {
                    dim: dims.iter().map(side).collect(),
                }),
            }),
        }),
    }
}

fn float(name: &str, number: f64) -> Attribute {
    Attribute {
        name: name.to_owned(),
        f: Some(number as f32),
        kind: ATTRIBUTE_FLOAT,
        ..Attribute::default()
    }
}

fn integer(name: &str, number: i64) -> Attribute {
    Attribute {
        name: name.to_owned(),
        i: Some(number),
        kind: ATTRIBUTE_INT,
        ..Attribute::default()
    }
}

fn integers(name: &str, numbers: &[i64]) -> Attribute {
    Attribute {
        name: name.to_owned(),
        ints: numbers.to_vec(),
        kind: ATTRIBUTE_INTS,
        ..Attribute::default()
    }
}
