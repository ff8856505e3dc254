//! What a checkpoint holds beside the ticket: everything needed to go on as if nothing had happened.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use tamt_kernels::Precision;
use tamt_kernels::masks::BitMask;
use tamt_kernels::masks::Cut;
use tamt_model::{GradKind, KernelChoice, PreparedWeights};

use super::{Interval, Learner};
use crate::run::TRAINING_STATE_FILE;
use crate::tensor_file::{self, Tensor};
use crate::{Error, Result};

/// The counter that holds the highest density of a matrix that is multiplied by the sparse kernel.
const SPARSE_UP_TO: &str = "sparse_up_to";

/// Writes weights that learn, scores with their cuts, masks without scores, moments, counters, and what is to be logged.
pub(super) fn save(learner: &Learner<'_>, interval: &Interval, directory: &Path, step: u64) -> Result<()> {
    let Learner { model, masks, scores, sparse, grads, optimizer } = learner;
    let name = |id| model.params.spec(id).checkpoint_name.as_str();
    let interval = interval.to_words();
    let mut tensors = vec![
        Tensor::u64("interval", &[interval.len()], &interval),
        Tensor::f32("optimizer.m", &[optimizer.m.len()], &optimizer.m),
        Tensor::f32("optimizer.v", &[optimizer.v.len()], &optimizer.v),
    ];
    let learn = grads.trainable().iter().filter(|t| t.kind != GradKind::Score);
    let weights: Vec<_> = learn.map(|t| (t.id, model.params.get(t.id))).collect();
    for (id, values) in &weights {
        tensors.push(Tensor::f32(format!("weight.{}", name(*id)), &model.params.spec(*id).shape, values));
    }
    let cuts: Vec<u64> =
        scores.iter().flat_map(|s| &s.cuts).flat_map(|cut| [u64::from(cut.value.to_bits()), cut.index]).collect();
    if let Some(scores) = scores {
        tensors.push(Tensor::f32("scores", &[scores.values.len()], &scores.values));
        tensors.push(Tensor::u64("cuts", &[scores.cuts.len(), 2], &cuts));
    } else if let Some(masks) = masks {
        for (id, mask) in masks.iter() {
            tensors.push(Tensor::u8(format!("mask.{}", name(id)), &[mask.rows(), mask.row_bytes()], mask.as_bytes()));
        }
    }
    let mut counters =
        BTreeMap::from([("step".to_owned(), step.to_string()), ("updates".to_owned(), optimizer.updates.to_string())]);
    // the kernel decides last bits of gradients, and may have been chosen by a measurement
    counters.extend(sparse.iter().map(|sparse| (SPARSE_UP_TO.to_owned(), sparse.choice().density().to_string())));
    tensor_file::write(&directory.join(TRAINING_STATE_FILE), &tensors, &counters)
}

/// Puts a learner built from the same settings where the saved one was after `step`, and gives what is to be logged.
pub(super) fn load(learner: &mut Learner<'_>, directory: &Path, step: u64) -> Result<Interval> {
    let path = directory.join(TRAINING_STATE_FILE);
    let bytes = std::fs::read(&path).map_err(Error::io("read", &path))?;
    restore(learner, &bytes, step).map_err(|reason| Error::Damaged { path, reason })
}

