//! Weights that were trained for one input, changed for another, once and for all, by timm's rules:
//! the stem for other channels (`adapt_input_conv` of timm 1.0 `layers/` and
//! `models/_manipulate.py`), a Vision Transformer's positions for another grid of patches
//! (`resample_abs_pos_embed` of `layers/pos_embed.py`), a Swin Transformer's for windows of another
//! side.

use std::borrow::Cow;

use tch::{Kind, Tensor};

use super::{
    architecture::Architecture,
    attention::POSITIONS,
    weights::{Tensors, fits},
    windows,
};
use crate::domain::{
    base_model::{AskedPreprocessing, Preprocessing},
    codes::INVALID_VALUE,
    limits::{CHANNELS, INPUT_SIZE},
    problem::Problem,
};

/// Channels of images as most networks take them.
const RGB: i64 = 3;

fn check_side(architecture: &Architecture, side: u32) -> Result<(), Problem> {
    let (name, smallest) = (architecture.name, architecture.smallest_side());
    let message = match architecture.patch() {
        Some(patch) if !side.is_multiple_of(patch) => {
            let near = match side / patch * patch {
                0 => format!("such as {patch}"),
                below => format!("such as {below} or {}", below + patch),
            };
            format!(
                "`{name}` takes squares whose side is a multiple of its patch of {patch} pixels, {near}; not {side}"
            )
        }
        _ if side < smallest => {
            format!("`{name}` takes squares of at least {smallest} pixels a side; not {side}")
        }
        _ => return Ok(()),
    };
    let path = "preprocessing.input_size";
    Err(Problem::new(path, INVALID_VALUE, message))
}

/// The input of a network with these weights: the requested values; otherwise the weights' own
/// (channels by the stem, side by the number of positions), or those of `usual`. Gray gets the mean
/// of the usual three means and deviations; alpha gets mean 1 and deviation 1, so that an opaque
/// image's is 0.
///
/// # Errors
/// A side that is too small, or no multiple of a Vision Transformer's patch.
pub fn resolve_preprocessing(
    architecture: &Architecture,
    usual: &Preprocessing,
    asked: &AskedPreprocessing,
    tensors: &Tensors,
) -> Result<Preprocessing, Problem> {
    let has_colors = asked.mean.is_some() || asked.std.is_some();
    let stem = stem_channels(architecture, tensors).filter(|_| !has_colors);
    let channels = asked.channels.or(stem).unwrap_or(usual.channels);
    let side = positions_side(architecture, tensors);
    let input_size = asked.input_size.or(side).unwrap_or(usual.input_size);
    check_side(architecture, input_size)?;
    let values = |asked: &Option<Vec<f64>>, usual: &[f64]| match asked {
        Some(values) => Cow::Owned(values.clone()),
        None => for_channels(usual, channels),
    };
    Ok(Preprocessing {
        input_size,
        channels,
        crop_fraction: asked.crop_fraction.unwrap_or(usual.crop_fraction),
        interpolation: asked.interpolation.unwrap_or(usual.interpolation),
        mean: values(&asked.mean, &usual.mean),
        std: values(&asked.std, &usual.std),
    })
}

/// Means or deviations of red, green and blue for so many channels.
fn for_channels(usual: &[f64], channels: u32) -> Cow<'static, [f64]> {
    match channels {
        1 => Cow::Owned(vec![usual.iter().sum::<f64>() / usual.len() as f64]),
        4 => Cow::Owned(usual.iter().copied().chain([1.0]).collect()),
        _ => Cow::Owned(usual.to_vec()),
    }
}

/// Channels that the stem of these weights takes, where they are ones that an input may have.
fn stem_channels(architecture: &Architecture, tensors: &Tensors) -> Option<u32> {
    let size = tensors.get(architecture.stem)?.size();
    let channels = u32::try_from(*size.get(1)?).ok()?;
    CHANNELS.contains(&channels).then_some(channels)
}

