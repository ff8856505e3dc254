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
use crate::pack::{Operand, Order};
use crate::parallel::{Shared, with_buffer};
use crate::product::{Block, PackedLhs, Start, multiply};

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

    fn job(&self, index: usize) -> Job {
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
        Operand::new(&x[self.at(t)..], self.width, order)
    }

    /// Its part of a `[T, width]` output from token `t` on.
    fn block(&self, out: &Shared<'_, f32>, t: usize, rows: usize) -> Block {
        Block { start: out.pointer(self.at(t)), stride: self.width, rows, cols: self.head_dim }
    }

    /// Drops probabilities of a block `[queries, keys]`.
    fn drop(&self, x: &mut [f32], queries: Queries, dropout: Option<Dropout>) {
        if let Some(d) = dropout {
            let d = Dropout { stream: d.stream.fork(self.index), ..d };
            apply_from(x, (queries.from * self.len) as u64, d);
        }
    }

    /// `out[i, j] = x[i] · y[j]` for a block of queries `i` and all keys `j`; `out` is `[queries, keys]`.
    fn dot_products(&self, x: &[f32], y: &[f32], queries: Queries, packed: &mut [f32], out: &mut [f32]) {
        let lhs = self.rows(x, queries.from, Order::LaneRows);
        let rhs = self.rows(y, 0, Order::LaneRows);
        let block = Block { start: out.as_mut_ptr(), stride: self.len, rows: queries.count, cols: self.len };
        assert_eq!(out.len(), queries.count * self.len, "a block of scores");
        // SAFETY: the block is all of `out`.
        #[allow(unsafe_code)]
        unsafe {
            block_product(&lhs, self.head_dim, &rhs, block, Start::Zero, packed);
        }
    }

    /// `out[i] = Σ_j p[i, j] y[j]` for a block of queries.
    fn mix_keys(
        &self,
        p: &[f32],
        y: &[f32],
        queries: Queries,
        start: Start<'_>,
        packed: &mut [f32],
        out: &Shared<'_, f32>,
    ) {
        let lhs = Operand::new(p, self.len, Order::LaneRows);
        let rhs = self.rows(y, 0, Order::DepthRows);
        // SAFETY: these rows and columns of the output are this job's.
        #[allow(unsafe_code)]
        unsafe {
            block_product(&lhs, self.len, &rhs, self.block(out, queries.from, queries.count), start, packed);
        }
    }

    /// `out[j] = Σ_i p[i, j] x[i]` over a block of queries, for all keys.
    fn mix_queries(
        &self,
        p: &[f32],
        x: &[f32],
        queries: Queries,
        start: Start<'_>,
        packed: &mut [f32],
        out: &Shared<'_, f32>,
    ) {
        let lhs = Operand::new(p, self.len, Order::DepthRows);
        let rhs = self.rows(x, queries.from, Order::DepthRows);
        // SAFETY: these rows and columns of the output are this job's.
        #[allow(unsafe_code)]
        unsafe {
            block_product(&lhs, queries.count, &rhs, self.block(out, 0, self.len), start, packed);
        }
    }

    /// Floats of packed operands that the products above need.
    fn packed_len(&self) -> usize {
        let queries = QUERIES.min(self.len);
        PackedLhs::len(queries, self.head_dim.max(self.len)).max(PackedLhs::len(self.len, queries))
    }
}

/// # Safety
/// As [`multiply`].
#[allow(unsafe_code)]
unsafe fn block_product(
    lhs: &Operand<'_>,
    depth: usize,
    rhs: &Operand<'_>,
    block: Block,
    start: Start<'_>,
    packed: &mut [f32],
) {
    let packed = &mut packed[..PackedLhs::len(block.rows, depth)];
    let lhs = PackedLhs::pack(lhs, 0..block.rows, 0..depth, packed);
    // SAFETY: the caller's.
    unsafe { multiply(block, lhs, 0, rhs, 0, start) }
}

