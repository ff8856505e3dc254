//! The matrices that masks elsewhere belong to.

use std::collections::HashMap;

use tamt_model::Model;

use crate::matrix_digest::POOLER;

/// The matrices that a ticket of a model may mask, by canonical name.
#[derive(Debug)]
pub(crate) struct Wanted {
    shapes: HashMap<String, (usize, [usize; 2])>,
}

impl Wanted {
    /// The prunable matrices of a model, and the pooler also where the model lacks one: a ticket may mask the pooler of a
    /// model with a head that belongs to the same encoder.
    pub(crate) fn of(model: &Model) -> Self {
        let mut shapes = HashMap::new();
        for (position, id) in model.prunable().into_iter().enumerate() {
            shapes.insert(model.params.spec(id).name.clone(), (position, model.params.matrix_shape(id)));
        }
        let (last, hidden) = (shapes.len(), model.config.hidden_size);
        shapes.entry(POOLER.to_owned()).or_insert((last, [hidden, hidden]));
        Self { shapes }
    }

    /// The shape of a matrix.
    pub(super) fn shape(&self, canonical: &str) -> Option<[usize; 2]> {
        self.shapes.get(canonical).map(|&(_, shape)| shape)
    }

    /// The place of a matrix in the order of the reference's mask files.
    pub(crate) fn position(&self, canonical: &str) -> usize {
        self.shapes.get(canonical).map_or(usize::MAX, |&(position, _)| position)
    }

    /// The names and shapes of all matrices, in that order.
    pub(super) fn in_order(&self) -> Vec<(&str, [usize; 2])> {
        let mut all: Vec<_> =
            self.shapes.iter().map(|(name, &(position, shape))| (position, name.as_str(), shape)).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, name, shape)| (name, shape)).collect()
    }

    /// The canonical name of the matrix that a tensor of a mask file belongs to: the name without the suffix of a mask,
    /// with `.weight`, and without prefixes such as `module.` and `bert.`. `None` if the model has no such matrix.
    pub(super) fn matrix_of(&self, tensor: &str) -> Option<&str> {
        let stem =
            [".bitmask", "_mask", ".mask"].iter().find_map(|suffix| tensor.strip_suffix(suffix)).unwrap_or(tensor);
        let full = if stem.ends_with(".weight") { stem.to_owned() } else { format!("{stem}.weight") };
        let ends = full.match_indices('.').map(|(at, _)| &full[at + 1..]);
        let name = std::iter::once(full.as_str()).chain(ends).find_map(|end| self.shapes.get_key_value(end));
        name.map(|(name, _)| name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tiny_model;

    #[test]
    fn names_of_masks_are_those_of_the_matrices_whatever_the_prefix_and_the_suffix() {
        let wanted = Wanted::of(&tiny_model());
        let query = "encoder.layer.1.attention.self.query";
        for prefix in ["", "bert.", "roberta.", "module.", "module.bert.", "model.roberta.", "_orig_mod.module.bert."] {
            for suffix in ["", ".weight", ".weight_mask", ".weight.mask", ".mask", ".bitmask", ".weight.bitmask"] {
                let name = format!("{prefix}{query}{suffix}");
                assert_eq!(wanted.matrix_of(&name), Some(format!("{query}.weight").as_str()), "{name}");
            }
        }
        for other in
            ["encoder.layer.2.attention.self.query.weight_mask", "classifier.weight_mask", "query", "", ".", "x."]
        {
            assert_eq!(wanted.matrix_of(other), None, "{other}");
        }
        assert_eq!(wanted.matrix_of("bert.pooler.dense"), Some(POOLER));
    }

    #[test]
    fn the_order_is_that_of_the_reference_with_the_pooler_last() {
        let wanted = Wanted::of(&tiny_model());
        let order = wanted.in_order();
        assert_eq!(order[0], ("embeddings.word_embeddings.weight", [50, 16]));
        assert_eq!(order[1].0, "encoder.layer.0.attention.self.query.weight");
        assert_eq!((order.len(), order[13]), (14, (POOLER, [16, 16])));
    }
}
