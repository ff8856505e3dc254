use rayon::prelude::*;

use crate::base::buffer::with_parts;
use crate::base::parallel::Shared;
use crate::base::scratch::Scratch;
use crate::base::values::Values;
#[cfg(target_arch = "x86_64")]
use crate::gemm::bf16::unit::TileUnit;
use crate::gemm::block::Init;
use crate::gemm::layout::Side;
use crate::gemm::multiply::multiply;
use crate::gemm::operand::Order;
use crate::ops::attention::shape::{AttentionShape, LeftOperands, QUERIES, part_of};
use crate::ops::attention::softmax::softmax;
use crate::ops::dropout::Dropout;

/// `ctx = dropout(softmax(q kᵀ / sqrt(head_dim))) v`, per sequence and head.
///
/// `q`, `k`, `v`, `ctx` `[T, heads * head_dim]`; `lse` `[T, heads]`, if wanted, is the log of the sum of the exponentials, for
/// the backward pass.
///
/// Operands in bf16 are for arithmetic in bf16 (see [`Precision::effective`]).
///
/// A job has some heads of a sequence and does each step for all of them before the next one: what a step reads was then written
/// a while ago, and need not be waited for.
pub fn forward<'a>(
    q: impl Into<Values<'a>>,
    k: impl Into<Values<'a>>,
    v: impl Into<Values<'a>>,
    shape: &AttentionShape<'_>,
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
    shape.head_groups(scratch.precision().effective()).for_each(|heads| {
        let job = |i: usize| heads.job(i);
        let (n, any) = (heads.heads.len(), job(0));
        #[cfg(target_arch = "x86_64")]
        let _tiles = TileUnit::new(any.precision);
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
                let left = &mut LeftOperands { any, packed: &mut *left_panels, len: left };
                let rows = |i: usize| job(i).rows(q, queries.from, Order::LaneRows);
                left.multiply_each(n, queries.count, any.head_dim, rows, |i, lhs| {
                    let p = any.score_block(&mut p[i * block..(i + 1) * block], queries.count);
                    #[allow(unsafe_code)]
                    unsafe {
                        multiply(p, lhs, heads_keys(i), 0, Init::Zero);
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
                        multiply(job(i).block(&ctx, queries.from, queries.count), lhs, heads_values(i), 0, Init::Zero);
                    }
                });
                let Some(lse) = &lse else { continue };
                for (i, (max, sum)) in maxima.iter().zip(&*sums).take(n * queries.count).enumerate() {
                    let at = heads.lse_at(any.first + queries.from + i % queries.count, i / queries.count);
                    // SAFETY: this token and head are this job's.
                    #[allow(unsafe_code)]
                    let lse = unsafe { lse.part(at..at + 1) };
                    lse[0] = max + sum.ln();
                }
            }
        });
    });
}
