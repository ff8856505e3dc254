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

pub(crate) mod convert;
mod index;
mod mask_values;
mod names;
mod npz;
pub(crate) mod packed;
mod pickle;
mod pytorch;
mod safetensors;
pub(crate) mod shards;
mod tensor;
pub(crate) mod tensor_file;
pub(crate) mod torch_file;
mod weights_file;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tamt_files::digest::sha256_hex;
use tamt_kernels::masks::CompactWeight;

use crate::checkpoint::convert::Dtype;
use crate::checkpoint::names::{WORD_EMBEDDINGS, similar};
use crate::checkpoint::packed::{Bits, Refused};
use crate::checkpoint::shards::ShardIndex;
use crate::checkpoint::tensor::{Problem, Tensor};
use crate::checkpoint::weights_file::WeightsFile;
use crate::error::{Error, Result, names_in};

/// The file name of packed weights.
pub const PACKED_FILE: &str = "model.packed.safetensors";

/// The file names of weights, in order of preference.
pub(crate) const WEIGHT_FILES: [&str; 5] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    PACKED_FILE,
];

/// The weights of a model: an index of tensors in memory-mapped files.
///
/// A tensor's *canonical* name is its name in the file without the prefix `bert.` or `roberta.`, and with `weight` and
/// `bias` in place of the `gamma` and `beta` of old checkpoints. Files are read as `transformers` reads them:
///
/// * A prefix that all names have, such as `module.`, is ignored.
/// * Word embeddings or a bias of the MLM head that are stored only as the tied decoder's have their own name.
/// * `weight_orig` and `weight_mask` of `torch.nn.utils.prune` are one tensor `weight`, their product.
/// * The bits and the survivors of a packed matrix are one tensor, with zeros where bits are 0.
///
/// The files must not change while a checkpoint is open.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    files: Vec<WeightsFile>,
    /// Each tensor, by canonical name.
    tensors: BTreeMap<String, Entry>,
    /// The name in the file of word embeddings that are stored as the decoder.
    words_as_decoder: Option<String>,
    /// The canonical name of the decoder that a packed file stores as the word embeddings.
    tied_decoder: Option<String>,
    notes: Vec<String>,
    digest: OnceLock<String>,
}

/// A tensor of a checkpoint.
#[derive(Debug)]
struct Entry {
    /// The name without a wrapper's prefix and with the suffix of pruning removed.
    name: String,
    tensor: Located,
    /// The factor of `torch.nn.utils.prune`.
    mask: Option<Located>,
}

/// A tensor and the index of its file.
#[derive(Clone, Debug)]
struct Located {
    file: usize,
    tensor: Tensor,
    /// The bits of a packed matrix.
    bits: Option<Bits>,
}

impl Checkpoint {
    /// Opens the weights in a model directory: the first of `model.safetensors`, `model.safetensors.index.json`,
    /// `pytorch_model.bin`, `pytorch_model.bin.index.json` and `model.packed.safetensors` that exists.
    ///
    /// The function reads only headers, and checks that each tensor lies within its file.
    ///
    /// # Errors
    /// [`Error::NoSuchDirectory`], [`Error::NotADirectory`], [`Error::BrokenLink`], [`Error::NoWeights`],
    /// [`Error::Read`], [`Error::LfsPointer`], [`Error::Malformed`], [`Error::Unsupported`] or
    /// [`Error::DuplicateTensor`].
    pub fn open(dir: &Path) -> Result<Self> {
        if !dir.is_dir() {
            return Err(Error::no_directory(dir));
        }
        let mut paths = WEIGHT_FILES.iter().map(|name| dir.join(name));
        let Some(path) = paths.clone().find(|path| path.exists()) else {
            let none = || Error::NoWeights { dir: dir.to_owned(), looked_for: &WEIGHT_FILES, found: names_in(dir) };
            return Err(paths.find_map(|path| Error::broken_link(&path)).unwrap_or_else(none));
        };
        Self::open_weights(path)
    }

