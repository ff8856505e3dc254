//! Weights files: safetensors and `PyTorch`, whole or sharded, with lazy access by canonical tensor name.
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
pub(crate) mod shards;
mod tensor;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use memmap2::Mmap;

use crate::checkpoint::convert::Dtype;
use crate::checkpoint::shards::ShardIndex;
use crate::checkpoint::tensor::{Problem, Tensor};
use crate::digest;
use crate::error::{Error, Result, read_error};

/// The file names of weights, in order of preference.
pub(crate) const WEIGHT_FILES: [&str; 4] =
    ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"];

/// The weights of a model: an index of tensors in memory-mapped files.
///
/// A tensor's *canonical* name is its name in the file without the prefix `bert.` or `roberta.`, and with `weight` and
/// `bias` in place of the `gamma` and `beta` of old checkpoints.
///
/// The files must not change while a checkpoint is open.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    files: Vec<WeightsFile>,
    /// Index of the file and location of each tensor, by canonical name.
    tensors: BTreeMap<String, (usize, Tensor)>,
    digest: OnceLock<String>,
}

#[derive(Debug)]
struct WeightsFile {
    path: PathBuf,
    bytes: Mmap,
}

impl Checkpoint {
    /// Opens the weights in a model directory: the first of `model.safetensors`, `model.safetensors.index.json`,
    /// `pytorch_model.bin` and `pytorch_model.bin.index.json` that exists.
    ///
    /// The function reads only headers, and checks that each tensor lies within its file.
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
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Canonical names of all tensors, sorted.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether the checkpoint has a tensor with this canonical name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The name in the file of the tensor with this canonical name.
    pub fn original_name(&self, name: &str) -> Option<&str> {
        self.tensors.get(name).map(|(_, tensor)| tensor.name.as_str())
    }

    /// The shape of the tensor with this canonical name.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|(_, tensor)| tensor.shape.as_slice())
    }

    /// Reads a tensor into `out` as row-major f32, in parallel. `name` is the canonical name.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::WrongShape`], [`Error::WrongDtype`] or [`Error::NonFinite`]. The contents of
    /// `out` after an error are unspecified.
    ///
    /// # Panics
    /// If the length of `out` is not the number of elements of `expected_shape`.
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

    /// SHA-256 of the weights file, or of the concatenated shards in the order of their names, in lower-case hexadecimal.
    ///
    /// The first call computes the digest; later calls return the stored one.
    pub fn sha256(&self) -> &str {
        self.digest.get_or_init(|| digest::sha256_hex(self.files.iter().map(|file| &file.bytes[..])))
    }

    /// Maps a weights file and adds the tensors that satisfy `selected`, a condition on the name in the file.
    fn add_file(&mut self, path: PathBuf, selected: impl Fn(&str) -> bool) -> Result<()> {
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
            if !selected(&tensor.name) {
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

    /// Adds the shards of the index at `self.path`.
    fn add_shards(&mut self, dir: &Path) -> Result<()> {
        let index = ShardIndex::read(&self.path)?;
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

/// The canonical name of a tensor, from its name in the file.
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

/// Maps a file into memory.
fn map(path: &Path) -> Result<Mmap> {
    let failed = read_error(path);
    let file = File::open(path).map_err(&failed)?;
    if file.metadata().map_err(&failed)?.is_dir() {
        return Err(failed(std::io::ErrorKind::IsADirectory.into()));
    }
    // SAFETY: the mapped bytes do not change while the mapping exists. `write::atomic_write` replaces files by rename and
    // never modifies them; the documentation of `Checkpoint` requires the same of all other writers. This process only
    // reads the mapping.
    #[allow(unsafe_code)]
    unsafe { Mmap::map(&file) }.map_err(failed)
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
