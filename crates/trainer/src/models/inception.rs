//! Inception v3 (Szegedy et al. 2015, <https://arxiv.org/abs/1512.00567>), as in timm 1.0
//! `inception_v3.py` and torchvision: blocks of branches whose channels are put side by side. The
//! second head that training from scratch uses is left out.

use tch::nn;

use super::{
    architecture::{Architecture, Builder, Family, rgb},
    backbone::{Backbone, Block, Stage},
    conv::{ConvNorm, ConvShape, Padding},
    ops::Op,
    pass::Activation,
};
use crate::domain::base_model::{Interpolation, Preprocessing};

const EPS: f64 = 1e-3;

/// The one member of the family.
#[derive(Debug)]
struct Inception;

pub(super) static ARCHITECTURES: &[Architecture] = &[Architecture {
    name: "inception_v3",
    library: "timm",
    feature_dim: 2048,
    classifier: "fc",
    stem: "Conv2d_1a_3x3.conv.weight",
    input: rgb(299, 0.875, Interpolation::Bicubic, (&[0.5; 3], &[0.5; 3])),
    builder: Builder::Image(&Inception),
}];

impl Family<Preprocessing> for Inception {
    /// Stages end where timm's features do: `Conv2d_2b_3x3`, `Conv2d_4a_3x3`, `Mixed_5d`,
    /// `Mixed_6e`, `Mixed_7c`.
    fn build(&self, root: &nn::Path, input: &Preprocessing) -> Backbone {
        let channels = i64::from(input.channels);
        let part = |name: &'static str| Part { root, name };
        let conv = |name, shape| Block::plain(name, vec![part(name).own(shape)]);
        let pooled = |mut block: Block| {
            block.body.insert(0, Op::MaxPoolInside);
            block
        };
        let stage = |name: &str, blocks, channels| Stage {
            name: name.to_owned(),
            blocks,
            channels,
        };
        let stem = vec![
            conv("Conv2d_1a_3x3", inside((channels, 32), (3, 2))),
            conv("Conv2d_2a_3x3", inside((32, 32), (3, 1))),
            conv("Conv2d_2b_3x3", ConvShape::dense((32, 64), (3, 1))),
        ];
        let second = vec![
            pooled(conv("Conv2d_3b_1x1", inside((64, 80), (1, 1)))),
            conv("Conv2d_4a_3x3", inside((80, 192), (3, 1))),
        ];
        let third = vec![
            pooled(part("Mixed_5b").block_a(192, 32)),
            part("Mixed_5c").block_a(256, 64),
            part("Mixed_5d").block_a(288, 64),
        ];
        let fourth = vec![
            part("Mixed_6a").block_b(288),
            part("Mixed_6b").block_c(768, 128),
            part("Mixed_6c").block_c(768, 160),
            part("Mixed_6d").block_c(768, 160),
            part("Mixed_6e").block_c(768, 192),
        ];
        let fifth = vec![
            part("Mixed_7a").block_d(768),
            part("Mixed_7b").block_e(1280),
            part("Mixed_7c").block_e(2048),
        ];
        Backbone {
            stages: vec![
                stage("Conv2d_2b_3x3", stem, 64),
                stage("Conv2d_4a_3x3", second, 192),
                stage("Mixed_5d", third, 288),
                stage("Mixed_6e", fourth, 768),
                stage("Mixed_7c", fifth, 2048),
            ],
        }
    }

    fn smallest_side(&self) -> u32 {
        75
    }
}

/// A convolution at places where its whole kernel lies in the map.
fn inside(channels: (i64, i64), size: (i64, i64)) -> ConvShape {
    ConvShape {
        padding: Padding::None,
        ..ConvShape::dense(channels, size)
    }
}

/// A block's place among the weights.
struct Part<'a> {
    root: &'a nn::Path<'a>,
    name: &'static str,
}

