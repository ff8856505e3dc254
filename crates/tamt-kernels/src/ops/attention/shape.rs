use rayon::prelude::*;
use std::ops::Range;

use crate::base::parallel::Shared;
use crate::base::precision::Precision;
use crate::base::values::Values;
use crate::gemm::block::OutputBlock;
use crate::gemm::layout::Side;
use crate::gemm::multiply::LeftOperand;
use crate::gemm::operand::{Operand, Order};
use crate::gemm::panels::Panels;
use crate::ops::dropout::{Dropout, apply_from};

/// The shape of a packed batch of `T` tokens. `q`, `k`, `v` and the context are `[T, heads * head_dim]`.
#[derive(Clone, Copy, Debug)]
pub struct AttentionShape<'a> {
    /// Where sequences begin, and `T` at the end: sequence `i` is tokens `bounds[i]..bounds[i + 1]`.
    pub bounds: &'a [usize],
    /// Attention heads.
    pub heads: usize,
    /// Size of a head.
    pub head_dim: usize,
    /// Sequences before these in the batch, which dropout counts.
    pub first_sequence: usize,
}

/// Queries that are worked on together. With 512 keys their scores are 256 KB.
pub(crate) const QUERIES: usize = 128;

/// Scores of the heads of a job: a part of the second-level cache.
const GROUP_SCORES: usize = 16 * 1024;

impl AttentionShape<'_> {
    pub(crate) fn tokens(&self) -> usize {
        self.bounds.last().copied().unwrap_or(0)
    }

    pub(crate) fn width(&self) -> usize {
        self.heads * self.head_dim
    }

    pub(crate) fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    pub(crate) fn assert_valid(&self) {
        assert_eq!(self.bounds.first().copied().unwrap_or(0), 0, "bounds from 0");
        assert!(self.bounds.is_sorted(), "bounds in order");
    }

    pub(crate) fn assert_hidden<'a>(&self, buffers: impl IntoIterator<Item = Values<'a>>) {
        let len = self.tokens() * self.width();
        assert!(buffers.into_iter().all(|b| b.len() == len), "buffers of [tokens, heads * head_dim]");
    }

    pub(crate) fn jobs(&self) -> usize {
        self.bounds.len().saturating_sub(1) * self.heads
    }

    /// Some heads of each sequence that has tokens, with scores of about [`GROUP_SCORES`] together.
    pub(crate) fn head_groups(&self, precision: Precision) -> impl ParallelIterator<Item = HeadGroup<'_>> {
        (0..self.bounds.len().saturating_sub(1)).into_par_iter().flat_map(move |sequence| {
            let len = self.bounds[sequence + 1] - self.bounds[sequence];
            let size = (GROUP_SCORES / (QUERIES.min(len) * len).max(1)).clamp(1, self.heads.max(1));
            let head_groups = if len == 0 { 0 } else { self.heads.div_ceil(size) };
            (0..head_groups).into_par_iter().map(move |i| {
                let heads = i * size..self.heads.min((i + 1) * size);
                HeadGroup { shape: self, precision, sequence, heads }
            })
        })
    }

    pub(crate) fn job(&self, index: usize, precision: Precision) -> HeadJob {
        let (sequence, head) = (index / self.heads, index % self.heads);
        let (first, end) = (self.bounds[sequence], self.bounds[sequence + 1]);
        HeadJob {
            first,
            len: end - first,
            column: head * self.head_dim,
            head_dim: self.head_dim,
            width: self.width(),
            index: (self.first_sequence * self.heads + index) as u32,
            precision,
        }
    }
}

/// Some heads of one sequence.
pub(crate) struct HeadGroup<'a> {
    shape: &'a AttentionShape<'a>,
    precision: Precision,
    sequence: usize,
    pub(crate) heads: Range<usize>,
}

impl HeadGroup<'_> {
    /// Its head `i`, from 0.
    pub(crate) fn job(&self, i: usize) -> HeadJob {
        self.shape.job(self.sequence * self.shape.heads + self.heads.start + i, self.precision)
    }

    /// Where the log-sum-exp of a token and of its head `i` lies.
    pub(crate) fn lse_at(&self, token: usize, i: usize) -> usize {
        token * self.shape.heads + self.heads.start + i
    }
}

