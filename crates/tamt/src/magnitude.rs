//! One-shot magnitude pruning: drops the weights of the smallest absolute value (Liu et al. 2022, the baseline OMP, and
//! the mask that mask training starts from).
//!
//! For a matrix `W` of `n` weights and a sparsity `s`:
//!
//! ```text
//! B = [|W| > t]     t: exactly floor(s n) weights have |W| ≤ t; ties are dropped from the lower index on
//! ```

use tamt_kernels::masks::Key;
use tamt_model::{Masks, Model, ParamId};

use crate::prune::{Scope, Sparsity, drop_lowest};

/// The masks `[|W| > t]` of the matrices `ids`. In global scope, one `t` is that of all matrices together.
pub fn magnitude(model: &Model, ids: &[ParamId], sparsity: Sparsity, scope: Scope) -> Masks {
    drop_lowest(model, ids, sparsity, scope, Key::Magnitude, |id| model.params.get(id))
}

/// The masks `[|W ∘ B| > t]`: magnitude pruning of the weights that `masks` keep. A dropped weight stays dropped.
pub(crate) fn magnitude_of_survivors(
    model: &Model,
    ids: &[ParamId],
    masks: &Masks,
    sparsity: Sparsity,
    scope: Scope,
) -> Masks {
    drop_lowest(model, ids, sparsity, scope, Key::Value, |id| {
        let mut magnitudes: Vec<f32> = model.params.get(id).iter().map(|w| w.abs()).collect();
        if let Some(mask) = masks.get(id) {
            // Dropped weights rank below every magnitude, also below a kept weight that is zero.
            let dropped = |i: usize| !mask.get(i / mask.cols(), i % mask.cols());
            magnitudes.iter_mut().enumerate().filter(|(i, _)| dropped(*i)).for_each(|(_, value)| *value = -1.0);
        }
        magnitudes
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prune::pruned_matrices;
    use crate::random::random;
    use crate::testing::tiny_model;

    fn zeros(masks: &Masks) -> Vec<(usize, u64)> {
        masks.iter().map(|(_, m)| (m.len(), (m.len() - m.count_ones()) as u64)).collect()
    }

    #[test]
    fn every_method_drops_exactly_the_floor_of_its_share_in_local_scope() {
        let model = tiny_model();
        let ids = pruned_matrices(&model, None).unwrap();
        for share in [0.001, 0.29, 0.5, 0.7, 0.999] {
            let sparsity = Sparsity::new(share).unwrap();
            let by_magnitude = magnitude(&model, &ids, sparsity, Scope::Local);
            let at_random = random(&model, &ids, sparsity, Scope::Local, 3);
            for masks in [by_magnitude, at_random] {
                for (n, zeros) in zeros(&masks) {
                    assert_eq!(zeros, (n as f64 * share).floor() as u64, "{n} at {share}");
                }
            }
        }
    }

    #[test]
    fn global_scope_reaches_the_share_over_all_matrices_and_differs_between_them() {
        let model = tiny_model();
        let ids = pruned_matrices(&model, None).unwrap();
        let sparsity = Sparsity::new(0.7).unwrap();
        let counts = zeros(&magnitude(&model, &ids, sparsity, Scope::Global));
        let n: usize = counts.iter().map(|(n, _)| n).sum();
        assert_eq!(counts.iter().map(|(_, z)| z).sum::<u64>(), sparsity.zeros(n));
        assert!(counts.iter().any(|&(n, z)| z != sparsity.zeros(n)));
    }

    #[test]
    fn magnitude_keeps_the_largest_weights_of_each_matrix() {
        let model = tiny_model();
        let ids = pruned_matrices(&model, None).unwrap();
        let masks = magnitude(&model, &ids, Sparsity::new(0.6).unwrap(), Scope::Local);
        for (id, mask) in masks.iter() {
            let weights = model.params.get(id);
            let at = |kept: bool| {
                let chosen = move |i: &usize| mask.get(i / mask.cols(), i % mask.cols()) == kept;
                (0..mask.len()).filter(chosen).map(|i| weights[i].abs())
            };
            let largest_dropped = at(false).fold(0.0, f32::max);
            let smallest_kept = at(true).fold(f32::INFINITY, f32::min);
            assert!(largest_dropped <= smallest_kept);
        }
    }

    #[test]
    fn survivors_are_pruned_further_and_the_dropped_never_return() {
        let model = tiny_model();
        let ids = pruned_matrices(&model, None).unwrap();
        let half = random(&model, &ids, Sparsity::new(0.5).unwrap(), Scope::Local, 1);
        let most = magnitude_of_survivors(&model, &ids, &half, Sparsity::new(0.8).unwrap(), Scope::Local);
        for (id, mask) in most.iter() {
            assert_eq!(mask.intersection_count(half.get(id).unwrap()), mask.count_ones());
            assert_eq!((mask.len() - mask.count_ones()) as u64, (mask.len() as f64 * 0.8).floor() as u64);
            let (weights, half) = (model.params.get(id), half.get(id).unwrap());
            let survivors = (0..mask.len()).map(|i| (weights[i].abs(), i / mask.cols(), i % mask.cols()));
            let (kept, dropped): (Vec<_>, Vec<_>) =
                survivors.filter(|&(_, r, c)| half.get(r, c)).partition(|&(_, r, c)| mask.get(r, c));
            let largest_dropped = dropped.iter().map(|survivor| survivor.0).fold(0.0, f32::max);
            assert!(kept.iter().all(|survivor| survivor.0 >= largest_dropped), "magnitudes decide");
        }
    }

    #[test]
    fn what_is_pruned_as_far_as_wanted_stays_as_it_is_even_where_kept_weights_are_zero() {
        let mut model = tiny_model();
        let ids = pruned_matrices(&model, None).unwrap();
        ids.iter().for_each(|&id| model.params.get_mut(id)[..20].fill(0.0));
        let half = Sparsity::new(0.5).unwrap();
        let masks = random(&model, &ids, half, Scope::Local, 1);
        assert_eq!(magnitude_of_survivors(&model, &ids, &masks, half, Scope::Local), masks);
    }
}
