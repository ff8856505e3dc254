//! Distillation from a fine-tuned dense teacher, beside the labels.

use tamt_kernels::ops::distance;
use tamt_kernels::ops::task_loss::{Distributions, soft_cross_entropy};
use tamt_model::{Activations, Batch, HiddenGrads, Model, Pass, Save, Workspace};

use crate::compute::Compute;
use crate::error::{Error, Result};
use crate::tune::inputs::Targets;
use crate::tune::settings::DistillSettings;

/// A dense model, fine-tuned on the same task, whose outputs and hidden states are targets of the training.
#[derive(Debug)]
pub(crate) struct Teacher<'m> {
    model: &'m Model,
    settings: DistillSettings,
    activations: Activations,
    logits: Vec<f32>,
    /// Separate from the student's workspace, which holds saved activations of the student's head.
    workspace: Workspace,
}

/// Checks that `teacher` can teach `student`: the same family and vocabulary, as many positions, and with a hidden
/// weight above 0 the same width and a multiple of the student's layers.
///
/// # Errors
/// [`Error::TeacherStates`] for the width and the layers, [`Error::Setting`] for all else.
pub fn check_teacher(teacher: &Model, student: &Model, settings: DistillSettings) -> Result<()> {
    let (ours, theirs) = (&student.config, &teacher.config);
    if settings.hidden_weight > 0.0 {
        if ours.hidden_size != theirs.hidden_size {
            let (theirs, ours) = (theirs.hidden_size, ours.hidden_size);
            let reason = format!("its hidden states are {theirs} wide and the model's {ours}");
            return Err(Error::TeacherStates { reason });
        }
        if !theirs.num_hidden_layers.is_multiple_of(ours.num_hidden_layers) {
            let (theirs, ours) = (theirs.num_hidden_layers, ours.num_hidden_layers);
            let reason = format!("its {theirs} layers are no multiple of the model's {ours}");
            return Err(Error::TeacherStates { reason });
        }
    }
    if theirs.family != ours.family || theirs.type_vocab_size < ours.type_vocab_size {
        return Err(Error::setting("teacher", "it is of another kind of encoder than the model"));
    }
    if theirs.vocab_size != ours.vocab_size {
        return Err(Error::setting("teacher", "it has another vocabulary than the model"));
    }
    if theirs.max_length() < ours.max_length() {
        return Err(Error::setting("teacher", "it has fewer positions than the model"));
    }
    Ok(())
}

impl<'m> Teacher<'m> {
    pub(super) fn new(model: &'m Model, student: &Model, settings: DistillSettings, compute: Compute) -> Result<Self> {
        check_teacher(model, student, settings)?;
        let activations = Activations::new(Save::Hidden);
        Ok(Self { model, settings, activations, logits: Vec::new(), workspace: compute.workspace() })
    }

    /// `logits_weight * mean t² KL(teacher / t || student / t) + hidden_weight * mean (1 - cos)`, the first mean over
    /// outputs at temperature `t`, the second over hidden states; for regression, the squared difference of the outputs
    /// takes the place of the divergence. Adds the gradients to `d_logits` and `d`.
    pub(super) fn losses(
        &mut self,
        batch: &Batch,
        student: &Activations,
        logits: &[f32],
        targets: &Targets,
        d_logits: &mut [f32],
        d: &mut HiddenGrads,
    ) -> f64 {
        let pass = Pass::default();
        self.model.forward(batch, pass, &mut self.activations, &mut self.workspace);
        let top = self.activations.last_hidden();
        self.model.task_forward(top, batch, pass, &mut self.logits, &mut self.workspace);
        let DistillSettings { temperature, logits_weight, hidden_weight } = self.settings;
        let mut total = 0.0;
        if logits_weight > 0.0 {
            let groups = match targets {
                Targets::Spans(_) => Distributions::Spans { bounds: &batch.bounds },
                Targets::Classes(_) | Targets::Values(_) => {
                    Distributions::Rows { classes: logits.len() / batch.sequences().max(1) }
                }
            };
            let mean = 1.0 / groups.count(logits.len()).max(1) as f64;
            let weight = (f64::from(logits_weight) * mean) as f32;
            let loss = mean
                * match targets {
                    Targets::Values(_) => distance::mse(logits, &self.logits, weight, Some(d_logits)),
                    _ => soft_cross_entropy(logits, &self.logits, groups, temperature, weight, d_logits),
                };
            total += f64::from(logits_weight) * loss;
        }
        if hidden_weight > 0.0 {
            let layers = student.hidden_count() - 1;
            let stride = self.model.layers.len() / layers;
            let width = self.model.config.hidden_size;
            let share = 1.0 / (layers * batch.tokens().max(1)) as f64;
            for layer in 1..=layers {
                let (s, t) = (student.hidden(layer), self.activations.hidden(layer * stride));
                let weight = (f64::from(hidden_weight) * share) as f32;
                let sum = distance::cosine(s, t, width, weight, Some(d.hidden_mut(layer, s.len())));
                total += f64::from(hidden_weight) * share * sum;
            }
        }
        total
    }
}
