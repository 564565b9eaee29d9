//! Files that people send in place of another: what they are, told by their first bytes, and what
//! to do.

use std::fmt;

/// Bytes that are looked at.
pub const START_BYTES: usize = 4096;
/// The first bytes of a Parquet file.
pub(super) const PARQUET: &[u8; 4] = b"PAR1";

/// A kind of file that is neither an archive, nor an image, nor weights that are read here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileKind {
    /// With its article: `a TIFF image`.
    pub name: &'static str,
    /// An imperative sentence.
    pub remedy: &'static str,
}

const LFS: &str = "`git lfs pull` brings the file that it stands for; send that";
const DOWNLOAD: &str = "the download gave a page in place of the file; download it again";
const RASTER: &str = "save it as JPEG or PNG";
const EXPORT: &str = "export it as PNG";
const UNPACK: &str = "unpack it first";
const STATE_DICT: &str = "save the PyTorch model's `state_dict()` as safetensors";
const SHARDS: &str = "merge the files that it lists into one safetensors file, and send that";

impl FileKind {
    /// The kind of a file that begins with these bytes, if it is one of those that are often sent
    /// by mistake.
    pub fn of(start: &[u8]) -> Option<Self> {
        let start = &start[..start.len().min(START_BYTES)];
        let (name, remedy) = text(start).or_else(|| binary(start))?;
        Some(Self { name, remedy })
    }
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this is {}; {}", self.name, self.remedy)
    }
}

type Named = (&'static str, &'static str);

fn text(start: &[u8]) -> Option<Named> {
    let text = String::from_utf8_lossy(start).to_ascii_lowercase();
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let begins = |with: &[&str]| with.iter().any(|with| text.starts_with(with));
    // Behind a declaration or a comment, the first element tells.
    let is_xml = begins(&["<?xml", "<!--", "<!doctype svg"]);
    if begins(&["version https://git-lfs"]) {
        Some(("a Git LFS pointer", LFS))
    } else if begins(&["<svg"]) || is_xml && text.contains("<svg") {
        Some(("an SVG drawing", EXPORT))
    } else if begins(&["<!doctype html", "<html", "<head", "<body"])
        || is_xml && text.contains("<html")
    {
        Some(("a web page (HTML)", DOWNLOAD))
    } else if begins(&["{"]) && text.contains("\"weight_map\"") {
        Some(("the index of weights in several files", SHARDS))
    } else {
        None
    }
}

fn binary(start: &[u8]) -> Option<Named> {
    Some(match start {
        [_, _, _, _, b'f', b't', b'y', b'p', brand @ ..] => media(brand),
        [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => ("a TIFF image", RASTER),
        [0xff, 0x0a, ..] | [0, 0, 0, 12, b'J', b'X', b'L', b' ', ..] => ("a JPEG XL image", RASTER),
        [0xff, 0x4f, 0xff, 0x51, ..] | [0, 0, 0, 12, b'j', b'P', ..] => {
            ("a JPEG 2000 image", RASTER)
        }
        [b'8', b'B', b'P', b'S', ..] => ("a Photoshop file", RASTER),
        [0, 0, 1, 0, _, _, ..] => ("an icon file (ICO)", RASTER),
        [b'%', b'P', b'D', b'F', ..] => ("a PDF", EXPORT),
        [0x1a, 0x45, 0xdf, 0xa3, ..] => ("a video", "extract its frames as JPEG or PNG"),
        [b'7', b'z', 0xbc, 0xaf, ..] => ("a 7z archive", UNPACK),
        [b'R', b'a', b'r', b'!', ..] => ("a RAR archive", UNPACK),
        [b'B', b'Z', b'h', ..] => ("a bzip2 file", UNPACK),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => ("an xz file", UNPACK),
        [0x89, b'H', b'D', b'F', ..] => ("an HDF5 file, as Keras writes", STATE_DICT),
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => ("a NumPy array", STATE_DICT),
        [b'G', b'G', b'U', b'F', ..] => ("a GGUF file", STATE_DICT),
        [_, _, _, _, b'T', b'F', b'L', b'3', ..] => ("a TensorFlow Lite model", STATE_DICT),
        // ir_version (a varint), then the producer's name (`ModelProto` of onnx.proto).
        [8, 1..=32, 0x12, length, name @ ..]
            if name
                .iter()
                .take(usize::from(*length))
                .all(u8::is_ascii_graphic) =>
        {
            ("an ONNX model", STATE_DICT)
        }
        _ => return None,
    })
}

/// Files of the ISO base media format, by their brands (ISO/IEC 14496-12).
fn media(brand: &[u8]) -> Named {
    let brands = &brand[..brand.len().min(32)];
    let has = |brand: &[u8]| brands.windows(4).any(|found| found == brand);
    if has(b"avif") || has(b"avis") {
        ("an AVIF image", RASTER)
    } else if [
        b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1",
    ]
    .iter()
    .any(|brand| has(*brand))
    {
        ("a HEIC image", RASTER)
    } else if has(b"jxl ") {
        ("a JPEG XL image", RASTER)
    } else {
        ("a video", "extract its frames as JPEG or PNG")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_by_their_first_bytes() {
        for (start, name) in [
            (
                &b"version https://git-lfs.github.com/spec/v1\noid sha256:"[..],
                "a Git LFS pointer",
            ),
            (b"\xef\xbb\xbf\n<!DOCTYPE HTML><html>", "a web page (HTML)"),
            (
                b"<?xml version='1.0'?><!-- x --><svg xmlns=",
                "an SVG drawing",
            ),
            (b"<?xml version='1.0'?><html xmlns=", "a web page (HTML)"),
            (
                b"{\"metadata\": {}, \"weight_map\": {",
                "the index of weights in several files",
            ),
            (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC image"),
            (b"\0\0\0\x1cftypmif1\0\0\0\0avifmif1", "an AVIF image"),
            (b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2", "a video"),
            (b"II*\0\x08\0\0\0", "a TIFF image"),
            (b"MM\0*\0\0\0\x08", "a TIFF image"),
            (b"%PDF-1.7", "a PDF"),
            (b"\x08\x07\x12\x07pytorch\x1a\x051.4", "an ONNX model"),
            (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes"),
            (b"Rar!\x1a\x07\x01\0", "a RAR archive"),
        ] {
            let found = FileKind::of(start).map(|kind| kind.name);
            assert_eq!(found, Some(name), "{}", String::from_utf8_lossy(start));
        }
    }

    #[test]
    fn usual_files_are_of_no_such_kind() {
        let png = include_bytes!("../../tests/fixtures/images/rgb.png");
        let jpeg = include_bytes!("../../tests/fixtures/images/rgb.jpg");
        let page_as_an_example = b"# Notes\n\n```html\n<html><body></body></html>\n```\n";
        for start in [
            &b""[..],
            b"path,label\n",
            b"{\"path\": 1}",
            b"PK\x03\x04",
            b"hello",
            page_as_an_example,
            png,
            jpeg,
        ] {
            assert_eq!(FileKind::of(start), None);
        }
    }
}
