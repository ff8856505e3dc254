//! Writing of packed models: a bit for each weight of a pruned matrix, and the values of the survivors.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;

use tamt_kernels::Precision;
use tamt_kernels::masks::BitMask;

use crate::checkpoint::packed::{BITS, FORMAT, VALUES, VERSION, keys};
use crate::checkpoint::{Checkpoint, PACKED_FILE};
use crate::config::Config;
use crate::error::{Error, Result, write_error};
use crate::model::{Model, mlm_names};
use crate::params::Masks;
use crate::rewrite::{Copied, Dtype, copy, mask_of};
use crate::write::{TensorData, write_safetensors};

/// The sizes of a packed model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PackedSizes {
    /// Weights of the prunable matrices.
    pub weights: u64,
    /// Those of them that are stored, zeros of a matrix that is stored whole included.
    pub kept: u64,
    /// Bytes of the prunable matrices.
    pub matrix_bytes: u64,
    /// Bytes of the weights file.
    pub file_bytes: u64,
}

/// A packed matrix.
struct Packed {
    name: String,
    bits_shape: [usize; 2],
    kept: usize,
    dtype: String,
    element_size: usize,
    mask: BitMask,
    values: Vec<u8>,
}

/// Writes the checkpoint in the directory `source`, which `model` was read from, to the directory `target`, as
/// `model.packed.safetensors`. All floating-point tensors are rounded to `precision`; other tensors and names stay. Returns
/// the configuration of the packed model, which [`write_config`](crate::write::write_config) writes when all other files
/// are there.
///
/// A matrix with a mask is packed under that mask. Another prunable matrix is packed without its zeros, where that takes
/// fewer bytes. `metadata` says where the model comes from.
///
/// # Errors
/// If the checkpoint is malformed, a file cannot be written, or a weight is too large for `precision`.
pub fn pack(
    source: &Path,
    model: &Model,
    masks: &Masks,
    target: &Path,
    precision: Precision,
    metadata: &BTreeMap<String, String>,
) -> Result<(PackedSizes, Config)> {
    let checkpoint = Checkpoint::open(source)?;
    let prunable: HashSet<&str> = model.prunable().into_iter().map(|id| model.params.spec(id).name.as_str()).collect();
    let dtype = match precision {
        Precision::F32 => Dtype::F32,
        Precision::Bf16 => Dtype::Bf16,
    };
    let copied = |name: &str| copy(&checkpoint, name, mask_of(&checkpoint, model, masks, name)?, Some(dtype));
    let tied = tied_decoder(&checkpoint, model, &copied)?;
    let (mut packed, mut whole, mut sizes) = (Vec::new(), Vec::new(), PackedSizes::default());
    let names = checkpoint.names().filter(|name| tied.as_ref().is_none_or(|(decoder, _)| decoder != name));
    for name in names {
        let tensor = copied(name)?;
        if !prunable.contains(name) {
            whole.push(tensor);
            continue;
        }
        let elements = tensor.bytes.len() / tensor.element_size.max(1);
        let mask = model.params.find(name).and_then(|id| masks.get(id));
        sizes.weights += elements as u64;
        match Packed::of(&tensor, mask) {
            Some(matrix) => {
                sizes.kept += matrix.kept as u64;
                sizes.matrix_bytes += (matrix.mask.as_bytes().len() + matrix.values.len()) as u64;
                packed.push(matrix);
            }
            None => {
                sizes.kept += elements as u64;
                sizes.matrix_bytes += tensor.bytes.len() as u64;
                whole.push(tensor);
            }
        }
    }
    check_names(&checkpoint, &packed, &whole)?;
    let mut metadata = metadata.clone();
    let shapes: BTreeMap<&str, [usize; 2]> =
        packed.iter().map(|matrix| (matrix.name.as_str(), [matrix.mask.rows(), matrix.mask.cols()])).collect();
    metadata.extend([
        (keys::FORMAT.to_owned(), FORMAT.to_owned()),
        (keys::VERSION.to_owned(), VERSION.to_owned()),
        (keys::SHAPES.to_owned(), serde_json::json!(shapes).to_string()),
    ]);
    metadata.extend(tied.map(|(_, written)| (keys::TIED_DECODER.to_owned(), written)));
    fs::create_dir_all(target).map_err(write_error(target))?;
    let path = target.join(PACKED_FILE);
    write(&path, &metadata, &packed, &whole)?;
    sizes.file_bytes = fs::metadata(&path).map_err(write_error(&path))?.len();
    let mut config = model.config.clone();
    config.set_dtype(dtype.torch_name());
    Ok((sizes, config))
}

