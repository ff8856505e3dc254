//! Scaled dot-product attention over packed sequences.
//!
//! A batch is packed: the tokens of all sequences lie end to end, so there is no padding and no attention mask. The work
//! is a job per sequence and head, which goes through its queries in blocks; probabilities live in a thread's scratch
//! only, and the backward pass makes them again from the log-sum-exp of each query.

use std::f32::consts::{LN_2, LOG2_E};
use std::ops::Range;

use rayon::prelude::*;

use crate::dispatch::kernel;
use crate::dropout::{Dropout, apply_from};
use crate::linear::Scratch;
use crate::math::{LANES, exp2, fma, max_of, sum_by, sum_lanes};
use crate::pack::{Operand, Order, Panels, Side};
use crate::parallel::{Shared, with_parts};
use crate::precision::{Precision, Values};
use crate::product::{Block, Lhs, Start, multiply};
#[cfg(target_arch = "x86_64")]
use crate::tiles::Multiplier;

mod score_mse;
pub use score_mse::score_mse;

/// The shape of a packed batch of `T` tokens. `q`, `k`, `v` and the context are `[T, heads * head_dim]`.
#[derive(Clone, Copy, Debug)]
pub struct Packed<'a> {
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
const QUERIES: usize = 128;

/// Scores of the heads of a job: a part of the second-level cache.
const TEAM_SCORES: usize = 16 * 1024;

impl Packed<'_> {
    fn tokens(&self) -> usize {
        self.bounds.last().copied().unwrap_or(0)
    }

    fn width(&self) -> usize {
        self.heads * self.head_dim
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    fn assert_valid(&self) {
        assert_eq!(self.bounds.first().copied().unwrap_or(0), 0, "bounds from 0");
        assert!(self.bounds.is_sorted(), "bounds in order");
    }

    fn assert_hidden<'a>(&self, buffers: impl IntoIterator<Item = Values<'a>>) {
        let len = self.tokens() * self.width();
        assert!(buffers.into_iter().all(|b| b.len() == len), "buffers of [tokens, heads * head_dim]");
    }

    fn jobs(&self) -> usize {
        self.bounds.len().saturating_sub(1) * self.heads
    }

    /// Some heads of each sequence that has tokens, with scores of about [`TEAM_SCORES`] together.
    fn teams(&self, precision: Precision) -> impl ParallelIterator<Item = Team<'_>> {
        (0..self.bounds.len().saturating_sub(1)).into_par_iter().flat_map(move |sequence| {
            let len = self.bounds[sequence + 1] - self.bounds[sequence];
            let size = (TEAM_SCORES / (QUERIES.min(len) * len).max(1)).clamp(1, self.heads.max(1));
            let teams = if len == 0 { 0 } else { self.heads.div_ceil(size) };
            (0..teams).into_par_iter().map(move |i| {
                let heads = i * size..self.heads.min((i + 1) * size);
                Team { shape: self, precision, sequence, heads }
            })
        })
    }

    fn job(&self, index: usize, precision: Precision) -> Job {
        let (sequence, head) = (index / self.heads, index % self.heads);
        let (first, end) = (self.bounds[sequence], self.bounds[sequence + 1]);
        Job {
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
struct Team<'a> {
    shape: &'a Packed<'a>,
    precision: Precision,
    sequence: usize,
    heads: Range<usize>,
}

impl Team<'_> {
    /// Its head `i`, from 0.
    fn job(&self, i: usize) -> Job {
        self.shape.job(self.sequence * self.shape.heads + self.heads.start + i, self.precision)
    }

    /// Where the log-sum-exp of a token and of its head `i` lies.
    fn lse_at(&self, token: usize, i: usize) -> usize {
        token * self.shape.heads + self.heads.start + i
    }
}

/// One head of one sequence.
#[derive(Clone, Copy)]
struct Job {
    first: usize,
    len: usize,
    column: usize,
    head_dim: usize,
    width: usize,
    index: u32,
    /// What the operands of products are rounded to.
    precision: Precision,
}

