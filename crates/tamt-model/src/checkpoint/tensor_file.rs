//! Files of tensors that need not be a model: masks in any of the formats that hold them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use tamt_files::digest::sha256_hex;
use tamt_kernels::masks::BitMask;

use crate::checkpoint::WEIGHT_FILES;
use crate::checkpoint::convert::{self, Dtype};
use crate::checkpoint::mask_values::{bits_of, packed_bits};
use crate::checkpoint::npz::Npz;
use crate::checkpoint::shards::ShardIndex;
use crate::checkpoint::tensor::Tensor;
use crate::checkpoint::weights_file::WeightsFile;
use crate::error::{Error, Result, names_in};

/// The tensors of a file, by their names in the file. Unlike a [`Checkpoint`](crate::Checkpoint), the file needs no names
/// of an encoder, and the tensors may have any type.
///
/// The file is safetensors or `.npz` by its ending, in `PyTorch`'s format otherwise. It must not change while it is open.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    contents: Vec<Content>,
    /// The file's index and the tensor, in the order of the file.
    tensors: Vec<(usize, Tensor)>,
    by_name: HashMap<String, usize>,
}

#[derive(Debug)]
enum Content {
    Weights(WeightsFile),
    Npz(Npz),
}

impl Content {
    fn path(&self) -> &Path {
        match self {
            Self::Weights(file) => &file.path,
            Self::Npz(file) => &file.path,
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Weights(file) => &file.bytes,
            Self::Npz(file) => &file.bytes,
        }
    }
}

