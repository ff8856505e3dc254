//! Scaled dot-product attention over packed sequences.
//!
//! A batch is packed: the tokens of all sequences lie end to end, so there is no padding and no attention mask. The work
//! is a job per sequence and head, which goes through its queries in blocks; probabilities live in a thread's scratch
//! only, and the backward pass makes them again from the log-sum-exp of each query.

use rayon::prelude::*;

use crate::dispatch::kernel;
use crate::dropout::{Dropout, apply_from};
use crate::linear::Scratch;
use crate::math::{exp, fma, max_of, sum_by};
use crate::pack::{Operand, Order, Panels, Side};
use crate::parallel::{Shared, with_buffer, with_parts};
use crate::precision::Precision;
use crate::product::{Block, Lhs, Start, multiply};

/// The shape of a packed batch of `T` tokens. `q`, `k`, `v` and the context are `[T, heads * head_dim]`.
#[derive(Clone, Copy, Debug)]
pub struct Packed<'a> {
    /// Where sequences begin, and `T` at the end: sequence `i` is tokens `bounds[i]..bounds[i + 1]`.
    pub bounds: &'a [usize],
    /// Attention heads.
    pub heads: usize,
    /// Size of a head.
    pub head_dim: usize,
}

/// Scores at or below this count as masked in [`score_mse`].
const MASKED: f32 = -100.0;

/// Queries that are worked on together. With 512 keys their scores are 256 KB.
const QUERIES: usize = 128;

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

    fn assert_hidden(&self, buffers: &[&[f32]]) {
        let len = self.tokens() * self.width();
        assert!(buffers.iter().all(|b| b.len() == len), "buffers of [tokens, heads * head_dim]");
    }

    fn jobs(&self) -> usize {
        self.bounds.len().saturating_sub(1) * self.heads
    }

    fn job(&self, index: usize, precision: Precision) -> Job {
        let (sequence, head) = (index / self.heads, index % self.heads);
        let (first, end) = (self.bounds[sequence], self.bounds[sequence + 1]);
        Job {
            first,
            len: end - first,
            head,
            heads: self.heads,
            column: head * self.head_dim,
            head_dim: self.head_dim,
            width: self.width(),
            index: index as u32,
            precision,
        }
    }
}

/// One head of one sequence.
#[derive(Clone, Copy)]
struct Job {
    first: usize,
    len: usize,
    head: usize,
    heads: usize,
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
    fn rows<'a>(&self, x: &'a [f32], t: usize, order: Order) -> Operand<'a> {
        Operand { precision: self.precision, ..Operand::new(&x[self.at(t)..], self.width, order) }
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
    fn transposed_panels<'b>(&self, x: &[f32], out: &'b mut [f32]) -> Panels<'b> {
        let out = &mut out[..Panels::len_in(self.precision, Side::Right, self.len, self.head_dim)];
        Panels::pack(Side::Right, &self.rows(x, 0, Order::LaneRows), 0..self.len, 0..self.head_dim, out)
    }

    /// Tokens of the job's part of a `[T, width]` buffer as the right operand `[tokens, head_dim]`.
    fn panels<'b>(&self, x: &[f32], tokens: Queries, out: &'b mut [f32]) -> Panels<'b> {
        let out = &mut out[..Panels::len_in(self.precision, Side::Right, self.head_dim, tokens.count)];
        let rows = self.rows(x, tokens.from, Order::DepthRows);
        Panels::pack(Side::Right, &rows, 0..self.head_dim, 0..tokens.count, out)
    }

    fn all(&self) -> Queries {
        Queries { from: 0, count: self.len }
    }

    /// `out[i, j] = x[i] · y[j]` for a block of queries `i` and all keys `j`; `y` is [`Job::transposed_panels`].
    fn dot_products(&self, x: &[f32], y: Panels<'_>, queries: Queries, out: &mut [f32]) {
        assert!(out.len() >= queries.count * self.score_stride(), "a block of scores");
        let block = Block { start: out.as_mut_ptr(), stride: self.score_stride(), rows: queries.count, cols: self.len };
        // SAFETY: the block lies in `out`.
        #[allow(unsafe_code)]
        unsafe {
            product(block, self.rows(x, queries.from, Order::LaneRows), y, Start::Zero);
        }
    }

    /// `out[i] = Σ_j p[i, j] y[j]` for a block of queries; `y` is [`Job::panels`] of all tokens.
    fn mix_keys(&self, p: &[f32], y: Panels<'_>, queries: Queries, start: Start<'_>, out: &Shared<'_, f32>) {
        // SAFETY: these rows and columns of the output are this job's.
        #[allow(unsafe_code)]
        unsafe {
            product(self.block(out, queries.from, queries.count), self.scores(p, Order::LaneRows), y, start);
        }
    }

    /// `out[j] = Σ_i p[i, j] x[i]` over a block of queries, for all keys; `x` is [`Job::panels`] of the queries.
    fn mix_queries(&self, p: &[f32], x: Panels<'_>, start: Start<'_>, out: &Shared<'_, f32>) {
        // SAFETY: these rows and columns of the output are this job's.
        #[allow(unsafe_code)]
        unsafe {
            product(self.block(out, 0, self.len), self.scores(p, Order::DepthRows), x, start);
        }
    }
}