/// Some queries of a job, counted from its first token.
#[derive(Clone, Copy)]
struct Queries {
    from: usize,
    count: usize,
}

impl Job {
    fn blocks(self) -> impl Iterator<Item = Queries> {
        (0..self.len).step_by(QUERIES).map(move |from| Queries { from, count: QUERIES.min(self.len - from) })
    }

    /// Where the job's token `t` begins in a `[T, width]` buffer.
    fn at(&self, t: usize) -> usize {
        (self.first + t) * self.width + self.column
    }

    /// Its rows of a `[T, width]` buffer from token `t` on, as an operand: tokens are lanes or steps of the depth.
    fn rows<'a>(&self, x: impl Into<Values<'a>>, t: usize, order: Order) -> Operand<'a> {
        let x = x.into();
        Operand { precision: self.precision, ..Operand::new(x.part(self.at(t)..x.len()), self.width, order) }
    }

    /// A block of scores as an operand: queries are lanes or steps of the depth.
    fn scores<'a>(&self, p: &'a [f32], order: Order) -> Operand<'a> {
        Operand { precision: self.precision, ..Operand::new(p, self.score_stride(), order) }
    }

    /// Its part of a `[T, width]` output from token `t` on.
    fn block(&self, out: &Shared<'_, f32>, t: usize, rows: usize) -> Block {
        Block { start: out.pointer(self.at(t)), stride: self.width, rows, cols: self.head_dim }
    }

    /// Elements from one query's scores to the next one's in a block `[queries, keys]`. Reading down a column of a block
    /// whose rows are a multiple of 512 bytes would find room for a few lines only in the first-level cache.
    fn score_stride(&self) -> usize {
        if self.len >= 128 && self.len.is_multiple_of(64) { self.len + 16 } else { self.len }
    }

    /// Floats of a block of scores.
    fn block_len(&self) -> usize {
        QUERIES.min(self.len) * self.score_stride()
    }

    /// A block of scores of so many queries as an output.
    fn score_block(&self, out: &mut [f32], queries: usize) -> Block {
        assert!(out.len() >= queries * self.score_stride(), "a block of scores");
        Block { start: out.as_mut_ptr(), stride: self.score_stride(), rows: queries, cols: self.len }
    }

    /// The scores of each query of a block.
    fn score_rows<'x>(&self, x: &'x mut [f32], queries: Queries) -> impl Iterator<Item = &'x mut [f32]> + use<'x> {
        let len = self.len;
        x.chunks_exact_mut(self.score_stride()).take(queries.count).map(move |row| &mut row[..len])
    }

    /// Drops probabilities of a block `[queries, keys]`.
    fn drop(&self, x: &mut [f32], queries: Queries, dropout: Option<Dropout>) {
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

    /// Floats of the panels of [`Job::transposed_panels`] or [`Job::panels`] of `tokens` tokens.
    fn panels_len(&self, tokens: usize) -> usize {
        let transposed = Panels::len_in(self.precision, Side::Right, tokens, self.head_dim);
        transposed.max(Panels::len_in(self.precision, Side::Right, self.head_dim, tokens))
    }

    /// The job's part of a `[T, width]` buffer as the right operand `[head_dim, tokens]`.
    fn transposed_panels<'a, 'b>(&self, x: impl Into<Values<'a>>, out: &'b mut [f32]) -> Panels<'b> {
        let out = &mut out[..Panels::len_in(self.precision, Side::Right, self.len, self.head_dim)];
        Panels::pack(Side::Right, &self.rows(x, 0, Order::LaneRows), 0..self.len, 0..self.head_dim, out)
    }

    /// Words of a left operand: a block of queries by the keys or by the size of the head, or the keys by a block of queries.
    fn left_len(&self) -> usize {
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

    /// What [`Job::pack_left`] packed, as a left operand.
    fn left<'b>(&self, operand: Operand<'b>, rows: usize, depth: usize, packed: &'b [f32]) -> Lhs<'b> {
        match self.precision {
            Precision::F32 => Lhs::Plain(operand),
            Precision::Bf16 => Lhs::Packed(self.panels_of(Side::Left, rows, depth, packed), 0),
        }
    }

    /// Panels that were packed at the beginning of a buffer.
    fn panels_of<'b>(&self, side: Side, lanes: usize, depth: usize, packed: &'b [f32]) -> Panels<'b> {
        Panels::of(self.precision, side, lanes, depth, packed)
    }

    /// Tokens of the job's part of a `[T, width]` buffer as the right operand `[tokens, head_dim]`.
    fn panels<'a, 'b>(&self, x: impl Into<Values<'a>>, tokens: Queries, out: &'b mut [f32]) -> Panels<'b> {
        let out = &mut out[..Panels::len_in(self.precision, Side::Right, self.head_dim, tokens.count)];
        let rows = self.rows(x, tokens.from, Order::DepthRows);
        Panels::pack(Side::Right, &rows, 0..self.head_dim, 0..tokens.count, out)
    }

    fn all(&self) -> Queries {
        Queries { from: 0, count: self.len }
    }
}

