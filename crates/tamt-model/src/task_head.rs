//! Task heads: sequence classification and regression, and answer spans.
//!
//! With `h` the last hidden states and `h0` those at position 0 of each sequence:
//!
//! * BERT sequence: `logits = dropout(tanh(pooler(h0))) W_cᵀ + b_c`; the pooler's mask acts.
//! * RoBERTa sequence: `logits = dropout(tanh(dropout(h0) W_dᵀ + b_d)) W_oᵀ + b_o`.
//! * Span, both: `logits = h W_qᵀ + b_q`, a start and an end score for each token.

use tamt_kernels::ops::activation;
use tamt_kernels::ops::activation::Activation;
use tamt_kernels::ops::{dropout, reduce};
use tamt_kernels::{Write, linear};

use crate::activations::Workspace;
use crate::batch::Batch;
use crate::encoder::{Pass, Site};
use crate::grads::Grads;
use crate::model::{Dense, Model};

/// What a task head predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskKind {
    /// This many values for a sequence: one for each class, or a single one for regression.
    Sequence {
        /// Number of values.
        outputs: usize,
    },
    /// A start and an end score for each token.
    Span,
}

/// Tensors of a task head.
#[derive(Clone, Copy, Debug)]
pub enum TaskHead {
    /// BERT's, over the pooler.
    Pooled {
        /// `[hidden, hidden]`, part of the encoder
        pooler: Dense,
        /// `[outputs, hidden]`
        classifier: Dense,
    },
    /// RoBERTa's, with a dense layer of its own.
    TwoLayer {
        /// `[hidden, hidden]`
        dense: Dense,
        /// `[outputs, hidden]`
        out_proj: Dense,
    },
    /// `[2, hidden]`, over every token.
    Span {
        /// `[2, hidden]`
        qa_outputs: Dense,
    },
}

#[derive(Debug, Default)]
pub(crate) struct TaskBuffers {
    first: Vec<u32>,
    input: Vec<f32>,
    dense: Vec<f32>,
    activated: Vec<f32>,
    d_activated: Vec<f32>,
    d_input: Vec<f32>,
}

impl Model {
    /// The head's dropout is the configuration's `classifier_dropout`, or its hidden dropout.
    fn head_dropout(&self, pass: Pass<'_>, site: usize) -> Option<dropout::Dropout> {
        let mut d = pass.dropout_at(Site::Head(site))?;
        if let Some(p) = self.config.extra("classifier_dropout").and_then(serde_json::Value::as_f64) {
            d.p = p as f32;
        }
        (d.p > 0.0).then_some(d)
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
        let Workspace { kernels: scratch, task: b, .. } = workspace;
        let (first_layer, last) = match self.task_head.expect("the model has a task head") {
            TaskHead::Span { qa_outputs } => {
                logits.resize(batch.tokens() * self.params.matrix_shape(qa_outputs.weight)[0], 0.0);
                return self.dense_forward(qa_outputs, hidden, pass, logits, scratch);
            }
            TaskHead::Pooled { pooler, classifier } => (pooler, classifier),
            TaskHead::TwoLayer { dense, out_proj } => (dense, out_proj),
        };
        b.first.clear();
        b.first.extend(batch.bounds[..batch.sequences()].iter().map(|&start| start as u32));
        for buffer in [&mut b.input, &mut b.dense, &mut b.activated, &mut b.d_activated, &mut b.d_input] {
            buffer.resize(batch.sequences() * width, 0.0);
        }
        reduce::gather_rows(hidden, width, &b.first, &mut b.input);
        if let (TaskHead::TwoLayer { .. }, Some(d)) = (self.task_head.expect("as above"), self.head_dropout(pass, 0)) {
            dropout::apply(&mut b.input, d);
        }
        self.dense_forward(first_layer, &b.input, pass, &mut b.dense, scratch);
        activation::forward(Activation::Tanh, &b.dense, &mut b.activated);
        if let Some(d) = self.head_dropout(pass, 1) {
            dropout::apply(&mut b.activated, d);
        }
        logits.resize(batch.sequences() * self.params.matrix_shape(last.weight)[0], 0.0);
        self.dense_forward(last, &b.activated, pass, logits, scratch);
    }

    /// Gradients of the head from those of its scores; the gradient of the last hidden states is added to `d_hidden`.
    /// To be called after [`Model::task_forward`] with the same batch and pass.
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
        let width = self.config.hidden_size;
        let Workspace { kernels: scratch, task: b, .. } = workspace;
        let weight = |dense: Dense| self.params.weight(dense.weight, pass.masks);
        let (first_layer, last) = match self.task_head.expect("the model has a task head") {
            TaskHead::Span { qa_outputs } => {
                self.dense_grads(qa_outputs, d_logits, hidden, pass, grads, scratch);
                return linear::backward_input(d_logits, weight(qa_outputs), d_hidden, Write::Add, scratch);
            }
            TaskHead::Pooled { pooler, classifier } => (pooler, classifier),
            TaskHead::TwoLayer { dense, out_proj } => (dense, out_proj),
        };
        self.dense_grads(last, d_logits, &b.activated, pass, grads, scratch);
        linear::backward_input(d_logits, weight(last), &mut b.d_activated, Write::Store, scratch);
        if let Some(d) = self.head_dropout(pass, 1) {
            dropout::apply(&mut b.d_activated, d);
        }
        activation::backward(Activation::Tanh, &b.dense, &mut b.d_activated);
        self.dense_grads(first_layer, &b.d_activated, &b.input, pass, grads, scratch);
        linear::backward_input(&b.d_activated, weight(first_layer), &mut b.d_input, Write::Store, scratch);
        if let (TaskHead::TwoLayer { .. }, Some(d)) = (self.task_head.expect("as above"), self.head_dropout(pass, 0)) {
            dropout::apply(&mut b.d_input, d);
        }
        reduce::scatter_add_rows(&b.d_input, width, &b.first, d_hidden);
    }
}
