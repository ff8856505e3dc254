//! Which weights a method drops: sparsity, scope, magnitude and random masks. Exact to the weight.

use serde::{Deserialize, Serialize};
use tamt_kernels::bits::BitMask;
use tamt_kernels::rng::{Purpose, Stream};
use tamt_kernels::select::{Cut, Key, smallest_k};
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
    values: impl Fn(ParamId) -> &'a [f32],
) -> Masks {
    let mut masks = Masks::default();
    for group in groups(ids, scope) {
        let tensors: Vec<&[f32]> = group.tensors.iter().map(|&id| values(id)).collect();
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
            let mut values = model.params.get(id).to_vec();
            if let Some(mask) = masks.get(id) {
                mask.mask_in_place(&mut values);
            }
            (id, values)
        })
        .collect();
    let values = |id: ParamId| {
        let (_, values) = survivors.iter().find(|(other, _)| *other == id).expect("every pruned matrix was copied");
        values.as_slice()
    };
    cut_masks(model, ids, scope, Key::Magnitude, |n| sparsity.zeros(n), values)
}

/// Random pruning: drops uniformly chosen weights, another choice for each seed.
#[must_use]
pub fn random(model: &Model, ids: &[ParamId], sparsity: Sparsity, scope: Scope, seed: u64) -> Masks {
    let keys: Vec<(ParamId, Vec<f32>)> = ids
        .iter()
        .map(|&id| {
            let stream = Stream::new(seed, Purpose::MASK_INIT, id.index() as u64);
            let n = model.params.get(id).len();
            // 24 random bits make ties; the cut breaks them by index, which favours none by its value.
            (id, (0..n as u64).map(|i| stream.uniform_at(i)).collect())
        })
        .collect();
    let values = |id: ParamId| {
        let (_, values) = keys.iter().find(|(other, _)| *other == id).expect("every pruned matrix has keys");
        values.as_slice()
    };
    cut_masks(model, ids, scope, Key::Value, |n| sparsity.zeros(n), values)
}
