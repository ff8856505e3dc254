//! The forward pass of attention.

use rayon::prelude::*;

use crate::base::{Scratch, Shared, with_panels_and_floats};
use crate::gemm::Init;
#[cfg(target_arch = "x86_64")]
use crate::gemm::bf16::unit::TileUnit;
use crate::ops::attention::head_group::{HeadGroup, PerHead};
use crate::ops::attention::shape::{AttentionShape, QUERIES, Qkv, TokenBlock};
use crate::ops::attention::softmax::softmax;
use crate::ops::dropout::Dropout;

/// `ctx = dropout(softmax(q kᵀ / sqrt(head_dim))) v`, per sequence and head.
///
/// `q`, `k`, `v`, `ctx` `[T, heads * head_dim]`; `lse` `[T, heads]` receives `log Σ_j exp(S[i, j])` of each query for
/// [`backward`](super::backward()).
///
/// # Panics
/// If a buffer does not have its shape.
pub fn forward(
    qkv: Qkv<'_>,
    shape: &AttentionShape<'_>,
    dropout: Option<Dropout>,
    ctx: &mut [f32],
    lse: Option<&mut [f32]>,
    scratch: &Scratch,
) {
    shape.assert_valid();
    shape.assert_hidden([qkv.q, qkv.k, qkv.v, (&*ctx).into()]);
    if let Some(lse) = &lse {
        shape.assert_log_sum_exp(lse);
    }
    let pass = Forward { qkv, scale: shape.scale(), dropout, ctx: Shared::new(ctx), lse: lse.map(Shared::new) };
    HeadGroup::all(shape, scratch.precision().effective()).for_each(|group| pass.compute(&group));
}

/// Operands and results of a forward pass.
struct Forward<'a> {
    qkv: Qkv<'a>,
    scale: f32,
    dropout: Option<Dropout>,
    ctx: Shared<'a, f32>,
    lse: Option<Shared<'a, f32>>,
}

impl Forward<'_> {
    fn compute(&self, group: &HeadGroup) {
        // Configures the tile registers once for all products of the job.
        #[cfg(target_arch = "x86_64")]
        let _tiles = TileUnit::new(group.first.precision);
        let (n, queries) = (group.count, QUERIES.min(group.first.len));
        let [right_len, _, left_len, scores_len] = group.lengths();
        let panels = [n * right_len, n * right_len, n * left_len];
        with_panels_and_floats(panels, [n * scores_len, queries, queries], |panels, [p, maxima, sums]| {
            let [mut k_t, mut v, mut left] = panels.map(|data| PerHead::new(data, n));
            let mut p = PerHead::new(p, n);
            for (i, head) in group.heads().enumerate() {
                head.pack_transposed(self.qkv.k, k_t.of_mut(i));
                head.pack_tokens(self.qkv.v, head.all_tokens(), v.of_mut(i));
            }
            for queries in group.first.query_blocks() {
                group.dot_products(self.qkv.q, &k_t, queries, &mut left, &mut p);
                self.probabilities(group, queries, &mut p, (maxima, sums));
                group.sum_over_keys(&p, &v, queries, &mut left, Init::Zero, &self.ctx);
            }
        });
    }

    /// `P = dropout(softmax(scale S))` in place of the unscaled scores `S`, and `lse = log Σ_j exp(scale S[i, j])`.
    fn probabilities(
        &self,
        group: &HeadGroup,
        queries: TokenBlock,
        p: &mut PerHead<'_, f32>,
        (maxima, sums): (&mut [f32], &mut [f32]),
    ) {
        let (maxima, sums) = (&mut maxima[..queries.count], &mut sums[..queries.count]);
        for (i, head) in group.heads().enumerate() {
            softmax(p.of_mut(i), head.score_stride(), head.len, self.scale, maxima, sums);
            head.drop(p.of_mut(i), queries, self.dropout);
            let Some(lse) = &self.lse else { continue };
            for (query, (max, sum)) in maxima.iter().zip(&*sums).enumerate() {
                let at = head.lse_index(queries.first + query);
                // SAFETY: only this job accesses the values of this head: a pass assigns each head to one `HeadGroup`.
                let lse = unsafe { lse.part(at..at + 1) };
                lse[0] = max + sum.ln();
            }
        }
    }
}
