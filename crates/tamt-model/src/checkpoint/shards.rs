//! The index of a sharded checkpoint.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::error::{Error, Result, read_error};

/// The file of each tensor, by the tensor's name in the file.
#[derive(Deserialize)]
pub(crate) struct ShardIndex {
    pub(super) weight_map: BTreeMap<String, String>,
}

impl ShardIndex {
    /// Reads an index.
    ///
    /// # Errors
    /// [`Error::Read`], or [`Error::Malformed`] also for a shard outside the model's directory.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let malformed = |problem| Error::Malformed { path: path.to_owned(), problem };
        let text = fs::read_to_string(path).map_err(read_error(path))?;
        let index: Self = serde_json::from_str(&text).map_err(|e| malformed(e.to_string()))?;
        for shard in index.weight_map.values() {
            // A downloaded index is not trusted.
            if shard.is_empty() || shard == ".." || shard == "." || shard.contains(['/', '\\', ':']) {
                return Err(malformed(format!("`{shard}` is not the name of a shard")));
            }
        }
        Ok(index)
    }

    /// The names of the shards, sorted.
    pub(crate) fn shards(&self) -> Vec<&str> {
        let mut shards: Vec<&str> = self.weight_map.values().map(String::as_str).collect();
        shards.sort_unstable();
        shards.dedup();
        shards
    }
}
