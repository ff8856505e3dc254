//! The lines of a text file, in chunks that bound the memory of the reading.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use tamt_files::text::{BYTE_ORDER_MARK, Fault, Place, refuse_pointer};

use crate::error::{Error, Result, io_error};
use crate::text::fault_of;

/// The longest line, in bytes, that is tokenized as a whole. The memory that a tokenizer needs is some hundred times that
/// of a line.
pub const LONGEST_LINE: usize = 1 << 16;

/// Bytes of a chunk. The lines do not depend on this size.
const CHUNK: usize = 4 << 20;

/// Reads a text file chunk by chunk.
#[derive(Debug)]
pub(crate) struct Lines<'a> {
    path: &'a Path,
    file: File,
    chunk: usize,
    /// Bytes of the file that are not yet part of a chunk. A chunk leaves the beginning of its last line.
    buffer: Vec<u8>,
    /// Bytes at the start of `buffer` that the last chunk consumed.
    consumed: usize,
    /// Bytes and line ends of the file ahead of `buffer`.
    ahead: (usize, usize),
    at_end: bool,
    /// The state of the line at the start of the next chunk.
    line: Line,
    /// Number of non-blank lines so far.
    pub(crate) filled: usize,
    /// Number of lines so far that were cut.
    pub(crate) cut: usize,
}

/// What is known of a line whose first parts were read.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    is_cut: bool,
    is_filled: bool,
}

/// Some of the lines of a file.
#[derive(Debug)]
pub(crate) struct Chunk<'a> {
    /// Lines without their ends, and parts of lines that are too long. Blank ones are left out.
    pub(crate) parts: Vec<&'a str>,
    /// Bytes of the file in this chunk.
    pub(crate) bytes: usize,
}

impl<'a> Lines<'a> {
    pub(crate) fn open(path: &'a Path) -> Result<Self> {
        Self::with_chunks(path, CHUNK)
    }

    /// `chunk` exceeds [`LONGEST_LINE`] by at least 8 bytes, so that each chunk has a part.
    fn with_chunks(path: &'a Path, chunk: usize) -> Result<Self> {
        let file = File::open(path).map_err(io_error("read", path))?;
        Ok(Self {
            path,
            file,
            chunk,
            buffer: Vec::with_capacity(chunk),
            consumed: 0,
            ahead: (0, 0),
            at_end: false,
            line: Line::default(),
            filled: 0,
            cut: 0,
        })
    }

    /// The next lines; `None` at the end of the file. `read` gets all bytes of the file, in order.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::NotText`] and [`Error::LfsPointer`].
    pub(crate) fn next(&mut self, read: impl FnOnce(&[u8])) -> Result<Option<Chunk<'_>>> {
        let ends = self.buffer[..self.consumed].iter().filter(|&&byte| byte == b'\n').count();
        self.ahead = (self.ahead.0 + self.consumed, self.ahead.1 + ends);
        self.buffer.drain(..self.consumed);
        self.consumed = 0;
        let kept = self.buffer.len();
        if !self.at_end {
            let room = self.chunk.saturating_sub(kept);
            let taken = (&mut self.file).take(room as u64).read_to_end(&mut self.buffer);
            self.at_end = taken.map_err(io_error("read", self.path))? < room;
            read(&self.buffer[kept..]);
        }
        if self.buffer.is_empty() {
            return Ok(None);
        }
        if self.ahead.0 == 0 {
            refuse_pointer(&self.buffer).map_err(|fault| fault_of(self.path, fault))?;
        }
        let text = checked(&self.buffer, self.at_end).map_err(|offset| self.not_text(offset))?;
        let is_marked = self.ahead.0 == 0 && text.starts_with(BYTE_ORDER_MARK);
        let mark = if is_marked { BYTE_ORDER_MARK.len_utf8() } else { 0 };
        let mut parts = Vec::new();
        let mut at = mark;
        while let Some((part, after, ends_line)) = next_part(&text[at..], self.at_end) {
            at += after;
            let is_filled = !part.trim().is_empty();
            if is_filled {
                parts.push(part);
            }
            self.filled += usize::from(is_filled && !self.line.is_filled);
            self.cut += usize::from(!ends_line && !self.line.is_cut);
            self.line = if ends_line {
                Line::default()
            } else {
                Line { is_cut: true, is_filled: self.line.is_filled || is_filled }
            };
        }
        self.consumed = at;
        Ok(Some(Chunk { parts, bytes: at }))
    }

    fn not_text(&self, offset: usize) -> Error {
        let place = Place { line: 1 + self.ahead.1, offset: self.ahead.0 };
        fault_of(self.path, Fault::of_byte(&self.buffer, offset, place))
    }
}

