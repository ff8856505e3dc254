//! BERT-family encoders: configuration and checkpoints in Hugging Face layout, packed batches, forward and backward.
//!
//! A [`Model`] is a [`Config`], its tensors ([`Params`]) and the role of each tensor. A [`Batch`] holds sequences of
//! token ids end to end, without padding. [`Model::forward`] runs the encoder under a [`Pass`] (masks, prepared
//! matrices, dropout) and leaves hidden states in [`Activations`]; [`Model::backward`] turns gradients of hidden
//! states ([`HiddenGrads`]) into gradients of weights or of mask scores ([`Grads`]). Heads are [`Model::mlm_loss`],
//! [`Model::task_forward`] and [`Model::task_backward`]. All scratch memory is in a [`Workspace`].
//!
//! # Example
//!
//! A tiny random encoder, dense and under a mask:
//!
//! ```
//! use tamt_kernels::masks::BitMask;
//! use tamt_model::{Activations, Batch, Config, Masks, Model, Parts, Pass, Save, Workspace};
//!
//! let config = Config::from_json(
//!     r#"{"model_type": "bert", "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
//!         "intermediate_size": 32, "max_position_embeddings": 8, "type_vocab_size": 2}"#,
//! )?;
//! let model = Model::random(config, Parts::default(), 1);
//!
//! let mut batch = Batch::default();
//! batch.push(&[2, 17, 33, 3]);
//! batch.push(&[2, 8, 3]);
//! batch.locate(&model.config);
//!
//! let (mut activations, mut workspace) = (Activations::new(Save::Hidden), Workspace::default());
//! model.forward(&batch, Pass::default(), &mut activations, &mut workspace);
//! assert_eq!(activations.hidden_count(), 3); // the embeddings and two layers
//! let dense = activations.last_hidden().to_vec(); // [T, hidden]
//! assert_eq!(dense.len(), 7 * 16);
//!
//! // A mask that drops the whole query matrix of the first layer.
//! let mut masks = Masks::default();
//! masks.set(model.layers[0].query.weight, BitMask::zeros(16, 16));
//! model.forward(&batch, Pass::new(Some(&masks), None), &mut activations, &mut workspace);
//! assert_ne!(activations.last_hidden(), dense);
//! # Ok::<(), tamt_model::Error>(())
//! ```
//!
//! # Modules
//!
//! From the top; each module imports only from modules below it.
//!
//! * `encoder`: forward and backward through `embeddings` and layers. `mlm_head`, `task_head`, `head_linear`: heads.
//! * `layer`: one transformer layer; `attention`, `ffn`, `norm` and `linear` have a forward pass and a backward pass
//!   each.
//! * `workspace`: scratch memory. `weight_gradients`: `dW = dyᵀ x` of a layer, from the `packed_factor`s of all
//!   groups.
//! * `activations`, `saved_layer`, `saved_norm`: what a forward pass saves, and where objectives add gradients.
//! * `plan`: the kernel, layout and precision of each matrix of a layer, resolved once per pass.
//! * `pass`, `prepared`, `grads`: how a pass runs, matrices in kernel layout, gradients of trainable tensors.
//! * [`model`], `model_init`, `model_files`: the structure of a model, its initial values, reading and writing.
//! * `params`, `batch`: tensors and masks by id, packed batches.
//! * `rewrite`: the copy of a checkpoint with the zeros of masks. `pack`: without them. [`torch_export`]: masks and pruned checkpoints for
//!   `PyTorch`.
//! * [`config`], [`checkpoint`], [`hub`], [`sentence`], [`mod@write`], [`digest`], `text`: files in Hugging Face layout.

mod activations;
mod batch;
pub mod checkpoint;
pub mod config;
pub mod digest;
mod embeddings;
mod encoder;
mod error;
mod grads;
mod head_linear;
pub mod hub;
mod layer;
mod mlm_head;
pub mod model;
mod model_files;
mod model_init;
mod pack;
mod packed_factor;
mod params;
mod pass;
mod plan;
mod prepared;
mod rewrite;
mod saved_layer;
mod saved_norm;
pub mod sentence;
mod task_head;
mod text;
pub mod torch_export;
mod weight_gradients;
mod workspace;
pub mod write;

pub use activations::{Activations, HiddenGrads};
pub use batch::Batch;
pub use checkpoint::tensor_file::TensorFile;
pub use checkpoint::{Checkpoint, PACKED_FILE};
pub use config::{Config, Family};
pub use error::{Error, Result};
pub use grads::{GradKind, Gradient, Grads, Trainable};
pub use mlm_head::MlmGrads;
pub use model::{Model, Parts, TaskHead, TaskKind};
pub use model_files::{HeadStart, Storage};
pub use pack::{PackedSizes, pack};
pub use params::{Masks, ParamId, Params, Spec};
pub use pass::{DropoutPlan, Pass};
pub use prepared::{KernelChoice, PreparedWeights};
pub use rewrite::{Dtype, Rewritten, rewrite};
pub use saved_layer::Save;
pub use workspace::Workspace;
