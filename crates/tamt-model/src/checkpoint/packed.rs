//! Packed weights files: a bit for each weight of a pruned matrix, and the values of the survivors.
//!
//! A packed file is a safetensors file with the metadata of this module. A pruned matrix `NAME` is two tensors,
//! `NAME.bitmask` and `NAME.values`; all other tensors are stored as in any weights file.

use std::collections::{BTreeMap, HashMap};

use half::bf16;
use tamt_kernels::masks::{BitMask, CompactWeight, Survivors};

use crate::checkpoint::convert::{self, Dtype, Float};
use crate::checkpoint::tensor::{Problem, Tensor};

/// The value of `format` in the metadata.
pub(crate) const FORMAT: &str = "tamt-packed";
/// The version of the format.
pub(crate) const VERSION: &str = "1";
/// Suffix of the bits of a matrix: U8 `[rows, ceil(cols / 8)]`, the first column in the lowest bit, 1 = kept.
pub(crate) const BITS: &str = ".bitmask";
/// Suffix of the survivors of a matrix: F32 or BF16 `[survivors]`, row after row, by column.
pub(crate) const VALUES: &str = ".values";

/// The keys of the metadata that readers need.
pub(crate) mod keys {
    /// [`FORMAT`](super::FORMAT)
    pub(crate) const FORMAT: &str = "format";
    /// [`VERSION`](super::VERSION)
    pub(crate) const VERSION: &str = "version";
    /// A JSON object of the `[rows, cols]` of each packed matrix, by its name.
    pub(crate) const SHAPES: &str = "shapes";
    /// The name of a decoder that is tied to the word embeddings and stored as they are.
    pub(crate) const TIED_DECODER: &str = "tied_decoder";
}

/// The metadata of a packed file.
#[derive(Debug)]
pub(super) struct Header {
    shapes: BTreeMap<String, [usize; 2]>,
    pub(super) tied_decoder: Option<String>,
}

/// The bits of a packed matrix. The matrix itself is a [`Tensor`] of its own shape, which starts where its survivors
/// start.
#[derive(Clone, Debug)]
pub(super) struct Bits {
    /// Byte offset of the bits in the file.
    start: usize,
    /// Number of survivors.
    kept: usize,
}

impl Header {
    /// The metadata of a packed file; `None` for another safetensors file.
    pub(super) fn of(metadata: Option<&HashMap<String, String>>) -> Result<Option<Self>, Problem> {
        let Some(metadata) = metadata else { return Ok(None) };
        let value = |key: &str| metadata.get(key).map(String::as_str);
        if value(keys::FORMAT) != Some(FORMAT) {
            return Ok(None);
        }
        match value(keys::VERSION) {
            Some(VERSION) => {}
            Some(other) => {
                let problem = format!("it is a packed model of version {other:?}, and version {VERSION} is known");
                return Err(Problem::Unsupported(problem));
            }
            None => return Err(Problem::Malformed("it is a packed model without a version".to_owned())),
        }
        let shapes = value(keys::SHAPES).unwrap_or("{}");
        let shapes = serde_json::from_str(shapes)
            .map_err(|error| Problem::Malformed(format!("its shapes cannot be read: {error}")))?;
        Ok(Some(Self { shapes, tied_decoder: value(keys::TIED_DECODER).map(str::to_owned) }))
    }

    /// All tensors of the file, the two of a packed matrix as one.
    pub(super) fn combine(&self, tensors: Vec<Tensor>) -> Result<Vec<(Tensor, Option<Bits>)>, Problem> {
        let mut others: BTreeMap<String, Tensor> = BTreeMap::new();
        for tensor in tensors {
            others.insert(tensor.name.clone(), tensor);
        }
        let mut combined = Vec::with_capacity(others.len());
        for (name, &shape) in &self.shapes {
            let mut take = |suffix: &str| {
                let part = format!("{name}{suffix}");
                others.remove(&part).ok_or_else(|| Problem::Malformed(format!("it lacks the tensor `{part}`")))
            };
            let (bits, values) = (take(BITS)?, take(VALUES)?);
            let (tensor, bits) = matrix(name, shape, &bits, values)?;
            combined.push((tensor, Some(bits)));
        }
        combined.extend(others.into_values().map(|tensor| (tensor, None)));
        Ok(combined)
    }
}

