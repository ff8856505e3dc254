//! The sparsity of a ticket, matrix by matrix and overall, and the similarity of two tickets.

use serde::Serialize;
use tamt_kernels::masks::BitMask;
use tamt_model::Model;

use crate::error::{Error, Result};
use crate::ticket::Ticket;

/// One matrix of a ticket.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MatrixRate {
    /// The canonical name.
    pub name: String,
    /// Output features, or vocabulary.
    pub rows: usize,
    /// Input features, or embedding width.
    pub cols: usize,
    /// Kept weights.
    pub kept: usize,
    /// Share of dropped weights.
    pub sparsity: f64,
    /// Jaccard similarity with the other ticket's kept weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jaccard: Option<f64>,
}

/// Rates of a ticket.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rates {
    /// Each matrix.
    pub matrices: Vec<MatrixRate>,
    /// Share of dropped weights among all prunable weights: encoder, pooler, word embeddings.
    pub sparsity: f64,
    /// Share of dropped weights in the transformer layers.
    pub encoder_sparsity: f64,
    /// Unweighted mean of the matrices' Jaccard similarities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jaccard: Option<f64>,
}

impl Rates {
    /// Rates of a ticket. With its model, the prunable matrices without a mask count as well.
    pub fn of(ticket: &Ticket, model: Option<&Model>) -> Self {
        let mut matrices: Vec<MatrixRate> = ticket.matrices.iter().map(|(name, mask)| rate(name, mask)).collect();
        if let Some(model) = model {
            // The pooler of a model with a task head may be new. It counts where the ticket's base has it.
            let is_new = model.task_head.is_some() && ticket.provenance.pooler_sha256.is_none();
            let new_pooler = model.pooler.filter(|_| is_new).map(|pooler| pooler.weight);
            for id in model.prunable().into_iter().filter(|&id| Some(id) != new_pooler) {
                let name = &model.params.spec(id).name;
                if !matrices.iter().any(|m| m.name == *name) {
                    let [rows, cols] = model.params.matrix_shape(id);
                    let name = name.clone();
                    matrices.push(MatrixRate { name, rows, cols, kept: rows * cols, sparsity: 0.0, jaccard: None });
                }
            }
        }
        let overall = |chosen: &dyn Fn(&MatrixRate) -> bool| {
            let (n, kept) =
                matrices.iter().filter(|m| chosen(m)).fold((0, 0), |(n, kept), m| (n + m.rows * m.cols, kept + m.kept));
            share_dropped(n, kept)
        };
        let sparsity = overall(&|_| true);
        let encoder_sparsity = overall(&|m| m.name.contains("encoder.layer."));
        Self { matrices, sparsity, encoder_sparsity, jaccard: None }
    }

    /// Adds the Jaccard similarity with another ticket: `|A and B| / |A or B|` of the sets of kept weights, 1 for two
    /// empty sets.
    ///
    /// # Errors
    /// [`Error::TicketMismatch`] if the tickets do not mask the same matrices.
    pub fn against(mut self, ticket: &Ticket, other: &Ticket) -> Result<Self> {
        let mismatch = |name: &str, reason: String| Err(Error::TicketMismatch { name: name.to_owned(), reason });
        for (name, _) in &other.matrices {
            if !ticket.matrices.iter().any(|(ours, _)| ours == name) {
                return mismatch(name, "only the other ticket masks it".to_owned());
            }
        }
        let mut sum = 0.0;
        for (name, mask) in &ticket.matrices {
            let Some((_, theirs)) = other.matrices.iter().find(|(theirs, _)| theirs == name) else {
                return mismatch(name, "the other ticket does not mask it".to_owned());
            };
            if (mask.rows(), mask.cols()) != (theirs.rows(), theirs.cols()) {
                let (a, b) = ((mask.rows(), mask.cols()), (theirs.rows(), theirs.cols()));
                return mismatch(name, format!("it is {} x {} here and {} x {} there", a.0, a.1, b.0, b.1));
            }
            let union = mask.union_count(theirs);
            let jaccard = if union == 0 { 1.0 } else { mask.intersection_count(theirs) as f64 / union as f64 };
            sum += jaccard;
            if let Some(matrix) = self.matrices.iter_mut().find(|m| m.name == *name) {
                matrix.jaccard = Some(jaccard);
            }
        }
        self.jaccard = Some(sum / ticket.matrices.len() as f64);
        Ok(self)
    }
}

fn rate(name: &str, mask: &BitMask) -> MatrixRate {
    let (n, kept) = (mask.len(), mask.count_ones());
    let sparsity = share_dropped(n, kept);
    MatrixRate { name: name.to_owned(), rows: mask.rows(), cols: mask.cols(), kept, sparsity, jaccard: None }
}

fn share_dropped(n: usize, kept: usize) -> f64 {
    if n == 0 { 0.0 } else { (n - kept) as f64 / n as f64 }
}