/// The canonical name and the name in the file of a decoder that holds the same bytes as the word embeddings.
fn tied_decoder<'a>(
    checkpoint: &Checkpoint,
    model: &Model,
    copied: &impl Fn(&str) -> Result<Copied<'a>>,
) -> Result<Option<(String, String)>> {
    let decoder = mlm_names(model.config.family).decoder;
    if !checkpoint.contains(&decoder) {
        return Ok(None);
    }
    let (own, words) = (copied(&decoder)?, copied(&model.params.spec(model.embeddings.word).name)?);
    let same = own.shape == words.shape && own.bytes == words.bytes;
    Ok(same.then_some((decoder, own.name)))
}

impl Packed {
    /// The matrix under its mask, or without its zeros where that takes fewer bytes; `None` for a matrix to store whole.
    fn of(tensor: &Copied<'_>, mask: Option<&BitMask>) -> Option<Self> {
        let &[rows, cols] = tensor.shape.as_slice() else { return None };
        let size = tensor.element_size;
        let mask = match mask {
            Some(mask) => mask.clone(),
            None => {
                let mask = mask_of_nonzero(&tensor.bytes, size, [rows, cols]);
                let packed = mask.as_bytes().len() + mask.count_ones() * size;
                (packed < tensor.bytes.len()).then_some(mask)?
            }
        };
        if mask.is_empty() {
            return None;
        }
        let kept = mask.count_ones();
        let mut values = Vec::with_capacity(kept * size);
        for (row, elements) in tensor.bytes.chunks_exact(cols * size).enumerate() {
            for (byte, elements) in mask.row(row).iter().zip(elements.chunks(8 * size)) {
                for (bit, element) in elements.chunks_exact(size).enumerate() {
                    if byte >> bit & 1 == 1 {
                        values.extend_from_slice(element);
                    }
                }
            }
        }
        let (name, dtype) = (tensor.name.clone(), tensor.dtype.to_string());
        Some(Self { name, bits_shape: [rows, mask.row_bytes()], kept, dtype, element_size: size, mask, values })
    }
}

/// The mask that drops the zeros, of either sign, among the little-endian elements of a matrix.
fn mask_of_nonzero(bytes: &[u8], size: usize, [rows, cols]: [usize; 2]) -> BitMask {
    let mut bits = Vec::with_capacity(rows * cols.div_ceil(8));
    let is_nonzero = |element: &[u8]| match element.split_last() {
        Some((last, others)) => last & 0x7f != 0 || others.iter().any(|&byte| byte != 0),
        None => false,
    };
    for row in bytes.chunks_exact((cols * size).max(1)) {
        bits.extend(row.chunks(8 * size).map(|elements| {
            let elements = elements.chunks_exact(size).enumerate();
            elements.fold(0, |byte, (bit, element)| byte | u8::from(is_nonzero(element)) << bit)
        }));
    }
    BitMask::from_bytes(rows, cols, bits).unwrap_or_else(|| BitMask::ones(rows, cols))
}

/// Refuses a checkpoint with a tensor that has the name of a packed matrix's part.
fn check_names(checkpoint: &Checkpoint, packed: &[Packed], whole: &[Copied<'_>]) -> Result<()> {
    let parts: HashSet<String> =
        packed.iter().flat_map(|matrix| [BITS, VALUES].map(|suffix| format!("{}{suffix}", matrix.name))).collect();
    match whole.iter().find(|tensor| parts.contains(&tensor.name)) {
        None => Ok(()),
        Some(tensor) => {
            let problem = format!("its tensor `{}` has the name of a part of a packed matrix", tensor.name);
            Err(Error::Unsupported { path: checkpoint.path().to_owned(), problem })
        }
    }
}

fn write(path: &Path, metadata: &BTreeMap<String, String>, packed: &[Packed], whole: &[Copied<'_>]) -> Result<()> {
    let names: Vec<[String; 2]> =
        packed.iter().map(|matrix| [BITS, VALUES].map(|suffix| format!("{}{suffix}", matrix.name))).collect();
    let kinds: Vec<String> = whole.iter().map(|tensor| tensor.dtype.to_string()).collect();
    let counts: Vec<[usize; 1]> = packed.iter().map(|matrix| [matrix.kept]).collect();
    let mut tensors: Vec<(&str, &[usize], TensorData<'_>)> = Vec::new();
    for ((matrix, [bits, values]), count) in packed.iter().zip(&names).zip(&counts) {
        let Packed { dtype, element_size, .. } = matrix;
        tensors.push((bits, &matrix.bits_shape, TensorData::U8(matrix.mask.as_bytes())));
        let survivors = TensorData::Raw { dtype, element_size: *element_size, bytes: &matrix.values };
        tensors.push((values, count, survivors));
    }
    for (tensor, dtype) in whole.iter().zip(&kinds) {
        let data = TensorData::Raw { dtype, element_size: tensor.element_size, bytes: &tensor.bytes };
        tensors.push((&tensor.name, &tensor.shape, data));
    }
    write_safetensors(path, metadata, &tensors)
}
