//! Weights as files: safetensors and `PyTorch`, whole or sharded, read lazily by canonical tensor name.
//!
//! ```no_run
//! # fn main() -> tamt_model::Result<()> {
//! let checkpoint = tamt_model::Checkpoint::open("models/bert-base-uncased".as_ref())?;
//! let mut bias = vec![0.0; 768];
//! checkpoint.load_f32("encoder.layer.0.attention.self.query.bias", &[768], &mut bias)?;
//! # Ok(())
//! # }
//! ```

mod convert;
mod pickle;
mod pytorch;
mod safetensors;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use memmap2::Mmap;
use serde::Deserialize;

use self::convert::Dtype;
use crate::digest;
use crate::error::{Error, Result};

/// The file names of weights, in order of preference.
pub(crate) const WEIGHT_FILES: [&str; 4] =
    ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"];

/// The opened weights of a model: an index of its tensors over memory-mapped files.
///
/// Tensors go by their *canonical* name: the file's own without the `bert.` or `roberta.` prefix, and with the
/// `gamma` and `beta` of old checkpoints as `weight` and `bias`.
///
/// The files must not be changed while a checkpoint is open.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    files: Vec<WeightsFile>,
    tensors: BTreeMap<String, (usize, Tensor)>,
    digest: OnceLock<String>,
}

#[derive(Debug)]
struct WeightsFile {
    path: PathBuf,
    bytes: Mmap,
}

/// A tensor in a weights file.
#[derive(Debug)]
struct Tensor {
    /// The file's own name for it.
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    /// Byte of the file where the first element starts. All elements are known to lie within the file.
    start: usize,
    /// Distance in elements from one index to the next in each dimension; `None` if row-major without gaps.
    strides: Option<Vec<usize>>,
}

/// What is wrong with a file, before its path is known.
#[derive(Debug, PartialEq)]
enum Problem {
    Malformed(String),
    Unsupported(String),
}

impl Problem {
    fn in_file(self, path: &Path) -> Error {
        let path = path.to_owned();
        match self {
            Self::Malformed(problem) => Error::Malformed { path, problem },
            Self::Unsupported(problem) => Error::Unsupported { path, problem },
        }
    }
}

impl Checkpoint {
    /// Opens the weights in a model directory: `model.safetensors`, its sharded form with
    /// `model.safetensors.index.json`, `pytorch_model.bin`, or its sharded form; the first that is there.
    ///
    /// Only headers are read. Every tensor's place is checked to lie within its file.
    ///
    /// # Errors
    /// [`Error::NoSuchDirectory`], [`Error::NoWeights`], [`Error::Read`], [`Error::Malformed`],
    /// [`Error::Unsupported`] or [`Error::DuplicateTensor`].
    pub fn open(dir: &Path) -> Result<Self> {
        if !dir.is_dir() {
            return Err(Error::NoSuchDirectory { path: dir.to_owned() });
        }
        let Some(path) = WEIGHT_FILES.iter().map(|name| dir.join(name)).find(|path| path.exists()) else {
            return Err(Error::NoWeights { dir: dir.to_owned(), looked_for: &WEIGHT_FILES });
        };
        let mut checkpoint = Self { path, files: Vec::new(), tensors: BTreeMap::new(), digest: OnceLock::new() };
        if checkpoint.path.extension().is_some_and(|e| e == "json") {
            checkpoint.add_shards(dir)?;
        } else {
            checkpoint.add_file(checkpoint.path.clone(), |_| true)?;
        }
        Ok(checkpoint)
    }

    /// The weights file, or the index of the shards.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Canonical names of all tensors, sorted.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this canonical name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The file's own name of the tensor with this canonical name.
    #[must_use]
    pub fn original_name(&self, name: &str) -> Option<&str> {
        self.tensors.get(name).map(|(_, tensor)| tensor.name.as_str())
    }

