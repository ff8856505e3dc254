//! Checks of the pages of a column.
//!
//! The decoders of the `parquet` crate trust a page's header and allocate memory for the number of values in the header.
//! In a damaged file that number is arbitrary.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

use parquet::basic::{Encoding, Type as Physical};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::schema::types::ColumnDescriptor;

use crate::tasks::parquet::thrift::{Compact, I32, varint};

/// Bytes of a page header that are read at first, and at most; a header has minima and maxima of any length.
const HEADER: [u64; 2] = [1 << 10, 1 << 22];

/// Checks the sizes in the headers of all pages of a column chunk, which is the bytes `chunk` of the file. The crate
/// allocates the size of an unpacked page before it unpacks the page.
///
/// # Errors
///
/// The reason why a page is refused: its header is damaged, or its unpacked size is above `most`.
pub(super) fn check_sizes(file: &mut File, chunk: Range<u64>, most: u64) -> io::Result<Result<(), String>> {
    let mut at = chunk.start;
    while at < chunk.end {
        let mut sizes = None;
        for len in HEADER {
            let mut header = Vec::new();
            file.seek(SeekFrom::Start(at))?;
            (&*file).take(len.min(chunk.end - at)).read_to_end(&mut header)?;
            sizes = page_sizes(&header);
            if sizes.is_some() {
                break;
            }
        }
        let Some((header, packed, unpacked)) = sizes else {
            return Ok(Err("a page has a damaged header".to_owned()));
        };
        if unpacked > most {
            return Ok(Err(format!("a page claims to unpack to {unpacked} bytes")));
        }
        at = at.saturating_add(header).saturating_add(packed);
    }
    Ok(Ok(()))
}

/// The length of the page header at the start of `bytes`, and the packed and the unpacked length of the page.
fn page_sizes(bytes: &[u8]) -> Option<(u64, u64, u64)> {
    let (mut packed, mut unpacked) = (None, None);
    let mut header = Compact { rest: bytes };
    header.fields(|header, id, kind| match (id, kind) {
        (2, I32) => {
            unpacked = Some(u64::try_from(header.signed()? as i32).ok()?);
            Some(())
        }
        (3, I32) => {
            packed = Some(u64::try_from(header.signed()? as i32).ok()?);
            Some(())
        }
        // The crate knows a field by its id, whatever its type.
        (2 | 3, _) => None,
        _ => header.skip(kind),
    })?;
    Some(((bytes.len() - header.rest.len()) as u64, packed?, unpacked?))
}

/// A page reader that checks the pages of another reader. A page that is too short for its number of values is an error.
pub(super) struct CheckedPages {
    pages: Box<dyn PageReader>,
    /// The least number of bytes of a value in a dictionary page.
    value_bytes: usize,
    has_levels: bool,
    has_dictionary: bool,
}

impl CheckedPages {
    pub(super) fn new(pages: Box<dyn PageReader>, column: &ColumnDescriptor) -> Self {
        let value_bytes = match column.physical_type() {
            Physical::BOOLEAN | Physical::FIXED_LEN_BYTE_ARRAY => 1,
            // The length prefix of a byte array has 4 bytes.
            Physical::BYTE_ARRAY | Physical::INT32 | Physical::FLOAT => 4,
            Physical::INT64 | Physical::DOUBLE => 8,
            Physical::INT96 => 12,
        };
        Self { pages, value_bytes, has_levels: column.max_def_level() > 0, has_dictionary: false }
    }

    /// `None` if a page is too short for its number of values.
    fn check(&mut self, page: &Page) -> Option<()> {
        match page {
            Page::DictionaryPage { buf, num_values, .. } => {
                self.has_dictionary = true;
                (*num_values as usize <= buf.len() / self.value_bytes).then_some(())
            }
            Page::DataPage { buf, num_values, encoding, def_level_encoding, .. } => {
                let levels = match (self.has_levels, def_level_encoding) {
                    (false, _) => 0,
                    (true, Encoding::RLE) => 4 + u32::from_le_bytes(*buf.first_chunk()?) as usize,
                    // One definition level, so one bit per value.
                    (true, _) => (*num_values as usize).div_ceil(8),
                };
                self.check_values(buf.get(levels..)?, *encoding, *num_values)
            }
            Page::DataPageV2 { buf, num_values, encoding, def_levels_byte_len, rep_levels_byte_len, .. } => {
                let levels = *def_levels_byte_len as usize + *rep_levels_byte_len as usize;
                self.check_values(buf.get(levels..)?, *encoding, *num_values)
            }
        }
    }

