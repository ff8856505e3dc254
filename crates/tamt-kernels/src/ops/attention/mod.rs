//! Scaled dot-product attention over packed sequences (`BertSelfAttention` of transformers,
//! `torch.nn.functional.scaled_dot_product_attention`).
//!
//! ```text
//! S   = q kᵀ / sqrt(head_dim)      one matrix [queries, keys] per sequence and head
//! P   = softmax(S) ∘ m             m: dropout factors, 0 or 1 / (1 - p)
//! ctx = P v
//! ```
//!
//! The tokens of all sequences of a batch lie end to end ([`AttentionShape`]): the batch has no padding, and the scores
//! need no mask. One job computes some heads of one sequence, a block of queries at a time. `P` never leaves the
//! buffers of a job: [`backward()`] computes `P` again from the log-sum-exp of each query, which [`forward()`] saves.
//!
//! [`score_mse()`] compares the scores `S` of a student with those of a teacher.

pub(crate) mod backward;
pub(crate) mod forward;
pub(crate) mod head_group;
pub(crate) mod score_mse;
pub(crate) mod shape;
pub(crate) mod softmax;

pub use backward::{QkvGradients, backward};
pub use forward::forward;
pub use score_mse::score_mse;
pub use shape::{AttentionShape, Qkv};

#[cfg(test)]
mod tests;
