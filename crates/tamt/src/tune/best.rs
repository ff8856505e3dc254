//! The weights of the best evaluation of a run.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use tamt_model::{Model, Params};

use crate::error::{Error, Result};
use crate::tensor_file::{self, Tensor};
use crate::train::{Best, Metrics};

/// The best model's weights in a checkpoint, with the [`Standing`] in the metadata.
const FILE: &str = "best.safetensors";

/// The number of steps at an evaluation, the value of the deciding metric, and all finite metrics.
type BestEvaluation = (u64, f64, Vec<(String, f64)>);

/// The best of the evaluations so far, and its age.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Standing {
    best: Option<BestEvaluation>,
    /// Evaluations since the best one.
    since: u64,
}

/// The best evaluation with its weights.
#[derive(Debug)]
pub(super) struct BestModel {
    /// The deciding metric: a larger value is better.
    metric: &'static str,
    standing: Standing,
    params: Option<Params>,
    /// Whether the run writes the best weights.
    keeps_weights: bool,
}

impl BestModel {
    pub(super) fn new(metric: &'static str, keeps_weights: bool) -> Self {
        Self { metric, standing: Standing::default(), params: None, keeps_weights }
    }

    /// Compares an evaluation with the best one. The first of equals stays; NaN is never better.
    pub(super) fn compare(&mut self, done: u64, metrics: &Metrics, model: &Model) {
        let value = metrics.iter().find(|(name, _)| name == self.metric).map_or(f64::NAN, |(_, value)| *value);
        let is_better = match &self.standing.best {
            Some((_, best, _)) => value > *best,
            None => !value.is_nan(),
        };
        if !is_better {
            self.standing.since += 1;
            return;
        }
        // JSON has no form for infinite values and NaN.
        let finite = metrics.iter().filter(|(_, v)| v.is_finite()).map(|(name, v)| (name.to_string(), *v));
        self.standing = Standing { best: Some((done, value, finite.collect())), since: 0 };
        if !self.keeps_weights {
            return;
        }
        match &mut self.params {
            Some(params) => params.set_all(&model.params),
            none => *none = Some(model.params.clone()),
        }
    }

    pub(super) fn best(&self) -> Option<Best> {
        self.standing.best.as_ref().map(|&(step, value, _)| Best { step, value })
    }

    /// The finite metrics of the best evaluation.
    pub(super) fn metrics(&self) -> &[(String, f64)] {
        self.standing.best.as_ref().map_or(&[], |(_, _, metrics)| metrics)
    }

    /// Evaluations since the best one.
    pub(super) fn evaluations_since(&self) -> u64 {
        self.standing.since
    }

    /// Copies the best weights, if there are any, into the model.
    pub(super) fn restore_weights(&self, model: &mut Model) {
        if let Some(params) = &self.params {
            model.params.set_all(params);
        }
    }

    pub(super) fn write(&self, directory: &Path) -> Result<()> {
        let tensors = self.params.iter().flat_map(|params| params.ids().map(|id| (params.spec(id), params.get(id))));
        let tensors: Vec<_> = tensors.collect();
        let tensors: Vec<Tensor<'_>> =
            tensors.iter().map(|(spec, values)| Tensor::f32(spec.name.as_str(), &spec.shape, values)).collect();
        let standing = serde_json::to_string(&self.standing).expect("finite numbers are JSON");
        let metadata = BTreeMap::from([("standing".to_owned(), standing)]);
        tensor_file::write(&directory.join(FILE), &tensors, &metadata)
    }

    pub(super) fn read(&mut self, directory: &Path, model: &Model) -> Result<()> {
        let path = directory.join(FILE);
        let bytes = std::fs::read(&path).map_err(Error::io("read", &path))?;
        self.parse(&bytes, model).map_err(|reason| Error::Damaged { path, reason })
    }

    fn parse(&mut self, bytes: &[u8], model: &Model) -> Result<(), String> {
        let file = SafeTensors::deserialize(bytes).map_err(|e| e.to_string())?;
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| e.to_string())?;
        let standing = header.metadata().as_ref().and_then(|m| m.get("standing")).ok_or("it has no standing")?;
        self.standing = serde_json::from_str(standing).map_err(|e| format!("its standing: {e}"))?;
        if self.standing.best.is_none() || !self.keeps_weights {
            return Ok(());
        }
        let mut params = model.params.clone();
        for id in params.ids() {
            let name = params.spec(id).name.clone();
            let tensor = file.tensor(&name).map_err(|e| e.to_string())?;
            let elements = params.spec(id).elements();
            if tensor.dtype() != Dtype::F32 || tensor.data().len() != 4 * elements {
                return Err(format!("{name} does not have {elements} values of F32"));
            }
            let values: Vec<f32> = tensor.data().as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
            params.set(id, &values);
        }
        self.params = Some(params);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tamt_kernels::masks::BitMask;

    use super::*;
    use crate::testing::tiny_model;

    fn metrics(value: f64) -> Metrics {
        vec![("accuracy".into(), value), ("loss".into(), f64::NAN)]
    }

    #[test]
    fn the_first_of_equals_stays_and_what_is_no_number_is_never_better() {
        let mut model = tiny_model();
        let id = model.embeddings.word;
        let mut best = BestModel::new("accuracy", true);
        for (step, value) in [(1, f64::NAN), (2, 0.5), (3, 0.7), (4, 0.7), (5, f64::NAN), (6, 0.6)] {
            model.params.get_mut(id)[0] = step as f32;
            best.compare(step, &metrics(value), &model);
        }
        assert_eq!(best.best(), Some(Best { step: 3, value: 0.7 }));
        assert_eq!((best.evaluations_since(), best.metrics()), (3, &[("accuracy".to_owned(), 0.7)][..]));
        best.restore_weights(&mut model);
        assert_eq!(model.params.get(id)[0], 3.0);
    }

    #[test]
    fn a_written_best_model_is_read_back() {
        let (mut model, directory) = (tiny_model(), tempfile::tempdir().unwrap());
        // A learner stores a pruned matrix by its survivors.
        let matrix = model.layer_matrices().next().unwrap();
        let [rows, cols] = model.params.matrix_shape(matrix);
        let mut mask = BitMask::ones(rows, cols);
        mask.set(0, 1, false);
        model.params.compact(matrix, &mask);
        for keeps_weights in [true, false] {
            let mut best = BestModel::new("accuracy", keeps_weights);
            best.write(directory.path()).unwrap();
            BestModel::new("accuracy", keeps_weights).read(directory.path(), &model).unwrap();
            best.compare(7, &metrics(0.1 + 0.2), &model);
            best.compare(8, &metrics(0.1), &model);
            best.write(directory.path()).unwrap();
            let mut read = BestModel::new("accuracy", keeps_weights);
            read.read(directory.path(), &model).unwrap();
            assert_eq!(read.standing, best.standing);
            assert_eq!(read.params.is_some(), keeps_weights);
            let mut other = model.clone();
            other.params.ids().for_each(|id| other.params.set(id, &vec![7.0; other.params.spec(id).elements()]));
            read.restore_weights(&mut other);
            let is_same = other.params.ids().all(|id| other.params.get(id) == model.params.get(id));
            assert_eq!(is_same, keeps_weights);
        }
        std::fs::write(directory.path().join(FILE), "no").unwrap();
        assert!(matches!(BestModel::new("f1", true).read(directory.path(), &model), Err(Error::Damaged { .. })));
    }
}
