//! The training state in a checkpoint, from which a resumed run continues bit by bit.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::str::FromStr;

use safetensors::{Dtype, SafeTensors};
use tamt_kernels::masks::BitMask;
use tamt_kernels::masks::Cut;
use tamt_model::{GradKind, KernelChoice, Masks, Model, Trainable};

use crate::error::{Error, Result};
use crate::run::TRAINING_STATE_FILE;
use crate::scores::Scores;
use crate::tensor_file::{self, Tensor};
use crate::train::interval::Interval;
use crate::train::learner::{Learner, TrainingMode};

/// The counter that holds the highest density of a matrix that the sparse kernel multiplies by.
const SPARSE_UP_TO: &str = "sparse_up_to";

/// The counter that says whether the evaluation due after the step has ended. Every older checkpoint was saved after it.
const EVALUATED: &str = "evaluated";

/// The counter that holds the version of the format. A file without one has version 1.
const FORMAT: &str = "format";

/// The version of the format that this crate writes, and the highest that it reads.
const VERSION: u32 = 1;

/// Writes trained weights; scores and thresholds, or the fixed masks; moments, counters, and the interval's sums.
pub(super) fn save(
    learner: &Learner<'_>,
    interval: &Interval,
    directory: &Path,
    step: u64,
    evaluated: bool,
) -> Result<()> {
    let Learner { model, mode, grads, optimizer } = learner;
    let name = |id| model.params.spec(id).checkpoint_name.as_str();
    let interval = interval.to_words();
    let mut tensors = vec![
        Tensor::u64("interval", &[interval.len()], &interval),
        Tensor::f32("optimizer.m", &[optimizer.m.len()], &optimizer.m),
        Tensor::f32("optimizer.v", &[optimizer.v.len()], &optimizer.v),
    ];
    let weights: Vec<_> = learning_weights(grads.trainable()).map(|t| (t.id, model.params.get(t.id))).collect();
    for (id, values) in &weights {
        tensors.push(Tensor::f32(format!("weight.{}", name(*id)), &model.params.spec(*id).shape, values));
    }
    let thresholds = mode.scores().into_iter().flat_map(|scores| &scores.thresholds);
    let words: Vec<u64> = thresholds.flat_map(|cut| [u64::from(cut.value.to_bits()), cut.index]).collect();
    match mode {
        TrainingMode::Weights => {}
        TrainingMode::MaskedWeights(subnetwork) => {
            for (id, mask) in subnetwork.masks.iter() {
                let shape = [mask.rows(), mask.row_bytes()];
                tensors.push(Tensor::u8(format!("mask.{}", name(id)), &shape, mask.as_bytes()));
            }
        }
        TrainingMode::Scores(_, scores) => {
            tensors.push(Tensor::f32("scores", &[scores.values.len()], &scores.values));
            tensors.push(Tensor::u64("cuts", &[scores.thresholds.len(), 2], &words));
        }
    }
    let mut counters = BTreeMap::from([
        (FORMAT.to_owned(), VERSION.to_string()),
        ("step".to_owned(), step.to_string()),
        ("updates".to_owned(), optimizer.updates.to_string()),
        (EVALUATED.to_owned(), evaluated.to_string()),
    ]);
    // The kernel decides the last bits of gradients, and another version of the program may choose another kernel.
    counters.extend(mode.prepared().map(|p| (SPARSE_UP_TO.to_owned(), p.choice().density().to_string())));
    tensor_file::write(&directory.join(TRAINING_STATE_FILE), &tensors, &counters)
}

/// Restores the state after `step` in a learner that was built from the same settings. Returns the interval's sums and
/// whether the evaluation due after the step has ended.
pub(super) fn load(learner: &mut Learner<'_>, directory: &Path, step: u64) -> Result<(Interval, bool)> {
    let path = directory.join(TRAINING_STATE_FILE);
    let bytes = std::fs::read(&path).map_err(Error::io("read", &path))?;
    restore(learner, &bytes, step).map_err(|reason| Error::Damaged { path, reason })
}

fn learning_weights(trainable: &[Trainable]) -> impl Iterator<Item = &Trainable> {
    trainable.iter().filter(|t| t.kind != GradKind::Score)
}

fn restore(learner: &mut Learner<'_>, bytes: &[u8], step: u64) -> Result<(Interval, bool), String> {
    let file = StateFile::parse(bytes)?;
    if file.counters.contains_key(FORMAT) && file.counter::<u32>(FORMAT)? > VERSION {
        return Err("a newer version of the program wrote it".to_owned());
    }
    let saved = file.counter::<u64>("step")?;
    if saved != step {
        return Err(format!("it was saved after step {saved} and lies in the checkpoint of step {step}"));
    }
    let Learner { model, mode, grads, optimizer } = learner;
    optimizer.updates = file.counter("updates")?;
    file.floats("optimizer.m", &mut optimizer.m)?;
    file.floats("optimizer.v", &mut optimizer.v)?;
    for trained in learning_weights(grads.trainable()) {
        let name = format!("weight.{}", model.params.spec(trained.id).checkpoint_name);
        let mut values = vec![0.0; model.params.spec(trained.id).elements()];
        file.floats(&name, &mut values)?;
        model.params.set(trained.id, &values);
    }
    match mode {
        TrainingMode::Weights => {}
        TrainingMode::MaskedWeights(subnetwork) => restore_masks(&file, model, &mut subnetwork.masks)?,
        TrainingMode::Scores(subnetwork, scores) => {
            restore_scores(&file, scores)?;
            scores.binarize(model, step, &mut subnetwork.masks);
        }
    }
    if mode.prepared().is_some() {
        let density = file.counter(SPARSE_UP_TO).map_err(|_| format!("its {SPARSE_UP_TO} is no number"))?;
        mode.choose_kernels(model, KernelChoice::sparse_up_to(density));
    }
    optimizer.follow_moments(grads, &model.params);
    let words = file.tensors.tensor("interval").map_err(|e| e.to_string())?;
    let interval = Interval::from_words(&words_of(words.data())).ok_or("its interval is too short")?;
    let evaluated = !file.counters.contains_key(EVALUATED) || file.counter(EVALUATED)?;
    Ok((interval, evaluated))
}