/// The text at the start of `bytes`, up to a character whose end is not read yet; the offset of a byte that is not text.
fn checked(bytes: &[u8], at_end: bool) -> Result<&str, usize> {
    let (text, invalid) = match std::str::from_utf8(bytes) {
        Ok(text) => (text, None),
        Err(error) => {
            let valid = error.valid_up_to();
            let goes_on = error.error_len().is_none() && !at_end;
            (std::str::from_utf8(&bytes[..valid]).unwrap_or_default(), (!goes_on).then_some(valid))
        }
    };
    let nul = if text.as_bytes().contains(&0) { text.find('\0') } else { None };
    nul.or(invalid).map_or(Ok(text), Err)
}

/// The first line of `text` without its end, or the first part of a line that is too long; the offset of what follows; and
/// whether the line ends there. `None` if the text ends ahead of that and, without `at_end`, may go on.
fn next_part(text: &str, at_end: bool) -> Option<(&str, usize, bool)> {
    let within = &text.as_bytes()[..text.len().min(LONGEST_LINE + 1)];
    if let Some(end) = within.iter().position(|&byte| byte == b'\n') {
        let line = &text[..end];
        return Some((line.strip_suffix('\r').unwrap_or(line), end + 1, true));
    }
    if text.len() > LONGEST_LINE {
        let cut = cut_of(text);
        return Some((&text[..cut], cut, false));
    }
    (at_end && !text.is_empty()).then_some((text, text.len(), true))
}

/// Where a line that is too long is cut: ahead of the last white space within the bound, which parts no word and leaves
/// the space to the following word, as tokenizers have it; at the bound if there is none.
fn cut_of(line: &str) -> usize {
    let mut bound = LONGEST_LINE;
    while !line.is_char_boundary(bound) {
        bound -= 1;
    }
    line[..bound].rfind(char::is_whitespace).filter(|&at| at > 0).unwrap_or(bound)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The parts, the number of non-blank lines and that of cut lines, read with chunks of a size.
    fn read(path: &Path, chunk: usize) -> (Vec<String>, usize, usize) {
        let (mut parts, mut bytes, mut length) = (Vec::new(), Vec::new(), 0);
        let mut lines = Lines::with_chunks(path, chunk).unwrap();
        while let Some(chunk) = lines.next(|read| bytes.extend_from_slice(read)).unwrap() {
            parts.extend(chunk.parts.iter().map(|&part| part.to_owned()));
            length += chunk.bytes;
        }
        assert_eq!((bytes.len(), bytes), (length, std::fs::read(path).unwrap()));
        (parts, lines.filled, lines.cut)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn lines_do_not_depend_on_chunks(
            pieces in proptest::collection::vec(
                prop_oneof![
                    "[ a\u{e9}\u{1f600}\r\t]{0,9}\r?\n",
                    (40_000usize..90_000).prop_map(|n| "y".repeat(n)),
                    (9_000usize..40_000).prop_map(|n| "\u{20ac}\u{3000}o ".repeat(n)),
                ],
                0..8,
            ),
            extra in 8usize..4000,
        ) {
            let text = pieces.concat();
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("text");
            std::fs::write(&path, &text).unwrap();
            let (parts, filled, cut) = read(&path, LONGEST_LINE + extra);
            prop_assert_eq!(&(parts.clone(), filled, cut), &read(&path, CHUNK));
            // The standard library's lines, joined where a line is cut.
            let whole: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
            prop_assert_eq!(filled, whole.len());
            prop_assert_eq!(cut, text.split('\n').filter(|line| line.len() > LONGEST_LINE).count());
            prop_assert!(parts.iter().all(|part| part.len() <= LONGEST_LINE));
            let without_space = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            prop_assert_eq!(without_space(&parts.concat()), without_space(&whole.concat()));
        }
    }
}
