//! The copy of a checkpoint with the zeros of masks: all tensors of the file, those that this crate does not know too.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use tamt_kernels::masks::BitMask;

use crate::checkpoint::Checkpoint;
use crate::checkpoint::convert::{self, Dtype as FileDtype, Float};
use crate::config::Config;
use crate::error::{Error, Result, write_error};
use crate::model::{Model, mlm_names};
use crate::params::Masks;
use crate::write::{TensorData, write_safetensors};

/// The element type of written weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// Single precision.
    F32,
    /// Half of the bits of single precision: its exponent, and 7 bits of its fraction.
    Bf16,
    /// Half precision of IEEE 754.
    F16,
}

impl Dtype {
    fn float(self) -> Float {
        match self {
            Self::F32 => Float::F32,
            Self::Bf16 => Float::BF16,
            Self::F16 => Float::F16,
        }
    }

    /// The name of the type in `config.json`.
    pub(crate) fn torch_name(self) -> &'static str {
        self.float().torch_name()
    }
}

/// What a copy of a checkpoint consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewritten {
    /// The number of tensors of each element type, by the type's name in safetensors.
    pub dtypes: BTreeMap<String, usize>,
}

/// A tensor of the copy.
pub(crate) struct Copied<'a> {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) dtype: FileDtype,
    pub(crate) element_size: usize,
    pub(crate) bytes: Cow<'a, [u8]>,
}

/// Writes the checkpoint in the directory `source`, which `model` was read from, to the directory `target`, as
/// `model.safetensors`, with zeros where `masks` drop weights. All tensors and names stay. Floating-point tensors are
/// rounded to `dtype`; with `None` they keep their types and bits. Returns the configuration of the copy, which
/// [`write_config`](crate::write::write_config) writes when all other files are there.
///
/// A decoder that equals the word embeddings, as `transformers` ties it, gets their zeros too.
///
/// # Errors
/// If the checkpoint is malformed, a file cannot be written, or a weight is too large for `dtype`.
pub fn rewrite(
    source: &Path,
    model: &Model,
    masks: &Masks,
    target: &Path,
    dtype: Option<Dtype>,
) -> Result<(Rewritten, Config)> {
    let checkpoint = Checkpoint::open(source)?;
    let names: Vec<String> = checkpoint.names().map(str::to_owned).collect();
    let copied = names
        .iter()
        .map(|name| copy(&checkpoint, name, mask_of(&checkpoint, model, masks, name)?, dtype))
        .collect::<Result<Vec<_>>>()?;
    let mut dtypes: BTreeMap<String, usize> = BTreeMap::new();
    for tensor in &copied {
        *dtypes.entry(tensor.dtype.to_string()).or_default() += 1;
    }
    let config = config_of(model, &copied);
    let kinds: Vec<String> = copied.iter().map(|tensor| tensor.dtype.to_string()).collect();
    let tensors: Vec<(&str, &[usize], TensorData<'_>)> = copied
        .iter()
        .zip(&kinds)
        .map(|(tensor, dtype)| {
            let data = TensorData::Raw { dtype, element_size: tensor.element_size, bytes: &tensor.bytes };
            (tensor.name.as_str(), tensor.shape.as_slice(), data)
        })
        .collect();
    fs::create_dir_all(target).map_err(write_error(target))?;
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    write_safetensors(&target.join("model.safetensors"), &metadata, &tensors)?;
    Ok((Rewritten { dtypes }, config))
}

/// The configuration of a model whose weights have mostly the type that most bytes of `copied` have.
pub(crate) fn config_of(model: &Model, copied: &[Copied<'_>]) -> Config {
    let mut bytes_of: BTreeMap<&str, usize> = BTreeMap::new();
    for tensor in copied {
        if let FileDtype::Float(float) = tensor.dtype {
            *bytes_of.entry(float.torch_name()).or_default() += tensor.bytes.len();
        }
    }
    let mut config = model.config.clone();
    if let Some((name, _)) = bytes_of.into_iter().max_by_key(|(_, bytes)| *bytes) {
        config.set_dtype(name);
    }
    config
}

/// The mask of a tensor: its own, or that of the word embeddings for a decoder that is tied to them.
pub(crate) fn mask_of<'a>(
    checkpoint: &Checkpoint,
    model: &Model,
    masks: &'a Masks,
    name: &str,
) -> Result<Option<&'a BitMask>> {
    if let Some(id) = model.params.find(name) {
        return Ok(masks.get(id));
    }
    let word = model.params.spec(model.embeddings.word);
    let is_decoder = name == mlm_names(model.config.family).decoder;
    let Some(mask) = masks.get(model.embeddings.word).filter(|_| is_decoder) else { return Ok(None) };
    if checkpoint.shape(name) != Some(&word.shape) {
        return Ok(None);
    }
    let mut values = vec![0.0; word.elements()];
    checkpoint.check(name, &word.shape)?;
    checkpoint.load_f32(name, &word.shape, &mut values)?;
    Ok((values == *model.params.get(model.embeddings.word)).then_some(mask))
}

/// A tensor of a checkpoint, with zeros where `mask` drops elements, rounded to `dtype`.
///
/// # Errors
/// If the tensor is malformed, cannot be copied, or has a value that is too large for `dtype`.
pub(crate) fn copy<'a>(
    checkpoint: &'a Checkpoint,
    name: &str,
    mask: Option<&BitMask>,
    dtype: Option<Dtype>,
) -> Result<Copied<'a>> {
    let (own, element_size, mut bytes) = checkpoint.raw(name)?;
    let shape = checkpoint.shape(name).unwrap_or_default().to_vec();
    let written = checkpoint.original_name(name).unwrap_or(name).to_owned();
    let unsupported = |problem| Error::Unsupported { path: checkpoint.path().to_owned(), problem };
    if written == "__metadata__" {
        return Err(unsupported(
            "a tensor is named `__metadata__`, as no tensor of a safetensors file can be".to_owned(),
        ));
    }
    let copied = |dtype, element_size, bytes| {
        Ok(Copied { name: written.clone(), shape: shape.clone(), dtype, element_size, bytes })
    };
    let target = dtype.map(Dtype::float);
    match (own, target) {
        (FileDtype::Float(own), Some(target)) if own != target => {
            let mut values = vec![0.0; shape.iter().product()];
            checkpoint.load_f32(name, &shape, &mut values)?;
            if let Some(mask) = mask {
                mask.mask_in_place(&mut values);
            }
            let bytes = target.encode(&values);
            if let Some(index) = convert::contiguous(target, &bytes, &mut vec![0.0; values.len()]) {
                let value = values[index];
                return Err(unsupported(format!("tensor `{name}` holds {value}, which is too large for {target:?}")));
            }
            copied(FileDtype::Float(target), target.size(), bytes.into())
        }
        _ => {
            if let Some(mask) = mask {
                drop_bytes(bytes.to_mut(), element_size, mask);
            }
            copied(own, element_size, bytes)
        }
    }
}

/// Sets the elements that `mask` drops to zero, which has no set bit in each floating-point type.
fn drop_bytes(bytes: &mut [u8], element_size: usize, mask: &BitMask) {
    let elements = bytes.chunks_exact_mut(element_size).enumerate();
    for (i, element) in elements {
        if !mask.get(i / mask.cols(), i % mask.cols()) {
            element.fill(0);
        }
    }
}
