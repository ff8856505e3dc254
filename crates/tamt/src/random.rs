//! Random pruning: drops uniformly chosen weights, the baseline that any method must beat.
//!
//! For a matrix of `n` weights and a sparsity `s`:
//!
//! ```text
//! B = [U > t]     U: independent uniform numbers; t: exactly floor(s n) of them are ≤ t
//! ```

use tamt_kernels::masks::Key;
use tamt_kernels::rng::{Purpose, Stream};
use tamt_model::{Masks, Model, ParamId};

use crate::prune::{Scope, Sparsity, drop_lowest};

/// The masks `[U > t]` of the matrices `ids`; each seed gives other ones.
pub fn random(model: &Model, ids: &[ParamId], sparsity: Sparsity, scope: Scope, seed: u64) -> Masks {
    drop_lowest(model, ids, sparsity, scope, Key::Value, |id| {
        let stream = Stream::new(seed, Purpose::MASK_INIT, id.index() as u64);
        // 24 random bits make ties; the cut breaks them by index, which favours no weight by its value.
        (0..model.params.spec(id).elements() as u64).map(|i| stream.uniform_at(i)).collect::<Vec<f32>>()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prune::pruned_matrices;
    use crate::testing::tiny_model;

    #[test]
    fn random_masks_depend_on_the_seed_alone() {
        let model = tiny_model();
        let ids = pruned_matrices(&model, None).unwrap();
        let draw = |seed| random(&model, &ids, Sparsity::new(0.5).unwrap(), Scope::Local, seed);
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}
