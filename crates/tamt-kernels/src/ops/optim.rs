//! Optimisers: one fused pass over parameters, gradients and moments per step.
//!
//! Constants are f64 and are combined in f64, as PyTorch combines its scalars; the elements' arithmetic is f32. In
//! single precision `1 - 0.999` is 0.00100005: an error of 5e-5 in every second moment, 800 times a rounding.

use half::bf16;
use rayon::prelude::*;

use crate::base::{CHUNK, Number, Shared, fma, kernel, rows_per_job};
use crate::masks::RowRanges;
use crate::ops::embedding::row_grads::RowGrads;

/// `AdamW` as in `transformers.AdamW` and the TAMT reference: with bias correction, decay after the update.
///
/// ```text
/// m  = beta1 m + (1 - beta1) g
/// v  = beta2 v + (1 - beta2) g²
/// p -= lr sqrt(1 - beta2ᵗ) / (1 - beta1ᵗ) m / (sqrt(v) + eps)
/// p -= lr weight_decay p
/// ```
///
/// `torch.optim.AdamW` adds `eps` after the correction, as this optimiser does with `eps sqrt(1 - beta2ᵗ)` at step `t`.
/// The two differ for gradients that are not much larger than `eps`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to `sqrt(v)`.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
}

/// `BertAdam` of `pytorch-pretrained-bert`: no bias correction, decay inside the update.
///
/// `m` and `v` as for [`AdamW`], `p -= lr (m / (sqrt(v) + eps) + weight_decay p)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BertAdam {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to `sqrt(v)`.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
}

/// The constants of one step of either optimiser, each rounded once.
#[derive(Clone, Copy, Debug)]
pub struct Update {
    /// `1 - beta1`
    new1: f32,
    /// `1 - beta2`
    new2: f32,
    eps: f32,
    grad_scale: f32,
    /// Factor of `m / (sqrt(v) + eps)`
    rate: f32,
    /// Factor of `p` in the direction of the update ([`BertAdam`])
    decay_within: f32,
    /// Share of `p` that is lost after the update ([`AdamW`])
    decay_after: f32,
}

impl AdamW {
    /// Step `t`, counted from 1, of parameters `p` with gradients `grad_scale * g` and moments `m`, `v` (0 at first).
    pub fn step(&self, p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], lr: f64, t: u64, grad_scale: f64) {
        self.update(lr, t, grad_scale).apply(p, g, m, v);
    }

    /// The constants of step `t`, counted from 1, for gradients `grad_scale * g`.
    pub fn update(&self, lr: f64, t: u64, grad_scale: f64) -> Update {
        assert!(t > 0, "steps count from 1");
        let t = t as f64;
        let correction = (1.0 - self.beta2.powf(t)).sqrt() / (1.0 - self.beta1.powf(t));
        Update {
            new1: (1.0 - self.beta1) as f32,
            new2: (1.0 - self.beta2) as f32,
            eps: self.eps as f32,
            grad_scale: grad_scale as f32,
            rate: (lr * correction) as f32,
            decay_within: 0.0,
            decay_after: (lr * self.weight_decay) as f32,
        }
    }
}

impl BertAdam {
    /// A step of parameters `p` with gradients `grad_scale * g` and moments `m`, `v` (0 at first).
    pub fn step(&self, p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], lr: f64, grad_scale: f64) {
        self.update(lr, grad_scale).apply(p, g, m, v);
    }

    /// The constants of a step for gradients `grad_scale * g`.
    pub fn update(&self, lr: f64, grad_scale: f64) -> Update {
        Update {
            new1: (1.0 - self.beta1) as f32,
            new2: (1.0 - self.beta2) as f32,
            eps: self.eps as f32,
            grad_scale: grad_scale as f32,
            rate: lr as f32,
            decay_within: self.weight_decay as f32,
            decay_after: 0.0,
        }
    }
}

impl Update {
    /// Updates parameters `p` with gradients `g` and moments `m`, `v` (0 at first).
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn apply(self, p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
        self.apply_in_chunks(p, g, m, v, update);
    }

    /// [`Update::apply`] with gradients in bf16.
    pub fn apply_bf16(self, p: &mut [f32], g: &[bf16], m: &mut [f32], v: &mut [f32]) {
        self.apply_in_chunks(p, g, m, v, update_bf16);
    }

