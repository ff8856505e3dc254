//! The loss of a batch of a task, against the labels and a teacher, and its gradients.

use tamt_kernels::ops::cross_entropy;
use tamt_kernels::ops::task_loss::{span_cross_entropy, squared_error};
use tamt_model::{Activations, Batch, DropoutPlan, Grads, HiddenGrads, Model, Pass, Save, Workspace};

use crate::compute::Compute;
use crate::objective::StepLoss;
use crate::tune::inputs::Targets;
use crate::tune::teacher::Teacher;

/// The loss of a task, with the buffers of its passes.
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
    /// `seed` decides the dropout; its rate is `dropout`, or the model's own rates where `None`.
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

    /// The loss of a batch, a mean over its sequences, and its gradients in `grads`. `pass` has the masks and kernels;
    /// its dropout is replaced by the one of `step`.
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

/// The mean loss over sequences; overwrites the logits by its gradient. The loss of a span is the mean of the losses of
/// its start and its end.
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
