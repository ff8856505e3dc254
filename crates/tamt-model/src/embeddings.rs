//! The embedding layer (`BertEmbeddings`): `dropout(LayerNorm(word + position + type))`.

use std::ops::Range;

use tamt_kernels::Write;
use tamt_kernels::ops::layer_norm::SavedStatistics;
use tamt_kernels::ops::{dropout, embedding};

use crate::activations::Activations;
use crate::batch::Batch;
use crate::config::Family;
use crate::grads::{Gradient, Grads, epilogue};
use crate::model::Model;
use crate::pass::{DropoutSite, Pass};
use crate::plan::LayerNorm;
use crate::workspace::Workspace;

impl Model {
    /// The embedding output `y` of some tokens, `[tokens, hidden]`. `buffer` holds the embedding sums if these are
    /// not saved.
    pub(crate) fn embed(
        &self,
        batch: &Batch,
        tokens: Range<usize>,
        pass: Pass<'_>,
        saved: &mut SavedStatistics<'_>,
        buffer: &mut Vec<f32>,
        y: &mut [f32],
    ) {
        let (e, p) = (&self.embeddings, &self.params);
        let SavedStatistics { sum, mean, rstd } = saved;
        let (sum, saved) = match sum {
            Some(sum) if !sum.is_empty() => (&mut **sum, Some(SavedStatistics { sum: None, mean, rstd })),
            _ => {
                buffer.resize(y.len(), 0.0);
                (buffer.as_mut_slice(), None)
            }
        };
        embedding::forward(
            p.weight(e.word, pass.masks),
            &batch.ids[tokens.clone()],
            &p.get(e.position),
            &batch.position_ids[tokens.clone()],
            &p.get(e.token_type),
            &batch.type_ids[tokens.clone()],
            sum,
        );
        LayerNorm::new(self, e.norm).forward(sum, None, None, y, saved);
        if let Some(d) = pass.dropout(DropoutSite::Embeddings, tokens.start * self.config.hidden_size) {
            dropout::apply(y, d);
        }
    }

    /// Gradients of the tables and the `LayerNorm` from the gradient of the embedding output in `workspace.flow`,
    /// which is overwritten.
    pub(crate) fn embed_backward(
        &self,
        batch: &Batch,
        pass: Pass<'_>,
        activations: &Activations,
        grads: &mut Grads,
        workspace: &mut Workspace,
    ) {
        let e = &self.embeddings;
        let hidden = self.config.hidden_size;
        let Workspace { kernels: scratch, flow, embedding_gradient: d_sum, .. } = workspace;
        if let Some(d) = pass.dropout(DropoutSite::Embeddings, 0) {
            dropout::apply(flow, d);
        }
        d_sum.resize(batch.tokens() * hidden, 0.0);
        let gradients = grads.pair(e.norm.weight, e.norm.bias);
        LayerNorm::new(self, e.norm).backward(flow, activations.embedding.all(), d_sum, gradients, scratch);
        // `transformers` builds the tables with `padding_idx`, whose row is never trained: both families for words,
        // RoBERTa for positions.
        let pad = Some(self.config.pad_token_id);
        let position_pad = if self.config.family == Family::Roberta { pad } else { None };
        for (id, rows, skip) in [
            (e.word, &batch.ids, pad),
            (e.position, &batch.position_ids, position_pad),
            (e.token_type, &batch.type_ids, None),
        ] {
            let Some((gradient, mode, kind)) = grads.gradient(id) else { continue };
            let masks = if id == e.word { pass.masks } else { None };
            let epilogue = epilogue(kind, id, &self.params, masks);
            match gradient {
                Gradient::Rows(gradient) => {
                    assert_eq!(mode, Write::Store, "one backward pass in a step");
                    gradient.backward(d_sum, rows, hidden, skip, epilogue, scratch);
                }
                Gradient::All(slot) => {
                    embedding::backward(d_sum, rows, hidden, skip, epilogue, slot, mode, scratch);
                }
                Gradient::Bf16(_) => unreachable!("only scores of layers are in bf16"),
            }
        }
    }
}