/// `C (+)= A B` with all of `B`. In f32 the rows of `A` are read as they lie: these operands fit the nearest caches.
///
/// # Safety
/// As [`multiply`].
#[allow(unsafe_code)]
unsafe fn product(c: Block, lhs: Operand<'_>, rhs: Panels<'_>, start: Start<'_>) {
    // SAFETY: the caller's.
    unsafe {
        if lhs.precision == Precision::F32 {
            return multiply(c, Lhs::Plain(lhs), rhs, 0, start);
        }
        with_buffer(Panels::len_in(lhs.precision, Side::Left, c.rows, rhs.depth()), |packed| {
            let lhs = Panels::pack(Side::Left, &lhs, 0..c.rows, 0..rhs.depth(), packed);
            multiply(c, Lhs::Packed(lhs, 0), rhs, 0, start);
        });
    }
}

/// `ctx = dropout(softmax(q kᵀ / sqrt(head_dim))) v`, per sequence and head.
///
/// `q`, `k`, `v`, `ctx` `[T, heads * head_dim]`; `lse` `[T, heads]` is the log of the sum of the exponentials, for the
/// backward pass.
pub fn forward(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    shape: &Packed<'_>,
    dropout: Option<Dropout>,
    ctx: &mut [f32],
    lse: &mut [f32],
    scratch: &Scratch,
) {
    shape.assert_valid();
    shape.assert_hidden(&[q, k, v, ctx]);
    assert_eq!(lse.len(), shape.tokens() * shape.heads, "a log-sum-exp per token and head");
    let (ctx, lse) = (Shared::new(ctx), Shared::new(lse));
    let jobs = (0..shape.jobs()).into_par_iter().map(|index| shape.job(index, scratch.precision()));
    jobs.filter(|job| job.len > 0).for_each(|job| {
        let panels = job.panels_len(job.len);
        let sums = QUERIES.min(job.len);
        with_parts([panels, panels, job.block_len(), sums], |[keys, values, p, sums]| {
            let keys = job.transposed_panels(k, keys);
            let values = job.panels(v, job.all(), values);
            for queries in job.blocks() {
                job.dot_products(q, keys, queries, p);
                softmax(p, job.score_stride(), job.len, shape.scale(), &mut sums[..queries.count]);
                for (i, &sum) in sums[..queries.count].iter().enumerate() {
                    let at = (job.first + queries.from + i) * job.heads + job.head;
                    // SAFETY: this token and head are this job's.
                    #[allow(unsafe_code)]
                    let lse = unsafe { lse.part(at..at + 1) };
                    lse[0] = sum;
                }
                job.drop(p, queries, dropout);
                job.mix_keys(p, values, queries, Start::Zero, &ctx);
            }
        });
    });
}