/// Splits a thread's buffer into a packed operand and `N` blocks of scores.
fn with_blocks<const N: usize>(job: &Job, f: impl FnOnce(&mut [f32], [&mut [f32]; N])) {
    let size = (QUERIES.min(job.len) * job.len).next_multiple_of(16);
    let packed = job.packed_len().next_multiple_of(16);
    with_buffer(packed + N * size, |buffer| {
        let (packed, rest) = buffer.split_at_mut(packed);
        let mut blocks = rest.chunks_exact_mut(size);
        f(packed, std::array::from_fn(|_| blocks.next().expect("the buffer has N blocks")));
    });
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
    _scratch: &mut Scratch,
) {
    shape.assert_valid();
    shape.assert_hidden(&[q, k, v, ctx]);
    assert_eq!(lse.len(), shape.tokens() * shape.heads, "a log-sum-exp per token and head");
    let (ctx, lse) = (Shared::new(ctx), Shared::new(lse));
    (0..shape.jobs()).into_par_iter().map(|index| shape.job(index)).filter(|job| job.len > 0).for_each(|job| {
        with_blocks(&job, |packed, [scores]| {
            for queries in job.blocks() {
                let p = &mut scores[..queries.count * job.len];
                job.dot_products(q, k, queries, packed, p);
                for (i, row) in p.chunks_exact_mut(job.len).enumerate() {
                    let at = (job.first + queries.from + i) * job.heads + job.head;
                    // SAFETY: this token and head are this job's.
                    #[allow(unsafe_code)]
                    let lse = unsafe { lse.part(at..at + 1) };
                    lse[0] = softmax(row, shape.scale());
                }
                job.drop(p, queries, dropout);
                job.mix_keys(p, v, queries, Start::Zero, packed, &ctx);
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
    _scratch: &mut Scratch,
) {
    shape.assert_valid();
    shape.assert_hidden(&[dctx, q, k, v, ctx, dq, dk, dv]);
    assert_eq!(lse.len(), shape.tokens() * shape.heads, "a log-sum-exp per token and head");
    let (dq, dk, dv) = (Shared::new(dq), Shared::new(dk), Shared::new(dv));
    (0..shape.jobs()).into_par_iter().map(|index| shape.job(index)).filter(|job| job.len > 0).for_each(|job| {
        with_blocks(&job, |packed, [p, dropped, dp]| {
            for queries in job.blocks() {
                let size = queries.count * job.len;
                let (p, dropped, dp) = (&mut p[..size], &mut dropped[..size], &mut dp[..size]);
                let start = if queries.from == 0 { Start::Zero } else { Start::Sum };
                job.dot_products(q, k, queries, packed, p);
                for (i, row) in p.chunks_exact_mut(job.len).enumerate() {
                    probabilities(row, shape.scale(), lse[(job.first + queries.from + i) * job.heads + job.head]);
                }
                if dropout.is_some() {
                    dropped.copy_from_slice(p);
                    job.drop(dropped, queries, dropout);
                    job.mix_queries(dropped, dctx, queries, start, packed, &dv);
                } else {
                    job.mix_queries(p, dctx, queries, start, packed, &dv);
                }
                job.dot_products(dctx, v, queries, packed, dp);
                job.drop(dp, queries, dropout);
                for (i, (dp, p)) in dp.chunks_exact_mut(job.len).zip(p.chunks_exact(job.len)).enumerate() {
                    let at = job.at(queries.from + i);
                    let part = at..at + job.head_dim;
                    score_gradient(dp, p, &dctx[part.clone()], &ctx[part], shape.scale());
                }
                job.mix_keys(dp, k, queries, Start::Zero, packed, &dq);
                job.mix_queries(dp, q, queries, start, packed, &dk);
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
    scratch.sums.clear();
    scratch.sums.resize(shape.jobs(), 0.0);
    scratch.sums.par_iter_mut().enumerate().for_each(|(index, sum)| {
        let job = shape.job(index);
        if job.len == 0 {
            return;
        }
        with_blocks(&job, |packed, [s, t]| {
            for queries in job.blocks() {
                let size = queries.count * job.len;
                let (s, t) = (&mut s[..size], &mut t[..size]);
                job.dot_products(q, k, queries, packed, s);
                job.dot_products(q_teacher, k_teacher, queries, packed, t);
                *sum += score_difference(s, t, shape.scale(), weight);
                if let Some((dq, dk)) = &grads {
                    job.mix_keys(s, k, queries, Start::Sum, packed, dq);
                    job.mix_queries(s, q, queries, Start::Sum, packed, dk);
                }
            }
        });
    });
    scratch.sums.iter().sum()
}

kernel! {
    /// `x = softmax(scale x)`; returns `log Σ exp(scale x)`.
    fn softmax<FMA>(x: &mut [f32], scale: f32) -> f32 {
        let max = scale * max_of(x);
        for v in x.iter_mut() {
            *v = exp::<FMA>(fma::<FMA>(*v, scale, -max));
        }
        let sum = sum_by([x], |[v]| v);
        let inverse = 1.0 / sum;
        for v in x.iter_mut() {
            *v *= inverse;
        }
        max + sum.ln()
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
