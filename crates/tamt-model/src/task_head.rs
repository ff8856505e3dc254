//! Task heads: sequence classification and regression, and answer spans.
//!
//! With `h` the last hidden states and `h0` those of the first token of each sequence:
//!
//! * BERT sequence (`BertForSequenceClassification`): `logits = dropout(tanh(pooler(h0))) W_cᵀ + b_c`; the pooler is
//!   masked.
//! * RoBERTa sequence (`RobertaClassificationHead`): `logits = dropout(tanh(dropout(h0) W_dᵀ + b_d)) W_oᵀ + b_o`.
//! * Span, both families: `logits = h W_qᵀ + b_q`, a start and an end score for each token.

use tamt_kernels::ops::activation::Activation;
use tamt_kernels::ops::{activation, dropout, reduce};
use tamt_kernels::{Write, linear};

use crate::batch::Batch;
use crate::grads::Grads;
use crate::model::{Dense, Model, TaskHead};
use crate::pass::{DropoutSite, Pass};
use crate::workspace::Workspace;

impl Model {
    /// Dropout in front of the first (0) or the last (1) linear layer of a sequence head. The pooler's input has none.
    fn head_dropout(&self, pass: Pass<'_>, site: usize) -> Option<dropout::Dropout> {
        if let (0, Some(TaskHead::Pooled { .. })) = (site, self.task_head) {
            return None;
        }
        pass.dropout(DropoutSite::Head(site), 0)
    }

    /// Scores of the task head: `[sequences, outputs]`, or `[T, 2]` for spans.
    ///
    /// # Panics
    /// If the model has no task head.
    pub fn task_forward(
        &self,
        hidden: &[f32],
        batch: &Batch,
        pass: Pass<'_>,
        logits: &mut Vec<f32>,
        workspace: &mut Workspace,
    ) {
        let width = self.config.hidden_size;
        let Workspace { kernels: scratch, task_head: b, .. } = workspace;
        let outputs = |dense: Dense| self.params.matrix_shape(dense.weight)[0];
        let (first, last) = self.task_head.expect("the model has a task head").linears();
        let Some(first) = first else {
            logits.resize(batch.tokens() * outputs(last), 0.0);
            return self.linear(last, hidden, pass, logits, scratch);
        };
        b.first.clear();
        b.first.extend(batch.bounds[..batch.sequences()].iter().map(|&start| start as u32));
        for buffer in [&mut b.input, &mut b.dense, &mut b.activated, &mut b.d_activated, &mut b.d_input] {
            buffer.resize(batch.sequences() * width, 0.0);
        }
        reduce::gather_rows(hidden, width, &b.first, &mut b.input);
        if let Some(d) = self.head_dropout(pass, 0) {
            dropout::apply(&mut b.input, d);
        }
        self.linear(first, &b.input, pass, &mut b.dense, scratch);
        activation::forward(Activation::Tanh, &b.dense, &mut b.activated);
        if let Some(d) = self.head_dropout(pass, 1) {
            dropout::apply(&mut b.activated, d);
        }
        logits.resize(batch.sequences() * outputs(last), 0.0);
        self.linear(last, &b.activated, pass, logits, scratch);
    }

    /// Gradients of the head from the gradients of its scores; adds the gradient of the last hidden states to
    /// `d_hidden`. The latest pass of `workspace` through a task head is [`Model::task_forward`] with the same batch
    /// and pass.
    ///
    /// # Panics
    /// If the model has no task head.
    pub fn task_backward(
        &self,
        d_logits: &[f32],
        hidden: &[f32],
        pass: Pass<'_>,
        d_hidden: &mut [f32],
        grads: &mut Grads,
        workspace: &mut Workspace,
    ) {
        let Workspace { kernels: scratch, task_head: b, .. } = workspace;
        let weight = |dense: Dense| self.params.weight(dense.weight, pass.masks);
        let (first, last) = self.task_head.expect("the model has a task head").linears();
        let Some(first) = first else {
            self.linear_gradients(last, d_logits, hidden, pass, grads, scratch);
            return linear::backward_input(d_logits, weight(last), d_hidden, Write::Add, scratch);
        };
        self.linear_gradients(last, d_logits, &b.activated, pass, grads, scratch);
        linear::backward_input(d_logits, weight(last), &mut b.d_activated, Write::Store, scratch);
        if let Some(d) = self.head_dropout(pass, 1) {
            dropout::apply(&mut b.d_activated, d);
        }
        activation::backward(Activation::Tanh, &b.dense, &mut b.d_activated);
        self.linear_gradients(first, &b.d_activated, &b.input, pass, grads, scratch);
        linear::backward_input(&b.d_activated, weight(first), &mut b.d_input, Write::Store, scratch);
        if let Some(d) = self.head_dropout(pass, 0) {
            dropout::apply(&mut b.d_input, d);
        }
        reduce::scatter_add_rows(&b.d_input, self.config.hidden_size, &b.first, d_hidden);
    }
}
