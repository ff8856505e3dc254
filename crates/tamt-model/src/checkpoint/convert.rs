//! Conversion of the elements of a weights file to f32.

use std::fmt;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

/// Elements per parallel task.
const CHUNK: usize = 1 << 16;
/// Half-precision elements per copy to an aligned buffer.
const BLOCK: usize = 1 << 10;

/// The element type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dtype {
    /// A type that weights may have.
    Float(Float),
    /// Another type, by name.
    Other(&'static str),
}

/// The element types of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Float {
    F16,
    BF16,
    F32,
    F64,
}

impl Float {
    /// Size of an element in bytes.
    pub(crate) fn size(self) -> usize {
        match self {
            Self::F16 | Self::BF16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// The name of the type in `config.json`, as `torch` spells it.
    pub(crate) fn torch_name(self) -> &'static str {
        match self {
            Self::F16 => "float16",
            Self::BF16 => "bfloat16",
            Self::F32 => "float32",
            Self::F64 => "float64",
        }
    }

    /// The bytes of values, each rounded to the nearest element of the type.
    pub(crate) fn encode(self, values: &[f32]) -> Vec<u8> {
        match self {
            Self::F16 => values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect(),
            Self::BF16 => values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect(),
            Self::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Self::F64 => values.iter().flat_map(|&v| f64::from(v).to_le_bytes()).collect(),
        }
    }

    /// The element at the start of `bytes`; 0 if `bytes` is too short.
    fn decode(self, bytes: &[u8]) -> f32 {
        match self {
            Self::F16 => first(bytes).map_or(0.0, |b| f16::from_le_bytes(b).to_f32()),
            Self::BF16 => first(bytes).map_or(0.0, bf16_to_f32),
            Self::F32 => first(bytes).map_or(0.0, f32::from_le_bytes),
            Self::F64 => first(bytes).map_or(0.0, |b| f64::from_le_bytes(b) as f32),
        }
    }

    /// Converts the elements at the start of `bytes`.
    fn decode_slice(self, bytes: &[u8], out: &mut [f32]) {
        match self {
            Self::F16 => {
                let mut block = [f16::ZERO; BLOCK];
                for (out, bytes) in out.chunks_mut(BLOCK).zip(bytes.chunks(2 * BLOCK)) {
                    let block = &mut block[..out.len()];
                    for (half, &b) in block.iter_mut().zip(bytes.as_chunks().0) {
                        *half = f16::from_le_bytes(b);
                    }
                    block.convert_to_f32_slice(out);
                }
            }
            Self::BF16 => convert(bytes, out, bf16_to_f32),
            Self::F32 => convert(bytes, out, f32::from_le_bytes),
            Self::F64 => convert(bytes, out, |b| f64::from_le_bytes(b) as f32),
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Float(float) => write!(f, "{float:?}"),
            Self::Other(name) => f.write_str(name),
        }
    }
}

fn first<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.first_chunk().copied()
}

fn bf16_to_f32(bytes: [u8; 2]) -> f32 {
    f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16)
}

fn convert<const N: usize>(bytes: &[u8], out: &mut [f32], decode: impl Fn([u8; N]) -> f32) {
    for (out, &b) in out.iter_mut().zip(bytes.as_chunks().0) {
        *out = decode(b);
    }
}

/// Converts the first `out.len()` elements of `bytes` and returns the index of the first NaN or infinite one.
pub(crate) fn contiguous(float: Float, bytes: &[u8], out: &mut [f32]) -> Option<usize> {
    out.par_chunks_mut(CHUNK)
        .zip(bytes.par_chunks(CHUNK * float.size()))
        .enumerate()
        .filter_map(|(chunk, (out, bytes))| {
            float.decode_slice(bytes, out);
            first_non_finite(out).map(|i| chunk * CHUNK + i)
        })
        .min()
}