/// Gradients of `q`, `k` and `v`, overwritten.
///
/// With `P = softmax(S)`, `m` the dropout factors, `dP = (dctx vᵀ) ∘ m`: `dv = (P ∘ m)ᵀ dctx`,
/// `dS = P ∘ (dP - rowsum(dctx ∘ ctx)) / sqrt(head_dim)`, `dq = dS k`, `dk = dSᵀ q`. `ctx` and `lse` are the forward
/// pass's.
pub fn backward(
    dctx: &[f32],
    q: &[f32],
    k: &[f32],
    v: &[f32],
    ctx: &[f32],
    lse: &[f32],
    shape: &Packed<'_>,
    dropout: Option<Dropout>,
    dq: &mut [f32],
    dk: &mut [f32],
    dv: &mut [f32],
    scratch: &Scratch,
) {
    shape.assert_valid();
    shape.assert_hidden(&[dctx, q, k, v, ctx, dq, dk, dv]);
    assert_eq!(lse.len(), shape.tokens() * shape.heads, "a log-sum-exp per token and head");
    let (dq, dk, dv) = (Shared::new(dq), Shared::new(dk), Shared::new(dv));
    let jobs = (0..shape.jobs()).into_par_iter().map(|index| shape.job(index, scratch.precision()));
    jobs.filter(|job| job.len > 0).for_each(|job| {
        let (panels, block) = (job.panels_len(job.len), job.block_len());
        let sizes = [panels, panels, panels, job.panels_len(QUERIES.min(job.len)), block, block, block];
        with_parts(sizes, |[keys_t, values_t, keys, own, p, dropped, dp]| {
            let keys_t = job.transposed_panels(k, keys_t);
            let values_t = job.transposed_panels(v, values_t);
            let keys = job.panels(k, job.all(), keys);
            for queries in job.blocks() {
                let start = if queries.from == 0 { Start::Zero } else { Start::Sum };
                job.dot_products(q, keys_t, queries, p);
                for (i, row) in job.score_rows(p, queries).enumerate() {
                    probabilities(row, shape.scale(), lse[(job.first + queries.from + i) * job.heads + job.head]);
                }
                let dctx_panels = job.panels(dctx, queries, own);
                if dropout.is_some() {
                    dropped.copy_from_slice(p);
                    job.drop(dropped, queries, dropout);
                    job.mix_queries(dropped, dctx_panels, start, &dv);
                } else {
                    job.mix_queries(p, dctx_panels, start, &dv);
                }
                job.dot_products(dctx, values_t, queries, dp);
                job.drop(dp, queries, dropout);
                let rows = job.score_rows(dp, queries).zip(job.score_rows(p, queries));
                for (i, (dp, p)) in rows.enumerate() {
                    let at = job.at(queries.from + i);
                    let part = at..at + job.head_dim;
                    score_gradient(dp, p, &dctx[part.clone()], &ctx[part], shape.scale());
                }
                job.mix_keys(dp, keys, queries, Start::Zero, &dq);
                job.mix_queries(dp, job.panels(q, queries, own), start, &dk);
            }
        });
    });
}