/// Side of the input that a Vision Transformer's positions are for.
fn positions_side(architecture: &Architecture, tensors: &Tensors) -> Option<u32> {
    let patch = architecture.patch()?;
    let grid = u32::try_from(grid(tensors.get(POSITIONS)?)?).ok()?;
    let side = grid.checked_mul(patch)?;
    INPUT_SIZE.contains(&side).then_some(side)
}

/// Changes the tensors of `from` that are for another input than the network's tensors, `into`.
/// Other differences stay, for a strict load to report.
pub fn adapt(architecture: &Architecture, into: &[(String, Tensor)], from: &mut Tensors) {
    let wanted = |name: &str| into.iter().find(|(known, _)| known == name);
    let stem = architecture.stem;
    if let (Some((_, target)), Some(stem)) = (wanted(stem), from.get_mut(stem)) {
        *stem = stem_for(stem, target.size()[1]);
    }
    if let (Some((_, target)), Some(positions)) = (wanted(POSITIONS), from.get_mut(POSITIONS))
        && let (Some(old), Some(new)) = (grid(positions), grid(target))
        && old != new
        && others(positions, old) == others(target, new)
        && positions.size()[2] == target.size()[2]
        && is_usable(positions)
    {
        *positions = resample(positions, old, new);
    }
    for (name, target) in into
        .iter()
        .filter(|(name, _)| name.ends_with(windows::TABLE))
    {
        let table = from.get_mut(name).filter(|table| is_usable(table));
        if let (Some(table), &[rows, heads]) = (table, &target.size()[..])
            && matches!(table.size()[..], [old, same] if old != rows && same == heads)
            && let Some(resized) = windows::resize_table(table, rows)
        {
            *table = resized;
        }
    }
}

/// A stem [outputs, 3, k, k] for another number of channels. Gray: the sum over red, green and
/// blue, so that a gray image gives the same output. Others: red, green, blue, red and so on,
/// scaled by `3 / channels`. Any other stem stays.
fn stem_for(stem: &Tensor, channels: i64) -> Tensor {
    let size = stem.size();
    if size.len() != 4 || size[1] != RGB || channels == RGB || !is_usable(stem) {
        return stem.shallow_clone();
    }
    let wide = stem.to_kind(Kind::Float);
    if channels == 1 {
        return wide.sum_dim_intlist(1, true, Kind::Float);
    }
    let repeats = (channels + RGB - 1) / RGB;
    let repeated = wide.repeat([1, repeats, 1, 1]).narrow(1, 0, channels);
    repeated * (RGB as f64 / channels as f64)
}

/// True for numbers that a strict load accepts, as f32.
fn is_usable(tensor: &Tensor) -> bool {
    fits(Kind::Float, tensor.kind())
}

/// Patches along a side, of positions [1, grid * grid, width] or, with the class token's, [1, 1 +
/// grid * grid, width].
fn grid(positions: &Tensor) -> Option<i64> {
    let size = positions.size();
    let &[1, tokens, _] = &size[..] else {
        return None;
    };
    // No square is one more than another.
    let grid = tokens.max(0).isqrt();
    (grid > 0 && tokens - grid * grid <= 1).then_some(grid)
}

/// Positions that are not of patches.
fn others(positions: &Tensor, grid: i64) -> i64 {
    positions.size()[1] - grid * grid
}

/// Positions for another grid: bicubic, antialiased; the class token's stays.
fn resample(positions: &Tensor, old: i64, new: i64) -> Tensor {
    let width = positions.size()[2];
    let wide = positions.to_kind(Kind::Float);
    let others = others(positions, old);
    let patches = wide
        .narrow(1, others, old * old)
        .reshape([1, old, old, width])
        .permute([0, 3, 1, 2])
        .internal_upsample_bicubic2d_aa([new, new], false, None, None)
        .permute([0, 2, 3, 1])
        .reshape([1, new * new, width]);
    Tensor::cat(&[wide.narrow(1, 0, others), patches], 1)
}
