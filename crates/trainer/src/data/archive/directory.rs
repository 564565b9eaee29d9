//! Opens zips whose directory fits into memory. A reader of zips holds the whole directory, so that
//! a file of some gigabytes that is nothing but a directory would take many times as much memory:
//! the entries are counted by the end records before they are read, and so are the bytes.

use std::io::{self, Read, Seek, SeekFrom};

use ::zip::{
    ZipArchive,
    read::{ArchiveOffset, Config},
    result::ZipError,
};

use super::metered::Metered;

/// Bytes at the end that hold the records of the end: a comment of at most 64 KiB, and some that
/// other readers pass over.
const TAIL_BYTES: u64 = 1 << 17;
/// Bytes of the directory that an entry may have, on the average: 46, and its name.
const ENTRY_BYTES: u64 = 512;
/// Bytes that may be read in search of the directory, besides.
const SEARCH_BYTES: u64 = 1 << 20;

/// Bytes of the zip64 record, and of its locator behind it.
const RECORD_BYTES: usize = 56;
const LOCATOR_BYTES: usize = 20;

/// Why a zip was not opened.
#[derive(Debug)]
pub(crate) enum DirectoryError {
    TooManyEntries,
    /// Names and comments come to too many bytes.
    TooLong,
    Unreadable(ZipError),
}

impl From<io::Error> for DirectoryError {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(error.into())
    }
}

/// Opens a zip of at most `max_entries` entries.
///
/// # Errors
/// More entries, or a longer directory than so many need; a zip that cannot be read.
pub(crate) fn open<R: Read + Seek>(
    mut reader: R,
    max_entries: u64,
) -> Result<ZipArchive<Metered<R>>, DirectoryError> {
    let Some(records) = end_records(&mut reader)? else {
        let message = "its end record is not where it should be".into();
        return Err(DirectoryError::Unreadable(ZipError::InvalidArchive(
            message,
        )));
    };
    if records.count > max_entries {
        return Err(DirectoryError::TooManyEntries);
    }
    let bytes = max_entries
        .saturating_mul(ENTRY_BYTES)
        .saturating_add(SEARCH_BYTES);
    // The reader measures from the end, and takes another entry for the first one where a record
    // that it does not expect, as torch writes it, is as long as the first.
    let archive_offset = match starts_at(&mut reader, records.directory)? {
        true => ArchiveOffset::Known(0),
        false => ArchiveOffset::Detect,
    };
    let (metered, left) = Metered::new(reader, bytes);
    let opened = ZipArchive::with_config(Config { archive_offset }, metered);
    if opened.is_err() && left.get() == 0 {
        return Err(DirectoryError::TooLong);
    }
    left.set(u64::MAX);
    opened.map_err(DirectoryError::Unreadable)
}

/// The end records of a zip.
struct EndRecords {
    /// Number of entries, the largest where they differ.
    count: u64,
    /// Where the directory starts, by the last of them.
    directory: u64,
}

/// True where the directory's first entry is at this place.
fn starts_at(reader: &mut (impl Read + Seek), directory: u64) -> io::Result<bool> {
    reader.seek(SeekFrom::Start(directory))?;
    let mut magic = Vec::new();
    reader.by_ref().take(4).read_to_end(&mut magic)?;
    reader.rewind()?;
    Ok(magic == b"PK\x01\x02")
}

