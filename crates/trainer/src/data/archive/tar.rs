//! Tar archives, read as a stream.

use std::io::{self, Read};

use ::tar::EntryType;

use super::{
    entry_path::shown,
    error::{ArchiveError, broken, refused},
    metered::Metered,
    spool::Spooler,
};
use crate::data::codes;

/// Largest headers of an entry in bytes, long names included; the tar reader itself has no limit.
const HEADER_BYTES: u64 = 1 << 20;
/// Bytes of headers and ignored entries that may be read beyond those that the ratio allows.
const UNWRITTEN_BYTES: u64 = 64 << 20;
/// Bytes of a header.
pub(super) const BLOCK_BYTES: u64 = 512;

/// True when a tar may start with this: a header with a correct checksum, or the zeros that end an
/// empty tar.
pub(super) fn is_header(block: &[u8]) -> bool {
    let Ok(block) = <&[u8; BLOCK_BYTES as usize]>::try_from(block) else {
        return false;
    };
    if block.iter().all(|&byte| byte == 0) {
        return true;
    }
    let header = ::tar::Header::from_byte_slice(block);
    // The checksum counts its own eight bytes as spaces.
    let mut counted = *block;
    counted[148..156].fill(b' ');
    let sum: u32 = counted.into_iter().map(u32::from).sum();
    header.cksum().is_ok_and(|said| said == sum)
}

/// Reads all entries into the spooler.
pub(super) fn read(mut stream: impl Read, spooler: &mut Spooler) -> Result<(), ArchiveError> {
    let mut start = Vec::new();
    let mut first = stream.by_ref().take(BLOCK_BYTES);
    let read = first.read_to_end(&mut start);
    read.map_err(|error| broken("", error))?;
    if !is_header(&start) {
        let message = "this is a compressed file, but there is no tar inside; `tar czf data.tar.gz cats dogs` makes a data set of folders";
        return Err(refused("", codes::NOT_AN_ARCHIVE, message));
    }
    let (metered, left) = Metered::new(io::Cursor::new(start).chain(stream), 0);
    let mut unwritten_left = UNWRITTEN_BYTES.saturating_add(spooler.ratio_bytes);
    let mut archive = ::tar::Archive::new(metered);
    let mut entries = archive.entries().map_err(|error| broken("", error))?;
    loop {
        let allowed = HEADER_BYTES.min(unwritten_left);
        left.set(allowed);
        let Some(entry) = entries.next() else {
            return Ok(());
        };
        let mut entry = entry.map_err(|error| header_error(error, spooler))?;
        unwritten_left -= allowed - left.get();
        left.set(u64::MAX);
        let name = entry.path_bytes().into_owned();
        if is_sparse(&mut entry)? {
            return Err(sparse(&name));
        }
        let path = spooler.admit(&name)?;
        let said_bytes = entry.size();
        if pax_size(&mut entry)?.is_some_and(|size| size != said_bytes) {
            let message =
                "the sizes of this entry in its two headers do not agree; make the archive again";
            return Err(refused(shown(&name), codes::CORRUPT_ARCHIVE, message));
        }
        let kind = entry.header().entry_type();
        // The oldest tars mark a folder only by its slash.
        let is_folder =
            kind == EntryType::Directory || (kind == EntryType::Regular && name.ends_with(b"/"));
        match path {
            Some(path) if is_folder => spooler.folder(path),
            Some(path) if matches!(kind, EntryType::Regular | EntryType::Continuous) => {
                spooler.file(path, said_bytes, &mut entry)?;
            }
            None if is_folder || matches!(kind, EntryType::Regular | EntryType::Continuous) => {}
            // Written by `git archive`: the commit.
            _ if kind == EntryType::XGlobalHeader => {}
            _ => return Err(special(&name)),
        }
        // Skips the rest of an ignored entry.
        left.set(unwritten_left);
        io::copy(&mut entry, &mut io::sink()).map_err(|error| header_error(error, spooler))?;
        unwritten_left = left.get();
    }
}

/// The size in a PAX header of an entry, which readers take in place of the other; past all sizes
/// where it is no number, which some readers pass over.
fn pax_size(entry: &mut ::tar::Entry<'_, impl Read>) -> Result<Option<u64>, ArchiveError> {
    let records = entry.pax_extensions().map_err(|error| broken("", error))?;
    let sizes = records.into_iter().flatten().flatten();
    let sizes = sizes.filter(|record| record.key_bytes() == b"size");
    let number = |record: ::tar::PaxExtension<'_>| {
        let digits = record.value().ok().and_then(|value| value.parse().ok());
        digits.unwrap_or(u64::MAX)
    };
    Ok(sizes.map(number).last())
}

/// True for files with holes that are left out: by old GNU tar, or by extensions of pax.
fn is_sparse<R: Read>(entry: &mut ::tar::Entry<'_, R>) -> Result<bool, ArchiveError> {
    let kind = entry.header().entry_type();
    let extensions = entry.pax_extensions().map_err(|error| broken("", error))?;
    let mut keys = extensions.into_iter().flatten().filter_map(Result::ok);
    let has_key = keys.any(|extension| extension.key_bytes().starts_with(b"GNU.sparse."));
    Ok(kind == EntryType::GNUSparse || has_key)
}

fn sparse(name: &[u8]) -> ArchiveError {
    let message = "this entry is a sparse file, whose holes are left out, so nothing of this archive is used; pack with \
        `tar --format=ustar -czf data.tar.gz cats dogs`, without `--sparse`";
    refused(shown(name), codes::UNSAFE_ENTRY, message)
}

fn special(name: &[u8]) -> ArchiveError {
    let message = "this entry is a link or a special file, so nothing of this archive is used; pack plain files and \
        folders (`tar --dereference --hard-dereference` packs what links point to)";
    refused(shown(name), codes::UNSAFE_ENTRY, message)
}

fn header_error(error: io::Error, spooler: &Spooler) -> ArchiveError {
    if error.kind() == io::ErrorKind::FileTooLarge {
        return spooler.ratio("");
    }
    broken("", error)
}
