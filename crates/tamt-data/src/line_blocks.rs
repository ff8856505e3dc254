//! Blocks of whole lines, so that a text of any size is read in little memory.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use tamt_files::text::Place;

use crate::error::{Result, io_error};
use crate::text::checked_part;

/// Bytes of a block; a longer line makes a longer block.
const BLOCK: usize = 256 << 10;

/// Consecutive lines of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// The lines with their ends. Only the last line of a text can lack its end.
    pub(crate) text: String,
    /// The number of the first line, from 1.
    pub(crate) line: usize,
}

/// A text that is read block by block, without its byte order mark.
pub(crate) struct LineBlocks {
    source: Box<dyn Read + Send>,
    path: PathBuf,
    /// Bytes of the source that belong to no block yet.
    pending: Vec<u8>,
    /// The place of the pending bytes.
    place: Place,
    is_at_end: bool,
}

impl LineBlocks {
    /// The text of `source`, which errors call `path`.
    pub(crate) fn new(source: Box<dyn Read + Send>, path: &Path) -> Self {
        Self { source, path: path.to_owned(), pending: Vec::new(), place: Place::START, is_at_end: false }
    }

    /// The text of a file.
    ///
    /// # Errors
    ///
    /// [`Error::Io`](crate::Error::Io).
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(io_error("read", path))?;
        Ok(Self::new(Box::new(file), path))
    }

    /// The next block, or `None` after the last one.
    ///
    /// # Errors
    ///
    /// [`Error::Io`](crate::Error::Io), [`Error::NotText`](crate::Error::NotText).
    pub(crate) fn next(&mut self) -> Result<Option<Block>> {
        let end = loop {
            let last = if self.pending.len() < BLOCK { None } else { self.pending.iter().rposition(|&b| b == b'\n') };
            match last {
                _ if self.is_at_end => break self.pending.len(),
                Some(last) => break last + 1,
                None => self.read_more()?,
            }
        };
        if end == 0 {
            return Ok(None);
        }
        let rest = self.pending.split_off(end);
        let bytes = std::mem::replace(&mut self.pending, rest);
        let text = checked_part(&bytes, &self.path, self.place)?.to_owned();
        let block = Block { text, line: self.place.line };
        self.place = self.place.after(&bytes);
        Ok(Some(block))
    }

    /// Reads as many bytes as a block has, or as are pending: a long line takes a linear number of look-ups.
    fn read_more(&mut self) -> Result<()> {
        let wanted = self.pending.len().max(BLOCK);
        let read = self.source.by_ref().take(wanted as u64).read_to_end(&mut self.pending);
        self.is_at_end = read.map_err(io_error("read", &self.path))? < wanted;
        Ok(())
    }

    /// Bytes of the blocks so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.place.offset as u64
    }

    /// The name of the text in errors.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl fmt::Debug for LineBlocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LineBlocks").field("path", &self.path).field("place", &self.place).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::error::Error;

    fn blocks(bytes: Vec<u8>) -> Result<Vec<Block>> {
        let mut blocks = LineBlocks::new(Box::new(io::Cursor::new(bytes)), Path::new("x"));
        std::iter::from_fn(|| blocks.next().transpose()).collect()
    }

    #[test]
    fn blocks_are_whole_lines_and_together_the_text() {
        let lines: Vec<String> = (0..60_000).map(|i| format!("line é {i}\n")).collect();
        for text in [lines.concat(), lines.concat() + "no end", "x".repeat(3 * BLOCK), String::new(), "\n".to_owned()] {
            let read = blocks([b"\xef\xbb\xbf", text.as_bytes()].concat()).unwrap();
            let joined: String = read.iter().map(|block| block.text.as_str()).collect();
            assert!(joined == text && read.iter().all(|block| block.text.len() < 4 * BLOCK));
            let mut line = 1;
            for block in &read {
                assert_eq!(block.line, line);
                line += block.text.matches('\n').count();
            }
            let (_, earlier) = read.split_last().map_or((None, &[][..]), |(last, earlier)| (Some(last), earlier));
            assert!(earlier.iter().all(|block| block.text.ends_with('\n')));
        }
    }

    #[test]
    fn a_byte_that_is_no_text_is_found_at_its_place_in_the_file() {
        let line = "0123456789\n";
        let mut bytes = line.repeat(100_000).into_bytes();
        bytes[11 * 70_000 + 4] = 0xff;
        let error = blocks(bytes).unwrap_err();
        assert!(matches!(error, Error::NotText { line: 70_001, offset: 770_004, .. }), "{error}");
    }
}
