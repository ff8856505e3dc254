//! Finds sparse subnetworks ("tickets") of pre-trained BERT-family encoders that transfer as well as the whole.

pub mod apply;
pub mod base;
pub mod bench;
pub mod compute;
pub mod demo;
pub mod encode;
pub mod evaluate;
pub mod find;
pub mod inspect;
pub mod mlm_head;
pub mod objective;
pub mod pretrain;
pub mod prune;
pub mod run;
pub mod scores;
mod tensor_file;
#[cfg(test)]
mod testing;
pub mod ticket;
pub mod train;
pub mod tune;

mod error;

pub use compute::{Compute, Kernel};
pub use error::{Error, Result, SettingDifference};

/// Decides which positions an evaluation masks: the same ones for every model, method and seed.
pub const EVAL_SEED: u64 = 42;
