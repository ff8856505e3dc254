//! The index of a sharded checkpoint.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::text::read_text;

/// The file of each tensor, by the tensor's name in the file.
#[derive(Deserialize)]
pub(crate) struct ShardIndex {
    pub(super) weight_map: BTreeMap<String, String>,
}

impl ShardIndex {
    /// Reads an index.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::LfsPointer`], or [`Error::Malformed`] also for a shard outside the model's directory.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let malformed = |problem| Error::Malformed { path: path.to_owned(), problem };
        let text = read_text(path)?;
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn an_index_may_have_a_byte_order_mark_and_is_no_git_lfs_pointer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors.index.json");
        fs::write(&path, "\u{feff}{\"weight_map\": {\"a\": \"1.safetensors\"}}").unwrap();
        assert_eq!(ShardIndex::read(&path).unwrap().shards(), ["1.safetensors"]);
        fs::write(&path, "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n").unwrap();
        assert!(matches!(ShardIndex::read(&path), Err(Error::LfsPointer { path: p }) if p == path));
    }
}
