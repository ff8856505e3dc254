//! A masked weight matrix, prepared for sparse products.

use rayon::prelude::*;
use std::ops::Range;

use crate::base::{Precision, Values};
use crate::masks::{BitMask, RankedMask, Weight, WeightRef};
use crate::sparse::csr::{Csr, MaskBits, Orientation};

/// The survivors of a weight matrix `[rows, cols]`, prepared for sparse products.
///
/// Memory per survivor: 6 bytes for the forward product and the weight gradient, and 6 bytes for the input gradient; 4
/// bytes each for products in bf16. Survivors are numbered row by row, then by column.
#[derive(Clone, Debug, Default)]
pub struct SparseWeight {
    mask: RankedMask,
    purpose: PreparedFor,
    precision: Precision,
    forward: Csr,
    /// The transposed matrix, `[cols, rows]`.
    transposed: Csr,
    /// The bits of the transposed mask.
    transposed_bytes: Vec<u8>,
}

/// The products that a sparse weight is prepared for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PreparedFor {
    /// The forward product.
    Forward,
    /// The input gradient.
    InputGradient,
    /// Forward product, input gradient and weight gradient.
    #[default]
    Training,
}

impl SparseWeight {
    /// Prepares a matrix for products in a precision. [`Precision::Bf16`] rounds the weights, and the other operands
    /// only on processors that have AVX-512-BF16 and no AMX, where bf16 is faster.
    ///
    /// # Panics
    /// If the matrix has 2^32 survivors or more.
    pub fn new<'a>(weight: impl Into<WeightRef<'a>>, purpose: PreparedFor, precision: Precision) -> Self {
        let mut new = Self::default();
        new.prepare(weight, purpose, precision);
        new
    }

    /// Replaces the matrix; buffers are reused.
    ///
    /// # Panics
    /// If the matrix has 2^32 survivors or more.
    pub fn prepare<'a>(&mut self, weight: impl Into<WeightRef<'a>>, purpose: PreparedFor, precision: Precision) {
        let weight = weight.into();
        match weight.mask() {
            Some(mask) => self.mask.set(mask),
            None => self.mask.set(&BitMask::ones(weight.shape().0, weight.shape().1)),
        }
        (self.purpose, self.precision) = (purpose, precision);
        self.set_structure();
        self.fill(weight);
    }

    /// Updates the values to those of `weight`, whose mask is the same or absent.
    ///
    /// # Panics
    /// If the shape or the mask differs.
    pub fn set_values<'a>(&mut self, weight: impl Into<WeightRef<'a>>) {
        let weight = weight.into();
        assert!(weight.mask().is_none_or(|mask| mask == self.mask()), "weights under the same mask");
        self.fill(weight);
    }

    /// Updates the values of all entries.
    fn fill(&mut self, weight: WeightRef<'_>) {
        let (rows, cols) = (self.rows(), self.cols());
        weight.assert_valid();
        assert_eq!(weight.shape(), (rows, cols), "weights of the declared shape");
        if self.purpose != PreparedFor::InputGradient {
            self.forward.set_values(
                MaskBits { rows, cols, bytes: self.mask.mask().as_bytes() },
                weight,
                Orientation::Plain,
            );
        }
        if self.purpose != PreparedFor::Forward {
            let bits = MaskBits { rows: cols, cols: rows, bytes: &self.transposed_bytes };
            self.transposed.set_values(bits, weight, Orientation::Transposed);
        }
    }

    /// Replaces the mask, and takes the survivors from `values` `[rows, cols]`. Returns false and does nothing if the
    /// mask is the same.
    ///
    /// # Panics
    /// If the shape differs, or `mask` has 2^32 survivors or more.
    pub fn set_mask<'a>(&mut self, mask: &BitMask, values: impl Into<Values<'a>>) -> bool {
        assert_eq!((mask.rows(), mask.cols()), (self.rows(), self.cols()), "a mask of the weights' shape");
        if mask == self.mask() {
            return false;
        }
        self.mask.set(mask);
        self.set_structure();
        self.fill(Weight { values: values.into(), rows: self.rows(), cols: self.cols(), mask: None }.into());
        true
    }

    /// Rebuilds the sparse matrices from the mask.
    fn set_structure(&mut self) {
        let (rows, cols) = (self.rows(), self.cols());
        assert!(u32::try_from(self.survivors()).is_ok(), "fewer than 2^32 survivors");
        if self.purpose != PreparedFor::InputGradient {
            self.forward.set_structure(MaskBits { rows, cols, bytes: self.mask.mask().as_bytes() }, self.precision);
        }
        if self.purpose != PreparedFor::Forward {
            self.transposed_bytes.resize(cols * rows.div_ceil(8), 0);
            transpose_bits(self.mask.mask(), &mut self.transposed_bytes);
            self.transposed
                .set_structure(MaskBits { rows: cols, cols: rows, bytes: &self.transposed_bytes }, self.precision);
        }
    }

    /// The matrix, for forward products.
    pub(super) fn forward(&self) -> &Csr {
        assert_ne!(self.purpose, PreparedFor::InputGradient, "a weight that was prepared for forward products");
        &self.forward
    }

    /// The transposed matrix, for input gradients.
    pub(super) fn transposed(&self) -> &Csr {
        assert_ne!(self.purpose, PreparedFor::Forward, "a weight that was prepared for input gradients");
        &self.transposed
    }

    /// The matrix, for weight gradients.
    pub(super) fn for_weight_gradient(&self) -> &Csr {
        assert_eq!(self.purpose, PreparedFor::Training, "a weight that was prepared for weight gradients");
        &self.forward
    }

    /// The survivors of a row.
    pub(super) fn survivors_of(&self, row: usize) -> Range<usize> {
        self.mask.of_row(row)
    }

    /// Output features.
    pub fn rows(&self) -> usize {
        self.mask().rows()
    }

    /// Input features.
    pub fn cols(&self) -> usize {
        self.mask().cols()
    }

    /// The mask of the survivors.
    pub fn mask(&self) -> &BitMask {
        self.mask.mask()
    }

    /// Number of survivors.
    pub fn survivors(&self) -> usize {
        self.mask.survivors()
    }
}