/// One head of one sequence.
#[derive(Clone, Copy)]
pub(crate) struct HeadJob {
    pub(crate) first: usize,
    pub(crate) len: usize,
    pub(crate) column: usize,
    pub(crate) head_dim: usize,
    width: usize,
    pub(crate) index: u32,
    /// What the operands of products are rounded to.
    pub(crate) precision: Precision,
}

/// Some queries of a job, counted from its first token.
#[derive(Clone, Copy)]
pub(crate) struct Queries {
    pub(crate) from: usize,
    pub(crate) count: usize,
}

impl HeadJob {
    pub(crate) fn blocks(self) -> impl Iterator<Item = Queries> {
        (0..self.len).step_by(QUERIES).map(move |from| Queries { from, count: QUERIES.min(self.len - from) })
    }

    /// Where the job's token `t` begins in a `[T, width]` buffer.
    fn at(&self, t: usize) -> usize {
        (self.first + t) * self.width + self.column
    }

    /// Its rows of a `[T, width]` buffer from token `t` on, as an operand: tokens are lanes or steps of the depth.
    pub(crate) fn rows<'a>(&self, x: impl Into<Values<'a>>, t: usize, order: Order) -> Operand<'a> {
        let x = x.into();
        Operand { precision: self.precision, ..Operand::new(x.part(self.at(t)..x.len()), self.width, order) }
    }

    /// A block of scores as an operand: queries are lanes or steps of the depth.
    pub(crate) fn scores<'a>(&self, p: &'a [f32], order: Order) -> Operand<'a> {
        Operand { precision: self.precision, ..Operand::new(p, self.score_stride(), order) }
    }

    /// Its part of a `[T, width]` output from token `t` on.
    pub(crate) fn block(&self, out: &Shared<'_, f32>, t: usize, rows: usize) -> OutputBlock {
        OutputBlock { start: out.pointer(self.at(t)), stride: self.width, rows, cols: self.head_dim }
    }

    /// Elements from one query's scores to the next one's in a block `[queries, keys]`. Reading down a column of a block
    /// whose rows are a multiple of 512 bytes would find room for a few lines only in the first-level cache.
    pub(crate) fn score_stride(&self) -> usize {
        if self.len >= 128 && self.len.is_multiple_of(64) { self.len + 16 } else { self.len }
    }

    /// Floats of a block of scores.
    pub(crate) fn block_len(&self) -> usize {
        QUERIES.min(self.len) * self.score_stride()
    }

    /// A block of scores of so many queries as an output.
    pub(crate) fn score_block(&self, out: &mut [f32], queries: usize) -> OutputBlock {
        assert!(out.len() >= queries * self.score_stride(), "a block of scores");
        OutputBlock { start: out.as_mut_ptr(), stride: self.score_stride(), rows: queries, cols: self.len }
    }

    /// The scores of each query of a block.
    pub(crate) fn score_rows<'x>(
        &self,
        x: &'x mut [f32],
        queries: Queries,
    ) -> impl Iterator<Item = &'x mut [f32]> + use<'x> {
        let len = self.len;
        x.chunks_exact_mut(self.score_stride()).take(queries.count).map(move |row| &mut row[..len])
    }

    /// Drops probabilities of a block `[queries, keys]`.
    pub(crate) fn drop(&self, x: &mut [f32], queries: Queries, dropout: Option<Dropout>) {
        let Some(d) = dropout else { return };
        let d = Dropout { stream: d.stream.fork(self.index), ..d };
        let first = queries.from * self.len;
        if self.score_stride() == self.len {
            return apply_from(&mut x[..queries.count * self.len], first as u64, d);
        }
        for (i, row) in self.score_rows(x, queries).enumerate() {
            apply_from(row, (first + i * self.len) as u64, d);
        }
    }

    /// Floats of the panels of [`HeadJob::transposed_panels`] or [`HeadJob::panels`] of `tokens` tokens.
    pub(crate) fn panels_len(&self, tokens: usize) -> usize {
        let transposed = Panels::len_in(self.precision, Side::Right, tokens, self.head_dim);
        transposed.max(Panels::len_in(self.precision, Side::Right, self.head_dim, tokens))
    }

    /// The job's part of a `[T, width]` buffer as the right operand `[head_dim, tokens]`.
    pub(crate) fn transposed_panels<'a, 'b>(&self, x: impl Into<Values<'a>>, out: &'b mut [f32]) -> Panels<'b> {
        let out = &mut out[..Panels::len_in(self.precision, Side::Right, self.len, self.head_dim)];
        Panels::pack(Side::Right, &self.rows(x, 0, Order::LaneRows), 0..self.len, 0..self.head_dim, out)
    }

    /// Words of a left operand: a block of queries by the keys or by the size of the head, or the keys by a block of queries.
    pub(crate) fn left_len(&self) -> usize {
        let queries = QUERIES.min(self.len);
        let of_queries = Panels::len_in(self.precision, Side::Left, queries, self.len.max(self.head_dim));
        of_queries.max(Panels::len_in(self.precision, Side::Left, self.len, queries))
    }

    /// Packs a left operand. In f32 its rows are read as they lie: these operands fit the nearest caches.
    fn pack_left(&self, operand: Operand<'_>, rows: usize, depth: usize, out: &mut [f32]) {
        if self.precision != Precision::F32 {
            let out = &mut out[..Panels::len_in(self.precision, Side::Left, rows, depth)];
            Panels::pack(Side::Left, &operand, 0..rows, 0..depth, out);
        }
    }

    /// What [`HeadJob::pack_left`] packed, as a left operand.
    fn left<'b>(&self, operand: Operand<'b>, rows: usize, depth: usize, packed: &'b [f32]) -> LeftOperand<'b> {
        match self.precision {
            Precision::F32 => LeftOperand::Plain(operand),
            Precision::Bf16 => LeftOperand::Packed(self.panels_of(Side::Left, rows, depth, packed), 0),
        }
    }

    /// Panels that were packed at the beginning of a buffer.
    pub(crate) fn panels_of<'b>(&self, side: Side, lanes: usize, depth: usize, packed: &'b [f32]) -> Panels<'b> {
        Panels::of(self.precision, side, lanes, depth, packed)
    }

    /// Tokens of the job's part of a `[T, width]` buffer as the right operand `[tokens, head_dim]`.
    pub(crate) fn panels<'a, 'b>(&self, x: impl Into<Values<'a>>, tokens: Queries, out: &'b mut [f32]) -> Panels<'b> {
        let out = &mut out[..Panels::len_in(self.precision, Side::Right, self.head_dim, tokens.count)];
        let rows = self.rows(x, tokens.from, Order::DepthRows);
        Panels::pack(Side::Right, &rows, 0..self.head_dim, 0..tokens.count, out)
    }

    pub(crate) fn all(&self) -> Queries {
        Queries { from: 0, count: self.len }
    }
}

/// Part `i` of parts of `len`.
pub(crate) fn part_of(x: &[f32], i: usize, len: usize) -> &[f32] {
    &x[i * len..(i + 1) * len]
}

/// Left operands of the heads of a heads.
pub(crate) struct LeftOperands<'a> {
    pub(crate) any: HeadJob,
    pub(crate) packed: &'a mut [f32],
    pub(crate) len: usize,
}

impl LeftOperands<'_> {
    /// Packs an operand `[lanes, depth]` of each of `heads`, and then has each multiplied.
    pub(crate) fn multiply_each<'x>(
        &mut self,
        heads: usize,
        lanes: usize,
        depth: usize,
        operand: impl Fn(usize) -> Operand<'x>,
        mut product: impl FnMut(usize, LeftOperand<'_>),
    ) {
        for (i, packed) in self.packed.chunks_exact_mut(self.len).take(heads).enumerate() {
            self.any.pack_left(operand(i), lanes, depth, packed);
        }
        for i in 0..heads {
            product(i, self.any.left(operand(i), lanes, depth, part_of(self.packed, i, self.len)));
        }
    }
}
