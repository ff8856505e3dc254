//! SHA-256 digests of files. The digest of a weights file ties a ticket to its base model.

use std::path::Path;

use crate::error::{Result, read_error};

/// SHA-256 of a file, in lower-case hexadecimal.
///
/// # Errors
/// [`Error::Read`](crate::Error::Read).
pub fn sha256_file(path: &Path) -> Result<String> {
    tamt_files::digest::sha256_file(path).map_err(read_error(path))
}
