//! All seeds.

use std::fs;
use std::path::Path;

use crate::{model_seeds, packed_seeds, text_seeds};

/// An input from which a fuzzer starts.
pub(crate) struct Seed {
    pub(crate) target: &'static str,
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    /// Whether the target reads the input in whole.
    pub(crate) is_read: bool,
}

/// A seed that its target reads.
pub(crate) fn read(target: &'static str, name: &str, bytes: impl Into<Vec<u8>>) -> Seed {
    Seed { target, name: name.to_owned(), bytes: bytes.into(), is_read: true }
}

/// A seed that its target refuses.
pub(crate) fn refused(target: &'static str, name: &str, bytes: impl Into<Vec<u8>>) -> Seed {
    Seed { is_read: false, ..read(target, name, bytes) }
}

pub(crate) fn all() -> Vec<Seed> {
    let mut seeds = model_seeds::all();
    seeds.extend(packed_seeds::all());
    seeds.extend(text_seeds::all());
    seeds
}

/// A file of the tests of another crate.
pub(crate) fn fixture(path: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// An input of several files.
pub(crate) fn packed(files: &[(&str, &[u8])]) -> Vec<u8> {
    let file = |(name, bytes): &(&str, &[u8])| [b"@@ ", name.as_bytes(), b"\n", bytes, b"\n"].concat();
    let mut input: Vec<u8> = files.iter().flat_map(file).collect();
    // The last line end would belong to the last file.
    input.pop();
    input
}

/// An input of these files of a directory.
pub(crate) fn packed_directory(dir: &Path, names: &[&str]) -> Vec<u8> {
    let files: Vec<(&str, Vec<u8>)> = names.iter().map(|&name| (name, fs::read(dir.join(name)).unwrap())).collect();
    packed(&files.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect::<Vec<_>>())
}
