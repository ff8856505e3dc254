//! BERT-family encoders: configuration and checkpoints in Hugging Face layout, packed batches, forward and backward.

mod activations;
mod batch;
pub mod checkpoint;
pub mod config;
pub mod digest;
mod embeddings;
mod encoder;
mod error;
mod factors;
mod grads;
mod groups;
pub mod hub;
mod kept;
mod layer;
mod linear_maps;
mod mlm_head;
pub mod model;
mod params;
mod prepared;
mod task_head;
mod task_model;
pub mod write;

pub use activations::{Activations, HiddenGrads, Keep, Workspace};
pub use batch::Batch;

pub use checkpoint::Checkpoint;
pub use config::{Config, Family};
pub use encoder::{DropoutPlan, Pass};
pub use error::{Error, Result};
pub use grads::{GradKind, Gradient, Grads, Trainable};
pub use mlm_head::MlmGrads;
pub use model::{Model, Parts};
pub use params::{Masks, ParamId, Params, Spec};
pub use prepared::{KernelChoice, PreparedWeights};
pub use task_head::{TaskHead, TaskKind};
pub use task_model::HeadStart;
