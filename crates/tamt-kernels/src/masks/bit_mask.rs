//! [`BitMask`]: one bit per weight of a matrix, with counts, masked copies and the update from scores and a threshold.

use rayon::prelude::*;
use std::ops::Range;

use crate::base::{kernel, map_chunks, rows_per_job};
use crate::masks::bits::{count_bits, mask_row};
use crate::masks::selection::{Cut, Key, element_order, order};

/// One bit per element of a matrix `[rows, cols]`: 1 = kept, 0 = dropped.
///
/// Each row is padded to whole bytes, the first column is the lowest bit of the first byte, and padding bits are zero.
/// A ticket file stores the same bytes.
#[derive(PartialEq, Eq, Debug, Default)]
pub struct BitMask {
    rows: usize,
    cols: usize,
    bytes: Vec<u8>,
}

impl Clone for BitMask {
    fn clone(&self) -> Self {
        Self { bytes: self.bytes.clone(), ..*self }
    }

    /// Reuses the allocation of `self` if the capacity suffices.
    fn clone_from(&mut self, source: &Self) {
        (self.rows, self.cols) = (source.rows, source.cols);
        self.bytes.clone_from(&source.bytes);
    }
}

impl BitMask {
    /// A mask that drops everything.
    pub fn zeros(rows: usize, cols: usize) -> Self {
        Self { rows, cols, bytes: vec![0; rows * cols.div_ceil(8)] }
    }

    /// A mask that keeps everything.
    pub fn ones(rows: usize, cols: usize) -> Self {
        let mut mask = Self { rows, cols, bytes: vec![0xff; rows * cols.div_ceil(8)] };
        if !cols.is_multiple_of(8) {
            let stride = mask.row_bytes();
            for row in mask.bytes.chunks_exact_mut(stride) {
                row[stride - 1] = (1 << (cols % 8)) - 1;
            }
        }
        mask
    }

    /// The mask that drops the zeros of `w` `[rows, cols]`.
    ///
    /// # Panics
    /// If `w` does not have `rows * cols` elements.
    pub fn of_nonzero(rows: usize, cols: usize, w: &[f32]) -> Self {
        let mut mask = Self::zeros(rows, cols);
        assert_eq!(w.len(), mask.len(), "weights of the mask's shape");
        if mask.is_empty() {
            return mask;
        }
        let (stride, job) = (mask.row_bytes(), rows_per_job(cols));
        mask.bytes.par_chunks_mut(job * stride).zip(w.par_chunks(job * cols)).for_each(|(bytes, w)| {
            for (bytes, w) in bytes.chunks_exact_mut(stride).zip(w.chunks_exact(cols)) {
                for (byte, w) in bytes.iter_mut().zip(w.chunks(8)) {
                    *byte = w.iter().enumerate().fold(0, |byte, (bit, &w)| byte | u8::from(w != 0.0) << bit);
                }
            }
        });
        mask
    }

    /// The mask that keeps the elements that are true in `kept` `[rows, cols]`.
    ///
    /// # Panics
    /// If `kept` does not have `rows * cols` elements.
    pub fn of_bools(rows: usize, cols: usize, kept: &[bool]) -> Self {
        let mut mask = Self::zeros(rows, cols);
        assert_eq!(kept.len(), mask.len(), "flags of the mask's shape");
        if mask.is_empty() {
            return mask;
        }
        let stride = mask.row_bytes();
        for (bytes, kept) in mask.bytes.chunks_exact_mut(stride).zip(kept.chunks_exact(cols)) {
            for (byte, kept) in bytes.iter_mut().zip(kept.chunks(8)) {
                *byte = kept.iter().enumerate().fold(0, |byte, (bit, &kept)| byte | u8::from(kept) << bit);
            }
        }
        mask
    }

    /// Whether each element is kept, row after row, without padding.
    pub fn to_bools(&self) -> Vec<bool> {
        let mut kept = Vec::with_capacity(self.len());
        for row in 0..self.rows {
            let bytes = self.row(row);
            kept.extend((0..self.cols).map(|c| bytes[c / 8] >> (c % 8) & 1 == 1));
        }
        kept
    }

    /// A mask from its bytes; `None` if the number of bytes is wrong or a padding bit is set.
    pub fn from_bytes(rows: usize, cols: usize, bytes: Vec<u8>) -> Option<Self> {
        let stride = cols.div_ceil(8);
        if rows.checked_mul(stride)? != bytes.len() {
            return None;
        }
        let clean = cols.is_multiple_of(8) || bytes.chunks_exact(stride).all(|row| row[stride - 1] >> (cols % 8) == 0);
        clean.then_some(Self { rows, cols, bytes })
    }

