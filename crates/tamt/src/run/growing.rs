//! A log that grows by whole pieces.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A file to append to.
#[derive(Debug)]
pub(super) struct GrowingFile {
    path: PathBuf,
    file: File,
    /// Bytes in whole pieces.
    length: u64,
}

impl GrowingFile {
    /// Creates a file that does not exist yet. The error is not yet one of the library, because a caller may choose
    /// another name.
    pub(super) fn create_new(path: &Path) -> io::Result<Self> {
        let file = File::options().append(true).create_new(true).open(path)?;
        Ok(Self { path: path.to_owned(), file, length: 0 })
    }

    /// Opens an existing file.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let opened = File::options().append(true).open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
        let (length, file) = opened.map_err(Error::io("open", path))?;
        Ok(Self { path: path.to_owned(), file, length })
    }

    /// Appends a piece, as a rule with one write, so that readers of the growing file see whole pieces. A kill or a full disk
    /// in the middle may leave a torn last line, which a resumed run drops.
    pub(super) fn append(&mut self, piece: &[u8]) -> Result<()> {
        if let Err(error) = self.file.write_all(piece) {
            // The caller gets the error of writing.
            let _ = self.file.set_len(self.length);
            return Err(Error::io("write", &self.path)(error));
        }
        self.length += piece.len() as u64;
        Ok(())
    }

    /// Waits until the disk holds everything appended so far.
    pub(super) fn flush(&self) -> Result<()> {
        self.file.sync_data().map_err(Error::io("write", &self.path))
    }
}
