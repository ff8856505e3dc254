//! The backward pass of attention.

use rayon::prelude::*;

use crate::base::{Scratch, Shared, Values, with_panels_and_floats};
use crate::gemm::Init;
#[cfg(target_arch = "x86_64")]
use crate::gemm::bf16::unit::TileUnit;
use crate::ops::attention::head_group::{HeadGroup, PerHead};
use crate::ops::attention::shape::{AttentionShape, QUERIES, Qkv, TokenBlock};
use crate::ops::attention::softmax::{score_gradients, score_gradients_dropped};
use crate::ops::dropout::Dropout;

/// The gradients of queries, keys and values, `[T, heads * head_dim]` each. [`backward`] overwrites all of them.
#[derive(Debug)]
pub struct QkvGradients<'a> {
    /// Gradient of the queries.
    pub dq: &'a mut [f32],
    /// Gradient of the keys.
    pub dk: &'a mut [f32],
    /// Gradient of the values.
    pub dv: &'a mut [f32],
}

/// The gradients of `q`, `k` and `v` from `dctx` `[T, heads * head_dim]`, per sequence and head:
///
/// ```text
/// P  = exp(q kᵀ / sqrt(head_dim) - lse)           m: the dropout factors of the forward pass
/// dP = (dctx vᵀ) ∘ m
/// dS = P ∘ (dP - rowsum(P ∘ dP)) / sqrt(head_dim)
/// dv = (P ∘ m)ᵀ dctx        dk = dSᵀ q        dq = dS k
/// ```
///
/// `lse` `[T, heads]` comes from [`forward`](super::forward()), with the same `qkv`, `shape` and `dropout`.
///
/// # Panics
/// If a buffer does not have its shape.
pub fn backward(
    dctx: &[f32],
    qkv: Qkv<'_>,
    lse: &[f32],
    shape: &AttentionShape<'_>,
    dropout: Option<Dropout>,
    gradients: QkvGradients<'_>,
    scratch: &Scratch,
) {
    shape.assert_valid();
    let QkvGradients { dq, dk, dv } = gradients;
    shape.assert_hidden([qkv.q, qkv.k, qkv.v, dctx.into(), (&*dq).into(), (&*dk).into(), (&*dv).into()]);
    shape.assert_log_sum_exp(lse);
    let [dq, dk, dv] = [dq, dk, dv].map(Shared::new);
    let pass = Backward { dctx: dctx.into(), qkv, lse, scale: shape.scale(), dropout, dq, dk, dv };
    HeadGroup::all(shape, scratch.precision().effective()).for_each(|group| pass.compute(&group));
}

/// Operands and results of a backward pass.
struct Backward<'a> {
    dctx: Values<'a>,
    qkv: Qkv<'a>,
    lse: &'a [f32],
    scale: f32,
    dropout: Option<Dropout>,
    dq: Shared<'a, f32>,
    dk: Shared<'a, f32>,
    dv: Shared<'a, f32>,
}

/// Scores of a block of queries, and their gradients, per head.
struct Scores<'a> {
    /// First `S`, then `P`.
    p: PerHead<'a, f32>,
    /// First `dP`, then `dS`.
    ds: PerHead<'a, f32>,
    /// First `m`, then `P ∘ m`. Empty without dropout.
    p_dropped: PerHead<'a, f32>,
    /// The log-sum-exps of one head's queries.
    lse: &'a mut [f32],
}

impl Backward<'_> {
    fn compute(&self, group: &HeadGroup) {
        // Configures the tile registers once for all products of the job.
        #[cfg(target_arch = "x86_64")]
        let _tiles = TileUnit::new(group.first.precision);
        let (n, Qkv { q, k, v }) = (group.count, self.qkv);
        let [right, query_right, left, scores] = group.lengths().map(|len| n * len);
        let dropped = if self.dropout.is_some() { scores } else { 0 };
        let panels = [right, right, right, query_right, left];
        let floats = [scores, scores, dropped, QUERIES.min(group.first.len)];
        with_panels_and_floats(panels, floats, |panels, [p, ds, p_dropped, lse]| {
            let [mut k_t, mut v_t, mut keys, mut query_right, mut left] = panels.map(|data| PerHead::new(data, n));
            let [p, ds, p_dropped] = [p, ds, p_dropped].map(|data| PerHead::new(data, n));
            let (query_right, left) = (&mut query_right, &mut left);
            let mut scores = Scores { p, ds, p_dropped, lse };
            for (i, head) in group.heads().enumerate() {
                head.pack_transposed(k, k_t.of_mut(i));
                head.pack_transposed(v, v_t.of_mut(i));
                head.pack_tokens(k, head.all_tokens(), keys.of_mut(i));
            }
            for queries in group.first.query_blocks() {
                group.dot_products(q, &k_t, queries, left, &mut scores.p);
                group.dot_products(self.dctx, &v_t, queries, left, &mut scores.ds);
                self.score_gradients(group, queries, &mut scores);
                let p_dropped = if self.dropout.is_some() { &scores.p_dropped } else { &scores.p };
                let init = if queries.first == 0 { Init::Zero } else { Init::Accumulate };
                group.sum_over_queries(p_dropped, (self.dctx, query_right), queries, left, init, &self.dv);
                group.sum_over_queries(&scores.ds, (q, query_right), queries, left, init, &self.dk);
                group.sum_over_keys(&scores.ds, &keys, queries, left, Init::Zero, &self.dq);
            }
        });
    }

    /// `P`, `P ∘ m` and `dS` in place of `S`, `m` and `dctx vᵀ`.
    fn score_gradients(&self, group: &HeadGroup, queries: TokenBlock, scores: &mut Scores<'_>) {
        for (i, head) in group.heads().enumerate() {
            let lse = &mut scores.lse[..queries.count];
            for (query, lse) in lse.iter_mut().enumerate() {
                *lse = self.lse[head.lse_index(queries.first + query)];
            }
            let (p, ds, stride) = (scores.p.of_mut(i), scores.ds.of_mut(i), head.score_stride());
            if self.dropout.is_some() {
                let factors = scores.p_dropped.of_mut(i);
                factors.fill(1.0);
                head.drop(factors, queries, self.dropout);
                score_gradients_dropped(p, ds, factors, stride, head.len, self.scale, lse);
            } else {
                score_gradients(p, ds, stride, head.len, self.scale, lse);
            }
        }
    }
}