    /// The mask's bytes, row after row.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The mask's bytes, row after row, without a copy.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Rows of the matrix.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of the matrix.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Bytes per row, padding included.
    pub fn row_bytes(&self) -> usize {
        self.cols.div_ceil(8)
    }

    /// The bytes of row `r`.
    pub fn row(&self, r: usize) -> &[u8] {
        let stride = self.row_bytes();
        &self.bytes[r * stride..(r + 1) * stride]
    }

    /// Whether the mask keeps element (`r`, `c`).
    pub fn get(&self, r: usize, c: usize) -> bool {
        assert!(c < self.cols, "column {c} of {}", self.cols);
        self.row(r)[c / 8] >> (c % 8) & 1 == 1
    }

    /// Keeps or drops element (`r`, `c`).
    pub fn set(&mut self, r: usize, c: usize, kept: bool) {
        assert!(c < self.cols, "column {c} of {}", self.cols);
        let byte = &mut self.bytes[r * self.cols.div_ceil(8) + c / 8];
        if kept {
            *byte |= 1 << (c % 8);
        } else {
            *byte &= !(1 << (c % 8));
        }
    }

    /// Number of elements of the matrix: rows times columns.
    pub fn len(&self) -> usize {
        self.rows * self.cols
    }

    /// Whether the matrix has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of kept elements.
    pub fn count_ones(&self) -> usize {
        count(self.bytes.len(), |i| self.bytes[i])
    }

    /// Number of kept elements in `rows`, counted on the calling thread.
    pub fn count_ones_in(&self, rows: Range<usize>) -> usize {
        count_bits(&self.bytes[rows.start * self.row_bytes()..rows.end * self.row_bytes()])
    }

    /// Number of elements that both masks keep.
    ///
    /// # Panics
    /// If the shapes differ.
    pub fn intersection_count(&self, other: &Self) -> usize {
        self.assert_same_shape(other);
        count(self.bytes.len(), |i| self.bytes[i] & other.bytes[i])
    }

    /// Number of elements that at least one of the masks keeps.
    ///
    /// # Panics
    /// If the shapes differ.
    pub fn union_count(&self, other: &Self) -> usize {
        self.assert_same_shape(other);
        count(self.bytes.len(), |i| self.bytes[i] | other.bytes[i])
    }

    fn assert_same_shape(&self, other: &Self) {
        assert_eq!((self.rows, self.cols), (other.rows, other.cols), "masks of the same shape");
    }

    /// `w = w ∘ B`, `[rows, cols]`. Dropped elements become +0, also where `w` is negative, infinite or NaN.
    pub fn mask_in_place(&self, w: &mut [f32]) {
        assert_eq!(w.len(), self.len(), "weights of the mask's shape");
        let (cols, job) = (self.cols.max(1), rows_per_job(self.cols));
        w.par_chunks_mut(job * cols).enumerate().for_each(|(j, w)| {
            for (r, w) in w.chunks_exact_mut(cols).enumerate() {
                mask_row(self.row(j * job + r), w);
            }
        });
    }

    /// `B_i = [(key(values_i), i) > cut]`: rewrites the mask to keep the elements of `values` `[rows, cols]` above the
    /// cut. Returns the number of bits that changed.
    pub fn keep_above(&mut self, values: &[f32], cut: Cut, key: Key) -> usize {
        self.keep_above_at(values, cut, key, 0)
    }

    /// [`keep_above`](Self::keep_above) for a matrix whose elements have the indices `first_index..` in a selection
    /// over several matrices.
    pub fn keep_above_at(&mut self, values: &[f32], cut: Cut, key: Key, first_index: u64) -> usize {
        assert_eq!(values.len(), self.len(), "values of the mask's shape");
        if self.is_empty() {
            return 0;
        }
        let (cols, stride, job) = (self.cols, self.row_bytes(), rows_per_job(self.cols));
        let threshold = order(cut.value);
        let jobs = self.bytes.par_chunks_mut(job * stride).zip(values.par_chunks(job * cols)).enumerate();
        jobs.map(|(j, (bytes, values))| {
            let mut flipped = 0;
            for (r, (bytes, values)) in bytes.chunks_exact_mut(stride).zip(values.chunks_exact(cols)).enumerate() {
                let first = first_index + ((j * job + r) * cols) as u64;
                // the first column whose index exceeds the cut's index
                let tie_col = cut.index.saturating_add(1).saturating_sub(first).min(cols as u64) as u32;
                flipped += keep_row(bytes, values, threshold, tie_col, key);
            }
            flipped
        })
        .sum()
    }
}

