//! The embedding layer: `dropout(LayerNorm(word + position + type))`.

use std::ops::Range;

use tamt_kernels::Write;
use tamt_kernels::ops::{dropout, embedding, layer_norm};

use crate::activations::{Activations, NormView, Workspace};
use crate::batch::Batch;
use crate::config::Family;
use crate::encoder::{Pass, Site};
use crate::grads::{Gradient, Grads, epilogue};
use crate::model::Model;

impl Model {
    /// The embedding output of some tokens, `[tokens, hidden]`; `buffer` is for their sums, where these are not kept.
    pub(crate) fn embed(
        &self,
        batch: &Batch,
        tokens: Range<usize>,
        pass: Pass<'_>,
        kept: NormView<'_>,
        buffer: &mut Vec<f32>,
        out: &mut [f32],
    ) {
        let (e, p) = (&self.embeddings, &self.params);
        let NormView { sum, mean, rstd } = kept;
        let (sum, kept) = if sum.is_empty() {
            buffer.resize(out.len(), 0.0);
            (buffer.as_mut_slice(), None)
        } else {
            (sum, Some(layer_norm::Kept { sum: None, mean, rstd }))
        };
        embedding::forward(
            p.weight(e.word, pass.masks),
            &batch.ids[tokens.clone()],
            p.get(e.position),
            &batch.position_ids[tokens.clone()],
            p.get(e.token_type),
            &batch.type_ids[tokens.clone()],
            sum,
        );
        let (gamma, beta) = (p.get(e.norm.weight), p.get(e.norm.bias));
        layer_norm::forward(sum, None, None, gamma, beta, self.config.layer_norm_eps, out, kept);
        if let Some(d) = pass.dropout_from(Site::Embeddings, tokens.start * self.config.hidden_size) {
            dropout::apply(out, d);
        }
    }

    /// Takes the gradient of the embedding output from `workspace.flow`.
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
        if let Some(d) = pass.dropout_at(Site::Embeddings) {
            dropout::apply(&mut workspace.flow, d);
        }
        let [sum_grad, ..] = &mut workspace.hidden;
        sum_grad.resize(batch.tokens() * hidden, 0.0);
        self.norm_backward(e.norm, &workspace.flow, &activations.embedding, sum_grad, grads, &mut workspace.kernels);
        // `transformers` builds the tables with `padding_idx`, whose row never learns: both families for words,
        // RoBERTa for positions.
        let pad = Some(self.config.pad_token_id);
        let position_pad = if self.config.family == Family::Roberta { pad } else { None };
        for (id, rows, skip) in [
            (e.word, &batch.ids, pad),
            (e.position, &batch.position_ids, position_pad),
            (e.token_type, &batch.type_ids, None),
        ] {
            if let Some((gradient, mode, kind)) = grads.gradient(id) {
                let masks = if id == e.word { pass.masks } else { None };
                let (epilogue, scratch) = (epilogue(kind, id, &self.params, masks), &mut workspace.kernels);
                match gradient {
                    Gradient::Rows(gradient) => {
                        assert_eq!(mode, Write::Store, "one backward pass in a step");
                        gradient.backward(sum_grad, rows, hidden, skip, epilogue, scratch);
                    }
                    Gradient::All(slot) => {
                        embedding::backward(sum_grad, rows, hidden, skip, epilogue, slot, mode, scratch);
                    }
                    Gradient::Bf16(_) => unreachable!("no matrix of a layer"),
                }
            }
        }
    }
}