    fn apply_in_chunks<T: Number>(
        self,
        p: &mut [f32],
        g: &[T],
        m: &mut [f32],
        v: &mut [f32],
        update: impl Fn(Self, &mut [f32], &[T], &mut [f32], &mut [f32]) + Sync,
    ) {
        assert!(g.len() == p.len() && m.len() == p.len() && v.len() == p.len(), "buffers of the same length");
        let moments = m.par_chunks_mut(CHUNK).zip(v.par_chunks_mut(CHUNK));
        p.par_chunks_mut(CHUNK)
            .zip(g.par_chunks(CHUNK))
            .zip(moments)
            .for_each(|((p, g), (m, v))| update(self, p, g, m, v));
    }

    /// [`Update::apply`] to a table whose gradient has few rows. `rows` locates each row's elements in `p`, `m` and
    /// `v`.
    ///
    /// `seen[row]` says whether a row has had a gradient in any step, and is updated. The moments of the other rows are
    /// zero; this function neither reads nor writes them, so that their memory is never mapped. Only decay changes the
    /// parameters of such rows.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn apply_to_rows(
        self,
        rows: RowRanges<'_>,
        p: &mut [f32],
        g: &RowGrads,
        m: &mut [f32],
        v: &mut [f32],
        seen: &mut [bool],
    ) {
        assert!(m.len() == p.len() && v.len() == p.len(), "buffers of the same length");
        assert_eq!(seen.len(), g.table_rows(), "a flag for each row");
        let has_decay = self.decay_within != 0.0 || self.decay_after != 0.0;
        let average = p.len().checked_div(seen.len()).unwrap_or(0);
        let zeros = vec![0.0; (0..seen.len()).map(|row| rows.of(row).len()).max().unwrap_or(0)];
        let (p, m, v) = (Shared::new(p), Shared::new(m), Shared::new(v));
        seen.par_iter_mut().with_min_len(rows_per_job(average)).enumerate().for_each(|(row, seen)| {
            let (own, g) = (rows.of(row), g.get(row));
            if !*seen && g.is_none() && !has_decay {
                return;
            }
            // SAFETY: `RowRanges` gives rows disjoint ranges, and each row belongs to one job.
            let (p, m, v) = unsafe { (p.part(own.clone()), m.part(own.clone()), v.part(own)) };
            if !*seen && g.is_none() {
                return decay(self, p);
            }
            if !*seen {
                // A first access that writes costs one page fault; a read followed by a write costs two.
                m.fill(0.0);
                v.fill(0.0);
            }
            update(self, p, g.unwrap_or(&zeros[..p.len()]), m, v);
            *seen |= g.is_some();
        });
    }
}

/// For each of `count` rows, whether any of its moments is not zero: the minimum of `seen` in
/// [`Update::apply_to_rows`].
pub fn rows_with_moments(count: usize, rows: RowRanges<'_>, m: &[f32], v: &[f32]) -> Vec<bool> {
    let has_moments = |row| m[rows.of(row)].iter().chain(&v[rows.of(row)]).any(|&moment| moment != 0.0);
    (0..count).map(has_moments).collect()
}

kernel! {
    /// [`update_each`] with f32 gradients.
    fn update<FMA>(u: Update, p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
        update_each::<_, FMA>(u, p, g, m, v);
    }

    /// [`update_each`] with bf16 gradients.
    fn update_bf16<FMA>(u: Update, p: &mut [f32], g: &[bf16], m: &mut [f32], v: &mut [f32]) {
        update_each::<_, FMA>(u, p, g, m, v);
    }

    /// [`update_each`] of parameters whose gradients and moments are zero.
    fn decay<FMA>(u: Update, p: &mut [f32]) {
        p.iter_mut().for_each(|p| *p = move_along::<FMA>(u, 0.0, *p));
    }
}

/// The formulas of [`AdamW`] and [`BertAdam`], elementwise.
///
/// `m += (1 - beta1) (g - m)`, as `torch.lerp`, needs no rounded `beta1`; the same holds for `v`.
#[inline(always)]
fn update_each<T: Number, const FMA: bool>(u: Update, p: &mut [f32], g: &[T], m: &mut [f32], v: &mut [f32]) {
    for ((p, g), (m, v)) in p.iter_mut().zip(g).zip(m.iter_mut().zip(v)) {
        let g = g.get() * u.grad_scale;
        *m = fma::<FMA>(u.new1, g - *m, *m);
        *v = fma::<FMA>(u.new2, fma::<FMA>(g, g, -*v), *v);
        *p = move_along::<FMA>(u, *m / (v.sqrt() + u.eps), *p);
    }
}

