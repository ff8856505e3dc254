//! The micro-kernel of sparse products: one panel of tokens times some rows of one column block.
//!
//! A row's sums for all tokens of the panel stay in registers. An entry costs one broadcast of its value and one fused
//! multiply-add per vector of tokens.

use crate::base::Simd;
use crate::gemm::Init;

/// Operands of the micro-kernel: the rows have `row_starts.len() - 1` sums of one panel's tokens.
pub(crate) struct BlockProduct<'a, 'b> {
    /// The panel's activations `[columns][panel tokens]`, from the block's first column on.
    pub(super) activations: &'a [f32],
    /// First entry of each row, and the end of the last row's entries.
    pub(crate) row_starts: &'a [u32],
    /// `Csr::offsets` of all entries of the matrix.
    pub(super) offsets: &'a [u16],
    /// Whether the sums begin with this block; else they continue `partials`.
    pub(crate) begins: bool,
    /// Whether the sums end with this block and go to `totals`; else they go to `partials`.
    pub(crate) ends: bool,
    /// The value to which a complete sum is added; [`Init::Accumulate`] stands for the content of `totals`.
    pub(crate) init: Init<'a>,
    /// Complete sums, `[rows][panel tokens]`.
    pub(crate) totals: &'b mut [f32],
    /// Incomplete sums, `[rows][panel tokens]`. Empty if `totals` holds them.
    pub(crate) partials: &'b mut [f32],
}

impl BlockProduct<'_, '_> {
    /// Computes the first `NV` vectors of each row in f32; a panel has `width` tokens.
    ///
    /// # Safety
    /// The processor must have the instruction set of `S`. `activations` must have `NV * S::LANES` floats at the offset
    /// of every entry.
    #[inline(always)]
    pub(crate) unsafe fn add_f32<S: Simd, const NV: usize>(self, values: &[f32], width: usize) {
        assert!(self.end() <= values.len(), "values of every row");
        let (activations, offsets) = (self.activations.as_ptr(), self.offsets);
        // SAFETY: instruction set and offsets: this function's contract. `add` passes entries below `self.end()`, which
        // `offsets` (asserted in `add`) and `values` (asserted above) hold.
        unsafe {
            self.add::<S, NV>(width, |sums, from, to| {
                let mut entry = from;
                while entry + 2 <= to {
                    multiply_add(sums, activations, offsets, values, entry);
                    multiply_add(sums, activations, offsets, values, entry + 1);
                    entry += 2;
                }
                if entry < to {
                    multiply_add(sums, activations, offsets, values, entry);
                }
            });
        }
    }

    /// End of the last row's entries.
    pub(super) fn end(&self) -> usize {
        self.row_starts[self.row_starts.len() - 1] as usize
    }

    /// Computes the first `NV` vectors of each row; a panel has `width` tokens. `add_entries(sums, from, to)` adds the
    /// terms of entries `from..to`.
    ///
    /// # Safety
    /// The processor must have the instruction set of `S`.
    #[inline(always)]
    pub(super) unsafe fn add<S: Simd, const NV: usize>(
        self,
        width: usize,
        add_entries: impl Fn(&mut [S; NV], usize, usize),
    ) {
        let rows = self.row_starts.len() - 1;
        assert!(NV * S::LANES <= width, "vectors of one panel");
        let (totals, partials) = (self.totals.as_mut_ptr(), self.partials.as_mut_ptr());
        let in_place = self.partials.is_empty();
        assert!(self.totals.len() >= rows * width, "sums for every row");
        assert!(in_place || self.partials.len() >= rows * width, "partial sums for every row");
        assert!(self.end() <= self.offsets.len(), "entries of every row");
        if let Init::Bias(bias) = self.init {
            assert!(bias.len() >= rows, "a bias for every row");
        }
        // SAFETY: the instruction set is present: this function's contract. `totals`, `partials` and the bias hold all
        // rows: asserted above.
        unsafe {
            for row in 0..rows {
                let (from, to) = (self.row_starts[row] as usize, self.row_starts[row + 1] as usize);
                let total = totals.add(row * width);
                let partial = if in_place { total } else { partials.add(row * width) };
                let mut sums = [S::zero(); NV];
                if !self.begins {
                    sums = load(partial);
                }
                add_entries(&mut sums, from, to);
                if !self.ends {
                    store(sums, partial);
                    continue;
                }
                match self.init {
                    Init::Zero => {}
                    Init::Bias(bias) => add_to(&mut sums, [S::splat(bias.as_ptr().add(row)); NV]),
                    Init::Accumulate => add_to(&mut sums, load(total)),
                }
                store(sums, total);
            }
        }
    }
}

/// `sums += value * activations`, for one entry.
///
/// # Safety
/// The processor must have the instruction set of `S`. `entry` must be below the lengths of `offsets` and `values`, and
/// `activations` must be readable for `NV` vectors at the entry's offset.
#[inline(always)]
unsafe fn multiply_add<S: Simd, const NV: usize>(
    sums: &mut [S; NV],
    activations: *const f32,
    offsets: &[u16],
    values: &[f32],
    entry: usize,
) {
    // SAFETY: the entry and its activations exist: this function's contract.
    unsafe {
        let column = activations.add(usize::from(*offsets.get_unchecked(entry)));
        let value = S::splat(values.as_ptr().add(entry));
        for (v, sum) in sums.iter_mut().enumerate() {
            *sum = S::load(column.add(v * S::LANES)).mul_add(value, *sum);
        }
    }
}

/// # Safety
/// The processor must have the instruction set of `S`. `from` must be readable for `NV` vectors.
#[inline(always)]
pub(crate) unsafe fn load<S: Simd, const NV: usize>(from: *const f32) -> [S; NV] {
    // SAFETY: `from` holds `NV` vectors: this function's contract.
    unsafe {
        let mut vectors = [S::zero(); NV];
        for (v, vector) in vectors.iter_mut().enumerate() {
            *vector = S::load(from.add(v * S::LANES));
        }
        vectors
    }
}

/// # Safety
/// The processor must have the instruction set of `S`. `to` must be writable for `NV` vectors.
#[inline(always)]
unsafe fn store<S: Simd, const NV: usize>(vectors: [S; NV], to: *mut f32) {
    // SAFETY: `to` holds `NV` vectors: this function's contract.
    unsafe {
        for (v, vector) in vectors.into_iter().enumerate() {
            vector.store(to.add(v * S::LANES));
        }
    }
}

/// # Safety
/// The processor must have the instruction set of `S`.
#[inline(always)]
unsafe fn add_to<S: Simd, const NV: usize>(sums: &mut [S; NV], summands: [S; NV]) {
    for (sum, summand) in sums.iter_mut().zip(summands) {
        // SAFETY: the instruction set is present: this function's contract.
        *sum = unsafe { sum.add(summand) };
    }
}
