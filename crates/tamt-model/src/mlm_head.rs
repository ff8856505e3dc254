//! The masked-language-model head (`BertLMPredictionHead`), at masked positions only.
//!
//! `logits = LayerNorm(f(h W_tᵀ + b_t)) Eᵀ + b`, with the *unmasked* word embeddings `E`. Logits exist for one chunk of
//! positions at a time: a chunk goes forward and, if the caller asks for gradients, straight back.
//!
//! BERT's `f` is `hidden_act`; RoBERTa's is the exact GELU whatever `hidden_act` (`RobertaLMHead`).

use tamt_kernels::masks::GradEpilogue;
use tamt_kernels::ops::activation::Activation;
use tamt_kernels::ops::cross_entropy::LossSums;
use tamt_kernels::ops::layer_norm::SavedStatistics;
use tamt_kernels::ops::{activation, cross_entropy, reduce};
use tamt_kernels::{Write, linear};

use crate::config::Family;
use crate::error::Result;
use crate::grads::{GradKind, Grads};
use crate::model::{MlmHead, Model};
use crate::pass::Pass;
use crate::plan::LayerNorm;
use crate::workspace::{MlmHeadBuffers, Workspace};

/// Maximum number of positions in a chunk: 256 x 30,522 logits take 31 MB.
const MAX_CHUNK: usize = 256;

/// Where the gradients of an MLM loss go.
#[derive(Debug)]
pub struct MlmGrads<'a> {
    /// The factor of the loss summed over masked positions: 1 / their number for the mean.
    pub scale: f32,
    /// Gradient of the last hidden state, `[T, hidden]`, added to.
    pub hidden: &'a mut [f32],
    /// Gradients of the head and, if its weight is trained, of the decoder.
    pub grads: &'a mut Grads,
}

impl Model {
    /// Cross-entropy summed over the masked `positions` (rows of `hidden`), whose true tokens are `labels`, and the
    /// number of right predictions; with `back`, the gradients too.
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
    ) -> Result<LossSums> {
        let head = self.decoding_head()?;
        self.mlm_transform(head, hidden, positions, workspace);
        let mut total = LossSums::default();
        // Chunks of even size: each product packs the decoder anew, which is expensive for a small chunk.
        let size = labels.len().div_ceil(labels.len().div_ceil(MAX_CHUNK).max(1)).max(1);
        for (chunk, labels) in labels.chunks(size).enumerate() {
            total += self.mlm_decode(head, chunk * size, labels, back.as_mut(), workspace);
        }
        if let Some(back) = back {
            self.mlm_transform_backward(head, positions, back, workspace);
        }
        Ok(total)
    }

    fn mlm_activation(&self) -> Activation {
        match self.config.family {
            Family::Bert => self.config.hidden_act,
            Family::Roberta => Activation::Gelu,
        }
    }

    /// `transformed = LayerNorm(f(h W_tᵀ + b_t))` at the masked positions, `[positions, hidden]`.
    fn mlm_transform(&self, head: MlmHead, hidden: &[f32], positions: &[u32], workspace: &mut Workspace) {
        let width = self.config.hidden_size;
        let Workspace { kernels: scratch, mlm_head: b, .. } = workspace;
        for buffer in [&mut b.gathered, &mut b.dense, &mut b.transformed, &mut b.d_transformed, &mut b.d_dense] {
            buffer.resize(positions.len() * width, 0.0);
        }
        b.norm.resize(positions.len(), width);
        reduce::gather_rows(hidden, width, positions, &mut b.gathered);
        self.linear(head.dense, &b.gathered, Pass::default(), &mut b.dense, scratch);
        activation::forward(self.mlm_activation(), &b.dense, &mut b.norm.sum);
        let saved = SavedStatistics { sum: None, mean: &mut b.norm.mean, rstd: &mut b.norm.rstd };
        LayerNorm::new(self, head.norm).forward(&mut b.norm.sum, None, None, &mut b.transformed, Some(saved));
    }

    /// The gradients of the transform's parameters and of the hidden states, from `d_transformed`.
    fn mlm_transform_backward(&self, head: MlmHead, positions: &[u32], back: MlmGrads<'_>, workspace: &mut Workspace) {
        let MlmGrads { hidden: d_hidden, grads, .. } = back;
        let Workspace { kernels: scratch, mlm_head: b, .. } = workspace;
        let gradients = grads.pair(head.norm.weight, head.norm.bias);
        let norm = LayerNorm::new(self, head.norm);
        norm.backward(&b.d_transformed, b.norm.all(), &mut b.d_dense, gradients, scratch);
        activation::backward(self.mlm_activation(), &b.dense, &mut b.d_dense);
        self.linear_gradients(head.dense, &b.d_dense, &b.gathered, Pass::default(), grads, scratch);
        let weight = self.params.weight(head.dense.weight, None);
        linear::backward_input(&b.d_dense, weight, &mut b.d_transformed, Write::Store, scratch);
        reduce::scatter_add_rows(&b.d_transformed, self.config.hidden_size, positions, d_hidden);
    }

    /// `logits = transformed Eᵀ + b` of the masked positions from `first` on and their loss; with `back`,
    /// `d_transformed` and the decoder's gradients too.
    fn mlm_decode(
        &self,
        head: MlmHead,
        first: usize,
        labels: &[u32],
        back: Option<&mut MlmGrads<'_>>,
        workspace: &mut Workspace,
    ) -> LossSums {
        let width = self.config.hidden_size;
        let Workspace { kernels: scratch, mlm_head: b, .. } = workspace;
        let MlmHeadBuffers { transformed, logits, d_transformed, .. } = b;
        let decoder = self.params.weight(self.embeddings.word, None);
        let rows = first * width..(first + labels.len()) * width;
        let transformed = &transformed[rows.clone()];
        logits.resize(labels.len() * self.config.vocab_size, 0.0);
        let bias = self.params.get(head.decoder_bias);
        linear::forward(transformed, decoder, Some(&bias), logits, scratch);
        let Some(back) = back else { return cross_entropy::forward(logits, labels) };
        let loss = cross_entropy::forward_backward(logits, labels, back.scale);
        linear::backward_input(logits, decoder, &mut d_transformed[rows], Write::Store, scratch);
        if let Some((slot, mode, _)) = back.grads.slot(head.decoder_bias) {
            linear::backward_bias(logits, slot, mode, scratch);
        }
        // The decoder is unmasked, so scores of the word embeddings have no gradient here.
        let word = self.embeddings.word;
        if back.grads.kind(word) != Some(GradKind::Score)
            && let Some((slot, mode, _)) = back.grads.slot(word)
        {
            let [rows, cols] = self.params.matrix_shape(word);
            linear::backward_weight(logits, transformed, rows, cols, GradEpilogue::Dense, slot, mode, scratch);
        }
        loss
    }
}