/// `ctx = dropout(softmax(q kᵀ / sqrt(head_dim))) v`, per sequence and head.
///
/// `q`, `k`, `v`, `ctx` `[T, heads * head_dim]`; `lse` `[T, heads]`, if wanted, is the log of the sum of the exponentials, for
/// the backward pass.
///
/// Operands in bf16 are for arithmetic in bf16 (see [`Precision::as_computed`]).
///
/// A job has some heads of a sequence and does each step for all of them before the next one: what a step reads was then written
/// a while ago, and need not be waited for.
pub fn forward<'a>(
    q: impl Into<Values<'a>>,
    k: impl Into<Values<'a>>,
    v: impl Into<Values<'a>>,
    shape: &Packed<'_>,
    dropout: Option<Dropout>,
    ctx: &mut [f32],
    lse: Option<&mut [f32]>,
    scratch: &Scratch,
) {
    shape.assert_valid();
    let [q, k, v]: [Values<'a>; 3] = [q.into(), k.into(), v.into()];
    shape.assert_hidden([q, k, v, (&*ctx).into()]);
    assert!(
        lse.as_ref().is_none_or(|lse| lse.len() == shape.tokens() * shape.heads),
        "a log-sum-exp per token and head"
    );
    let (ctx, lse) = (Shared::new(ctx), lse.map(Shared::new));
    shape.teams(scratch.precision().as_computed()).for_each(|team| {
        let job = |i: usize| team.job(i);
        let (n, any) = (team.heads.len(), job(0));
        #[cfg(target_arch = "x86_64")]
        let _tiles = Multiplier::new(any.precision);
        let queries = QUERIES.min(any.len);
        let [panels, left, block] =
            [any.panels_len(any.len), any.left_len(), any.block_len()].map(|len| len.next_multiple_of(16));
        let sizes = [n * panels, n * panels, n * left, n * block, n * queries, n * queries];
        with_parts(sizes, |[keys, values, left_panels, p, maxima, sums]| {
            for (i, (keys, values)) in keys.chunks_exact_mut(panels).zip(values.chunks_exact_mut(panels)).enumerate() {
                let job = job(i);
                job.transposed_panels(k, keys);
                job.panels(v, job.all(), values);
            }
            let heads_keys = |i: usize| any.panels_of(Side::Right, any.len, any.head_dim, &keys[i * panels..]);
            let heads_values = |i: usize| any.panels_of(Side::Right, any.head_dim, any.len, &values[i * panels..]);
            for queries in any.blocks() {
                // SAFETY of what follows: blocks of scores lie in their buffer, and the rows and columns of the output are this job's.
                let left = &mut Lefts { any, packed: &mut *left_panels, len: left };
                let rows = |i: usize| job(i).rows(q, queries.from, Order::LaneRows);
                left.multiply_each(n, queries.count, any.head_dim, rows, |i, lhs| {
                    let p = any.score_block(&mut p[i * block..(i + 1) * block], queries.count);
                    #[allow(unsafe_code)]
                    unsafe {
                        multiply(p, lhs, heads_keys(i), 0, Start::Zero);
                    }
                });
                for (i, p) in p.chunks_exact_mut(block).enumerate() {
                    let rows = i * queries.count..(i + 1) * queries.count;
                    let (maxima, sums) = (&mut maxima[rows.clone()], &mut sums[rows]);
                    softmax(p, any.score_stride(), any.len, shape.scale(), maxima, sums);
                    job(i).drop(p, queries, dropout);
                }
                let scores = |i: usize| any.scores(part_of(p, i, block), Order::LaneRows);
                left.multiply_each(n, queries.count, any.len, scores, |i, lhs| {
                    #[allow(unsafe_code)]
                    unsafe {
                        multiply(job(i).block(&ctx, queries.from, queries.count), lhs, heads_values(i), 0, Start::Zero);
                    }
                });
                let Some(lse) = &lse else { continue };
                for (i, (max, sum)) in maxima.iter().zip(&*sums).take(n * queries.count).enumerate() {
                    let at = team.lse_at(any.first + queries.from + i % queries.count, i / queries.count);
                    // SAFETY: this token and head are this job's.
                    #[allow(unsafe_code)]
                    let lse = unsafe { lse.part(at..at + 1) };
                    lse[0] = max + sum.ln();
                }
            }
        });
    });
}

/// Gradients of `q`, `k` and `v`, overwritten.
///
/// With `P = softmax(S)`, `m` the dropout factors, `dP = (dctx vᵀ) ∘ m`: `dv = (P ∘ m)ᵀ dctx`,
/// `dS = P ∘ (dP - rowsum(P ∘ dP)) / sqrt(head_dim)`, `dq = dS k`, `dk = dSᵀ q`. `lse` is the forward pass's, whose jobs these
/// are like. Operands in bf16 are for arithmetic in bf16 (see [`Precision::as_computed`]).
pub fn backward<'a>(
    dctx: &[f32],
    q: impl Into<Values<'a>>,
    k: impl Into<Values<'a>>,
    v: impl Into<Values<'a>>,
    lse: &[f32],
    shape: &Packed<'_>,
    dropout: Option<Dropout>,
    dq: &mut [f32],
    dk: &mut [f32],
    dv: &mut [f32],
    scratch: &Scratch,
) {
    shape.assert_valid();
    let [q, k, v]: [Values<'a>; 3] = [q.into(), k.into(), v.into()];
    shape.assert_hidden([q, k, v, dctx.into(), (&*dq).into(), (&*dk).into(), (&*dv).into()]);
    assert_eq!(lse.len(), shape.tokens() * shape.heads, "a log-sum-exp per token and head");
    let (dq, dk, dv) = (Shared::new(dq), Shared::new(dk), Shared::new(dv));
    shape.teams(scratch.precision().as_computed()).for_each(|team| {
        let job = |i: usize| team.job(i);
        let (n, any) = (team.heads.len(), job(0));
        #[cfg(target_arch = "x86_64")]
        let _tiles = Multiplier::new(any.precision);
        let most = QUERIES.min(any.len);
        let [panels, own, left, block] =
            [any.panels_len(any.len), any.panels_len(most), any.left_len(), any.block_len()]
                .map(|len| len.next_multiple_of(16));
        let factors = if dropout.is_some() { n * block } else { 0 };
        let sizes = [n * panels, n * panels, n * panels, n * own, n * left, n * block, n * block, factors, most * n];
        with_parts(sizes, |[keys_t, values_t, keys, own_panels, left_panels, p, dp, factors, row_lse]| {
            for i in 0..n {
                let at = i * panels..(i + 1) * panels;
                job(i).transposed_panels(k, &mut keys_t[at.clone()]);
                job(i).transposed_panels(v, &mut values_t[at.clone()]);
                job(i).panels(k, any.all(), &mut keys[at]);
            }
            let transposed = |x, i: usize| any.panels_of(Side::Right, any.len, any.head_dim, part_of(x, i, panels));
            for queries in any.blocks() {
                let start = if queries.from == 0 { Start::Zero } else { Start::Sum };
                let count = queries.count;
                // SAFETY of what follows: blocks of scores lie in their buffers, and the rows and columns of outputs are this job's.
                let left = &mut Lefts { any, packed: &mut *left_panels, len: left };
                for (x, right, out) in [(q, &*keys_t, &mut *p), (dctx.into(), &*values_t, &mut *dp)] {
                    let rows = |i: usize| job(i).rows(x, queries.from, Order::LaneRows);
                    left.multiply_each(n, count, any.head_dim, rows, |i, lhs| {
                        let out = any.score_block(&mut out[i * block..(i + 1) * block], count);
                        #[allow(unsafe_code)]
                        unsafe {
                            multiply(out, lhs, transposed(right, i), 0, Start::Zero);
                        }
                    });
                }
                for i in 0..n {
                    let at = i * block..(i + 1) * block;
                    let row_lse = &mut row_lse[..count];
                    for (row, lse_of) in row_lse.iter_mut().enumerate() {
                        *lse_of = lse[team.lse_at(any.first + queries.from + row, i)];
                    }
                    let (p, dp, stride) = (&mut p[at.clone()], &mut dp[at.clone()], any.score_stride());
                    if dropout.is_some() {
                        let factors = &mut factors[at];
                        factors.fill(1.0);
                        job(i).drop(factors, queries, dropout);
                        score_gradients_dropped(p, dp, factors, stride, any.len, shape.scale(), row_lse);
                    } else {
                        score_gradients(p, dp, stride, any.len, shape.scale(), row_lse);
                    }
                }
                let dropped = if dropout.is_some() { &*factors } else { &*p };
                for (x, of_queries, out) in [(dctx.into(), dropped, &dv), (q, &*dp, &dk)] {
                    for (i, own) in own_panels.chunks_exact_mut(own).enumerate() {
                        job(i).panels(x, queries, own);
                    }
                    let columns = |i: usize| any.scores(part_of(of_queries, i, block), Order::DepthRows);
                    left.multiply_each(n, any.len, count, columns, |i, lhs| {
                        let rhs = any.panels_of(Side::Right, any.head_dim, count, part_of(own_panels, i, own));
                        #[allow(unsafe_code)]
                        unsafe {
                            multiply(job(i).block(out, 0, any.len), lhs, rhs, 0, start);
                        }
                    });
                }
                let rows = |i: usize| any.scores(part_of(dp, i, block), Order::LaneRows);
                left.multiply_each(n, count, any.len, rows, |i, lhs| {
                    let keys = any.panels_of(Side::Right, any.head_dim, any.len, part_of(keys, i, panels));
                    #[allow(unsafe_code)]
                    unsafe {
                        multiply(job(i).block(&dq, queries.from, count), lhs, keys, 0, Start::Zero);
                    }
                });
            }
        });
    });
}

/// Part `i` of parts of `len`.
fn part_of(x: &[f32], i: usize, len: usize) -> &[f32] {
    &x[i * len..(i + 1) * len]
}

/// Left operands of the heads of a team.
struct Lefts<'a> {
    any: Job,
    packed: &'a mut [f32],
    len: usize,
}

