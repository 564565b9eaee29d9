//! The pages of a row group, unpacked within limits. The crate itself believes what a page's header
//! says of its size, and unpacks gzip to whatever comes out. So it is given the pages as they are
//! in the file, as if they were not compressed, and they are unpacked here.

use std::{io::Read, sync::Arc};

use ::parquet::{
    basic::{Compression, Encoding},
    bloom_filter::Sbbf,
    column::page::{Page, PageMetadata, PageReader},
    errors::{ParquetError, Result},
    file::{
        metadata::RowGroupMetaData, reader::RowGroupReader, serialized_reader::SerializedPageReader,
    },
    record::reader::RowIter,
    schema::types::Type,
};
use bytes::Bytes;
use lz4_flex::block::DecompressError;

use super::error::Refused;
use crate::data::codes;

/// Values of one column in one row group where a row has a list of them. All of one row are in
/// memory at once.
const LIST_VALUES: u64 = 8 << 20;
/// Bytes that an LZ4 page is first thought to have, for each packed one.
const LZ4_RATIO: usize = 4;

/// Limits on pages.
#[derive(Debug, Clone, Copy)]
pub(super) struct PageLimits {
    /// Unpacked bytes of a page.
    pub(super) bytes: u64,
    /// Rows, and so values of a column in which each row has one.
    pub(super) rows: u64,
}

/// A row group of a file.
pub(super) struct Group<'a> {
    pub(super) file: Arc<Bytes>,
    pub(super) metadata: &'a RowGroupMetaData,
    pub(super) limits: PageLimits,
}

impl RowGroupReader for Group<'_> {
    fn metadata(&self) -> &RowGroupMetaData {
        self.metadata
    }

    fn num_columns(&self) -> usize {
        self.metadata.num_columns()
    }

    fn get_column_page_reader(&self, column: usize) -> Result<Box<dyn PageReader>> {
        let chunk = self.metadata.column(column);
        let packed = chunk.clone().into_builder();
        let packed = packed.set_compression(Compression::UNCOMPRESSED).build()?;
        let rows = usize::try_from(self.metadata.num_rows())?;
        let is_list = chunk.column_descr().max_rep_level() > 0;
        Ok(Box::new(Pages {
            packed: SerializedPageReader::new(Arc::clone(&self.file), &packed, rows, None)?,
            column: chunk.column_path().string(),
            compression: chunk.compression(),
            limits: self.limits,
            values: if is_list {
                LIST_VALUES
            } else {
                self.limits.rows
            },
        }))
    }

    fn get_column_bloom_filter(&self, _: usize) -> Option<&Sbbf> {
        None
    }

    fn get_row_iter(&self, projection: Option<Type>) -> Result<RowIter<'_>> {
        RowIter::from_row_group(projection, self)
    }
}

/// The pages of a column.
struct Pages {
    packed: SerializedPageReader<Bytes>,
    column: String,
    compression: Compression,
    limits: PageLimits,
    /// Values that may still come.
    values: u64,
}

impl Pages {
    /// Unpacks a page, and checks that it holds what it says.
    fn unpack(&mut self, mut page: Page) -> Result<Page> {
        self.check_encoding(page.encoding())?;
        let values = u64::from(page.num_values());
        match &mut page {
            Page::DictionaryPage { buf, .. } => {
                *buf = self.unpacked(buf)?;
                if values > (buf.len() as u64).min(self.limits.rows) {
                    return Err(self.too_many_values());
                }
            }
            Page::DataPage { buf, .. } => *buf = self.unpacked(buf)?,
            Page::DataPageV2 {
                buf,
                def_levels_byte_len,
                rep_levels_byte_len,
                is_compressed,
                ..
            } => {
                let levels = u64::from(*def_levels_byte_len) + u64::from(*rep_levels_byte_len);
                let levels = usize::try_from(levels).ok().filter(|end| *end <= buf.len());
                let Some(levels) = levels else {
                    return Err(ParquetError::EOF("a page ends in its levels".to_owned()));
                };
                if *is_compressed && !matches!(self.compression, Compression::UNCOMPRESSED) {
                    let rest = self.unpacked(&buf.slice(levels..))?;
                    *buf = [&buf[..levels], &rest].concat().into();
                }
            }
        }
        if page.is_data_page() {
            let left = self.values.checked_sub(values);
            self.values = left.ok_or_else(|| self.too_many_values())?;
        }
        Ok(page)
    }

