//! The loss of a batch of a task: against labels, and against a teacher.

use tamt_kernels::ops::task_loss::{Groups, soft_cross_entropy, span_cross_entropy, squared_error};
use tamt_kernels::ops::{cross_entropy, distance};
use tamt_model::{Activations, Batch, DropoutPlan, Grads, HiddenGrads, Model, Pass, Save, Workspace};

use super::inputs::Targets;
use super::settings::DistillSettings;
use crate::objective::StepLoss;
use crate::{Compute, Error, Result};

/// A fine-tuned dense model to learn from.
#[derive(Debug)]
pub(crate) struct Teacher<'m> {
    model: &'m Model,
    settings: DistillSettings,
    activations: Activations,
    logits: Vec<f32>,
    /// Its own: the student's head keeps in the other what its backward pass needs.
    workspace: Workspace,
}

/// Checks that `teacher` can teach `student`: one vocabulary, room for as many tokens, and where hidden states are to
/// be learnt, one width and layers that can be paired.
///
/// # Errors
/// [`Error::Setting`] saying what does not fit.
pub fn check_teacher(teacher: &Model, student: &Model, settings: DistillSettings) -> Result<()> {
    let (ours, theirs) = (&student.config, &teacher.config);
    if settings.hidden_weight > 0.0 {
        if ours.hidden_size != theirs.hidden_size {
            let reason = format!(
                "its hidden states are {} wide and the model's {}; give --kd-hidden-weight 0",
                theirs.hidden_size, ours.hidden_size
            );
            return Err(Error::setting("teacher", reason));
        }
        if !theirs.num_hidden_layers.is_multiple_of(ours.num_hidden_layers) {
            let reason = format!(
                "its {} layers are no multiple of the model's {}; give --kd-hidden-weight 0",
                theirs.num_hidden_layers, ours.num_hidden_layers
            );
            return Err(Error::setting("teacher", reason));
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

    /// The sum of the weighted losses; gradients are added to `d_logits` and `d`.
    fn losses(
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
                Targets::Spans(_) => Groups::Spans { bounds: &batch.bounds },
                Targets::Classes(_) | Targets::Values(_) => {
                    Groups::Rows { classes: logits.len() / batch.sequences().max(1) }
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
            let apart = self.model.layers.len() / layers;
            let width = self.model.config.hidden_size;
            let share = 1.0 / (layers * batch.tokens().max(1)) as f64;
            for layer in 1..=layers {
                let (s, t) = (student.hidden(layer), self.activations.hidden(layer * apart));
                let weight = (f64::from(hidden_weight) * share) as f32;
                let sum = distance::cosine(s, t, width, weight, Some(d.hidden_mut(layer, s.len())));
                total += f64::from(hidden_weight) * share * sum;
            }
        }
        total
    }
}

/// The loss of a task with its buffers.
#[derive(Debug)]
pub(crate) struct TaskLoss<'m> {
    seed: u64,
    dropout: Option<f32>,
    teacher: Option<Teacher<'m>>,
    activations: Activations,
    logits: Vec<f32>,
    d_logits: Vec<f32>,
    d_hidden: HiddenGrads,
    workspace: Workspace,
}

impl<'m> TaskLoss<'m> {
    /// `seed` decides the dropout, at one rate or at the model's own.
    pub(crate) fn new(seed: u64, dropout: Option<f32>, compute: Compute, teacher: Option<Teacher<'m>>) -> Self {
        Self {
            seed,
            dropout,
            teacher,
            activations: Activations::new(Save::All),
            logits: Vec::new(),
            d_logits: Vec::new(),
            d_hidden: HiddenGrads::default(),
            workspace: compute.workspace(),
        }
    }

    /// The loss of a batch, mean over its sequences, and its gradients in `grads`. `pass` says with which masks and
    /// kernels; its dropout is the task's.
    pub(crate) fn loss_and_gradients(
        &mut self,
        model: &Model,
        pass: Pass<'_>,
        batch: &Batch,
        targets: &Targets,
        step: u64,
        grads: &mut Grads,
    ) -> StepLoss {
        let dropout = DropoutPlan::for_step(&model.config, self.dropout, self.seed, step);
        let pass = pass.with_dropout(dropout);
        let Self { teacher, activations, logits, d_logits, d_hidden, workspace, .. } = self;
        grads.begin();
        model.forward(batch, pass, activations, workspace);
        d_hidden.begin(activations);
        let top = activations.last_hidden();
        model.task_forward(top, batch, pass, logits, workspace);
        d_logits.clone_from(logits);
        let task = mean_loss(d_logits, &batch.bounds, targets);
        let kd =
            teacher.as_mut().map(|teacher| teacher.losses(batch, activations, logits, targets, d_logits, d_hidden));
        let d_top = d_hidden.hidden_mut(model.layers.len(), top.len());
        model.task_backward(d_logits, top, pass, d_top, grads, workspace);
        model.backward(batch, pass, activations, d_hidden, grads, workspace);
        grads.finish();
        let total = task + kd.unwrap_or(0.0);
        StepLoss { total, task: Some(task), mlm: None, kd, tokens: batch.tokens() as u64 }
    }
}

/// The mean loss over sequences; the logits become its gradient. Spans: the mean of start and end.
pub(super) fn mean_loss(logits: &mut [f32], bounds: &[usize], targets: &Targets) -> f64 {
    match targets {
        Targets::Classes(labels) => {
            let mean = 1.0 / labels.len().max(1) as f64;
            mean * cross_entropy::forward_backward(logits, labels, mean as f32).loss_sum
        }
        Targets::Values(values) => {
            let mean = 1.0 / values.len().max(1) as f64;
            mean * squared_error(logits, values, mean as f32)
        }
        Targets::Spans(answers) => {
            let mean = 0.5 / answers.len().max(1) as f64;
            mean * span_cross_entropy(logits, bounds, answers, mean as f32)
        }
    }
}
