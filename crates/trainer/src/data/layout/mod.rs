//! From the files of an archive to samples with targets and splits, by the manifest or, without
//! one, by the folders. Pure.

/// A folder per class.
mod folders;
/// Rules for class names.
pub(super) mod names;
mod placed;

pub(super) use self::folders::{split_inside, split_named};
pub use self::{
    folders::read,
    placed::{Layout, Placed, SaidBy},
};

/// True for files that are called like an image that can be read here.
pub(super) fn is_named_like_an_image(path: &str) -> bool {
    let extension = path.rsplit_once('.').map_or("", |(_, extension)| extension);
    let image = ["jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp"];
    image
        .iter()
        .any(|image| image.eq_ignore_ascii_case(extension))
}

#[cfg(test)]
mod tests;