    /// Shape of the tensor with this canonical name.
    #[must_use]
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|(_, tensor)| tensor.shape.as_slice())
    }

    /// Reads a tensor as row-major f32, in parallel.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::WrongShape`], [`Error::WrongDtype`] or [`Error::NonFinite`]. What `out`
    /// holds after an error is unspecified.
    ///
    /// # Panics
    /// If `out` is not as long as `expected_shape` says.
    pub fn load_f32(&self, name: &str, expected_shape: &[usize], out: &mut [f32]) -> Result<()> {
        assert_eq!(expected_shape.iter().product::<usize>(), out.len(), "buffer for {name} {expected_shape:?}");
        let Some((file, tensor)) = self.tensors.get(name) else {
            return Err(Error::MissingTensor { path: self.path.clone(), name: name.to_owned() });
        };
        let file = &self.files[*file];
        let (path, name) = (|| file.path.clone(), || tensor.name.clone());
        if tensor.shape != expected_shape {
            let (found, expected) = (tensor.shape.clone(), expected_shape.to_vec());
            return Err(Error::WrongShape { path: path(), name: name(), found, expected });
        }
        let Dtype::Float(float) = tensor.dtype else {
            return Err(Error::WrongDtype { path: path(), name: name(), dtype: tensor.dtype.to_string() });
        };
        let bytes = file.bytes.get(tensor.start..).unwrap_or_default();
        let non_finite = match &tensor.strides {
            None => convert::contiguous(float, bytes, out),
            Some(strides) => convert::strided(float, bytes, &tensor.shape, strides, out),
        };
        match non_finite {
            None => Ok(()),
            Some(index) => Err(Error::NonFinite { path: path(), name: name(), index, value: out[index] }),
        }
    }

    /// SHA-256 of the weights file in hexadecimal; of shards, over the bytes of all of them in order of file name.
    ///
    /// Computed on the first call and kept.
    pub fn sha256(&self) -> &str {
        self.digest.get_or_init(|| digest::sha256_hex(self.files.iter().map(|file| &file.bytes[..])))
    }

    /// Maps a weights file and adds those of its tensors that are wanted, by their own names.
    fn add_file(&mut self, path: PathBuf, wanted: impl Fn(&str) -> bool) -> Result<()> {
        let bytes = map(&path)?;
        let parsed = if is_lfs_pointer(&bytes) {
            Err(Problem::Unsupported("it is a Git LFS pointer; fetch the file itself with `git lfs pull`".to_owned()))
        } else if path.extension().is_some_and(|e| e == "safetensors") {
            safetensors::tensors(&bytes)
        } else {
            pytorch::tensors(&bytes)
        };
        let file = self.files.len();
        for tensor in parsed.map_err(|problem| problem.in_file(&path))? {
            if !wanted(&tensor.name) {
                continue;
            }
            let name = canonical_name(&tensor.name).into_owned();
            let second = tensor.name.clone();
            if let Some((_, first)) = self.tensors.insert(name.clone(), (file, tensor)) {
                return Err(Error::DuplicateTensor { path, name, first: first.name, second });
            }
        }
        self.files.push(WeightsFile { path, bytes });
        Ok(())
    }

    /// Adds the shards that the index at `self.path` lists.
    fn add_shards(&mut self, dir: &Path) -> Result<()> {
        let index = Index::read(&self.path)?;
        for shard in index.shards() {
            self.add_file(dir.join(shard), |name| index.weight_map.get(name).is_some_and(|s| s == shard))?;
        }
        for (name, shard) in &index.weight_map {
            if !self.contains(&canonical_name(name)) {
                let problem = format!("it places tensor `{name}` in {shard}, which does not hold it");
                return Err(Error::Malformed { path: self.path.clone(), problem });
            }
        }
        Ok(())
    }
}

/// The index of a sharded checkpoint: which file holds which tensor.
#[derive(Deserialize)]
pub(crate) struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Index {
    /// Reads an index and checks that it names plain files.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let malformed = |problem| Error::Malformed { path: path.to_owned(), problem };
        let text = fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let index: Self = serde_json::from_str(&text).map_err(|e| malformed(e.to_string()))?;
        for shard in index.weight_map.values() {
            // An index from elsewhere must not reach outside the model's directory.
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

/// A tensor's name without the encoder's prefix and in today's spelling.
fn canonical_name(name: &str) -> Cow<'_, str> {
    let name = name.strip_prefix("bert.").or_else(|| name.strip_prefix("roberta.")).unwrap_or(name);
    match name.rsplit_once('.') {
        Some((module, "gamma")) => format!("{module}.weight").into(),
        Some((module, "beta")) => format!("{module}.bias").into(),
        _ => name.into(),
    }
}

fn is_lfs_pointer(bytes: &[u8]) -> bool {
    bytes.starts_with(b"version https://git-lfs.github.com/spec/")
}

fn map(path: &Path) -> Result<Mmap> {
    let read_error = |source| Error::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(read_error)?;
    if file.metadata().map_err(read_error)?.is_dir() {
        return Err(read_error(std::io::ErrorKind::IsADirectory.into()));
    }
    // SAFETY: the mapping is private and only read. Another process that shortens the file while it is mapped makes
    // reads fail with a signal; files here are replaced by rename, never changed in place, and the documentation of
    // `Checkpoint` asks the same of others.
    #[allow(unsafe_code)]
    unsafe { Mmap::map(&file) }.map_err(read_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_names_have_no_prefix_and_no_old_spelling() {
        assert_eq!(canonical_name("bert.embeddings.LayerNorm.gamma"), "embeddings.LayerNorm.weight");
        assert_eq!(
            canonical_name("roberta.encoder.layer.0.output.LayerNorm.beta"),
            "encoder.layer.0.output.LayerNorm.bias"
        );
        assert_eq!(canonical_name("cls.predictions.bias"), "cls.predictions.bias");
        assert_eq!(canonical_name("bertha.gamma.weight"), "bertha.gamma.weight");
        assert_eq!(canonical_name("gamma"), "gamma");
    }
}
