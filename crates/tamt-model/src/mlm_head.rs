//! The masked-language-model head, at masked positions only.
//!
//! `logits = LayerNorm(act(h W_tᵀ + b_t)) Eᵀ + b`, `E` the *unmasked* word embeddings. Logits exist for a chunk of
//! positions at a time; each chunk goes forward and, when gradients are wanted, straight back.

use tamt_kernels::linear;
use tamt_kernels::masks::GradEpilogue;
use tamt_kernels::ops::cross_entropy;
use tamt_kernels::ops::cross_entropy::Outcome;
use tamt_kernels::ops::{activation, layer_norm, reduce};

use crate::activations::{NormActs, Workspace};
use crate::encoder::Pass;
use crate::error::{Error, Result};
use crate::grads::Grads;
use crate::model::Model;

/// Positions whose logits exist at the same time, at most: 256 x 30,522 logits are 31 MB.
const MAX_CHUNK: usize = 256;

#[derive(Debug, Default)]
pub(crate) struct HeadBuffers {
    gathered: Vec<f32>,
    dense: Vec<f32>,
    norm: NormActs,
    transformed: Vec<f32>,
    logits: Vec<f32>,
    d_transformed: Vec<f32>,
    d_dense: Vec<f32>,
}

/// Where the gradients of an MLM loss go.
#[derive(Debug)]
pub struct MlmGrads<'a> {
    /// The loss is the sum over masked positions times this (1 / their number for the mean).
    pub scale: f32,
    /// Gradient of the last hidden state, `[T, hidden]`, added to.
    pub hidden: &'a mut [f32],
    /// Gradients of the head and, where its weight is trained, of the decoder.
    pub grads: &'a mut Grads,
}

impl Model {
    /// Cross-entropy summed over the masked `positions` (rows of `hidden`), whose true tokens are `labels`, and the
    /// number of right guesses; with `back`, the gradients too.
    ///
    /// # Errors
    /// If the model has no MLM head.
    pub fn mlm_loss(
        &self,
        hidden: &[f32],
        positions: &[u32],
        labels: &[u32],
        mut back: Option<MlmGrads<'_>>,
        workspace: &mut Workspace,
    ) -> Result<Outcome> {
        let head = self.mlm_head.ok_or(Error::NoMlmHead)?;
        let width = self.config.hidden_size;
        let Workspace { kernels: scratch, head: b, .. } = workspace;
        let size = positions.len() * width;
        for buffer in [&mut b.gathered, &mut b.dense, &mut b.transformed, &mut b.d_transformed, &mut b.d_dense] {
            buffer.resize(size, 0.0);
        }
        b.norm.resize(positions.len(), width);

        reduce::gather_rows(hidden, width, positions, &mut b.gathered);
        self.dense_forward(head.dense, &b.gathered, Pass::default(), &mut b.dense, scratch);
        activation::forward(self.config.hidden_act, &b.dense, &mut b.norm.sum);
        layer_norm::forward(
            &mut b.norm.sum,
            None,
            None,
            self.params.get(head.norm.weight),
            self.params.get(head.norm.bias),
            self.config.layer_norm_eps,
            &mut b.transformed,
            Some(layer_norm::Kept { sum: None, mean: &mut b.norm.mean, rstd: &mut b.norm.rstd }),
        );

        let decoder = self.params.weight(self.embeddings.word, None);
        let mut total = Outcome::default();
        // chunks of even size: each one packs the decoder anew, which a small one does not pay for
        let size = labels.len().div_ceil(labels.len().div_ceil(MAX_CHUNK).max(1)).max(1);
        for (chunk, labels) in labels.chunks(size).enumerate() {
            let rows = chunk * size * width..(chunk * size + labels.len()) * width;
            let transformed = &b.transformed[rows.clone()];
            b.logits.resize(labels.len() * self.config.vocab_size, 0.0);
            linear::forward(transformed, decoder, Some(self.params.get(head.decoder_bias)), &mut b.logits, scratch);
            let Some(back) = &mut back else {
                total += cross_entropy::forward(&b.logits, labels);
                continue;
            };
            total += cross_entropy::forward_backward(&mut b.logits, labels, back.scale);
            linear::backward_input(&b.logits, decoder, &mut b.d_transformed[rows], tamt_kernels::Write::Store, scratch);
            if let Some((slot, mode, _)) = back.grads.slot(head.decoder_bias) {
                linear::backward_bias(&b.logits, slot, mode, scratch);
            }
            if let Some((slot, mode)) = back.grads.decoder_slot(self.embeddings.word) {
                let [rows, cols] = self.params.matrix_shape(self.embeddings.word);
                linear::backward_weight(&b.logits, transformed, rows, cols, GradEpilogue::Dense, slot, mode, scratch);
            }
        }

        if let Some(MlmGrads { hidden: d_hidden, grads, .. }) = back {
            self.norm_backward(head.norm, &b.d_transformed, &b.norm, &mut b.d_dense, grads, scratch);
            activation::backward(self.config.hidden_act, &b.dense, &mut b.d_dense);
            self.dense_grads(head.dense, &b.d_dense, &b.gathered, Pass::default(), grads, scratch);
            let weight = self.params.weight(head.dense.weight, None);
            linear::backward_input(&b.d_dense, weight, &mut b.d_transformed, tamt_kernels::Write::Store, scratch);
            reduce::scatter_add_rows(&b.d_transformed, width, positions, d_hidden);
        }
        Ok(total)
    }
}
