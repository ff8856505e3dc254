//! The tensors of a file. Their bytes are made when they are written, so that no second copy of a model exists.

use std::borrow::Cow;

use tamt_kernels::masks::BitMask;
use tamt_model::{Masks, Model, ParamId};

use crate::proto::DataType;

/// Largest value of a quantised weight. The range is symmetric, so -128 is not used.
const MOST: f32 = 127.0;

/// A tensor of the file.
#[derive(Debug)]
pub(crate) struct Initializer<'a> {
    pub(crate) name: String,
    pub(crate) dims: Vec<usize>,
    pub(crate) values: Values<'a>,
}

/// The values of a tensor.
#[derive(Debug)]
pub(crate) enum Values<'a> {
    Integers(Vec<i64>),
    Floats(Cow<'a, [f32]>),
    /// The weights of a matrix `[rows, cols]`.
    Matrix(Matrix<'a>),
    /// The same as `[cols, rows]`.
    Transposed(Matrix<'a>),
    /// Weights divided by the scale of their row and rounded.
    Quantized(Matrix<'a>),
    /// The same as `[cols, rows]`.
    QuantizedTransposed(Matrix<'a>),
    /// The scale of each row.
    Scales(Matrix<'a>),
    /// Zeros, in 8 bits.
    ZeroPoints(usize),
}

/// A matrix `[rows, cols]` with a mask: dropped weights are 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix<'a> {
    model: &'a Model,
    id: ParamId,
    mask: Option<&'a BitMask>,
}

impl<'a> Matrix<'a> {
    pub(crate) fn new(model: &'a Model, masks: &'a Masks, id: ParamId) -> Self {
        Self { model, id, mask: masks.get(id) }
    }

    pub(crate) fn name(self) -> &'a str {
        &self.model.params.spec(self.id).name
    }

    pub(crate) fn shape(self) -> [usize; 2] {
        self.model.params.matrix_shape(self.id)
    }

    /// The weights, row-major.
    fn weights(self) -> Cow<'a, [f32]> {
        let mut weights = self.model.params.get(self.id);
        if let Some(mask) = self.mask {
            mask.mask_in_place(weights.to_mut());
        }
        weights
    }

    /// The scale of each row: its largest magnitude over 127; 1 for a row of zeros.
    fn scales(self) -> Vec<f32> {
        self.weights().chunks(self.shape()[1].max(1)).map(scale).collect()
    }

    /// The weights over the scale of their row, rounded to integers; ties go to even ones.
    fn quantized(self) -> Vec<i8> {
        let weights = self.weights();
        let rows = weights.chunks(self.shape()[1].max(1));
        rows.flat_map(|row| {
            let scale = scale(row);
            row.iter().map(move |w| (w / scale).round_ties_even().clamp(-MOST, MOST) as i8)
        })
        .collect()
    }
}

fn scale(row: &[f32]) -> f32 {
    let scale = row.iter().fold(0f32, |most, w| most.max(w.abs())) / MOST;
    if scale > 0.0 { scale } else { 1.0 }
}

impl Initializer<'_> {
    pub(crate) fn data_type(&self) -> DataType {
        match self.values {
            Values::Integers(_) => DataType::Int64,
            Values::Floats(_) | Values::Matrix(_) | Values::Transposed(_) | Values::Scales(_) => DataType::Float,
            Values::Quantized(_) | Values::QuantizedTransposed(_) | Values::ZeroPoints(_) => DataType::Int8,
        }
    }

    /// Size of all values in bytes.
    pub(crate) fn byte_len(&self) -> usize {
        self.dims.iter().product::<usize>() * self.data_type().size()
    }

    /// The bytes of all values, little-endian.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let floats = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let integers = |values: &[i8]| values.iter().map(|v| v.cast_unsigned()).collect();
        match &self.values {
            Values::Integers(values) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Values::Floats(values) => floats(values),
            Values::Matrix(matrix) => floats(&matrix.weights()),
            Values::Transposed(matrix) => floats(&transposed(&matrix.weights(), matrix.shape())),
            Values::Quantized(matrix) => integers(&matrix.quantized()),
            Values::QuantizedTransposed(matrix) => integers(&transposed(&matrix.quantized(), matrix.shape())),
            Values::Scales(matrix) => floats(&matrix.scales()),
            &Values::ZeroPoints(len) => vec![0; len],
        }
    }
}

/// A matrix `[rows, cols]` as `[cols, rows]`.
fn transposed<T: Copy>(values: &[T], [rows, cols]: [usize; 2]) -> Vec<T> {
    (0..cols).flat_map(|col| (0..rows).map(move |row| values[row * cols + col])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_keeps_its_largest_weight_and_its_zeros() {
        assert_eq!(scale(&[0.0, -2.54, 1.0]), 2.54 / 127.0);
        assert_eq!(scale(&[0.0, 0.0]), 1.0);
        // A magnitude whose quotient by 127 is 0 in single precision.
        assert_eq!(scale(&[f32::from_bits(1)]), 1.0);
    }

    #[test]
    fn a_transposed_matrix_has_its_columns_as_rows() {
        assert_eq!(transposed(&[1, 2, 3, 4, 5, 6], [2, 3]), [1, 4, 2, 5, 3, 6]);
    }
}
