use crate::base::simd::Simd;
use crate::gemm::block::Init;

/// What one block adds to some rows.
pub(crate) struct BlockRows<'a, 'b> {
    /// The panel, from the block's first column on.
    pub(super) activations: &'a [f32],
    pub(crate) starts: &'a [u32],
    pub(super) offsets: &'a [u16],
    /// Whether a new sum begins with this block, and whether it ends with it.
    pub(crate) begins: bool,
    pub(crate) ends: bool,
    pub(crate) start: Init<'a>,
    /// Ended sums, `[rows][panel tokens]`.
    pub(crate) totals: &'b mut [f32],
    /// The sum that has not ended yet, of the same shape; empty where it grows in `totals`.
    pub(crate) partials: &'b mut [f32],
}

impl BlockRows<'_, '_> {
    /// The first `NV` vectors of each row, which are `width` tokens long.
    ///
    /// # Safety
    /// The instruction set of `S`; every entry's offset must lie in the activations with `width` tokens after it.
    #[inline(always)]
    #[allow(unsafe_code)]
    pub(crate) unsafe fn add_floats<S: Simd, const NV: usize>(self, values: &[f32], width: usize) {
        assert!(self.ends_at() <= values.len(), "values of every row");
        let (activations, offsets) = (self.activations.as_ptr(), self.offsets);
        // SAFETY: the caller's.
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

    /// Where the entries of the last row end.
    pub(super) fn ends_at(&self) -> usize {
        self.starts[self.starts.len() - 1] as usize
    }

    /// The first `NV` vectors of each row, which are `width` tokens long: `add_entries` adds what the entries from one to another
    /// one are to its sums.
    ///
    /// # Safety
    /// The instruction set of `S`.
    #[inline(always)]
    #[allow(unsafe_code)]
    pub(super) unsafe fn add<S: Simd, const NV: usize>(
        self,
        width: usize,
        add_entries: impl Fn(&mut [S; NV], usize, usize),
    ) {
        let rows = self.starts.len() - 1;
        assert!(NV * S::LANES <= width, "vectors of one panel");
        let (totals, partials) = (self.totals.as_mut_ptr(), self.partials.as_mut_ptr());
        let in_place = self.partials.is_empty();
        assert!(self.totals.len() >= rows * width, "sums for every row");
        assert!(in_place || self.partials.len() >= rows * width, "partial sums for every row");
        assert!(self.ends_at() <= self.offsets.len(), "entries of every row");
        // SAFETY: rows and entries are in bounds as asserted.
        unsafe {
            for row in 0..rows {
                let (from, to) = (self.starts[row] as usize, self.starts[row + 1] as usize);
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
                match self.start {
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
/// The entry exists, and so do `NV` vectors at its offset; the instruction set of `S`.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn multiply_add<S: Simd, const NV: usize>(
    sums: &mut [S; NV],
    activations: *const f32,
    offsets: &[u16],
    values: &[f32],
    entry: usize,
) {
    // SAFETY: the caller's.
    unsafe {
        let column = activations.add(usize::from(*offsets.get_unchecked(entry)));
        let value = S::splat(values.as_ptr().add(entry));
        for (v, sum) in sums.iter_mut().enumerate() {
            *sum = S::load(column.add(v * S::LANES)).mul_add(value, *sum);
        }
    }
}

/// # Safety
/// `NV` vectors at `from`; the instruction set of `S`.
#[inline(always)]
#[allow(unsafe_code)]
pub(crate) unsafe fn load<S: Simd, const NV: usize>(from: *const f32) -> [S; NV] {
    // SAFETY: the caller's.
    unsafe {
        let mut vectors = [S::zero(); NV];
        for (v, vector) in vectors.iter_mut().enumerate() {
            *vector = S::load(from.add(v * S::LANES));
        }
        vectors
    }
}

/// # Safety
/// `NV` vectors at `to`; the instruction set of `S`.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn store<S: Simd, const NV: usize>(vectors: [S; NV], to: *mut f32) {
    // SAFETY: the caller's.
    unsafe {
        for (v, vector) in vectors.into_iter().enumerate() {
            vector.store(to.add(v * S::LANES));
        }
    }
}

/// # Safety
/// The instruction set of `S`.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn add_to<S: Simd, const NV: usize>(sums: &mut [S; NV], summands: [S; NV]) {
    for (sum, summand) in sums.iter_mut().zip(summands) {
        // SAFETY: the caller's.
        *sum = unsafe { sum.add(summand) };
    }
}
