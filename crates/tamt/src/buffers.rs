//! Buffers of forward passes.

use tamt_model::{Activations, Batch, Save, Workspace};

use crate::compute::Compute;

/// The batch, the hidden states and the scratch memory of forward passes. Passes of several models may share the buffers,
/// which grow to the size that the largest batch needs.
#[derive(Debug)]
pub struct PassBuffers {
    pub(crate) batch: Batch,
    pub(crate) activations: Activations,
    pub(crate) workspace: Workspace,
}

impl PassBuffers {
    /// Empty buffers of passes with this precision.
    pub fn new(compute: Compute) -> Self {
        let activations = Activations::new(Save::Last);
        Self { batch: Batch::default(), activations, workspace: compute.workspace() }
    }
}