/// Reads the end records. `None` where a zip64 record is not right in front of its locator, where
/// every program writes it: a reader may find another one, with another number.
fn end_records(reader: &mut (impl Read + Seek)) -> io::Result<Option<EndRecords>> {
    let end = reader.seek(SeekFrom::End(0))?;
    let start = end.saturating_sub(TAIL_BYTES);
    reader.seek(SeekFrom::Start(start))?;
    let mut tail = Vec::new();
    reader.by_ref().take(TAIL_BYTES).read_to_end(&mut tail)?;
    reader.rewind()?;
    let number = |at: usize, bytes: usize| {
        let digits = tail.get(at..at + bytes).unwrap_or_default();
        let digits = digits.iter().rev();
        digits.fold(0_u64, |number, &digit| number << 8 | u64::from(digit))
    };
    let has = |at: usize, magic: &[u8]| tail.get(at..).is_some_and(|rest| rest.starts_with(magic));
    let (mut count, mut directory) = (0, 0);
    for at in (0..tail.len()).filter(|&at| has(at, b"PK\x05\x06")) {
        let said = [number(at + 8, 2), number(at + 10, 2)];
        directory = number(at + 16, 4);
        let locator = at.checked_sub(LOCATOR_BYTES);
        let Some(locator) = locator.filter(|&locator| has(locator, b"PK\x06\x07")) else {
            count = said.into_iter().fold(count, u64::max);
            continue;
        };
        let record = locator.checked_sub(RECORD_BYTES);
        let record = record.filter(|&record| {
            has(record, b"PK\x06\x06") && number(locator + 8, 8) == start + record as u64
        });
        let Some(record) = record else {
            return Ok(None);
        };
        // Where the old record has all bits set, the new one has the number.
        if directory == 0xffff_ffff {
            directory = number(record + 48, 8);
        }
        let said = said.into_iter().filter(|&said| said != 0xffff);
        let in_record = [number(record + 24, 8), number(record + 32, 8)];
        count = said.chain(in_record).fold(count, u64::max);
    }
    Ok(Some(EndRecords { count, directory }))
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write as _};

    use ::zip::{ZipWriter, write::SimpleFileOptions};

    use super::*;

    fn zip(names: impl IntoIterator<Item = String>) -> Vec<u8> {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        for name in names {
            writer
                .start_file(name, SimpleFileOptions::default())
                .unwrap();
            writer.write_all(b"x").unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    fn names(count: usize) -> impl Iterator<Item = String> {
        (0..count).map(|number| number.to_string())
    }

    /// The same zip with a zip64 record of `count` entries, `padding` bytes before its locator.
    fn zip64(zip: &[u8], count: u64, padding: usize) -> Vec<u8> {
        let end = zip.len() - 22;
        let field = |at: usize| u32::from_le_bytes(*zip[end + at..].first_chunk().unwrap());
        let (size, start) = (u64::from(field(12)), u64::from(field(16)));
        let mut bytes = zip[..end].to_vec();
        bytes.extend(b"PK\x06\x06");
        bytes.extend((44 + padding as u64).to_le_bytes());
        bytes.extend([45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        for number in [count, count, size, start] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(vec![0; padding]);
        bytes.extend(b"PK\x06\x07\0\0\0\0");
        bytes.extend((end as u64).to_le_bytes());
        bytes.extend([1, 0, 0, 0]);
        bytes.extend(b"PK\x05\x06\0\0\0\0\xff\xff\xff\xff");
        bytes.extend([0xff; 8]);
        bytes.extend([0, 0]);
        bytes
    }

    /// The same with numbers in both records, as torch writes them.
    fn torch(zip: &[u8], count: u64) -> Vec<u8> {
        let mut bytes = zip64(zip, count, 0);
        let end = bytes.len() - 22;
        bytes[end..].copy_from_slice(&zip[zip.len() - 22..]);
        bytes
    }

    fn opened(bytes: Vec<u8>, max_entries: u64) -> Result<usize, DirectoryError> {
        open(Cursor::new(bytes), max_entries).map(|archive| archive.len())
    }

    #[test]
    fn entries_are_counted_at_the_limit_and_one_past() {
        assert!(matches!(opened(zip(names(9)), 9), Ok(9)));
        assert!(matches!(opened(zip64(&zip(names(9)), 9, 0), 9), Ok(9)));
        for bytes in [
            zip(names(10)),
            zip64(&zip(names(10)), 10, 0),
            zip64(&zip(names(9)), 10, 0),
        ] {
            assert!(matches!(
                opened(bytes, 9),
                Err(DirectoryError::TooManyEntries)
            ));
        }
    }

    /// The reader finds the record all the same, and would take the memory of its entries.
    #[test]
    fn a_record_out_of_its_place_is_refused() {
        for padding in [1, 1 << 18] {
            let bytes = zip64(&zip(names(9)), 9, padding);
            assert_eq!(ZipArchive::new(Cursor::new(&bytes)).unwrap().len(), 9);
            assert!(matches!(
                opened(bytes, 9),
                Err(DirectoryError::Unreadable(_))
            ));
        }
    }

    /// The record and its locator are as long as an entry with a name of 30 bytes, such as
    /// `mobilenetv3_large_100/data.pkl`.
    #[test]
    fn a_directory_begins_where_its_record_says() {
        for length in 28..33 {
            let zip = zip((0..9).map(|number| format!("{number:0length$}")));
            assert!(matches!(opened(torch(&zip, 9), 9), Ok(9)), "{length}");
            // With something before it, as in programs that unpack themselves.
            let moved = [&b"#!/bin/sh\n"[..], &zip].concat();
            assert!(matches!(opened(moved, 9), Ok(9)), "{length}");
        }
    }

    #[test]
    fn a_directory_is_as_long_as_its_entries_may_need() {
        let long = |count: usize| (0..count).map(|number| format!("{number:050000}"));
        assert!(matches!(opened(zip(long(20)), 20), Ok(20)));
        assert!(matches!(
            opened(zip(long(40)), 40),
            Err(DirectoryError::TooLong)
        ));
    }
}