impl Lefts<'_> {
    /// Packs an operand `[lanes, depth]` of each of `heads`, and then has each multiplied.
    fn multiply_each<'x>(
        &mut self,
        heads: usize,
        lanes: usize,
        depth: usize,
        operand: impl Fn(usize) -> Operand<'x>,
        mut product: impl FnMut(usize, Lhs<'_>),
    ) {
        for (i, packed) in self.packed.chunks_exact_mut(self.len).take(heads).enumerate() {
            self.any.pack_left(operand(i), lanes, depth, packed);
        }
        for i in 0..heads {
            product(i, self.any.left(operand(i), lanes, depth, part_of(self.packed, i, self.len)));
        }
    }
}

kernel! {
    /// `x = softmax(scale x)` of a row of `len` elements for each of `sums`, `stride` apart: `maxima` of `scale x`, and `sums` of
    /// the exponentials of what is below them.
    fn softmax<FMA>(x: &mut [f32], stride: usize, len: usize, scale: f32, maxima: &mut [f32], sums: &mut [f32]) {
        for ((row, largest), total) in x.chunks_exact_mut(stride).zip(maxima).zip(sums) {
            let row = &mut row[..len];
            let max = scale * LOG2_E * max_of(row);
            let mut lanes = [0.0; LANES];
            let (chunks, rest) = row.as_chunks_mut::<LANES>();
            for chunk in chunks {
                for (v, lane) in chunk.iter_mut().zip(&mut lanes) {
                    *v = exp2::<FMA>(fma::<FMA>(*v, scale * LOG2_E, -max));
                    *lane += *v;
                }
            }
            let mut sum = sum_lanes(lanes);
            for v in rest {
                *v = exp2::<FMA>(fma::<FMA>(*v, scale * LOG2_E, -max));
                sum += *v;
            }
            let inverse = 1.0 / sum;
            for v in row.iter_mut() {
                *v *= inverse;
            }
            (*largest, *total) = (max * LN_2, sum);
        }
    }
}

