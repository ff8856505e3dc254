//! Masks from tensors: a number for each weight, or a bit.

use half::{bf16, f16};
use tamt_kernels::masks::BitMask;

use crate::checkpoint::convert::{Dtype, Float};

/// The mask of a matrix `[rows, cols]` of zeros and ones, from the bytes of its elements in row-major order.
///
/// # Errors
/// The row-major index of the first other value, and the value. Missing elements count as an index past the end.
pub(super) fn bits_of(
    dtype: Dtype,
    element_size: usize,
    bytes: &[u8],
    [rows, cols]: [usize; 2],
) -> Result<BitMask, (usize, String)> {
    let one = match dtype {
        Dtype::Float(Float::F16) => f16::ONE.to_bits().into(),
        Dtype::Float(Float::BF16) => bf16::ONE.to_bits().into(),
        Dtype::Float(Float::F32) => 1f32.to_bits().into(),
        Dtype::Float(Float::F64) => 1f64.to_bits(),
        Dtype::Other("BOOL" | "U8" | "I8" | "U16" | "I16" | "U32" | "I32" | "U64" | "I64") => 1,
        Dtype::Other(name) => return Err((0, format!("elements of type {name}"))),
    };
    // Only floats have a negative zero.
    let sign = if matches!(dtype, Dtype::Float(_)) { 1 << (8 * element_size - 1) } else { 0 };
    let mut mask = BitMask::zeros(rows, cols);
    let mut index = 0;
    for element in bytes.chunks_exact(element_size.max(1)).take(rows * cols) {
        let word = word(element);
        if word == one {
            mask.set(index / cols, index % cols, true);
        } else if word & !sign != 0 {
            return Err((index, shown(dtype, element_size, word)));
        }
        index += 1;
    }
    if index < rows * cols { Err((index, "nothing".to_owned())) } else { Ok(mask) }
}

/// The mask of a matrix `[rows, cols]` from bytes with a bit for each element; `None` for elements of another type, another
/// number of bytes, or bits beyond the columns.
pub(super) fn packed_bits(dtype: Dtype, bytes: &[u8], [rows, cols]: [usize; 2]) -> Option<BitMask> {
    (dtype == Dtype::Other("U8")).then(|| BitMask::from_bytes(rows, cols, bytes.to_vec())).flatten()
}

/// The bits of an element of at most 8 bytes, little-endian.
fn word(element: &[u8]) -> u64 {
    let mut wide = [0; 8];
    wide[..element.len()].copy_from_slice(element);
    u64::from_le_bytes(wide)
}

/// The number that an element is.
fn shown(dtype: Dtype, element_size: usize, word: u64) -> String {
    match dtype {
        Dtype::Float(Float::F16) => f16::from_bits(word as u16).to_string(),
        Dtype::Float(Float::BF16) => bf16::from_bits(word as u16).to_string(),
        Dtype::Float(Float::F32) => f32::from_bits(word as u32).to_string(),
        Dtype::Float(Float::F64) => f64::from_bits(word).to_string(),
        Dtype::Other(name) if name.starts_with('I') => {
            let unused = 64 - 8 * element_size as u32;
            (word.cast_signed() << unused >> unused).to_string()
        }
        Dtype::Other(_) => word.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(dtype: Dtype, elements: &[&[u8]]) -> Result<Vec<u8>, (usize, String)> {
        let size = elements[0].len();
        bits_of(dtype, size, &elements.concat(), [1, elements.len()]).map(BitMask::into_bytes)
    }

    #[test]
    fn zeros_and_ones_of_every_type_are_bits() {
        let floats: [(Float, [Vec<u8>; 3]); 4] = [
            (Float::F16, [0.0, 1.0, -0.0].map(|v| f16::from_f32(v).to_le_bytes().to_vec())),
            (Float::BF16, [0.0, 1.0, -0.0].map(|v| bf16::from_f32(v).to_le_bytes().to_vec())),
            (Float::F32, [0.0f32, 1.0, -0.0].map(|v| v.to_le_bytes().to_vec())),
            (Float::F64, [0.0f64, 1.0, -0.0].map(|v| v.to_le_bytes().to_vec())),
        ];
        for (float, [zero, one, minus]) in &floats {
            assert_eq!(mask(Dtype::Float(*float), &[zero, one, minus, one]), Ok(vec![0b1010]), "{float:?}");
        }
        for (name, size) in [("BOOL", 1), ("U8", 1), ("I8", 1), ("I16", 2), ("U32", 4), ("I64", 8)] {
            let one: Vec<u8> = 1u64.to_le_bytes()[..size].to_vec();
            assert_eq!(mask(Dtype::Other(name), &[&one, &vec![0; size], &one]), Ok(vec![0b101]), "{name}");
        }
    }

    #[test]
    fn the_first_other_value_is_named() {
        let f32 = |values: &[f32]| -> Vec<Vec<u8>> { values.iter().map(|v| v.to_le_bytes().to_vec()).collect() };
        let other = |dtype, elements: &[Vec<u8>]| {
            mask(dtype, &elements.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap_err()
        };
        assert_eq!(other(Dtype::Float(Float::F32), &f32(&[1.0, 0.0, 0.25, 2.0])), (2, "0.25".to_owned()));
        assert_eq!(other(Dtype::Float(Float::F32), &f32(&[f32::NAN])), (0, "NaN".to_owned()));
        assert_eq!(other(Dtype::Other("I16"), &[vec![0, 0], vec![0xff, 0xff]]), (1, "-1".to_owned()));
        assert_eq!(other(Dtype::Other("U8"), &[vec![255]]), (0, "255".to_owned()));
        assert_eq!(other(Dtype::Other("C64"), &[vec![0; 8]]), (0, "elements of type C64".to_owned()));
    }
}
