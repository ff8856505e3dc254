//! How many weights are dropped, of which matrices, and the masks that drop the lowest-ranked weights.

use serde::{Deserialize, Serialize};
use tamt_kernels::masks::BitMask;
use tamt_kernels::masks::{Key, smallest_k};
use tamt_model::{Masks, Model, ParamId};

use crate::error::{Error, Result};

/// The share of dropped weights, in the open interval (0, 1).
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Sparsity(f64);

impl Sparsity {
    /// A share between 0 and 1, both excluded.
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
    pub fn share(self) -> f64 {
        self.0
    }

    /// The number of dropped weights among `n`: `floor(n s)`.
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

/// Whether each matrix has the same sparsity, or all are ranked together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Of each matrix of `n` weights, `floor(n s)` are dropped.
    #[default]
    Local,
    /// All `N` weights are ranked together and `floor(N s)` are dropped.
    Global,
}

/// The matrices that a run prunes: the word embeddings, the pooler, and the matrices of `layers` (all for `None`).
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

/// Splits matrices into the groups that `scope` ranks together: one matrix each, or all of them.
pub(crate) fn ranked_together(ids: &[ParamId], scope: Scope) -> impl Iterator<Item = &[ParamId]> {
    ids.chunks(match scope {
        Scope::Local => 1,
        Scope::Global => ids.len().max(1),
    })
}

/// Masks that drop exactly the `sparsity.zeros(n)` lowest of the `n` values of each group of matrices; of equal values
/// the lower index is dropped first. `values` gives a matrix's values, row-major; `key` says what of them is compared.
pub(crate) fn drop_lowest<V: AsRef<[f32]>>(
    model: &Model,
    ids: &[ParamId],
    sparsity: Sparsity,
    scope: Scope,
    key: Key,
    values: impl Fn(ParamId) -> V,
) -> Masks {
    let mut masks = Masks::default();
    for group in ranked_together(ids, scope) {
        let values: Vec<V> = group.iter().map(|&id| values(id)).collect();
        let slices: Vec<&[f32]> = values.iter().map(AsRef::as_ref).collect();
        let cut = smallest_k(&slices, sparsity.zeros(slices.iter().map(|v| v.len()).sum()), key);
        // Ties are broken by the index in the group, which runs on from matrix to matrix.
        let mut first = 0;
        for (&id, values) in group.iter().zip(slices) {
            let [rows, cols] = model.params.matrix_shape(id);
            let mut mask = BitMask::zeros(rows, cols);
            mask.keep_above_at(values, cut, key, first);
            first += values.len() as u64;
            masks.set(id, mask);
        }
    }
    masks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tiny_model;

    #[test]
    fn only_the_layers_asked_for_are_pruned_beside_embeddings_and_pooler() {
        let model = tiny_model();
        let ids = pruned_matrices(&model, Some(&[1])).unwrap();
        assert_eq!(ids.len(), 1 + 6 + 1);
        assert!(ids.iter().all(|&id| model.layer_of(id) != Some(0)));
        let error = pruned_matrices(&model, Some(&[2])).unwrap_err();
        assert_eq!(error.to_string(), "layers: the model has no layer 2; its layers are 0 to 1");
    }

    #[test]
    fn a_share_outside_zero_and_one_is_refused_and_percent_is_guessed() {
        for share in [0.0, 1.0, -0.1, f64::NAN, f64::INFINITY] {
            assert!(Sparsity::new(share).is_err(), "{share}");
        }
        assert!(Sparsity::new(70.0).unwrap_err().to_string().ends_with("(did you mean 0.7?)"));
    }
}
