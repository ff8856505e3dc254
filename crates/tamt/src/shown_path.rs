//! Paths in settings and results.

use std::path::Path;

use serde::Serializer;

/// Writes a path as text, with a substitute for what is not UTF-8; serde refuses such paths.
pub(crate) fn shown_path<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}
