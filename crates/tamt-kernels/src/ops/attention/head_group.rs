//! The matrix products of attention, for some heads of a sequence at a time.
//!
//! A job executes each step for all its heads before the next step. A step then reads results that were written several
//! products earlier, and does not wait for the stores of the product just computed.

use rayon::prelude::*;

use crate::base::{Precision, Shared, Values, Word};
use crate::gemm::{Init, LeftOperand, Operand, Order, OutputBlock, Panels, Side, multiply};
use crate::ops::attention::shape::{AttentionShape, Head, QUERIES, TokenBlock};

/// Number of scores that the heads of a group have together, about: 64 KB, a part of the L2 cache.
const GROUP_SCORES: usize = 16 * 1024;

/// One buffer of equal length for each head of a group.
pub(crate) struct PerHead<'a, T> {
    data: &'a mut [T],
    len: usize,
}

impl<'a, T> PerHead<'a, T> {
    /// Divides `data` among `heads` heads.
    pub(crate) fn new(data: &'a mut [T], heads: usize) -> Self {
        let len = data.len() / heads;
        Self { data, len }
    }

    pub(crate) fn of(&self, head: usize) -> &[T] {
        &self.data[head * self.len..(head + 1) * self.len]
    }

    pub(crate) fn of_mut(&mut self, head: usize) -> &mut [T] {
        &mut self.data[head * self.len..(head + 1) * self.len]
    }
}

/// Consecutive heads of one sequence, which one job computes. A pass assigns each pair of a sequence and a head to one
/// group.
pub(crate) struct HeadGroup {
    /// The first head. All heads of a group have the same lengths.
    pub(crate) first: Head,
    pub(crate) count: usize,
}

