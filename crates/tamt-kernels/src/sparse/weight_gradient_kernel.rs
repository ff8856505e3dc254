//! The micro-kernel of sparse weight gradients: one panel of tokens, some rows of one column block.
//!
//! A row of the output gradient stays in registers. An entry costs one fused multiply-add per vector of tokens, and a
//! quarter of a horizontal sum.

use crate::base::{Portable, Simd};
use crate::sparse::product_kernel::load;

/// Entries whose horizontal sums are computed together.
pub(crate) const REDUCE_WIDTH: usize = 4;

/// Operands of the micro-kernel.
pub(crate) struct BlockGradient<'a, 'b> {
    /// Output gradients of the rows, `[rows][panel tokens]`.
    pub(crate) gradients: &'a [f32],
    /// The panel's activations `[columns][panel tokens]`, from the block's first column on.
    pub(super) activations: &'a [f32],
    /// First entry of each row, and the end of the last row's entries.
    pub(crate) row_starts: &'a [u32],
    /// `Csr::offsets` of all entries of the matrix.
    pub(crate) offsets: &'a [u16],
    /// The sums of the entries. The sums of each row are followed by `REDUCE_WIDTH - 1` slots of padding.
    pub(crate) sums: &'b mut [f32],
}

impl BlockGradient<'_, '_> {
    /// Adds to the sums of all entries in f32; a panel has `NV * S::LANES` tokens.
    ///
    /// # Safety
    /// The processor must have the instruction set of `S`. `activations` must have `NV * S::LANES` floats at the offset
    /// of every entry.
    #[inline(always)]
    pub(super) unsafe fn add_f32<S: SumLanes, const NV: usize>(self) {
        let activations = self.activations.as_ptr();
        // SAFETY: instruction set and offsets: this function's contract. `add` passes pointers to whole rows of
        // gradients.
        unsafe {
            self.add(
                NV * S::LANES,
                |gradient| load::<S, NV>(gradient),
                |gradient, offset| {
                    let column = activations.add(offset);
                    let mut sum = S::zero();
                    for (v, gradient) in gradient.iter().enumerate() {
                        sum = S::load(column.add(v * S::LANES)).mul_add(*gradient, sum);
                    }
                    sum
                },
            );
        }
    }

    /// Adds to the sums of all entries; a panel has `width` tokens. `load_row` loads a row of output gradients into
    /// registers; `dot(row, offset)` is their product with the activations at an offset, before the horizontal sum.
    ///
    /// # Safety
    /// The processor must have the instruction set of `S`.
    #[inline(always)]
    pub(super) unsafe fn add<S: SumLanes, G>(
        self,
        width: usize,
        load_row: impl Fn(*const f32) -> G,
        dot: impl Fn(&G, usize) -> S,
    ) {
        let rows = self.row_starts.len() - 1;
        let (first, end) = (self.row_starts[0] as usize, self.row_starts[rows] as usize);
        let slots = end - first + rows * (REDUCE_WIDTH - 1);
        assert!(self.gradients.len() >= rows * width, "gradients of every row");
        assert!(end <= self.offsets.len() && self.sums.len() >= slots, "entries of every row");
        let sums = self.sums.as_mut_ptr();
        // SAFETY: the instruction set is present: this function's contract. `gradients`, `offsets` and `sums` hold all
        // rows, with the padding that the last group of a row writes: asserted above.
        unsafe {
            for row in 0..rows {
                let (mut entry, to) = (self.row_starts[row] as usize, self.row_starts[row + 1] as usize);
                let gradient = load_row(self.gradients.as_ptr().add(row * width));
                let dot = |entry: usize| dot(&gradient, usize::from(*self.offsets.get_unchecked(entry)));
                let mut out = sums.add(entry - first + row * (REDUCE_WIDTH - 1));
                while entry + REDUCE_WIDTH <= to {
                    S::add_sums([dot(entry), dot(entry + 1), dot(entry + 2), dot(entry + 3)], out);
                    entry += REDUCE_WIDTH;
                    out = out.add(REDUCE_WIDTH);
                }
                let zero = S::zero();
                match to - entry {
                    1 => S::add_sums([dot(entry), zero, zero, zero], out),
                    2 => S::add_sums([dot(entry), dot(entry + 1), zero, zero], out),
                    3 => S::add_sums([dot(entry), dot(entry + 1), dot(entry + 2), zero], out),
                    _ => {}
                }
            }
        }
    }
}

/// Horizontal sums of four vectors at a time.
pub(super) trait SumLanes: Simd {
    /// `to[i] += Σ_lane vectors[i][lane]`
    ///
    /// # Safety
    /// The processor must have the instruction set of the type. `to` must be readable and writable for [`REDUCE_WIDTH`]
    /// floats.
    unsafe fn add_sums(vectors: [Self; REDUCE_WIDTH], to: *mut f32);
}

impl SumLanes for Portable {
    #[inline(always)]
    unsafe fn add_sums(vectors: [Self; REDUCE_WIDTH], to: *mut f32) {
        let mut lanes = [[0.0; 4]; REDUCE_WIDTH];
        for (i, vector) in vectors.into_iter().enumerate() {
            // SAFETY: `lanes[i]` has four floats.
            unsafe { vector.store(lanes[i].as_mut_ptr()) };
        }
        for (i, [a, b, c, d]) in lanes.into_iter().enumerate() {
            // SAFETY: `to` holds four floats: the trait's contract.
            unsafe { *to.add(i) += (a + b) + (c + d) };
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{REDUCE_WIDTH, SumLanes};

    impl SumLanes for __m256 {
        #[inline(always)]
        unsafe fn add_sums([a, b, c, d]: [Self; REDUCE_WIDTH], to: *mut f32) {
            // SAFETY: AVX is present and `to` holds four floats: the trait's contract.
            unsafe {
                // Per 128-bit half, partial sums in the order a b a b and c d c d, then a b c d.
                let ab = _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
                let cd = _mm256_add_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
                let halves = _mm256_add_ps(_mm256_shuffle_ps::<0x44>(ab, cd), _mm256_shuffle_ps::<0xee>(ab, cd));
                let sums = _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps::<1>(halves));
                _mm_storeu_ps(to, _mm_add_ps(_mm_loadu_ps(to), sums));
            }
        }
    }

    impl SumLanes for __m512 {
        #[inline(always)]
        unsafe fn add_sums([a, b, c, d]: [Self; REDUCE_WIDTH], to: *mut f32) {
            // SAFETY: AVX-512 is present and `to` holds four floats: the trait's contract.
            unsafe { __m256::add_sums([halves(a), halves(b), halves(c), halves(d)], to) };
        }
    }

    /// The sum of both halves of a vector. A closure passed to `map` would not inherit the caller's target features, so
    /// that each intrinsic would become a call.
    ///
    /// # Safety
    /// The processor must have AVX-512F and AVX-512DQ.
    #[inline(always)]
    unsafe fn halves(v: __m512) -> __m256 {
        // SAFETY: AVX-512F and DQ are present: this function's contract.
        unsafe { _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v)) }
    }
}