/// Number of set bits of `byte(0..n)`.
fn count(n: usize, byte: impl Fn(usize) -> u8 + Sync) -> usize {
    map_chunks(n, 1 << 14, |range| range.map(|i| byte(i).count_ones() as usize).sum::<usize>()).iter().sum()
}

/// Keeps the elements of a row whose order exceeds `cut`, and the elements of order `cut` in columns `tie_col..`.
/// Returns the number of changed bits.
#[inline(always)]
fn keep_row_inline(bytes: &mut [u8], values: &[f32], cut: u32, tie_col: u32, key: Key) -> usize {
    // branch-free, so that the compiler decides eight elements in one vector
    let is_above = |v: f32, column: u32| {
        let order = element_order(v, key);
        (order > cut) | (order == cut) & (column >= tie_col)
    };
    let mut flipped = 0;
    let mut column = 0;
    let (chunks, rest) = values.as_chunks::<8>();
    let (whole, last) = bytes.split_at_mut(chunks.len());
    for (byte, values) in whole.iter_mut().zip(chunks) {
        let mut kept = [0; 8];
        for (bit, (kept, &v)) in kept.iter_mut().zip(values).enumerate() {
            *kept = u8::from(is_above(v, column + bit as u32));
        }
        column += 8;
        // the product moves the lowest bit of byte i from bit 8 i to bit 56 + i
        let new = (u64::from_le_bytes(kept).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u8;
        flipped += (*byte ^ new).count_ones();
        *byte = new;
    }
    if let Some(byte) = last.first_mut() {
        let mut new = 0;
        for (bit, &v) in rest.iter().enumerate() {
            new |= u8::from(is_above(v, column + bit as u32)) << bit;
        }
        flipped += (*byte ^ new).count_ones();
        *byte = new;
    }
    flipped as usize
}

kernel! {
    /// [`keep_row_inline`] with one loop per key.
    fn keep_row<FMA>(bytes: &mut [u8], values: &[f32], cut: u32, tie_col: u32, key: Key) -> usize {
        match key {
            Key::Value => keep_row_inline(bytes, values, cut, tie_col, Key::Value),
            Key::Magnitude => keep_row_inline(bytes, values, cut, tie_col, Key::Magnitude),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::parallel::tests::same_for_any_pool;
    use crate::masks::bits::copy_masked_row;
    use crate::reference::unless_miri;

    /// Shapes with whole and partial bytes, of one and several jobs.
    const SHAPES: &[(usize, usize)] = unless_miri(&[(1, 1), (7, 63), (65, 383), (3, 64)], &[(1, 1), (3, 11), (2, 16)]);

    fn pattern(rows: usize, cols: usize) -> BitMask {
        let mut mask = BitMask::zeros(rows, cols);
        for r in 0..rows {
            for c in 0..cols {
                mask.set(r, c, (r * 31 + c * 7 + r * c) % 3 == 0);
            }
        }
        mask
    }

    #[test]
    fn bytes_are_little_endian_with_zero_padding() {
        let mut mask = BitMask::zeros(2, 10);
        mask.set(0, 0, true);
        mask.set(0, 9, true);
        mask.set(1, 3, true);
        assert_eq!(mask.as_bytes(), [0b0000_0001, 0b0000_0010, 0b0000_1000, 0]);
        assert_eq!(BitMask::ones(2, 10).as_bytes(), [0xff, 0b11, 0xff, 0b11]);
    }

    #[test]
    fn flags_of_elements_are_packed_and_unpacked() {
        for (rows, cols) in [(3, 11), (2, 8), (1, 1), (0, 5), (4, 0)] {
            let mask = pattern(rows, cols);
            let flags = mask.to_bools();
            let expected: Vec<bool> = (0..rows * cols).map(|i| mask.get(i / cols, i % cols)).collect();
            assert_eq!(flags, expected);
            assert_eq!(BitMask::of_bools(rows, cols, &flags), mask);
        }
    }

    #[test]
    fn wrong_bytes_are_refused() {
        assert!(BitMask::from_bytes(2, 10, vec![0; 4]).is_some());
        assert!(BitMask::from_bytes(2, 10, vec![0; 5]).is_none());
        assert!(BitMask::from_bytes(2, 10, vec![0, 0, 0, 0b100]).is_none(), "a padding bit is set");
        assert!(BitMask::from_bytes(usize::MAX, 64, vec![]).is_none());
        assert!(BitMask::from_bytes(0, 10, vec![]).is_some());
        assert!(BitMask::from_bytes(3, 0, vec![]).is_some());
    }

    #[test]
    fn zeros_of_either_sign_are_dropped() {
        for &(rows, cols) in SHAPES.iter().chain(&[(0, 4), (4, 0)]) {
            let mask = pattern(rows, cols);
            let zeros = [0.0, -0.0];
            let value = |i: usize| if mask.get(i / cols, i % cols) { f32::MIN_POSITIVE } else { zeros[i % 2] };
            let w: Vec<f32> = (0..rows * cols).map(value).collect();
            assert_eq!(BitMask::of_nonzero(rows, cols, &w), mask);
        }
    }

    #[test]
    fn counts_match_a_bit_by_bit_count() {
        for &(rows, cols) in SHAPES {
            let (a, mut b) = (pattern(rows, cols), BitMask::zeros(rows, cols));
            for r in 0..rows {
                for c in 0..cols {
                    b.set(r, c, (r + c) % 2 == 0);
                }
            }
            let count = |f: &dyn Fn(usize, usize) -> bool| (0..rows * cols).filter(|i| f(i / cols, i % cols)).count();
            assert_eq!(a.count_ones(), count(&|r, c| a.get(r, c)));
            assert_eq!(a.intersection_count(&b), count(&|r, c| a.get(r, c) && b.get(r, c)));
            assert_eq!(a.union_count(&b), count(&|r, c| a.get(r, c) || b.get(r, c)));
            assert_eq!(BitMask::ones(rows, cols).count_ones(), rows * cols);
        }
    }

    #[test]
    fn masked_copies_drop_even_nan() {
        for &(rows, cols) in SHAPES {
            let mask = pattern(rows, cols);
            let w: Vec<f32> =
                (0..rows * cols).map(|i| if mask.get(i / cols, i % cols) { i as f32 } else { f32::NAN }).collect();
            let expected: Vec<f32> = w.iter().map(|v| if v.is_nan() { 0.0 } else { *v }).collect();
            let mut out = vec![-1.0; w.len()];
            for (row, (out, w)) in out.chunks_exact_mut(cols).zip(w.chunks_exact(cols)).enumerate() {
                copy_masked_row(mask.row(row), w, out);
            }
            assert_eq!(out, expected);
            let mut in_place = w;
            mask.mask_in_place(&mut in_place);
            assert_eq!(in_place, expected);
        }
    }

    proptest! {
        #[test]
        fn bytes_round_trip(rows in 0usize..5, cols in 0usize..30) {
            let mask = pattern(rows, cols);
            prop_assert_eq!(BitMask::from_bytes(rows, cols, mask.clone().into_bytes()), Some(mask));
        }

        #[test]
        fn keep_above_follows_its_definition(
            rows in 1usize..4, cols in 1usize..70, levels in 1u32..5, value in -3i8..3, index in 0u64..200, first in 0u64..100,
            magnitude: bool,
        ) {
            let key = if magnitude { Key::Magnitude } else { Key::Value };
            let values: Vec<f32> = (0..rows * cols).map(|i| ((i as u32).wrapping_mul(2_654_435_761) >> 16) as f32 % levels as f32 - 1.0).collect();
            let cut = Cut { value: f32::from(value), index };
            let before = pattern(rows, cols);
            let mut mask = before.clone();
            let flipped = mask.keep_above_at(&values, cut, key, first);
            let mut expected_flips = 0;
            for (i, &v) in values.iter().enumerate() {
                let v = if magnitude { v.abs() } else { v };
                let dropped = v < cut.value || (v == cut.value && first + i as u64 <= index);
                prop_assert_eq!(mask.get(i / cols, i % cols), !dropped);
                expected_flips += usize::from(before.get(i / cols, i % cols) == dropped);
            }
            prop_assert_eq!(flipped, expected_flips);
            prop_assert!(BitMask::from_bytes(rows, cols, mask.into_bytes()).is_some(), "padding stays zero");
        }
    }

    #[test]
    fn keep_above_is_the_same_for_any_number_of_threads() {
        let (rows, cols) = unless_miri((300, 383), (12, 43));
        let values: Vec<f32> = (0..rows * cols).map(|i| (i as f32 * 0.7).sin()).collect();
        same_for_any_pool(|| {
            let mut mask = BitMask::ones(rows, cols);
            let flipped = mask.keep_above(&values, Cut::strict(0.1), Key::Value);
            (mask.into_bytes(), flipped)
        });
    }
}
