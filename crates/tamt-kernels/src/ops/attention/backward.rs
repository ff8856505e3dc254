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
use crate::ops::attention::softmax::{score_gradients, score_gradients_dropped};
use crate::ops::dropout::Dropout;

/// Gradients of `q`, `k` and `v`, overwritten.
///
/// With `P = softmax(S)`, `m` the dropout factors, `dP = (dctx vᵀ) ∘ m`: `dv = (P ∘ m)ᵀ dctx`,
/// `dS = P ∘ (dP - rowsum(P ∘ dP)) / sqrt(head_dim)`, `dq = dS k`, `dk = dSᵀ q`. `lse` is the forward pass's, whose jobs these
/// are like. Operands in bf16 are for arithmetic in bf16 (see [`Precision::effective`]).
pub fn backward<'a>(
    dctx: &[f32],
    q: impl Into<Values<'a>>,
    k: impl Into<Values<'a>>,
    v: impl Into<Values<'a>>,
    lse: &[f32],
    shape: &AttentionShape<'_>,
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
    shape.head_groups(scratch.precision().effective()).for_each(|heads| {
        let job = |i: usize| heads.job(i);
        let (n, any) = (heads.heads.len(), job(0));
        #[cfg(target_arch = "x86_64")]
        let _tiles = TileUnit::new(any.precision);
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
                let start = if queries.from == 0 { Init::Zero } else { Init::Accumulate };
                let count = queries.count;
                // SAFETY of what follows: blocks of scores lie in their buffers, and the rows and columns of outputs are this job's.
                let left = &mut LeftOperands { any, packed: &mut *left_panels, len: left };
                for (x, right, out) in [(q, &*keys_t, &mut *p), (dctx.into(), &*values_t, &mut *dp)] {
                    let rows = |i: usize| job(i).rows(x, queries.from, Order::LaneRows);
                    left.multiply_each(n, count, any.head_dim, rows, |i, lhs| {
                        let out = any.score_block(&mut out[i * block..(i + 1) * block], count);
                        #[allow(unsafe_code)]
                        unsafe {
                            multiply(out, lhs, transposed(right, i), 0, Init::Zero);
                        }
                    });
                }
                for i in 0..n {
                    let at = i * block..(i + 1) * block;
                    let row_lse = &mut row_lse[..count];
                    for (row, lse_of) in row_lse.iter_mut().enumerate() {
                        *lse_of = lse[heads.lse_at(any.first + queries.from + row, i)];
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
                        multiply(job(i).block(&dq, queries.from, count), lhs, keys, 0, Init::Zero);
                    }
                });
            }
        });
    });
}
