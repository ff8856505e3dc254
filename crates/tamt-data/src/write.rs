//! Writing of files by atomic rename.

use std::io::{self, Write};
use std::path::Path;

use crate::error::{Result, io_error};

/// Writes a file by [`tamt_files::atomic_write`].
///
/// # Errors
///
/// [`Error::Io`](crate::Error::Io) with `path`, which then keeps its old contents; the new ones if only the sync of its
/// directory failed, which comes last.
pub(crate) fn atomic_write(path: &Path, contents: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    tamt_files::atomic_write(path, contents).map_err(io_error("write", path))
}