fn restore_scores(file: &StateFile<'_>, scores: &mut Scores) -> Result<(), String> {
    file.floats("scores", &mut scores.values)?;
    let words = words_of(file.data("cuts", Dtype::U64, 2 * scores.thresholds.len())?);
    for (threshold, words) in scores.thresholds.iter_mut().zip(words.as_chunks::<2>().0) {
        *threshold = Cut { value: f32::from_bits(words[0] as u32), index: words[1] };
    }
    Ok(())
}

fn restore_masks(file: &StateFile<'_>, model: &Model, masks: &mut Masks) -> Result<(), String> {
    let ids: Vec<_> = masks.iter().map(|(id, _)| id).collect();
    for id in ids {
        let [rows, cols] = model.params.matrix_shape(id);
        let name = format!("mask.{}", model.params.spec(id).checkpoint_name);
        let data = file.data(&name, Dtype::U8, rows * cols.div_ceil(8))?;
        let mask = BitMask::from_bytes(rows, cols, data.to_vec()).ok_or(format!("{name} has stray bits"))?;
        if model.params.weight(id, None).mask().is_some_and(|own| *own != mask) {
            return Err(format!("{name} is another than the run began with"));
        }
        masks.set(id, mask);
    }
    Ok(())
}

fn words_of(bytes: &[u8]) -> Vec<u64> {
    bytes.as_chunks::<8>().0.iter().map(|&b| u64::from_le_bytes(b)).collect()
}

/// The parsed file; its methods say what is missing or malformed.
struct StateFile<'a> {
    tensors: SafeTensors<'a>,
    counters: HashMap<String, String>,
}

impl<'a> StateFile<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, String> {
        let tensors = SafeTensors::deserialize(bytes).map_err(|e| e.to_string())?;
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| e.to_string())?;
        Ok(Self { tensors, counters: header.metadata().clone().unwrap_or_default() })
    }

    fn counter<T: FromStr>(&self, key: &str) -> Result<T, String> {
        let value = self.counters.get(key).and_then(|text| text.parse().ok());
        value.ok_or_else(|| format!("it does not say its {key}"))
    }

    fn data(&self, name: &str, dtype: Dtype, count: usize) -> Result<&'a [u8], String> {
        let tensor = self.tensors.tensor(name).map_err(|e| e.to_string())?;
        let fits = tensor.dtype() == dtype && tensor.shape().iter().product::<usize>() == count;
        if fits { Ok(tensor.data()) } else { Err(format!("{name} does not have {count} values of {dtype:?}")) }
    }

    fn floats(&self, name: &str, into: &mut [f32]) -> Result<(), String> {
        let data = self.data(name, Dtype::F32, into.len())?;
        for (into, &bytes) in into.iter_mut().zip(data.as_chunks::<4>().0) {
            let value = f32::from_le_bytes(bytes);
            // Untouched memory stays unmapped: most moments of a table's rows are zero, and a write would map them.
            if value.to_bits() != into.to_bits() {
                *into = value;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::{Compute, Kernel};
    use crate::magnitude::magnitude;
    use crate::prune::{Scope, Sparsity, pruned_matrices};
    use crate::testing::tiny_model;
    use crate::train::optimizer::OptimizerSettings;

    /// The choice may come from a measurement, which another process may see otherwise.
    #[test]
    fn a_resumed_run_keeps_the_kernels_it_began_with() {
        let directory = tempfile::tempdir().unwrap();
        let (mut model, mut other) = (tiny_model(), tiny_model());
        let ids = pruned_matrices(&model, None).unwrap();
        let masks = magnitude(&model, &ids, Sparsity::new(0.7).unwrap(), Scope::Local);
        let trainable = Trainable::weights(&model, Some(&masks));
        let optimizer = OptimizerSettings::adamw(1e-3);
        let learner = |model, density| {
            let compute = Compute { kernel: Kernel::Dense, ..Compute::default() };
            let mut learner = Learner::of_masked_weights(model, masks.clone(), &trainable, optimizer, compute);
            learner.mode.choose_kernels(learner.model, KernelChoice::sparse_up_to(density));
            learner
        };
        let began = learner(&mut model, 0.1 + 0.21);
        save(&began, &Interval::default(), directory.path(), 7, false).unwrap();
        let mut resumed = learner(&mut other, 0.1);
        assert!(!load(&mut resumed, directory.path(), 7).unwrap().1, "no evaluation followed the step");
        let sparse = resumed.mode.prepared().expect("the run had sparse matrices");
        assert_eq!(sparse.choice(), KernelChoice::sparse_up_to(0.1 + 0.21));
        assert!(
            resumed.model.layer_matrices().any(|id| sparse.sparse(id).is_some()),
            "30 % of the weights, and what is rounded up, are within the recorded density"
        );
    }
}
