//! Scaled dot-product attention over packed sequences.
//!
//! A batch is packed: the tokens of all sequences lie end to end, so there is no padding and no attention mask. A job has
//! some heads of one sequence and goes through its queries in blocks; probabilities live in a thread's scratch only, and
//! the backward pass computes them again from the log-sum-exp of each query.

pub(crate) mod backward;
pub(crate) mod forward;
pub(crate) mod score_mse;
pub(crate) mod shape;
pub(crate) mod softmax;

pub use backward::backward;
pub use forward::forward;
pub use score_mse::score_mse;
pub use shape::AttentionShape;

#[cfg(test)]
mod tests;