fn restore(learner: &mut Learner<'_>, bytes: &[u8], step: u64) -> Result<Interval, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|e| e.to_string())?;
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| e.to_string())?;
    let counter = |key: &str| {
        let text = header.metadata().as_ref().and_then(|m| m.get(key));
        text.and_then(|t| t.parse::<u64>().ok()).ok_or_else(|| format!("it does not say its {key}"))
    };
    let saved = counter("step")?;
    if saved != step {
        return Err(format!("it was saved after step {saved} and lies in the checkpoint of step {step}"));
    }
    let read = |name: &str, dtype: Dtype, count: usize| {
        let tensor = file.tensor(name).map_err(|e| e.to_string())?;
        let fits = tensor.dtype() == dtype && tensor.shape().iter().product::<usize>() == count;
        if fits { Ok(tensor.data()) } else { Err(format!("{name} does not have {count} values of {dtype:?}")) }
    };
    let floats = |name: &str, into: &mut [f32]| -> Result<(), String> {
        let data = read(name, Dtype::F32, into.len())?;
        for (into, &bytes) in into.iter_mut().zip(data.as_chunks::<4>().0) {
            let value = f32::from_le_bytes(bytes);
            // zeros over zeros would take memory that the moments of unseen words do without
            if value.to_bits() != into.to_bits() {
                *into = value;
            }
        }
        Ok(())
    };

    let Learner { model, masks, scores, sparse, grads, optimizer } = learner;
    optimizer.updates = counter("updates")?;
    floats("optimizer.m", &mut optimizer.m)?;
    floats("optimizer.v", &mut optimizer.v)?;
    for trained in grads.trainable().iter().filter(|t| t.kind != GradKind::Score) {
        let name = format!("weight.{}", model.params.spec(trained.id).checkpoint_name);
        let mut values = vec![0.0; model.params.spec(trained.id).elements()];
        floats(&name, &mut values)?;
        model.params.set(trained.id, &values);
    }
    if let Some(scores) = scores {
        floats("scores", &mut scores.values)?;
        let data = read("cuts", Dtype::U64, 2 * scores.cuts.len())?;
        let mut words = data.as_chunks::<8>().0.iter().map(|&b| u64::from_le_bytes(b));
        for cut in &mut scores.cuts {
            let (value, index) = words.next().zip(words.next()).ok_or("cuts are missing")?;
            *cut = Cut { value: f32::from_bits(value as u32), index };
        }
        let masks = masks.as_mut().ok_or("scores without masks")?;
        scores.binarize(model, step, masks);
    } else if let Some(masks) = masks {
        let ids: Vec<_> = masks.iter().map(|(id, _)| id).collect();
        for id in ids {
            let [rows, cols] = model.params.matrix_shape(id);
            let name = format!("mask.{}", model.params.spec(id).checkpoint_name);
            let data = read(&name, Dtype::U8, rows * cols.div_ceil(8))?;
            let mask = BitMask::from_bytes(rows, cols, data.to_vec()).ok_or(format!("{name} has stray bits"))?;
            if model.params.weight(id, None).mask().is_some_and(|own| *own != mask) {
                return Err(format!("{name} is another than the run began with"));
            }
            masks.set(id, mask);
        }
    }
    optimizer.follow_moments(grads, &model.params);
    let choice = header.metadata().as_ref().and_then(|m| m.get(SPARSE_UP_TO)).map(|text| text.parse::<f32>());
    *sparse = match (choice, &masks) {
        (Some(Ok(density)), Some(masks)) => {
            let precision = sparse.as_ref().map_or_else(Precision::default, PreparedWeights::precision);
            Some(super::prepare(model, masks, scores.as_ref(), KernelChoice::sparse_up_to(density), precision))
        }
        (Some(Err(_)), _) => return Err(format!("its {SPARSE_UP_TO} is no number")),
        _ => None,
    };
    let words = file.tensor("interval").map_err(|e| e.to_string())?;
    let words: Vec<u64> = words.data().as_chunks::<8>().0.iter().map(|&b| u64::from_le_bytes(b)).collect();
    Interval::from_words(&words).ok_or_else(|| "its interval is too short".to_owned())
}

#[cfg(test)]
mod tests {
    use tamt_model::Trainable;

    use super::*;
    use crate::prune::{Scope, Sparsity, magnitude, pruned_matrices};
    use crate::testing::tiny_model;
    use crate::train::OptimizerSettings;

    /// The choice may come from a measurement, which another process may see otherwise.
    #[test]
    fn a_resumed_run_keeps_the_kernels_it_began_with() {
        let directory = tempfile::tempdir().unwrap();
        let (mut model, mut other) = (tiny_model(), tiny_model());
        let ids = pruned_matrices(&model, None).unwrap();
        let masks = magnitude(&model, &ids, Sparsity::new(0.7).unwrap(), Scope::Local);
        let trainable = Trainable::weights(&model, Some(&masks));
        let optimizer = OptimizerSettings::adamw(1e-3);
        let began = Learner::new(&mut model, Some(masks.clone()), None, &trainable, optimizer)
            .with_kernel(KernelChoice::sparse_up_to(0.1 + 0.21), Precision::F32);
        save(&began, &Interval::default(), directory.path(), 7).unwrap();
        let mut resumed = Learner::new(&mut other, Some(masks), None, &trainable, optimizer)
            .with_kernel(KernelChoice::sparse_up_to(0.1), Precision::F32);
        load(&mut resumed, directory.path(), 7).unwrap();
        let sparse = resumed.sparse.expect("the run had sparse matrices");
        assert_eq!(sparse.choice(), KernelChoice::sparse_up_to(0.1 + 0.21));
        assert!(
            resumed.model.layer_matrices().any(|id| sparse.sparse(id).is_some()),
            "30 % of the weights, and what is rounded up, are within the recorded density"
        );
    }
}