    /// Checks encodings that repeat the number of values against the page's number, `most`.
    fn check_values(&self, values: &[u8], encoding: Encoding, most: u32) -> Option<()> {
        match encoding {
            Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY => self.has_dictionary.then_some(()),
            Encoding::DELTA_BINARY_PACKED | Encoding::DELTA_LENGTH_BYTE_ARRAY => deltas_len(values, most).map(|_| ()),
            Encoding::DELTA_BYTE_ARRAY => {
                let prefixes = deltas_len(values, most)?;
                deltas_len(values.get(prefixes..)?, most).map(|_| ())
            }
            _ => Some(()),
        }
    }
}

/// The encoded length in bytes of a `DELTA_BINARY_PACKED` sequence; `None` if the sequence is cut off or has more than
/// `most` values.
///
/// ```text
/// header  block size, mini blocks in a block, values, first value
/// block   least difference, bits of a difference in each mini block, mini blocks
/// ```
fn deltas_len(bytes: &[u8], most: u32) -> Option<usize> {
    let mut at = 0;
    let block = usize::try_from(varint(bytes, &mut at)?).ok()?;
    let mini_blocks = usize::try_from(varint(bytes, &mut at)?).ok()?;
    let values = varint(bytes, &mut at)?;
    varint(bytes, &mut at)?;
    if values > u64::from(most) || mini_blocks == 0 {
        return None;
    }
    let mini_block = block / mini_blocks;
    // The header holds the first value.
    let mut left = (values as usize).saturating_sub(1);
    if left > 0 && mini_block == 0 {
        return None;
    }
    while left > 0 {
        varint(bytes, &mut at)?;
        let widths = bytes.get(at..at.checked_add(mini_blocks)?)?;
        at += mini_blocks;
        for &width in widths {
            // Mini blocks after the last value have no bytes.
            if left > 0 {
                at = at.checked_add(mini_block.checked_mul(width.into())? / 8)?;
                left = left.saturating_sub(mini_block);
            }
        }
    }
    Some(at)
}

impl PageReader for CheckedPages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let page = self.pages.get_next_page()?;
        if let Some(page) = &page {
            self.check(page).ok_or_else(|| {
                ParquetError::General(format!("a {:?} page is shorter than it says", page.page_type()))
            })?;
        }
        Ok(page)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.pages.skip_next_page()
    }
}

impl Iterator for CheckedPages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the format's description, with padding: 7, 5, 3, 1, 2, 3, 4, 5 in a block of 128 of 4 mini blocks.
    fn deltas() -> Vec<u8> {
        // 128 values a block, 4 mini blocks, 8 values, the first of which is 7 (zigzag: 14).
        let mut bytes = vec![0x80, 0x01, 4, 8, 14];
        // The least difference, -2 (zigzag: 3); 2 bits for each of the 32 in the first mini block, none in the others.
        bytes.extend([3, 2, 0, 0, 0]);
        // 0, 0, 0, 3, 3, 3, 3, lowest bits first.
        bytes.extend([0b1100_0000, 0b0011_1111, 0, 0, 0, 0, 0, 0]);
        bytes
    }

    #[test]
    fn differences_end_where_their_widths_say() {
        let mut bytes = deltas();
        assert_eq!(deltas_len(&bytes, 8), Some(18));
        bytes.extend([9; 5]);
        assert_eq!(deltas_len(&bytes, 8), Some(18));
        // The header holds the only value.
        assert_eq!(deltas_len(&[0x80, 0x01, 4, 1, 14], 1), Some(5));
    }

    #[test]
    fn differences_that_count_too_many_or_are_cut_off_are_refused() {
        assert_eq!(deltas_len(&deltas(), 7), None);
        for end in 0..10 {
            assert_eq!(deltas_len(&deltas()[..end], 8), None, "{end}");
        }
        // 2^40 values.
        assert_eq!(deltas_len(&[0x80, 0x01, 4, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20, 14], u32::MAX), None);
        assert_eq!(deltas_len(&[0x80, 0x01, 0, 8, 14, 3], 8), None, "no mini blocks");
        assert_eq!(deltas_len(&[0, 4, 8, 14, 3, 0, 0, 0, 0], 8), None, "no values in a block");
    }
}