/// `p = exp(scale p - lse)`, then `dp = p (dp - Σ p dp) scale`, for rows of `len` elements, `stride` apart, each with its `lse`.
/// With `factors` of dropout, `dp` is multiplied by them first, and they become `p` times themselves.
#[inline(always)]
fn score_gradient_rows<const FMA: bool>(
    p: &mut [f32],
    dp: &mut [f32],
    mut factors: Option<&mut [f32]>,
    stride: usize,
    len: usize,
    scale: f32,
    lse: &[f32],
) {
    for (i, lse) in lse.iter().enumerate() {
        let at = i * stride..i * stride + len;
        let (p, dp) = (&mut p[at.clone()], &mut dp[at.clone()]);
        for p in p.iter_mut() {
            *p = exp2::<FMA>(fma::<FMA>(*p, scale * LOG2_E, -lse * LOG2_E));
        }
        if let Some(factors) = &mut factors {
            for ((factor, dp), p) in factors[at].iter_mut().zip(dp.iter_mut()).zip(&*p) {
                *dp *= *factor;
                *factor *= p;
            }
        }
        let mean = sum_by([&*p, &*dp], |[p, dp]| p * dp);
        for (dp, p) in dp.iter_mut().zip(p) {
            *dp = *p * (*dp - mean) * scale;
        }
    }
}

kernel! {
    fn score_gradients<FMA>(p: &mut [f32], dp: &mut [f32], stride: usize, len: usize, scale: f32, lse: &[f32]) {
        score_gradient_rows::<FMA>(p, dp, None, stride, len, scale, lse);
    }
}

kernel! {
    fn score_gradients_dropped<FMA>(
        p: &mut [f32],
        dp: &mut [f32],
        factors: &mut [f32],
        stride: usize,
        len: usize,
        scale: f32,
        lse: &[f32],
    ) {
        score_gradient_rows::<FMA>(p, dp, Some(factors), stride, len, scale, lse);
    }
}

#[cfg(test)]
mod tests;
