//! Which weights a method drops: sparsity, scope, magnitude and random masks. Exact to the weight.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use tamt_kernels::masks::BitMask;
use tamt_kernels::masks::{Cut, Key, smallest_k};
use tamt_kernels::rng::{Purpose, Stream};
use tamt_model::{Masks, Model, ParamId};

use crate::{Error, Result};

/// The share of weights that is dropped, in the open interval (0, 1).
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Sparsity(f64);

impl Sparsity {
    /// Checks the range.
    ///
    /// # Errors
    /// [`Error::Setting`] outside (0, 1).
    pub fn new(share: f64) -> Result<Self> {
        if share > 0.0 && share < 1.0 {
            return Ok(Self(share));
        }
        let hint =
            if (1.0..100.0).contains(&share) { format!(" (did you mean {}?)", share / 100.0) } else { String::new() };
        Err(Error::setting("sparsity", format!("{share} is not between 0 and 1, both excluded{hint}")))
    }

    /// The share.
    #[must_use]
    pub fn share(self) -> f64 {
        self.0
    }

    /// How many of `n` weights are dropped: `floor(n s)`.
    #[must_use]
    pub fn zeros(self, n: usize) -> u64 {
        (n as f64 * self.0).floor() as u64
    }
}

impl TryFrom<f64> for Sparsity {
    type Error = Error;

    fn try_from(share: f64) -> Result<Self> {
        Self::new(share)
    }
}

impl From<Sparsity> for f64 {
    fn from(s: Sparsity) -> Self {
        s.0
    }
}

/// Whether every matrix gets the same sparsity, or all are ranked together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Each matrix of `n` weights loses `floor(n s)` of them.
    #[default]
    Local,
    /// All `N` weights are ranked together and `floor(N s)` are dropped.
    Global,
}

/// The matrices a run prunes: word embeddings and pooler always, and the layers asked for.
///
/// # Errors
/// [`Error::Setting`] if a layer number is not the model's.
pub fn pruned_matrices(model: &Model, layers: Option<&[usize]>) -> Result<Vec<ParamId>> {
    if let Some(bad) = layers.and_then(|chosen| chosen.iter().find(|&&l| l >= model.layers.len())) {
        let last = model.layers.len() - 1;
        return Err(Error::setting("layers", format!("the model has no layer {bad}; its layers are 0 to {last}")));
    }
    let chosen = |id: ParamId| match (layers, model.layer_of(id)) {
        (Some(layers), Some(layer)) => layers.contains(&layer),
        _ => true,
    };
    Ok(model.prunable().into_iter().filter(|&id| chosen(id)).collect())
}

/// A group of matrices that is cut at one value: one matrix in local scope, all of them in global scope.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group<'a> {
    pub(crate) tensors: &'a [ParamId],
}

/// Splits matrices into the groups that `scope` ranks together.
pub(crate) fn groups(ids: &[ParamId], scope: Scope) -> impl Iterator<Item = Group<'_>> {
    let size = match scope {
        Scope::Local => 1,
        Scope::Global => ids.len().max(1),
    };
    ids.chunks(size).map(|tensors| Group { tensors })
}

/// Cuts each group of matrices at exactly its number of zeros, smallest first, ties to the lower index.
pub(crate) fn cut_masks<'a>(
    model: &Model,
    ids: &[ParamId],
    scope: Scope,
    key: Key,
    zeros: impl Fn(usize) -> u64,
    values: impl Fn(ParamId) -> Cow<'a, [f32]>,
) -> Masks {
    let mut masks = Masks::default();
    for group in groups(ids, scope) {
        let tensors: Vec<_> = group.tensors.iter().map(|&id| values(id)).collect();
        let tensors: Vec<&[f32]> = tensors.iter().map(AsRef::as_ref).collect();
        let n = tensors.iter().map(|t| t.len()).sum();
        let cut = smallest_k(&tensors, zeros(n), key);
        apply_cut(model, &mut masks, group, &tensors, cut, key);
    }
    masks
}

