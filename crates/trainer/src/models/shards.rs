//! Weights in several files, as a tar of them: a download puts the files of a repository into one,
//! and users may.

use std::io::Cursor;

use tar::{Archive, EntryType};

use super::weights::{TENSORS, Tensors, WeightsError};
use crate::domain::problem::quoted;

/// Files of one tar.
const FILES: usize = 1_000;
/// The files in the tars that torch wrote before 0.1.10.
const OLD_TORCH_FILES: [&str; 4] = ["sys_info", "pickle", "tensors", "storages"];
const OLD_TORCH: &str = "this is a tar, as torch before 0.1.10 wrote weights; load it and save its `state_dict()` with a newer torch";

/// True for a tar as every program writes it since 1988.
pub(super) fn is_tar(bytes: &[u8]) -> bool {
    bytes.get(257..262) == Some(b"ustar")
}

/// The tensors of all files, each read by `parse`.
///
/// # Errors
/// A broken tar, one with something else than files, two tensors of the same name, a limit.
pub(super) fn parse(
    bytes: &[u8],
    parse: impl Fn(&[u8]) -> Result<Tensors, WeightsError>,
) -> Result<Tensors, WeightsError> {
    let broken = |error: std::io::Error| WeightsError::format(format!("a broken tar: {error}"));
    let mut archive = Archive::new(Cursor::new(bytes));
    let mut all = Tensors::new();
    for (index, entry) in archive.entries().map_err(broken)?.enumerate() {
        let entry = entry.map_err(broken)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let name = quoted(&name);
        match entry.header().entry_type() {
            EntryType::Directory | EntryType::XGlobalHeader => continue,
            EntryType::Regular | EntryType::Continuous => {}
            _ => {
                let message = format!("the tar has `{name}`, which is not a plain file");
                return Err(WeightsError::format(message));
            }
        }
        if OLD_TORCH_FILES.contains(&&*name) {
            return Err(WeightsError::format(OLD_TORCH));
        }
        if index >= FILES {
            let message = format!("the tar has more than {FILES} files");
            return Err(WeightsError::too_large(message));
        }
        let start = entry.raw_file_position();
        let end = start.saturating_add(entry.size());
        let content = bytes.get(start as usize..end as usize);
        let content = content.ok_or_else(|| {
            WeightsError::format(format!("a broken tar: it ends within `{name}`"))
        })?;
        for (tensor, value) in parse(content).map_err(|error| in_file(&name, error))? {
            if all.contains_key(&tensor) {
                let message = format!("`{name}` holds `{tensor}`, as another file of the tar does");
                return Err(WeightsError::format(message));
            }
            all.insert(tensor, value);
        }
        if all.len() > TENSORS {
            let message = format!("more than {TENSORS} tensors in all files");
            return Err(WeightsError::too_large(message));
        }
    }
    if all.is_empty() {
        return Err(WeightsError::format("the tar has no file with tensors"));
    }
    Ok(all)
}

/// A refusal, with the name of the file in the tar.
fn in_file(name: &str, error: WeightsError) -> WeightsError {
    match error {
        WeightsError::Refused { code, message } => WeightsError::Refused {
            code,
            message: format!("`{name}`: {message}"),
        },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::*;

    /// One tensor, named by a file's content.
    fn named(bytes: &[u8]) -> Result<Tensors, WeightsError> {
        let name = String::from_utf8_lossy(bytes).into_owned();
        if name == "bad" {
            return Err(WeightsError::format("no weights"));
        }
        let tensor = Tensor::zeros([1], (Kind::Float, Device::Cpu));
        Ok(Tensors::from([(name, tensor)]))
    }

    fn tar(files: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            let written = builder.append_data(&mut header, name, content.as_bytes());
            written.expect("a tar in memory");
        }
        builder.into_inner().expect("a tar in memory")
    }

    #[test]
    fn tensors_of_all_files_are_one_set() {
        let bytes = tar(&[("a.safetensors", "x"), ("folder/b.safetensors", "y")]);
        assert!(is_tar(&bytes));
        let all = parse(&bytes, named).expect("two files");
        assert_eq!(all.keys().collect::<Vec<_>>(), ["x", "y"]);
    }

    #[test]
    fn bad_tars_are_refused_with_a_sentence() {
        let many: Vec<(String, String)> = (0..=FILES)
            .map(|number| (format!("{number}.bin"), number.to_string()))
            .collect();
        let many: Vec<(&str, &str)> = many.iter().map(|(a, b)| (&**a, &**b)).collect();
        assert!(parse(&tar(&many[1..]), named).is_ok());
        let whole = tar(&[("a.bin", "x")]);
        for (bytes, words) in [
            (tar(&many), "more than 1000 files"),
            (
                tar(&[("a.bin", "x"), ("b.bin", "x")]),
                "holds `x`, as another",
            ),
            (tar(&[("a.bin", "bad")]), "`a.bin`: no weights"),
            (tar(&[("storages", "x")]), "before 0.1.10"),
            (tar(&[]), "no file with tensors"),
            (whole[..512].to_vec(), "ends within `a.bin`"),
        ] {
            let message = parse(&bytes, named).expect_err(words).to_string();
            assert!(message.contains(words), "{message}");
        }
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(EntryType::Symlink);
        link.set_size(0);
        let mut builder = tar::Builder::new(Vec::new());
        let linked = builder.append_link(&mut link, "a.bin", "/etc/passwd");
        linked.expect("a tar in memory");
        let bytes = builder.into_inner().expect("a tar in memory");
        let message = parse(&bytes, named).expect_err("a link").to_string();
        assert!(message.contains("not a plain file"), "{message}");
    }
}