/// Converts elements that lie `strides` apart in each dimension to row-major order, and returns the index of the first NaN
/// or infinite one.
pub(super) fn strided(
    float: Float,
    bytes: &[u8],
    shape: &[usize],
    strides: &[usize],
    out: &mut [f32],
) -> Option<usize> {
    let mut elements = out.iter_mut();
    for_each_offset(shape, strides, |offset| {
        if let Some(out) = elements.next() {
            *out = float.decode(bytes.get(offset * float.size()..).unwrap_or_default());
        }
    });
    first_non_finite(out)
}

/// Calls `visit` with the element offset of each index of a strided tensor, in row-major order.
pub(super) fn for_each_offset(shape: &[usize], strides: &[usize], mut visit: impl FnMut(usize)) {
    let mut index = vec![0; shape.len()];
    let mut offset = 0usize;
    for _ in 0..shape.iter().product() {
        visit(offset);
        for dim in (0..shape.len()).rev() {
            index[dim] += 1;
            // The stride of a dimension of length 1 is arbitrary, so the sum may wrap; the subtraction below undoes it.
            offset = offset.wrapping_add(strides[dim]);
            if index[dim] < shape[dim] {
                break;
            }
            offset = offset.wrapping_sub(strides[dim].wrapping_mul(shape[dim]));
            index[dim] = 0;
        }
    }
}

/// The index of the first NaN or infinite value.
pub(super) fn first_non_finite(values: &[f32]) -> Option<usize> {
    // The compiler vectorises the fold, which has no early exit. The search runs only for a bad file.
    if values.iter().fold(true, |all, v| all & v.is_finite()) {
        return None;
    }
    values.iter().position(|v| !v.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(len: usize) -> Vec<f32> {
        (0..len).map(|i| (i as f32 - 100.0) * 0.37).collect()
    }

    #[test]
    fn each_element_type_converts_as_its_definition_says() {
        let len = CHUNK + BLOCK + 7;
        let values = ramp(len);
        let cases: [(Float, Vec<u8>, Vec<f32>); 4] = [
            (
                Float::F16,
                values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect(),
                values.iter().map(|&v| f16::from_f32(v).to_f32()).collect(),
            ),
            (
                Float::BF16,
                values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect(),
                values.iter().map(|&v| bf16::from_f32(v).to_f32()).collect(),
            ),
            (Float::F32, values.iter().flat_map(|v| v.to_le_bytes()).collect(), values.clone()),
            (Float::F64, values.iter().flat_map(|&v| f64::from(v).to_le_bytes()).collect(), values.clone()),
        ];
        for (float, bytes, expected) in cases {
            let mut out = vec![f32::NAN; len];
            assert_eq!(contiguous(float, &bytes, &mut out), None, "{float:?}");
            assert_eq!(out, expected, "{float:?}");
            let mut one_by_one = vec![f32::NAN; len];
            strided(float, &bytes, &[len], &[1], &mut one_by_one);
            assert_eq!(one_by_one, expected, "{float:?}");
            assert_eq!(float.encode(&expected), bytes, "{float:?}");
        }
    }

    #[test]
    fn the_first_bad_weight_is_found_whichever_task_meets_one_first() {
        let mut values = ramp(3 * CHUNK);
        values[2 * CHUNK + 1] = f32::NAN;
        values[CHUNK + 5] = f32::INFINITY;
        values[CHUNK + 6] = f32::NAN;
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(contiguous(Float::F32, &bytes, &mut vec![0.0; values.len()]), Some(CHUNK + 5));
    }

    #[test]
    fn a_transposed_tensor_is_read_row_major() {
        let bytes: Vec<u8> = [0.0f32, 1.0, 2.0, 3.0, 4.0, 5.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let mut out = [f32::NAN; 6];
        assert_eq!(strided(Float::F32, &bytes, &[3, 2], &[1, 3], &mut out), None);
        assert_eq!(out, [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    }

    #[test]
    fn a_double_beyond_single_precision_is_not_finite() {
        assert_eq!(contiguous(Float::F64, &1e300f64.to_le_bytes(), &mut [0.0]), Some(0));
    }
}