    /// Opens a weights file, or the index of shards in the same directory.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn open_weights(path: PathBuf) -> Result<Self> {
        let mut checkpoint = Self {
            path,
            files: Vec::new(),
            tensors: BTreeMap::new(),
            words_as_decoder: None,
            tied_decoder: None,
            notes: Vec::new(),
            digest: OnceLock::new(),
        };
        let found = if checkpoint.path.extension().is_some_and(|e| e == "json") {
            let dir = checkpoint.path.parent().unwrap_or(Path::new("")).to_owned();
            checkpoint.read_shards(&dir)?
        } else {
            checkpoint.read_file(checkpoint.path.clone(), |_| true)?
        };
        checkpoint.index(found)?;
        Ok(checkpoint)
    }

    /// The weights file, or the index of the shards.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files with the weights, in the order of their names.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }

    /// Canonical names of all tensors, sorted.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether the checkpoint has a tensor with this canonical name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The name in the file, without a wrapper's prefix, of the tensor with this canonical name.
    pub fn original_name(&self, name: &str) -> Option<&str> {
        self.tensors.get(name).map(|entry| entry.name.as_str())
    }

    /// The shape of the tensor with this canonical name.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|entry| entry.tensor.tensor.shape.as_slice())
    }

    /// Whether the weights are packed: a bit for each weight of a pruned matrix, and the survivors.
    pub fn is_packed(&self) -> bool {
        self.files.iter().any(|file| file.packed.is_some())
    }

    /// Whether a packed file stores the decoder with this canonical name as the word embeddings.
    pub(crate) fn is_tied(&self, name: &str) -> bool {
        self.tied_decoder.as_deref() == Some(name)
    }

    /// What a user should know about the reading of the files, a sentence each.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Checks that a tensor exists, has a shape and a float type, and is not larger than its file. `name` is the
    /// canonical name.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::WrongShape`], [`Error::WrongDtype`] or [`Error::Malformed`].
    pub fn check(&self, name: &str, expected_shape: &[usize]) -> Result<()> {
        let entry = self.tensors.get(name).ok_or_else(|| self.missing(name))?;
        [Some(&entry.tensor), entry.mask.as_ref()]
            .into_iter()
            .flatten()
            .try_for_each(|located| self.check_located(located, expected_shape))
    }

    /// Refuses word embeddings that are stored only as the decoder, for a configuration without a tie.
    ///
    /// # Errors
    /// [`Error::MissingTensor`].
    pub(crate) fn check_has_own_word_embeddings(&self) -> Result<()> {
        match &self.words_as_decoder {
            None => Ok(()),
            Some(stored) => {
                let (path, name) = (self.path.clone(), WORD_EMBEDDINGS.to_owned());
                Err(Error::MissingTensor { path, name, similar: vec![stored.clone()] })
            }
        }
    }

    /// Reads a tensor into `out` as row-major f32, in parallel. `name` is the canonical name.
    ///
    /// # Errors
    /// Those of [`Checkpoint::check`], or [`Error::NonFinite`]. The contents of `out` after an error are unspecified.
    ///
    /// # Panics
    /// If the length of `out` is not the number of elements of `expected_shape`.
    pub fn load_f32(&self, name: &str, expected_shape: &[usize], out: &mut [f32]) -> Result<()> {
        assert_eq!(expected_shape.iter().product::<usize>(), out.len(), "buffer for {name} {expected_shape:?}");
        let entry = self.tensors.get(name).ok_or_else(|| self.missing(name))?;
        self.load(&entry.tensor, expected_shape, out)?;
        if let Some(mask) = &entry.mask {
            let mut factors = vec![0.0; out.len()];
            self.load(mask, expected_shape, &mut factors)?;
            out.iter_mut().zip(factors).for_each(|(value, factor)| *value *= factor);
            // Two finite factors may have an infinite product.
            if let Some(index) = convert::first_non_finite(out) {
                return Err(self.non_finite(&entry.tensor, index, out[index]));
            }
        }
        Ok(())
    }

    /// A packed matrix without its dropped elements; `None` for a tensor that is not packed. `name` is the canonical name.
    ///
    /// # Errors
    /// Those of [`Checkpoint::check`], or [`Error::NonFinite`].
    pub(crate) fn load_compact(&self, name: &str, expected_shape: &[usize]) -> Result<Option<CompactWeight>> {
        let entry = self.tensors.get(name).ok_or_else(|| self.missing(name))?;
        match (&entry.mask, &entry.tensor.bits) {
            (None, Some(bits)) => {
                self.check_located(&entry.tensor, expected_shape)?;
                self.compact(&entry.tensor, bits).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn compact(&self, located: &Located, bits: &Bits) -> Result<CompactWeight> {
        let file = &self.files[located.file];
        bits.compact(&located.tensor, &file.bytes).map_err(|refused| match refused {
            Refused::Malformed(problem) => Problem::Malformed(problem).in_file(&file.path),
            Refused::NonFinite(index, value) => {
                let name = format!("{}{}", located.tensor.name, packed::VALUES);
                Error::NonFinite { path: file.path.clone(), name, index, value }
            }
        })
    }

    /// The element type of a tensor, the size of an element in bytes, and the bytes of all elements in row-major order.
    /// `name` is the canonical name.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], or [`Error::Unsupported`] for an element type that cannot be copied. For a product of
    /// weights and mask also the errors of [`Checkpoint::load_f32`].
    pub(crate) fn raw(&self, name: &str) -> Result<(Dtype, usize, Cow<'_, [u8]>)> {
        let entry = self.tensors.get(name).ok_or_else(|| self.missing(name))?;
        let Located { file, tensor, bits } = &entry.tensor;
        let file = &self.files[*file];
        if let (None, Some(bits)) = (&entry.mask, bits) {
            let bytes = bits.dense_bytes(tensor, &file.bytes);
            let bytes = bytes.map_err(|problem| Problem::Malformed(problem).in_file(&file.path))?;
            return Ok((tensor.dtype, tensor.element_size, bytes.into()));
        }
        if tensor.element_size == 0 || tensor.byte_len().is_none_or(|len| len > file.bytes.len()) {
            let problem = format!("tensor `{}` is {} and cannot be copied", tensor.name, tensor.dtype);
            return Err(Error::Unsupported { path: file.path.clone(), problem });
        }
        let (Some(_), Dtype::Float(float)) = (&entry.mask, tensor.dtype) else {
            return Ok((tensor.dtype, tensor.element_size, tensor.row_major(&file.bytes)));
        };
        let mut values = vec![0.0; tensor.shape.iter().product()];
        self.load_f32(name, &tensor.shape, &mut values)?;
        let bytes = float.encode(&values);
        // The product may be too large for the type of the factors.
        if let Some(index) = convert::contiguous(float, &bytes, &mut values) {
            return Err(self.non_finite(&entry.tensor, index, values[index]));
        }
        Ok((tensor.dtype, tensor.element_size, bytes.into()))
    }

    fn missing(&self, name: &str) -> Error {
        let names = self.tensors.values().map(|entry| entry.tensor.tensor.name.as_str());
        Error::MissingTensor { path: self.path.clone(), name: name.to_owned(), similar: similar(name, names) }
    }

    fn check_located(&self, located: &Located, expected_shape: &[usize]) -> Result<()> {
        let Located { file, tensor, bits } = located;
        let file = &self.files[*file];
        let (path, name) = (file.path.clone(), tensor.name.clone());
        if tensor.shape != expected_shape {
            let (found, expected) = (tensor.shape.clone(), expected_shape.to_vec());
            return Err(Error::WrongShape { path, name, found, expected });
        }
        let Dtype::Float(_) = tensor.dtype else {
            return Err(Error::WrongDtype { path, name, dtype: tensor.dtype.to_string() });
        };
        // A tensor with a stride of 0 repeats elements, so its shape does not bound its bytes.
        if bits.is_none() && tensor.byte_len().is_none_or(|len| len > file.bytes.len()) {
            let problem = format!("tensor `{name}` of shape {:?} is larger than the file", tensor.shape);
            return Err(Error::Malformed { path, problem });
        }
        Ok(())
    }

    fn load(&self, located: &Located, expected_shape: &[usize], out: &mut [f32]) -> Result<()> {
        self.check_located(located, expected_shape)?;
        let Located { file, tensor, bits } = located;
        if let Some(bits) = bits {
            self.compact(located, bits)?.write_to(out);
            return Ok(());
        }
        let Dtype::Float(float) = tensor.dtype else {
            let (path, name) = (self.files[*file].path.clone(), tensor.name.clone());
            return Err(Error::WrongDtype { path, name, dtype: tensor.dtype.to_string() });
        };
        let bytes = self.files[*file].bytes.get(tensor.start..).unwrap_or_default();
        let non_finite = match &tensor.strides {
            None => convert::contiguous(float, bytes, out),
            Some(strides) => convert::strided(float, bytes, &tensor.shape, strides, out),
        };
        match non_finite {
            None => Ok(()),
            Some(index) => Err(self.non_finite(located, index, out[index])),
        }
    }

    fn non_finite(&self, located: &Located, index: usize, value: f32) -> Error {
        let (path, name) = (self.files[located.file].path.clone(), located.tensor.name.clone());
        Error::NonFinite { path, name, index, value }
    }

    /// SHA-256 of the weights file, or of the concatenated shards in the order of their names, in lower-case hexadecimal.
    ///
    /// The first call computes the digest; later calls return the stored one.
    pub fn sha256(&self) -> &str {
        self.digest.get_or_init(|| sha256_hex(self.files.iter().map(|file| &file.bytes[..])))
    }

    /// Maps a weights file and returns the tensors that satisfy `selected`, a condition on the name in the file.
    fn read_file(&mut self, path: PathBuf, selected: impl Fn(&str) -> bool) -> Result<Vec<Located>> {
        let file = self.files.len();
        let (opened, tensors) = WeightsFile::open(path)?;
        let tensors = match &opened.packed {
            Some(header) => header.combine(tensors).map_err(|problem| problem.in_file(&opened.path))?,
            None => tensors.into_iter().map(|tensor| (tensor, None)).collect(),
        };
        self.files.push(opened);
        let selected = tensors.into_iter().filter(|(tensor, _)| selected(&tensor.name));
        Ok(selected.map(|(tensor, bits)| Located { file, tensor, bits }).collect())
    }

    /// The tensors of the shards in the index at `self.path`.
    fn read_shards(&mut self, dir: &Path) -> Result<Vec<Located>> {
        let index = ShardIndex::read(&self.path)?;
        let mut found = Vec::new();
        for shard in index.shards() {
            found.extend(
                self.read_file(dir.join(shard), |name| index.weight_map.get(name).is_some_and(|s| s == shard))?,
            );
        }
        let names: HashSet<&str> = found.iter().map(|found| found.tensor.name.as_str()).collect();
        for (name, shard) in &index.weight_map {
            if !names.contains(name.as_str()) {
                let problem = format!("it places tensor `{name}` in {shard}, which does not hold it");
                return Err(Error::Malformed { path: self.path.clone(), problem });
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_that_repeats_its_elements_is_no_larger_than_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pytorch_model.bin");
        std::fs::write(&path, [0; 16]).unwrap();
        let located = |shape: [usize; 2]| {
            let (name, dtype, shape) = ("words".to_owned(), Dtype::Float(convert::Float::F32), shape.to_vec());
            let tensor = Tensor { name, dtype, element_size: 4, shape, start: 0, strides: Some(vec![0, 0]) };
            Located { file: 0, tensor, bits: None }
        };
        let mut checkpoint = Checkpoint {
            files: vec![WeightsFile { bytes: weights_file::map(&path).unwrap(), path: path.clone(), packed: None }],
            path,
            tensors: BTreeMap::new(),
            words_as_decoder: None,
            tied_decoder: None,
            notes: Vec::new(),
            digest: OnceLock::new(),
        };
        for (shape, is_small) in [([2, 2], true), ([1 << 20, 1 << 14], false), ([usize::MAX, 2], false)] {
            checkpoint.tensors.clear();
            checkpoint.index(vec![located(shape)]).unwrap();
            let checked = checkpoint.check("words", &shape);
            assert_eq!(checked.is_ok(), is_small, "{checked:?}");
            assert_eq!(checkpoint.raw("words").is_ok(), is_small);
        }
    }
}