/// Bytes of a mask row that one job transposes.
const BYTES_PER_JOB: usize = 8;

/// The bits of the transposed mask, `[cols][ceil(rows / 8)]` bytes.
fn transpose_bits(mask: &BitMask, out: &mut [u8]) {
    let stride = mask.rows().div_ceil(8);
    out.par_chunks_mut((8 * BYTES_PER_JOB * stride).max(1)).enumerate().for_each(|(job, out)| {
        for (byte, out) in out.chunks_mut(8 * stride).enumerate() {
            let byte = job * BYTES_PER_JOB + byte;
            for row_byte in 0..stride {
                let rows = row_byte * 8..mask.rows().min(row_byte * 8 + 8);
                let mut bits = 0;
                for (i, row) in rows.enumerate() {
                    bits |= u64::from(mask.row(row)[byte]) << (8 * i);
                }
                let columns = transpose_8x8(bits).to_le_bytes();
                out.iter_mut().skip(row_byte).step_by(stride).zip(columns).for_each(|(out, column)| *out = column);
            }
        }
    });
}

/// Transposes 8 x 8 bits, one row per byte (Warren, *Hacker's Delight*, section 7-3).
fn transpose_8x8(mut x: u64) -> u64 {
    for (shift, bits) in [(7, 0x00aa_00aa_00aa_00aa), (14, 0x0000_cccc_0000_cccc), (28, 0x0000_0000_f0f0_f0f0)] {
        let swapped = (x ^ (x >> shift)) & bits;
        x ^= swapped ^ (swapped << shift);
    }
    x
}