impl TensorFile {
    /// Opens a file, or the weights in a model directory. The function reads only headers.
    ///
    /// # Errors
    /// If the path does not exist, the directory has no weights, or a file is malformed or of another format.
    pub fn open(path: &Path) -> Result<Self> {
        let path = if path.is_dir() {
            let found = WEIGHT_FILES.iter().map(|name| path.join(name)).find(|path| path.exists());
            found.ok_or_else(|| Error::NoWeights {
                dir: path.to_owned(),
                looked_for: &WEIGHT_FILES,
                found: names_in(path),
            })?
        } else {
            path.to_owned()
        };
        let mut file = Self { path: path.clone(), contents: Vec::new(), tensors: Vec::new(), by_name: HashMap::new() };
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("npz") => {
                let (npz, tensors) = Npz::open(path)?;
                file.add(Content::Npz(npz), tensors)?;
            }
            Some("json") => {
                let directory = path.parent().unwrap_or(Path::new(""));
                for shard in ShardIndex::read(&path)?.shards() {
                    file.add_weights(directory.join(shard))?;
                }
            }
            _ => file.add_weights(path)?,
        }
        Ok(file)
    }

    fn add_weights(&mut self, path: PathBuf) -> Result<()> {
        let (weights, tensors) = WeightsFile::open(path)?;
        self.add(Content::Weights(weights), tensors)
    }

    fn add(&mut self, content: Content, tensors: Vec<Tensor>) -> Result<()> {
        let path = content.path().to_owned();
        for tensor in tensors {
            let name = tensor.name.clone();
            if self.by_name.insert(name.clone(), self.tensors.len()).is_some() {
                return Err(Error::DuplicateTensor { path, first: name.clone(), second: name.clone(), name });
            }
            self.tensors.push((self.contents.len(), tensor));
        }
        self.contents.push(content);
        Ok(())
    }

    /// The file, or the index of the shards.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of all tensors, in the order of the file.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.iter().map(|(_, tensor)| tensor.name.as_str())
    }

    /// The shape of the tensor `name`.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        Some(&self.tensors[*self.by_name.get(name)?].1.shape)
    }

    /// SHA-256 of the file, or of the concatenated shards in the order of their names, in lower-case hexadecimal.
    pub fn sha256(&self) -> String {
        sha256_hex(self.contents.iter().map(Content::bytes))
    }

    /// The mask that a tensor `[rows, cols]` of zeros and ones is, whatever its type.
    ///
    /// # Errors
    /// [`Error::NotAMask`] with the first other value, [`Error::WrongShape`], or those of a missing or damaged tensor.
    pub fn mask(&self, name: &str, shape: [usize; 2]) -> Result<BitMask> {
        self.zeros_and_ones(name, &shape, shape)
    }

    /// The mask of one row that a tensor `[n]` of zeros and ones is, whatever its type.
    ///
    /// # Errors
    /// Those of [`TensorFile::mask`].
    pub fn mask_of_vector(&self, name: &str, n: usize) -> Result<BitMask> {
        self.zeros_and_ones(name, &[n], [1, n])
    }

    /// The elements of a tensor of the shape `stored` as a mask of `shape`, which has as many.
    fn zeros_and_ones(&self, name: &str, stored: &[usize], shape: [usize; 2]) -> Result<BitMask> {
        let (content, tensor) = self.tensor(name, stored)?;
        let bytes = self.elements(content, tensor)?;
        bits_of(tensor.dtype, tensor.element_size, &bytes, shape).map_err(|(index, value)| Error::NotAMask {
            path: content.path().to_owned(),
            name: name.to_owned(),
            row: index / shape[1].max(1),
            col: index % shape[1].max(1),
            value,
        })
    }

    /// The mask of `[rows, cols]` that a tensor of bytes `[rows, ceil(cols / 8)]` holds, the first column in the lowest
    /// bit, as in a ticket and in compressed-tensors' `sparse-bitmask`.
    ///
    /// # Errors
    /// [`Error::WrongShape`], [`Error::Malformed`] for bits beyond the columns, or those of a missing or damaged tensor.
    pub fn packed_mask(&self, name: &str, [rows, cols]: [usize; 2]) -> Result<BitMask> {
        let (content, tensor) = self.tensor(name, &[rows, cols.div_ceil(8)])?;
        let bytes = self.elements(content, tensor)?;
        packed_bits(tensor.dtype, &bytes, [rows, cols]).ok_or_else(|| Error::Malformed {
            path: content.path().to_owned(),
            problem: format!("tensor `{name}` ({}) does not hold a bit for each of {cols} columns", tensor.dtype),
        })
    }

    /// The values of a tensor of floats in row-major order.
    ///
    /// # Errors
    /// [`Error::WrongShape`], [`Error::WrongDtype`], [`Error::NonFinite`], or those of a missing or damaged tensor.
    pub fn values(&self, name: &str, shape: [usize; 2]) -> Result<Vec<f32>> {
        let (content, tensor) = self.tensor(name, &shape)?;
        let (path, name) = (content.path().to_owned(), name.to_owned());
        let Dtype::Float(float) = tensor.dtype else {
            return Err(Error::WrongDtype { path, name, dtype: tensor.dtype.to_string() });
        };
        let mut values = vec![0.0; shape[0] * shape[1]];
        match convert::contiguous(float, &self.elements(content, tensor)?, &mut values) {
            None => Ok(values),
            Some(index) => Err(Error::NonFinite { path, name, index, value: values[index] }),
        }
    }

    /// A tensor of this shape.
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<(&Content, &Tensor)> {
        let Some(&index) = self.by_name.get(name) else {
            return Err(Error::MissingTensor { path: self.path.clone(), name: name.to_owned(), similar: Vec::new() });
        };
        let (content, tensor) = &self.tensors[index];
        let content = &self.contents[*content];
        if tensor.shape != shape {
            let (path, name) = (content.path().to_owned(), name.to_owned());
            return Err(Error::WrongShape { path, name, found: tensor.shape.clone(), expected: shape.to_vec() });
        }
        Ok((content, tensor))
    }

    /// The bytes of all elements in row-major order.
    fn elements<'a>(&'a self, content: &'a Content, tensor: &Tensor) -> Result<Cow<'a, [u8]>> {
        match content {
            Content::Npz(npz) => Ok(Cow::Owned(npz.elements(tensor)?)),
            // A tensor with a stride of 0 repeats elements, so its shape does not bound its bytes.
            Content::Weights(file) if tensor.byte_len().is_some_and(|len| len <= file.bytes.len()) => {
                Ok(tensor.row_major(&file.bytes))
            }
            Content::Weights(file) => {
                let problem = format!("tensor `{}` of shape {:?} is larger than the file", tensor.name, tensor.shape);
                Err(Error::Malformed { path: file.path.clone(), problem })
            }
        }
    }
}