/// `Σ (S - T)²` over heads, queries and keys of each sequence, `S = q kᵀ / sqrt(head_dim)` and `T` the teacher's; where
/// either is -100 or less it counts as 0 (and has no gradient), as in the distillation losses of `TinyBERT`. Returns
/// the unweighted sum; `grads`, if wanted, are `dq` and `dk`, to which those of `weight` times the sum are added.
#[must_use]
pub fn score_mse(
    q: &[f32],
    k: &[f32],
    q_teacher: &[f32],
    k_teacher: &[f32],
    shape: &Packed<'_>,
    weight: f32,
    grads: Option<(&mut [f32], &mut [f32])>,
    scratch: &mut Scratch,
) -> f64 {
    shape.assert_valid();
    shape.assert_hidden(&[q, k, q_teacher, k_teacher]);
    let grads = grads.map(|(dq, dk)| {
        shape.assert_hidden(&[dq, dk]);
        (Shared::new(dq), Shared::new(dk))
    });
    let precision = scratch.precision();
    scratch.sums.clear();
    scratch.sums.resize(shape.jobs(), 0.0);
    scratch.sums.par_iter_mut().enumerate().for_each(|(index, sum)| {
        let job = shape.job(index, precision);
        if job.len == 0 {
            return;
        }
        let (panels, block) = (job.panels_len(job.len), job.block_len());
        let sizes = [panels, panels, panels, job.panels_len(QUERIES.min(job.len)), block, block];
        with_parts(sizes, |[keys_t, teacher_t, keys, own, s, t]| {
            let keys_t = job.transposed_panels(k, keys_t);
            let teacher_t = job.transposed_panels(k_teacher, teacher_t);
            let keys = job.panels(k, job.all(), keys);
            for queries in job.blocks() {
                job.dot_products(q, keys_t, queries, s);
                job.dot_products(q_teacher, teacher_t, queries, t);
                for (s, t) in job.score_rows(s, queries).zip(job.score_rows(t, queries)) {
                    *sum += score_difference(s, t, shape.scale(), weight);
                }
                if let Some((dq, dk)) = &grads {
                    job.mix_keys(s, keys, queries, Start::Sum, dq);
                    job.mix_queries(s, job.panels(q, queries, own), Start::Sum, dk);
                }
            }
        });
    });
    scratch.sums.iter().sum()
}

kernel! {
    /// `x = softmax(scale x)` of a row of `len` elements for each of `lse`, `stride` apart, and `lse = log Σ exp(scale x)`.
    fn softmax<FMA>(x: &mut [f32], stride: usize, len: usize, scale: f32, lse: &mut [f32]) {
        for (row, lse) in x.chunks_exact_mut(stride).zip(lse) {
            let row = &mut row[..len];
            let max = scale * max_of(row);
            for v in row.iter_mut() {
                *v = exp::<FMA>(fma::<FMA>(*v, scale, -max));
            }
            let sum = sum_by([row], |[v]| v);
            let inverse = 1.0 / sum;
            for v in row.iter_mut() {
                *v *= inverse;
            }
            *lse = max + sum.ln();
        }
    }
}

kernel! {
    /// `x = exp(scale x - lse)`
    fn probabilities<FMA>(x: &mut [f32], scale: f32, lse: f32) {
        for v in x {
            *v = exp::<FMA>(fma::<FMA>(*v, scale, -lse));
        }
    }
}

kernel! {
    /// `dp = p (dp - dctx · ctx) scale`, one query
    fn score_gradient<FMA>(dp: &mut [f32], p: &[f32], dctx: &[f32], ctx: &[f32], scale: f32) {
        let mean = sum_by([dctx, ctx], |[dctx, ctx]| dctx * ctx);
        for (dp, p) in dp.iter_mut().zip(p) {
            *dp = p * (*dp - mean) * scale;
        }
    }
}

kernel! {
    /// `Σ (S - T)²` of unscaled scores; `s` becomes the gradient for the unscaled scores.
    fn score_difference<FMA>(s: &mut [f32], t: &[f32], scale: f32, weight: f32) -> f64 {
        let mut lanes = [0.0; 16];
        let factor = 2.0 * weight * scale;
        for (s, t) in s.chunks_mut(16).zip(t.chunks(16)) {
            for (lane, (s, t)) in lanes.iter_mut().zip(s.iter_mut().zip(t)) {
                let (student, teacher) = (*s * scale, t * scale);
                let masked = student <= MASKED;
                let student = if masked { 0.0 } else { student };
                let difference = student - if teacher <= MASKED { 0.0 } else { teacher };
                *lane += f64::from(difference) * f64::from(difference);
                *s = if masked { 0.0 } else { factor * difference };
            }
        }
        lanes.iter().sum()
    }
}

#[cfg(test)]
mod tests;