fn apply_cut(model: &Model, masks: &mut Masks, group: Group<'_>, tensors: &[&[f32]], cut: Cut, key: Key) {
    let mut first = 0;
    for (&id, values) in group.tensors.iter().zip(tensors) {
        let [rows, cols] = model.params.matrix_shape(id);
        let mut mask = BitMask::zeros(rows, cols);
        mask.keep_above_at(values, cut, key, first);
        first += values.len() as u64;
        masks.set(id, mask);
    }
}

/// One-shot magnitude pruning: drops the smallest `|w|` (ties to the lower index).
#[must_use]
pub fn magnitude(model: &Model, ids: &[ParamId], sparsity: Sparsity, scope: Scope) -> Masks {
    cut_masks(model, ids, scope, Key::Magnitude, |n| sparsity.zeros(n), |id| model.params.get(id))
}

/// Magnitude pruning of what `masks` kept, at the current weights: what was dropped stays dropped.
#[must_use]
pub(crate) fn magnitude_of_survivors(
    model: &Model,
    ids: &[ParamId],
    masks: &Masks,
    sparsity: Sparsity,
    scope: Scope,
) -> Masks {
    let survivors: Vec<(ParamId, Vec<f32>)> = ids
        .iter()
        .map(|&id| {
            let mut magnitudes: Vec<f32> = model.params.get(id).iter().map(|w| w.abs()).collect();
            if let Some(mask) = masks.get(id) {
                // Below every magnitude: a weight that is kept and is zero must not be dropped in their place.
                let dropped = |i: usize| !mask.get(i / mask.cols(), i % mask.cols());
                magnitudes.iter_mut().enumerate().filter(|(i, _)| dropped(*i)).for_each(|(_, value)| *value = -1.0);
            }
            (id, magnitudes)
        })
        .collect();
    let values = |id: ParamId| {
        let (_, values) = survivors.iter().find(|(other, _)| *other == id).expect("every pruned matrix was copied");
        values.as_slice().into()
    };
    cut_masks(model, ids, scope, Key::Value, |n| sparsity.zeros(n), values)
}

/// Random pruning: drops uniformly chosen weights, another choice for each seed.
#[must_use]
pub fn random(model: &Model, ids: &[ParamId], sparsity: Sparsity, scope: Scope, seed: u64) -> Masks {
    let keys: Vec<(ParamId, Vec<f32>)> = ids
        .iter()
        .map(|&id| {
            let stream = Stream::new(seed, Purpose::MASK_INIT, id.index() as u64);
            let n = model.params.spec(id).elements();
            // 24 random bits make ties; the cut breaks them by index, which favours none by its value.
            (id, (0..n as u64).map(|i| stream.uniform_at(i)).collect())
        })
        .collect();
    let values = |id: ParamId| {
        let (_, values) = keys.iter().find(|(other, _)| *other == id).expect("every pruned matrix has keys");
        values.as_slice().into()
    };
    cut_masks(model, ids, scope, Key::Value, |n| sparsity.zeros(n), values)
}

#[cfg(test)]
mod tests {
    use super::*;
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
    fn random_masks_depend_on_the_seed_alone() {
        let model = tiny_model();
        let ids = pruned_matrices(&model, None).unwrap();
        let draw = |seed| random(&model, &ids, Sparsity::new(0.5).unwrap(), Scope::Local, seed);
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
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

    #[test]
    fn only_the_layers_asked_for_are_pruned_beside_embeddings_and_pooler() {
        let model = tiny_model();
        let ids = pruned_matrices(&model, Some(&[1])).unwrap();
        assert_eq!(ids.len(), 1 + 6 + 1);
        assert!(ids.iter().all(|&id| model.layer_of(id) != Some(0)));
        let error = pruned_matrices(&model, Some(&[2])).unwrap_err();
        assert_eq!(error.to_string(), "--layers: the model has no layer 2; its layers are 0 to 1");
    }

    #[test]
    fn a_share_outside_zero_and_one_is_refused_and_percent_is_guessed() {
        for share in [0.0, 1.0, -0.1, f64::NAN, f64::INFINITY] {
            assert!(Sparsity::new(share).is_err(), "{share}");
        }
        assert!(Sparsity::new(70.0).unwrap_err().to_string().ends_with("(did you mean 0.7?)"));
    }
}