/// A packed matrix of its two tensors.
fn matrix(name: &str, shape: [usize; 2], bits: &Tensor, values: Tensor) -> Result<(Tensor, Bits), Problem> {
    let malformed = |problem: String| Err(Problem::Malformed(problem));
    let [rows, cols] = shape;
    // A matrix without columns would have any number of rows in no byte.
    if rows == 0 || cols == 0 {
        return malformed(format!("its matrix `{name}` is {rows} x {cols}"));
    }
    if bits.dtype != Dtype::Other("U8") || bits.shape != [rows, cols.div_ceil(8)] {
        let (found, dtype) = (&bits.shape, bits.dtype);
        return malformed(format!("its tensor `{}` is {dtype} {found:?}, not a bit of {rows} x {cols}", bits.name));
    }
    let (Dtype::Float(Float::F32 | Float::BF16), &[kept]) = (values.dtype, values.shape.as_slice()) else {
        let (found, dtype) = (&values.shape, values.dtype);
        return malformed(format!("its tensor `{}` is {dtype} {found:?}, not a list of F32 or BF16", values.name));
    };
    let tensor = Tensor { name: name.to_owned(), shape: shape.to_vec(), ..values };
    Ok((tensor, Bits { start: bits.start, kept }))
}

/// Why a packed matrix cannot be read.
#[derive(Debug)]
pub(super) enum Refused {
    /// The two tensors do not fit each other.
    Malformed(String),
    /// The survivor with this index is NaN or infinite.
    NonFinite(usize, f32),
}

impl Bits {
    /// The mask of the matrix `tensor`, with as many survivors as there are values.
    fn mask(&self, tensor: &Tensor, file: &[u8]) -> Result<BitMask, String> {
        let name = &tensor.name;
        let &[rows, cols] = tensor.shape.as_slice() else { return Err(format!("`{name}` is no matrix")) };
        let bytes = file.get(self.start..).and_then(|bytes| bytes.get(..rows.checked_mul(cols.div_ceil(8))?));
        let bytes = bytes.ok_or_else(|| format!("the bits of `{name}` are beyond its end"))?;
        let mask = BitMask::from_bytes(rows, cols, bytes.to_vec())
            .ok_or_else(|| format!("`{name}{BITS}` has bits set beyond its {cols} columns"))?;
        let kept = mask.count_ones();
        if kept != self.kept {
            return Err(format!("`{name}{BITS}` keeps {kept} weights, and `{name}{VALUES}` has {}", self.kept));
        }
        Ok(mask)
    }

    /// The bytes of the survivors.
    fn survivors<'a>(&self, tensor: &Tensor, file: &'a [u8]) -> &'a [u8] {
        let len = self.kept.saturating_mul(tensor.element_size);
        file.get(tensor.start..).and_then(|bytes| bytes.get(..len)).unwrap_or_default()
    }

    /// The matrix `tensor`, without its dropped elements.
    pub(super) fn compact(&self, tensor: &Tensor, file: &[u8]) -> Result<CompactWeight, Refused> {
        let mask = self.mask(tensor, file).map_err(Refused::Malformed)?;
        let bytes = self.survivors(tensor, file);
        let Dtype::Float(float) = tensor.dtype else {
            return Err(Refused::Malformed(format!("`{}{VALUES}` holds no floating-point numbers", tensor.name)));
        };
        let survivors = if float == Float::BF16 {
            let halves: Vec<bf16> = bytes.as_chunks().0.iter().map(|&pair| bf16::from_le_bytes(pair)).collect();
            if let Some(index) = halves.iter().position(|half| !half.is_finite()) {
                return Err(Refused::NonFinite(index, halves[index].to_f32()));
            }
            Survivors::Bf16(halves)
        } else {
            let mut values = vec![0.0; self.kept];
            if let Some(index) = convert::contiguous(float, bytes, &mut values) {
                return Err(Refused::NonFinite(index, values[index]));
            }
            Survivors::F32(values)
        };
        CompactWeight::from_survivors(mask, survivors)
            .ok_or_else(|| Refused::Malformed(format!("`{}{VALUES}` is beyond its end", tensor.name)))
    }

    /// The bytes of all elements of the matrix `tensor` in row-major order, dropped elements as zeros.
    pub(super) fn dense_bytes(&self, tensor: &Tensor, file: &[u8]) -> Result<Vec<u8>, String> {
        let mask = self.mask(tensor, file)?;
        let size = tensor.element_size;
        let mut survivors = self.survivors(tensor, file).chunks_exact(size);
        let mut dense = vec![0; mask.len() * size];
        for (row, out) in dense.chunks_exact_mut(mask.cols() * size).enumerate() {
            for (byte, out) in mask.row(row).iter().zip(out.chunks_mut(8 * size)) {
                for (bit, out) in out.chunks_exact_mut(size).enumerate() {
                    if byte >> bit & 1 == 1 {
                        out.copy_from_slice(survivors.next().ok_or("its survivors are beyond its end")?);
                    }
                }
            }
        }
        Ok(dense)
    }
}
