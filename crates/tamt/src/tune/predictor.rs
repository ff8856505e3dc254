//! From tokens to decisions: the forward pass and the decision that evaluations and predictions share.

use tamt_data::squad::{PredictOptions, Prediction, WindowLogits, predict};
use tamt_data::tasks::{Head, Label, Task};
use tamt_model::{Activations, Batch, Masks, Model, Pass, PreparedWeights, Save, Workspace};

use crate::compute::Compute;
use crate::error::{Error, Result};
use crate::tune::inputs::{Inputs, Items};
use crate::tune::settings::InputSettings;

/// Decisions about all examples (questions) of some inputs, in order.
#[derive(Clone, Debug)]
pub(crate) enum Decisions {
    /// A label for each example, with the head's outputs `[examples, outputs]`.
    Labels { labels: Vec<Label>, logits: Vec<f32> },
    /// An answer to each question.
    Spans(Vec<Prediction>),
}

/// A model with a head that decides about inputs of a task.
pub(crate) struct Predictor<'a> {
    model: &'a Model,
    masks: Option<&'a Masks>,
    task: &'a Task,
    settings: InputSettings,
    prepared: PreparedWeights,
    batch: Batch,
    logits: Vec<f32>,
    activations: Activations,
    workspace: Workspace,
}

/// A batch that went through the model.
pub(crate) struct PassedBatch<'a> {
    /// The numbers of the sequences (windows).
    pub(crate) chosen: &'a [u32],
    /// The head's outputs.
    pub(crate) logits: &'a mut [f32],
    /// The first token of each sequence, and the number of all tokens.
    pub(crate) bounds: &'a [usize],
}

impl<'a> Predictor<'a> {
    pub(crate) fn new(
        model: &'a Model,
        masks: Option<&'a Masks>,
        compute: Compute,
        task: &'a Task,
        settings: &InputSettings,
    ) -> Self {
        Self {
            model,
            masks,
            task,
            settings: *settings,
            prepared: compute.prepare(model, masks),
            batch: Batch::default(),
            logits: Vec::new(),
            activations: Activations::new(Save::Last),
            workspace: compute.workspace(),
        }
    }

    /// Runs the model over inputs in batches of similar lengths, and decides. `observe` sees each batch; its error ends
    /// the predictions.
    ///
    /// # Errors
    /// [`Error::NonFiniteEvaluation`] if the model's outputs are not finite; the errors of `observe`.
    pub(crate) fn decide(
        &mut self,
        inputs: &Inputs,
        mut observe: impl FnMut(PassedBatch<'_>) -> Result<()>,
    ) -> Result<Decisions> {
        let outputs = self.task.outputs();
        let sequences = inputs.sequences() as usize;
        let is_span = matches!(inputs.items, Items::Spans { .. });
        let mut all = vec![0.0; if is_span { 0 } else { sequences * outputs }];
        let none = WindowLogits { start: Vec::new(), end: Vec::new() };
        let mut windows = vec![none; if is_span { sequences } else { 0 }];
        for chosen in inputs.batches(&self.model.config) {
            self.forward(inputs, &chosen)?;
            for (slot, &i) in chosen.iter().enumerate() {
                let i = i as usize;
                if is_span {
                    let own = &self.logits[2 * self.batch.bounds[slot]..2 * self.batch.bounds[slot + 1]];
                    let column = |c: usize| own.iter().skip(c).step_by(2).copied().collect();
                    windows[i] = WindowLogits { start: column(0), end: column(1) };
                } else {
                    all[i * outputs..][..outputs].copy_from_slice(&self.logits[slot * outputs..][..outputs]);
                }
            }
            observe(PassedBatch { chosen: &chosen, logits: &mut self.logits, bounds: &self.batch.bounds })?;
        }
        match &inputs.items {
            Items::Sequences { .. } => {
                let labels =
                    all.chunks_exact(outputs).map(|logits| self.task.decide(logits)).collect::<Result<_, _>>()?;
                Ok(Decisions::Labels { labels, logits: all })
            }
            Items::Spans { dataset, windows: cut } => {
                Ok(Decisions::Spans(predict(dataset, cut, &windows, self.options())?))
            }
        }
    }

    /// The head's outputs for a batch.
    fn forward(&mut self, inputs: &Inputs, chosen: &[u32]) -> Result<()> {
        let pass = Pass::new(self.masks, Some(&self.prepared));
        inputs.fill(chosen, &self.model.config, &mut self.batch);
        let Self { model, batch, activations, workspace, .. } = self;
        head_outputs(model, pass, (batch, activations, workspace), &mut self.logits);
        if self.logits.iter().any(|v| !v.is_finite()) {
            return Err(Error::NonFiniteEvaluation { what: "the task head's output" });
        }
        Ok(())
    }

    fn options(&self) -> PredictOptions {
        let spans = self.settings.spans.unwrap_or_default();
        PredictOptions {
            n_best: spans.n_best,
            max_answer_tokens: spans.max_answer_length,
            unanswerable: matches!(self.task.head, Head::Span { unanswerable: true }),
            null_threshold: spans.null_threshold,
        }
    }
}

/// The outputs of the model's head for a located batch.
pub(crate) fn head_outputs(
    model: &Model,
    pass: Pass<'_>,
    (batch, activations, workspace): (&Batch, &mut Activations, &mut Workspace),
    logits: &mut Vec<f32>,
) {
    model.forward(batch, pass, activations, workspace);
    model.task_forward(activations.last_hidden(), batch, pass, logits, workspace);
}

#[cfg(test)]
mod tests {
    use tamt_data::tasks::{Feature, Split};
    use tamt_kernels::Precision;
    use tamt_kernels::rng::{Purpose, Stream};
    use tamt_model::{Config, Parts};

