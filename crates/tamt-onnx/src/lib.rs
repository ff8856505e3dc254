//! ONNX files of encoders, dense and under masks, for ONNX Runtime, `OpenVINO` and other engines.
//!
//! [`write`](fn@write) makes the graph of a [`Model`] and streams it into a file. Matrices are stored transposed, as the
//! product `x Wᵀ` reads them, with zeros where the masks drop weights.
//!
//! `proto` has the messages of the format, `graph` builds nodes, `weights` makes the bytes of tensors, `encoder` and
//! `outputs` have the graph, and `file` writes.

mod encoder;
mod file;
mod graph;
mod outputs;
mod proto;
mod weights;

use std::path::Path;

use tamt_model::{Masks, Model, Result};

use crate::encoder::Builder;
use crate::file::{LARGEST_MESSAGE, write_model};

pub use crate::encoder::Weights;
pub use crate::outputs::{Outputs, Pooling};

/// Writes a model under masks to the file `path`, by atomic rename.
///
/// Inputs are `input_ids` and `attention_mask`, `[batch, sequence]`, and `token_type_ids` where the model has more than one
/// type of tokens. Batch and sequence are dynamic; a sequence has at most as many tokens as the model has positions. A
/// model above 2 GB has its tensors in a second file beside `path`, with the ending `.data`.
///
/// # Errors
/// [`Error::Write`](tamt_model::Error::Write).
///
/// # Panics
/// For [`Outputs::Task`], if the model has no task head.
pub fn write(path: &Path, model: &Model, masks: &Masks, outputs: Outputs, weights: Weights) -> Result<()> {
    let mut builder = Builder::new(model, masks, weights);
    let (states, mask) = builder.encoder();
    builder.outputs(outputs, &states, &mask);
    let (graph, initializers) = builder.graph.into_parts();
    write_model(path, &graph, &initializers, LARGEST_MESSAGE)
}
