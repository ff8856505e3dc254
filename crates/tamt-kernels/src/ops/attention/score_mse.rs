//! The squared distance between the attention scores of a student and a teacher.

use rayon::prelude::*;

use crate::base::{Scratch, Shared, kernel, with_panels_and_floats};
use crate::gemm::Init;
use crate::ops::attention::head_group::{HeadGroup, PerHead};
use crate::ops::attention::shape::AttentionShape;

/// Scores at or below this value count as masked in [`score_mse`].
const MASKED: f32 = -100.0;

/// `Σ (S - T)²` over heads, queries and keys of each sequence: `S = q kᵀ / sqrt(head_dim)`, and `T` the same of the
/// teacher.
///
/// A score of -100 or less counts as 0 and has no gradient, as in the attention distillation loss of `TinyBERT`.
/// Returns the unweighted sum. `grads` are `dq` and `dk`, to which the gradients of `weight` times the sum are added.
/// `q`, `k`, `q_teacher`, `k_teacher`, `dq`, `dk` `[T, heads * head_dim]`.
///
/// # Panics
/// If a buffer does not have its shape.
pub fn score_mse(
    q: &[f32],
    k: &[f32],
    q_teacher: &[f32],
    k_teacher: &[f32],
    shape: &AttentionShape<'_>,
    weight: f32,
    grads: Option<(&mut [f32], &mut [f32])>,
    scratch: &mut Scratch,
) -> f64 {
    shape.assert_valid();
    shape.assert_hidden([q, k, q_teacher, k_teacher].map(Into::into));
    let grads = grads.map(|(dq, dk)| {
        shape.assert_hidden([(&*dq).into(), (&*dk).into()]);
        (Shared::new(dq), Shared::new(dk))
    });
    let precision = scratch.precision().effective();
    scratch.sums.clear();
    scratch.sums.resize(shape.head_count(), 0.0);
    scratch.sums.par_iter_mut().enumerate().for_each(|(index, sum)| {
        let head = shape.head(index, precision);
        if head.len == 0 {
            return;
        }
        let group = HeadGroup { first: head, count: 1 };
        let [right, query_right, left, scores] = group.lengths();
        let panels = [right, right, right, query_right, left];
        with_panels_and_floats(panels, [scores, scores], |panels, scores| {
            let [mut k_t, mut teacher_t, mut keys, mut query_right, mut left] =
                panels.map(|data| PerHead::new(data, 1));
            let [mut s, mut t] = scores.map(|data| PerHead::new(data, 1));
            head.pack_transposed(k.into(), k_t.of_mut(0));
            head.pack_transposed(k_teacher.into(), teacher_t.of_mut(0));
            head.pack_tokens(k.into(), head.all_tokens(), keys.of_mut(0));
            for queries in head.query_blocks() {
                group.dot_products(q.into(), &k_t, queries, &mut left, &mut s);
                group.dot_products(q_teacher.into(), &teacher_t, queries, &mut left, &mut t);
                for (s, t) in head.score_rows(s.of_mut(0), queries).zip(head.score_rows(t.of_mut(0), queries)) {
                    *sum += score_difference(s, t, shape.scale(), weight);
                }
                if let Some((dq, dk)) = &grads {
                    let x = (q.into(), &mut query_right);
                    group.sum_over_keys(&s, &keys, queries, &mut left, Init::Accumulate, dq);
                    group.sum_over_queries(&s, x, queries, &mut left, Init::Accumulate, dk);
                }
            }
        });
    });
    scratch.sums.iter().sum()
}

kernel! {
    /// `Σ (S - T)²` of unscaled scores. `s` becomes the gradient of the student's unscaled scores.
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