/// `p` after an update in `direction`, decay included.
#[inline(always)]
fn move_along<const FMA: bool>(u: Update, direction: f32, p: f32) -> f32 {
    let moved = fma::<FMA>(-u.rate, fma::<FMA>(u.decay_within, p, direction), p);
    fma::<FMA>(-u.decay_after, moved, moved)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::math::tests::larger;
    use crate::base::scratch::Scratch;
    use crate::base::values::round_to_bf16;
    use crate::masks::bit_mask::BitMask;
    use crate::masks::compact::CompactWeight;
    use crate::masks::grad_epilogue::GradEpilogue;
    use crate::reference::{random, random_mask, unless_miri};

    const GRADIENTS: [[f32; 3]; 3] = [[1e-4, -2e-4, 1e-7], [1e-4, 1e-4, -1e-7], [0.0; 3]];

    /// Compares three steps of a learning rate that decays linearly over 100 steps with results of the reference's
    /// classes in f64.
    fn check(
        lr: f64,
        expected: [[f64; 3]; 3],
        mut step: impl FnMut(&mut [f32], &[f32], &mut [f32], &mut [f32], f64, u64),
    ) {
        let (mut p, mut m, mut v) = ([0.02, 0.0, 0.02], [0.0; 3], [0.0; 3]);
        for (t, (gradient, expected)) in GRADIENTS.iter().zip(expected).enumerate() {
            let rate = lr * (1.0 - t as f64 / 100.0);
            step(&mut p, gradient, &mut m, &mut v, rate, t as u64 + 1);
            for (p, expected) in p.iter().zip(expected) {
                assert!((f64::from(*p) - expected).abs() < 4e-9, "step {}: {p} is not {expected}", t + 1);
            }
        }
    }

    #[test]
    fn adamw_reproduces_the_reference() {
        let adam = AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 };
        let expected = [
            [0.019_950_157_6, 0.000_049_921_1, 0.019_987_987_3],
            [0.019_900_768_1, 0.000_063_086_1, 0.019_988_792_3],
            [0.019_862_975_5, 0.000_073_160_0, 0.019_989_408_0],
        ];
        check(5e-5, expected, |p, g, m, v, lr, t| adam.step(p, g, m, v, lr, t, 1.0));
    }

    #[test]
    fn bert_adam_reproduces_the_reference() {
        let adam = BertAdam { beta1: 0.9, beta2: 0.999, eps: 1e-6, weight_decay: 0.01 };
        let expected = [
            [0.019_951_945_4, 0.000_054_610_8, 0.019_999_796_6],
            [0.019_883_179_1, 0.000_074_243_4, 0.019_999_812_4],
            [0.019_821_889_2, 0.000_091_741_8, 0.019_999_826_0],
        ];
        check(2e-5, expected, |p, g, m, v, lr, _| adam.step(p, g, m, v, lr, 1.0));
    }

    /// The errors of single-precision constants grow with every step; roundings of elements do not.
    #[test]
    fn forty_steps_stay_within_the_rounding_of_f32() {
        let (n, steps, start) = (257, 40, random(257, 1));
        for bert in [false, true] {
            let (mut p, mut m, mut v) = (start.clone(), vec![0.0; n], vec![0.0; n]);
            let exact = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
            let (mut exact_p, mut exact_m, mut exact_v) = (exact(&p), vec![0.0; n], vec![0.0; n]);
            let (beta1, beta2, eps, weight_decay, lr) = (0.9, 0.999, 1e-6, 0.01, 2e-3);
            for t in 1..=steps {
                let g: Vec<f32> = random(n, 100 + t).iter().map(|g| 0.1 * g).collect();
                if bert {
                    BertAdam { beta1, beta2, eps, weight_decay }.step(&mut p, &g, &mut m, &mut v, lr, 1.0);
                } else {
                    AdamW { beta1, beta2, eps, weight_decay }.step(&mut p, &g, &mut m, &mut v, lr, t, 1.0);
                }
                for (i, g) in exact(&g).into_iter().enumerate() {
                    exact_m[i] = beta1 * exact_m[i] + (1.0 - beta1) * g;
                    exact_v[i] = beta2 * exact_v[i] + (1.0 - beta2) * g * g;
                    let direction = exact_m[i] / (exact_v[i].sqrt() + eps);
                    if bert {
                        exact_p[i] -= lr * (direction + weight_decay * exact_p[i]);
                    } else {
                        let t = i32::try_from(t).unwrap();
                        exact_p[i] -= lr * (1.0 - beta2.powi(t)).sqrt() / (1.0 - beta1.powi(t)) * direction;
                        exact_p[i] -= lr * weight_decay * exact_p[i];
                    }
                }
            }
            let worst = |ours: &[f32], exact: &[f64], scale: f64| {
                let error = |(&a, &b): (&f32, &f64)| (f64::from(a) - b).abs() / scale.max(b.abs());
                ours.iter().zip(exact).map(error).fold(0.0, larger)
            };
            let (p, m, v) = (worst(&p, &exact_p, 0.1), worst(&m, &exact_m, 0.01), worst(&v, &exact_v, 1e-9));
            assert!(p < 3e-6 && m < 1e-6 && v < 1e-6, "p {p:.1e}, m {m:.1e}, v {v:.1e}");
        }
    }

    #[test]
    fn bf16_gradients_update_as_their_f32_values() {
        let adam = AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1 };
        for n in [0, 1, 17, CHUNK + 3] {
            let (p, g, m, v) = (random(n, 1), random(n, 2), random(n, 3), vec![0.5; n]);
            let g: Vec<bf16> = g.into_iter().map(round_to_bf16).collect();
            let as_floats: Vec<f32> = g.iter().map(|g| g.to_f32()).collect();
            let (mut a, mut b) = ((p.clone(), m.clone(), v.clone()), (p, m, v));
            adam.update(0.1, 3, 0.5).apply(&mut a.0, &as_floats, &mut a.1, &mut a.2);
            adam.update(0.1, 3, 0.5).apply_bf16(&mut b.0, &g, &mut b.1, &mut b.2);
            assert_eq!(a, b);
        }
    }

    /// With and without decay; every row that has moments was seen.
    #[test]
    fn an_update_of_some_rows_gives_the_bits_of_an_update_of_the_whole_table() {
        let (rows, cols) = unless_miri((70, 33), (30, 3));
        let masks = [None, Some(random_mask(rows, cols, 0.3)), Some(BitMask::zeros(rows, cols))];
        for (weight_decay, mask) in [0.0, 0.1].into_iter().flat_map(|d| masks.iter().map(move |m| (d, m.as_ref()))) {
            let adam = AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay };
            let bert = BertAdam { beta1: 0.9, beta2: 0.999, eps: 1e-6, weight_decay };
            let compact = mask.map(|mask| CompactWeight::new(mask.clone(), &random(rows * cols, 1)));
            let ranges = compact.as_ref().map_or(RowRanges::of_columns(cols), |compact| compact.kept().row_ranges());
            let p = compact.clone().map_or(random(rows * cols, 1), |mut compact| compact.rows_mut().0.to_vec());
            let n = p.len();
            let mut by_rows = (p, vec![0.0; n], vec![0.0; n]);
            let mut whole = by_rows.clone();
            let (mut seen, mut grads) = (vec![false; rows], RowGrads::new(rows));
            for step in 1..4u32 {
                let ids: Vec<u32> = (0..9).map(|t| (t * t * step + 7 * step) % rows as u32).collect();
                let d = random(ids.len() * cols, u64::from(step));
                let kept = compact.as_ref().map(CompactWeight::kept);
                let epilogue = kept.map_or(GradEpilogue::Dense, GradEpilogue::Survivors);
                grads.backward(&d, &ids, cols, Some(14), epilogue, &mut Scratch::default());
                let length = |row| mask.map_or(cols, |mask| mask.count_ones_in(row..row + 1));
                let row = |row| grads.get(row).map_or(vec![0.0; length(row)], <[f32]>::to_vec);
                let g: Vec<f32> = (0..rows).flat_map(row).collect();
                for update in [adam.update(0.1, u64::from(step), 0.5), bert.update(0.1, 0.5)] {
                    let (p, m, v) = (&mut by_rows.0, &mut by_rows.1, &mut by_rows.2);
                    update.apply_to_rows(ranges, p, &grads, m, v, &mut seen);
                    update.apply(&mut whole.0, &g, &mut whole.1, &mut whole.2);
                    assert_eq!(by_rows, whole);
                }
            }
            let found = rows_with_moments(rows, ranges, &whole.1, &whole.2);
            assert!(found.iter().any(|&found| found) == (n > 0) && found.iter().zip(&seen).all(|(f, s)| *s || !f));
            assert!(seen.iter().any(|seen| !seen), "some rows had no gradient");
        }
    }

    #[test]
    fn decay_follows_the_update_and_gradients_are_scaled() {
        let adam = AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1 };
        let n = CHUNK + 5;
        let (mut p, mut m, mut v) = (vec![1.0; n], vec![0.0; n], vec![0.0; n]);
        adam.step(&mut p, &vec![8.0; n], &mut m, &mut v, 0.5, 1, 0.25);
        let (g, m1, v1) = (2.0f64, 0.2f64, 0.004f64);
        let expected = (1.0 - 0.5 * 0.001f64.sqrt() / 0.1 * m1 / (v1.sqrt() + 1e-8)) * (1.0 - 0.05);
        assert!(p.iter().all(|p| (f64::from(*p) - expected).abs() < 1e-6), "{} {expected} for g = {g}", p[0]);
    }
}