impl HeadGroup {
    /// The groups of a batch: per sequence that has tokens, as many heads as have about [`GROUP_SCORES`] scores
    /// together.
    pub(crate) fn all<'a>(
        shape: &'a AttentionShape<'_>,
        precision: Precision,
    ) -> impl ParallelIterator<Item = Self> + 'a {
        (0..shape.sequences()).into_par_iter().flat_map(move |sequence| {
            let len = shape.bounds[sequence + 1] - shape.bounds[sequence];
            let size = (GROUP_SCORES / (QUERIES.min(len) * len).max(1)).clamp(1, shape.heads.max(1));
            let groups = if len == 0 { 0 } else { shape.heads.div_ceil(size) };
            (0..groups).into_par_iter().map(move |i| Self {
                first: shape.head(sequence * shape.heads + i * size, precision),
                count: size.min(shape.heads - i * size),
            })
        })
    }

    pub(crate) fn head(&self, i: usize) -> Head {
        self.first.following(i)
    }

    pub(crate) fn heads(&self) -> impl Iterator<Item = Head> {
        (0..self.count).map(|i| self.head(i))
    }

    /// Elements of the buffers of one head, in whole cache lines: a right operand of all tokens, a right operand of a
    /// block of queries, a left operand, a block of scores.
    pub(crate) fn lengths(&self) -> [usize; 4] {
        let first = &self.first;
        [first.right_len(first.len), first.right_len(QUERIES.min(first.len)), first.left_len(), first.scores_len()]
            .map(|len| len.next_multiple_of(16))
    }

    /// `S[i, j] = x[i] · y[j]` for the queries `i` of a block and all keys `j`: `x` `[T, width]`, `y_t` packed by
    /// [`Head::pack_transposed`].
    pub(crate) fn dot_products(
        &self,
        x: Values<'_>,
        y_t: &PerHead<'_, Word>,
        queries: TokenBlock,
        left: &mut PerHead<'_, Word>,
        scores: &mut PerHead<'_, f32>,
    ) {
        let Head { len, head_dim, .. } = self.first;
        // SAFETY: each block of scores lies in its own buffer, which `scores` borrows exclusively.
        unsafe {
            self.multiply_each(
                left,
                [queries.count, head_dim, len],
                |i| self.head(i).operand(x, queries.first, Order::LaneRows),
                y_t,
                |i| self.first.scores_output(scores.of_mut(i), queries.count),
                Init::Zero,
            );
        }
    }

    /// `out[i] (+)= Σ_j p[i, j] y[j]` for the queries `i` of a block, over all keys `j`: `y` packed by
    /// [`Head::pack_tokens`], `out` `[T, width]`.
    pub(crate) fn sum_over_keys(
        &self,
        p: &PerHead<'_, f32>,
        y: &PerHead<'_, Word>,
        queries: TokenBlock,
        left: &mut PerHead<'_, Word>,
        init: Init<'_>,
        out: &Shared<'_, f32>,
    ) {
        let Head { len, head_dim, .. } = self.first;
        // SAFETY: the blocks lie in `out`, whose length `AttentionShape::assert_hidden` checks. Only this job accesses the
        // rows and columns of these heads: a pass assigns each head to one `HeadGroup`.
        unsafe {
            self.multiply_each(
                left,
                [queries.count, len, head_dim],
                |i| self.first.scores_operand(p.of(i), Order::LaneRows),
                y,
                |i| self.head(i).output_block(out, queries.first, queries.count),
                init,
            );
        }
    }

    /// `out[j] (+)= Σ_i p[i, j] x[i]` for all keys `j`, over the queries `i` of a block: `x`, `out` `[T, width]`.
    /// `packed` is scratch for `x`.
    pub(crate) fn sum_over_queries(
        &self,
        p: &PerHead<'_, f32>,
        (x, packed): (Values<'_>, &mut PerHead<'_, Word>),
        queries: TokenBlock,
        left: &mut PerHead<'_, Word>,
        init: Init<'_>,
        out: &Shared<'_, f32>,
    ) {
        let Head { len, head_dim, .. } = self.first;
        for i in 0..self.count {
            self.head(i).pack_tokens(x, queries, packed.of_mut(i));
        }
        // SAFETY: the blocks lie in `out`, whose length `AttentionShape::assert_hidden` checks. Only this job accesses the
        // rows and columns of these heads: a pass assigns each head to one `HeadGroup`.
        unsafe {
            self.multiply_each(
                left,
                [len, queries.count, head_dim],
                |i| self.first.scores_operand(p.of(i), Order::DepthRows),
                packed,
                |i| self.head(i).output_block(out, 0, len),
                init,
            );
        }
    }

    /// `C[i] (+)= A[i] B[i]` for each head `i`, `A` `[rows, depth]`, `B` `[depth, cols]` packed. In bf16,
    /// `left` receives the packed `A`. In f32, the product reads `A` in its row-major layout, since the operands fit the
    /// L1 and L2 caches.
    ///
    /// # Safety
    /// Each block that `c` returns must be valid for writes, and no other thread or reference may access its elements
    /// during the call.
    unsafe fn multiply_each<'a>(
        &self,
        left: &mut PerHead<'_, Word>,
        [rows, depth, cols]: [usize; 3],
        a: impl Fn(usize) -> Operand<'a>,
        b: &PerHead<'_, Word>,
        mut c: impl FnMut(usize) -> OutputBlock,
        init: Init<'_>,
    ) {
        let is_packed = self.first.precision != Precision::F32;
        for i in (0..self.count).filter(|_| is_packed) {
            let out = &mut left.of_mut(i)[..Panels::len_in(self.first.precision, Side::Left, rows, depth)];
            Panels::pack(Side::Left, &a(i), 0..rows, 0..depth, out);
        }
        for i in 0..self.count {
            let lhs = if is_packed {
                LeftOperand::Packed(self.first.panels(Side::Left, rows, depth, left.of(i)), 0)
            } else {
                LeftOperand::Plain(a(i))
            };
            // SAFETY: the block is writable and unaliased: this function's contract.
            unsafe { multiply(c(i), lhs, self.first.panels(Side::Right, cols, depth, b.of(i)), 0, init) };
        }
    }
}