/// The blocks have the letters of timm's classes, `InceptionA` to `InceptionE`.
impl Part<'_> {
    /// 1x1, 5x5, two of 3x3, and the mean.
    fn block_a(&self, inputs: i64, pooled: i64) -> Block {
        self.branches(vec![
            vec![self.square("branch1x1", (inputs, 64), 1)],
            vec![
                self.square("branch5x5_1", (inputs, 48), 1),
                self.square("branch5x5_2", (48, 64), 5),
            ],
            vec![
                self.square("branch3x3dbl_1", (inputs, 64), 1),
                self.square("branch3x3dbl_2", (64, 96), 3),
                self.square("branch3x3dbl_3", (96, 96), 3),
            ],
            self.mean((inputs, pooled)),
        ])
    }

    /// Half the side: 3x3, two of 3x3, and the largest.
    fn block_b(&self, inputs: i64) -> Block {
        self.branches(vec![
            vec![self.halving("branch3x3", (inputs, 384))],
            vec![
                self.square("branch3x3dbl_1", (inputs, 64), 1),
                self.square("branch3x3dbl_2", (64, 96), 3),
                self.halving("branch3x3dbl_3", (96, 96)),
            ],
            vec![Op::MaxPoolInside],
        ])
    }

    /// 1x1, 7x7 as a row and a column, that twice, and the mean.
    fn block_c(&self, inputs: i64, inner: i64) -> Block {
        self.branches(vec![
            vec![self.square("branch1x1", (inputs, 192), 1)],
            vec![
                self.square("branch7x7_1", (inputs, inner), 1),
                self.row("branch7x7_2", (inner, inner), 7),
                self.column("branch7x7_3", (inner, 192), 7),
            ],
            vec![
                self.square("branch7x7dbl_1", (inputs, inner), 1),
                self.column("branch7x7dbl_2", (inner, inner), 7),
                self.row("branch7x7dbl_3", (inner, inner), 7),
                self.column("branch7x7dbl_4", (inner, inner), 7),
                self.row("branch7x7dbl_5", (inner, 192), 7),
            ],
            self.mean((inputs, 192)),
        ])
    }

    /// Half the side: 3x3, 7x7 and 3x3, and the largest.
    fn block_d(&self, inputs: i64) -> Block {
        self.branches(vec![
            vec![
                self.square("branch3x3_1", (inputs, 192), 1),
                self.halving("branch3x3_2", (192, 320)),
            ],
            vec![
                self.square("branch7x7x3_1", (inputs, 192), 1),
                self.row("branch7x7x3_2", (192, 192), 7),
                self.column("branch7x7x3_3", (192, 192), 7),
                self.halving("branch7x7x3_4", (192, 192)),
            ],
            vec![Op::MaxPoolInside],
        ])
    }

    /// 1x1, a row beside a column, those after 3x3, and the mean.
    fn block_e(&self, inputs: i64) -> Block {
        let beside = |row: &str, column: &str| {
            Op::Branches(vec![
                vec![self.row(row, (384, 384), 3)],
                vec![self.column(column, (384, 384), 3)],
            ])
        };
        self.branches(vec![
            vec![self.square("branch1x1", (inputs, 320), 1)],
            vec![
                self.square("branch3x3_1", (inputs, 384), 1),
                beside("branch3x3_2a", "branch3x3_2b"),
            ],
            vec![
                self.square("branch3x3dbl_1", (inputs, 448), 1),
                self.square("branch3x3dbl_2", (448, 384), 3),
                beside("branch3x3dbl_3a", "branch3x3dbl_3b"),
            ],
            self.mean((inputs, 192)),
        ])
    }

    fn branches(&self, branches: Vec<Vec<Op>>) -> Block {
        Block::plain(self.name, vec![Op::Branches(branches)])
    }

    fn mean(&self, channels: (i64, i64)) -> Vec<Op> {
        vec![Op::AvgPoolSame, self.square("branch_pool", channels, 1)]
    }

    fn square(&self, name: &str, channels: (i64, i64), side: i64) -> Op {
        self.of_kernel(name, channels, [side, side])
    }

    fn row(&self, name: &str, channels: (i64, i64), width: i64) -> Op {
        self.of_kernel(name, channels, [1, width])
    }

    fn column(&self, name: &str, channels: (i64, i64), height: i64) -> Op {
        self.of_kernel(name, channels, [height, 1])
    }

    fn of_kernel(&self, name: &str, channels: (i64, i64), kernel: [i64; 2]) -> Op {
        let shape = ConvShape {
            kernel,
            ..ConvShape::dense(channels, (1, 1))
        };
        self.named(&format!("{}.{name}", self.name), shape)
    }

    /// 3x3 at stride 2.
    fn halving(&self, name: &str, channels: (i64, i64)) -> Op {
        self.named(&format!("{}.{name}", self.name), inside(channels, (3, 2)))
    }

    /// The block's only convolution, under its own name.
    fn own(&self, shape: ConvShape) -> Op {
        self.named(self.name, shape)
    }

    fn named(&self, name: &str, shape: ConvShape) -> Op {
        let (conv, norm) = (format!("{name}.conv"), format!("{name}.bn"));
        let names = (conv.as_str(), norm.as_str());
        Op::ConvNorm(ConvNorm::new(
            self.root,
            names,
            shape,
            EPS,
            Activation::Relu,
        ))
    }
}