    use super::*;
    use crate::compute::Kernel;
    use crate::magnitude::magnitude;
    use crate::prune::{Scope, Sparsity, pruned_matrices};
    use crate::tune::model::head_kind;

    /// A random encoder with the task's head, wide enough for blocked products with remainders.
    fn model(task: &Task) -> Model {
        let config = Config::from_json(
            r#"{"model_type": "bert", "vocab_size": 200, "hidden_size": 88, "num_hidden_layers": 2,
                "num_attention_heads": 4, "intermediate_size": 152, "max_position_embeddings": 300,
                "type_vocab_size": 2}"#,
        )
        .unwrap();
        Model::random(config, Parts { pooler: false, mlm_head: false, task: Some(head_kind(task)) }, 3)
    }

    /// Sequences of 2 to 290 tokens, in no order of lengths.
    fn inputs() -> Inputs {
        let stream = Stream::new(5, Purpose::INIT, 0);
        let mut drawn = 0..;
        let mut id = || 1 + stream.below_at(drawn.next().unwrap(), 199);
        let lengths = [3, 290, 2, 17, 60, 2, 128, 5, 33, 257, 16, 64, 7, 90, 31, 11, 12, 200, 45, 256];
        let features =
            lengths.map(|n| Feature { ids: (0..n).map(|_| id()).collect(), type_ids: vec![0; n], label: None });
        let items = Items::Sequences { examples: Vec::new(), features: features.to_vec() };
        Inputs { split: Split::Test, files: Vec::new(), notes: Vec::new(), items }
    }

    #[test]
    fn the_outputs_of_a_sequence_do_not_depend_on_its_batch() {
        let inputs = inputs();
        for task in ["mnli", "stsb", "squad"].map(|name| Task::by_name(name).unwrap()) {
            let model = model(task);
            let matrices = pruned_matrices(&model, None).unwrap();
            let masks = magnitude(&model, &matrices, Sparsity::new(0.7).unwrap(), Scope::Local);
            for (kernel, masks) in
                [(Kernel::Dense, None), (Kernel::Dense, Some(&masks)), (Kernel::Sparse, Some(&masks))]
            {
                for precision in [Precision::F32, Precision::Bf16] {
                    let settings = InputSettings::new(task);
                    let mut predictor = Predictor::new(&model, masks, Compute { kernel, precision }, task, &settings);
                    let mut alone = Vec::new();
                    for i in 0..inputs.sequences() as u32 {
                        predictor.forward(&inputs, &[i]).unwrap();
                        alone.push(predictor.logits.clone());
                    }
                    let all: Vec<u32> = (0..inputs.sequences() as u32).rev().collect();
                    for chosen in all.chunks(all.len()).chain(all.chunks(3)) {
                        predictor.forward(&inputs, chosen).unwrap();
                        let mut rest = predictor.logits.as_slice();
                        for &i in chosen {
                            let (own, after) = rest.split_at(alone[i as usize].len());
                            assert!(own == alone[i as usize], "{}, {kernel:?}, {precision:?}: sequence {i}", task.name);
                            rest = after;
                        }
                        assert!(rest.is_empty());
                    }
                }
            }
        }
    }
}
