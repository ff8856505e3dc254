//! The distance of two models' attention scores.

use rayon::prelude::*;

use crate::base::buffer::{with_buffer, with_parts};
use crate::base::dispatch::kernel;
use crate::base::parallel::Shared;
use crate::base::precision::Precision;
use crate::base::scratch::Scratch;
use crate::gemm::block::{Init, OutputBlock};
use crate::gemm::layout::Side;
use crate::gemm::multiply::{LeftOperand, multiply};
use crate::gemm::operand::{Operand, Order};
use crate::gemm::panels::Panels;
use crate::ops::attention::shape::{AttentionShape, HeadJob, QUERIES, Queries};

/// Scores at or below this count as masked in [`score_mse`].
const MASKED: f32 = -100.0;

/// `Σ (S - T)²` over heads, queries and keys of each sequence, `S = q kᵀ / sqrt(head_dim)` and `T` the teacher's; where
/// either is -100 or less it counts as 0 (and has no gradient), as in the distillation losses of `TinyBERT`. Returns
/// the unweighted sum; `grads`, if wanted, are `dq` and `dk`, to which those of `weight` times the sum are added.
#[must_use]
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
                    job.mix_keys(s, keys, queries, Init::Accumulate, dq);
                    job.mix_queries(s, job.panels(q, queries, own), Init::Accumulate, dk);
                }
            }
        });
    });
    scratch.sums.iter().sum()
}

impl HeadJob {
    /// `out[i, j] = x[i] · y[j]` for a block of queries `i` and all keys `j`; `y` is [`HeadJob::transposed_panels`].
    fn dot_products(&self, x: &[f32], y: Panels<'_>, queries: Queries, out: &mut [f32]) {
        let block = self.score_block(out, queries.count);
        // SAFETY: the block lies in `out`.
        #[allow(unsafe_code)]
        unsafe {
            product(block, self.rows(x, queries.from, Order::LaneRows), y, Init::Zero);
        }
    }

    /// `out[i] = Σ_j p[i, j] y[j]` for a block of queries; `y` is [`HeadJob::panels`] of all tokens.
    fn mix_keys(&self, p: &[f32], y: Panels<'_>, queries: Queries, start: Init<'_>, out: &Shared<'_, f32>) {
        // SAFETY: these rows and columns of the output are this job's.
        #[allow(unsafe_code)]
        unsafe {
            product(self.block(out, queries.from, queries.count), self.scores(p, Order::LaneRows), y, start);
        }
    }

    /// `out[j] = Σ_i p[i, j] x[i]` over a block of queries, for all keys; `x` is [`HeadJob::panels`] of the queries.
    fn mix_queries(&self, p: &[f32], x: Panels<'_>, start: Init<'_>, out: &Shared<'_, f32>) {
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
pub(crate) unsafe fn product(c: OutputBlock, lhs: Operand<'_>, rhs: Panels<'_>, start: Init<'_>) {
    // SAFETY: the caller's.
    unsafe {
        if lhs.precision == Precision::F32 {
            return multiply(c, LeftOperand::Plain(lhs), rhs, 0, start);
        }
        with_buffer(Panels::len_in(lhs.precision, Side::Left, c.rows, rhs.depth()), |packed| {
            let lhs = Panels::pack(Side::Left, &lhs, 0..c.rows, 0..rhs.depth(), packed);
            multiply(c, LeftOperand::Packed(lhs, 0), rhs, 0, start);
        });
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
