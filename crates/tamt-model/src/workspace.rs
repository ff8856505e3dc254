//! Workspaces: scratch memory that passes reuse. Only the task head's buffers carry values from a forward pass to its
//! backward pass. Buffers grow on first use.

use std::sync::Mutex;

use half::bf16;
use tamt_kernels::linear::PackedInput;
use tamt_kernels::sparse::TokenPanels;
use tamt_kernels::{Precision, Scratch, inside_parallel_job};

use crate::plan::WeightBuffers;
use crate::saved_norm::SavedNorm;
use crate::weight_gradients::LayerFactors;

/// Scratch memory of forward and backward passes, reused from step to step.
#[derive(Debug, Default)]
pub struct Workspace {
    pub(crate) kernels: Scratch,
    /// The gradient that flows from layer to layer, `[T, hidden]`.
    pub(crate) flow: Vec<f32>,
    /// The gradient of the embedding sum, `[T, hidden]`.
    pub(crate) embedding_gradient: Vec<f32>,
    /// Each group's share of the gradients of γ and β of a layer's two norms, `[groups, 4, hidden]`.
    pub(crate) norm_gradients: Vec<f32>,
    /// Packed factors of the weight gradients of a layer.
    pub(crate) factors: LayerFactors,
    /// Packed matrices of a layer.
    pub(crate) weights: WeightBuffers,
    pub(crate) jobs: JobWorkspaces,
    pub(crate) mlm_head: MlmHeadBuffers,
    pub(crate) task_head: TaskHeadBuffers,
}

impl Workspace {
    /// A workspace of passes with dense products in this precision; [`Workspace::default`] is for f32.
    pub fn new(precision: Precision) -> Self {
        Self { kernels: Scratch::new(precision), ..Self::default() }
    }
}

/// Pool of idle workspaces of jobs.
#[derive(Debug, Default)]
pub(crate) struct JobWorkspaces(Mutex<Vec<JobWorkspace>>);

impl JobWorkspaces {
    /// Runs one of `jobs` jobs in a workspace of the pool.
    pub(crate) fn run(&self, precision: Precision, jobs: usize, job: impl FnOnce(&mut JobWorkspace)) {
        let idle = self.0.lock().expect("no job panicked").pop();
        let mut workspace = idle.unwrap_or_else(|| JobWorkspace::new(precision));
        if jobs >= rayon::current_num_threads() {
            inside_parallel_job(|| job(&mut workspace));
        } else {
            job(&mut workspace);
        }
        self.0.lock().expect("no job panicked").push(workspace);
    }
}

/// Scratch memory of a job, which takes one group of `T` tokens through a layer.
#[derive(Debug, Default)]
pub(crate) struct JobWorkspace {
    pub(crate) layer: LayerBuffers,
    /// The gradient between the sub-layers, `[T, hidden]`.
    pub(crate) residual: Vec<f32>,
    /// Saved Q, K and V, widened to f32, `[T, hidden]` each.
    pub(crate) projections: [Vec<f32>; 3],
}

impl JobWorkspace {
    fn new(precision: Precision) -> Self {
        let linear = LinearBuffers { kernels: Scratch::new(precision), ..LinearBuffers::default() };
        Self { layer: LayerBuffers { linear, ..LayerBuffers::default() }, ..Self::default() }
    }
}

/// Scratch memory of a transformer layer.
#[derive(Debug, Default)]
pub(crate) struct LayerBuffers {
    pub(crate) linear: LinearBuffers,
    /// `[T, hidden]` each. Forward: Q (then the attention output), K, V, the context, the output of a linear layer.
    /// Backward: the gradients of Q, K and V, and of the outputs of attention and FFN.
    pub(crate) hidden: [Vec<f32>; 5],
    /// Q, K and V in bf16, `[T, hidden]` each.
    pub(crate) rounded: [Vec<bf16>; 3],
    pub(crate) ffn: FfnBuffers,
}

/// Scratch memory of linear layers.
#[derive(Debug, Default)]
pub(crate) struct LinearBuffers {
    pub(crate) kernels: Scratch,
    /// `x` of a sparse product.
    pub(crate) input: TokenPanels,
    /// `dy` of a sparse product.
    pub(crate) gradient: TokenPanels,
}

/// Scratch memory of an FFN, by layout: `u`, the input of the activation function, or its gradient, and `a = f(u)`,
/// `[T, intermediate]` each.
#[derive(Debug, Default)]
pub(crate) struct FfnBuffers {
    /// `u` or `du` in rows.
    pub(crate) rows: Vec<f32>,
    /// `a` in rows.
    pub(crate) activated: Vec<f32>,
    /// `a` (forward) or `du` (backward), packed for the next product.
    pub(crate) packed: PackedInput,
    /// `u` or `du`, and `a`, in panels.
    pub(crate) panels: [TokenPanels; 2],
}

/// Scratch memory of the MLM head over `M` masked positions.
#[derive(Debug, Default)]
pub(crate) struct MlmHeadBuffers {
    /// Hidden states at the masked positions, `[M, hidden]`.
    pub(crate) gathered: Vec<f32>,
    pub(crate) dense: Vec<f32>,
    pub(crate) norm: SavedNorm,
    pub(crate) transformed: Vec<f32>,
    /// `[chunk of M, vocabulary]`
    pub(crate) logits: Vec<f32>,
    pub(crate) d_transformed: Vec<f32>,
    pub(crate) d_dense: Vec<f32>,
}

/// Scratch memory of a sequence head, `[sequences, hidden]` each. The backward pass reads the forward pass's content.
#[derive(Debug, Default)]
pub(crate) struct TaskHeadBuffers {
    /// The first token of each sequence.
    pub(crate) first: Vec<u32>,
    pub(crate) input: Vec<f32>,
    pub(crate) dense: Vec<f32>,
    pub(crate) activated: Vec<f32>,
    pub(crate) d_activated: Vec<f32>,
    pub(crate) d_input: Vec<f32>,
}