    /// Refuses other encodings, for which the crate reserves as much memory as their data claim.
    fn check_encoding(&self, encoding: Encoding) -> Result<()> {
        match encoding {
            Encoding::PLAIN
            | Encoding::PLAIN_DICTIONARY
            | Encoding::RLE_DICTIONARY
            | Encoding::RLE => Ok(()),
            other => Err(self.unsupported(&other.to_string())),
        }
    }

    fn unpacked(&self, packed: &Bytes) -> Result<Bytes> {
        let limit = self.limits.bytes;
        let mut out = Vec::new();
        match self.compression {
            _ if packed.is_empty() => {}
            Compression::UNCOMPRESSED => {
                if packed.len() as u64 > limit {
                    return Err(self.too_large());
                }
                return Ok(packed.clone());
            }
            Compression::SNAPPY => {
                let external = |error: snap::Error| ParquetError::External(Box::new(error));
                let size = snap::raw::decompress_len(packed).map_err(external)?;
                if size as u64 > limit {
                    return Err(self.too_large());
                }
                out = snap::raw::Decoder::new()
                    .decompress_vec(packed)
                    .map_err(external)?;
            }
            Compression::GZIP(_) => {
                let stream = flate2::read::MultiGzDecoder::new(&packed[..]);
                stream.take(limit + 1).read_to_end(&mut out)?;
            }
            Compression::ZSTD(_) => {
                let stream = zstd::Decoder::with_buffer(&packed[..])?;
                stream.take(limit + 1).read_to_end(&mut out)?;
            }
            Compression::LZ4_RAW => out = self.lz4(packed)?,
            other => return Err(self.unsupported(&other.to_string())),
        }
        if out.len() as u64 > limit {
            return Err(self.too_large());
        }
        Ok(out.into())
    }

    /// A block of LZ4 does not tell its size.
    fn lz4(&self, packed: &[u8]) -> Result<Vec<u8>> {
        let limit = usize::try_from(self.limits.bytes).unwrap_or(usize::MAX);
        let mut size = packed.len().saturating_mul(LZ4_RATIO).min(limit);
        loop {
            let mut out = vec![0; size];
            match lz4_flex::block::decompress_into(packed, &mut out) {
                Ok(count) => {
                    out.truncate(count);
                    return Ok(out);
                }
                Err(DecompressError::OutputTooSmall { .. }) if size < limit => {
                    size = size.saturating_mul(LZ4_RATIO).min(limit);
                }
                Err(DecompressError::OutputTooSmall { .. }) => return Err(self.too_large()),
                Err(error) => return Err(ParquetError::External(Box::new(error))),
            }
        }
    }

    fn too_large(&self) -> ParquetError {
        let (column, limit) = (&self.column, self.limits.bytes);
        let message = format!(
            "a page of the column `{column}` unpacks to more than {limit} bytes; write the file with smaller pages or row \
             groups (`row_group_size=100`), or have `--max-page-bytes` raised"
        );
        Refused::error(codes::ARCHIVE_TOO_LARGE, message)
    }

    fn too_many_values(&self) -> ParquetError {
        let message = format!(
            "the column `{}` has more values than a data set may have rows, or one row has millions; split the data set",
            self.column
        );
        Refused::error(codes::TOO_MANY_ROWS, message)
    }

    fn unsupported(&self, what: &str) -> ParquetError {
        let message = format!(
            "the column `{}` is written with {what}, which is not read; write the file with pyarrow or `datasets` as they \
             do by default (plain or dictionary pages; snappy, zstd, gzip, LZ4_RAW or no compression)",
            self.column
        );
        Refused::error(codes::UNSUPPORTED_COMPRESSION, message)
    }
}

impl PageReader for Pages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let page = self.packed.get_next_page()?;
        page.map(|page| self.unpack(page)).transpose()
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.packed.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.packed.skip_next_page()
    }

    fn at_record_boundary(&mut self) -> Result<bool> {
        self.packed.at_record_boundary()
    }
}

impl Iterator for Pages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}
