//! Operations of an encoder beside its linear layers, each with forward and backward side by side.

pub mod activation;
pub mod attention;
pub mod cross_entropy;
pub mod distance;
pub mod dropout;
pub mod embedding;
pub mod layer_norm;
pub mod optim;
pub mod reduce;
pub mod relation;
pub mod task_loss;
