//! The end of a Parquet file, where its schema and the places of its columns are.
//!
//! The crate reads a schema by recursion, so that one that is nested thousands of levels deep ends
//! the process. So the shape of the schema is looked at first, in Thrift's compact protocol
//! (<https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md>).

use ::parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use bytes::Bytes;

use super::error::{Unread, damaged};
use crate::data::file_kind::PARQUET;

/// The first and the last bytes of a file whose footer is encrypted.
const ENCRYPTED: &[u8; 4] = b"PARE";
/// Bytes behind the footer: its length and the magic.
const TAIL: usize = 8;
/// Largest footer in bytes; in memory it takes up to thirty times as much.
const FOOTER_BYTES: usize = 16 << 20;
/// Levels of a schema; images in lists of structures take six.
const DEPTH: usize = 64;
/// Elements of a schema.
const ELEMENTS: usize = 10_000;
/// Levels of what is skipped.
const SKIPPED_DEPTH: usize = 16;

/// Reads the footer of a file.
pub(super) fn read(file: &Bytes) -> Result<ParquetMetaData, Unread> {
    let end = file.len().checked_sub(TAIL).filter(|end| *end >= TAIL / 2);
    let end = end.ok_or_else(|| damaged("it ends too early"))?;
    if file.starts_with(ENCRYPTED) || file.ends_with(ENCRYPTED) {
        return Err(damaged("it is encrypted; write it without encryption"));
    }
    if !file.ends_with(PARQUET) {
        return Err(damaged("its end is missing"));
    }
    let length = file[end..]
        .first_chunk()
        .map_or(0, |bytes| u32::from_le_bytes(*bytes));
    let start = end.checked_sub(length as usize);
    let start = start.ok_or_else(|| damaged("its footer is longer than the file"))?;
    if end - start > FOOTER_BYTES {
        return Err(damaged(&format!(
            "its footer has more than {FOOTER_BYTES} bytes"
        )));
    }
    check_schema(&mut Thrift(&file[start..end])).ok_or_else(|| {
        damaged(&format!(
            "its schema cannot be read, or has more than {DEPTH} levels or {ELEMENTS} elements"
        ))
    })?;
    Ok(ParquetMetaDataReader::new().parse_and_finish(file)?)
}

/// `None` for a schema (field 2 of the footer) that cannot be read, or is too deep or too large.
fn check_schema(footer: &mut Thrift<'_>) -> Option<()> {
    let mut field = 0;
    while let Some(kind) = footer.field(&mut field)? {
        if (field, kind) != (2, LIST) {
            footer.skip(kind, 0)?;
            continue;
        }
        let (count, _) = footer.list()?;
        // Children that are still to come, of each level.
        let mut levels: Vec<i64> = Vec::new();
        for _ in 0..usize::try_from(count)
            .ok()
            .filter(|count| *count <= ELEMENTS)?
        {
            while levels.pop_if(|left| *left == 0).is_some() {}
            if let Some(left) = levels.last_mut() {
                *left -= 1;
            }
            levels.push(footer.children()?);
            if levels.len() > DEPTH {
                return None;
            }
        }
    }
    Some(())
}

const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const SET: u8 = 10;
const MAP: u8 = 11;
const STRUCT: u8 = 12;

/// Bytes in Thrift's compact protocol, from which is taken what is read.
struct Thrift<'a>(&'a [u8]);

impl Thrift<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn bytes(&mut self, count: u64) -> Option<()> {
        self.0 = self.0.get(usize::try_from(count).ok()?..)?;
        Some(())
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn integer(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    /// The type of the next field of a structure, whose number `last` becomes; `None` at its end.
    fn field(&mut self, last: &mut i64) -> Option<Option<u8>> {
        let header = self.byte()?;
        if header == 0 {
            return Some(None);
        }
        *last = match header >> 4 {
            0 => self.integer()?,
            more => last.checked_add(i64::from(more))?,
        };
        Some(Some(header & 15))
    }

    /// The number of a list's elements, and their type.
    fn list(&mut self) -> Option<(u64, u8)> {
        let header = self.byte()?;
        let count = match header >> 4 {
            15 => self.varint()?,
            few => u64::from(few),
        };
        Some((count, header & 15))
    }

    /// The number of children (field 5) of an element of the schema.
    fn children(&mut self) -> Option<i64> {
        let (mut field, mut children) = (0, 0);
        while let Some(kind) = self.field(&mut field)? {
            match (field, kind) {
                (5, 4..=6) => children = self.integer()?,
                _ => self.skip(kind, 0)?,
            }
        }
        Some(children)
    }

    fn skip(&mut self, kind: u8, depth: usize) -> Option<()> {
        if depth > SKIPPED_DEPTH {
            return None;
        }
        match kind {
            // True and false, in the header itself.
            1 | 2 => Some(()),
            3 => self.bytes(1),
            4..=6 => self.varint().map(drop),
            DOUBLE => self.bytes(8),
            BINARY => {
                let count = self.varint()?;
                self.bytes(count)
            }
            LIST | SET => {
                let (count, kind) = self.list()?;
                (0..count).try_for_each(|_| self.element(kind, depth))
            }
            MAP => {
                let count = self.varint()?;
                let kinds = if count == 0 { 0 } else { self.byte()? };
                (0..count).try_for_each(|_| {
                    self.element(kinds >> 4, depth)?;
                    self.element(kinds & 15, depth)
                })
            }
            STRUCT => {
                let mut field = 0;
                while let Some(kind) = self.field(&mut field)? {
                    self.skip(kind, depth + 1)?;
                }
                Some(())
            }
            _ => None,
        }
    }

    /// An element of a list or map, where truth values take a byte.
    fn element(&mut self, kind: u8, depth: usize) -> Option<()> {
        match kind {
            1 | 2 => self.bytes(1),
            _ => self.skip(kind, depth + 1),
        }
    }
}
