//! Finds sparse subnetworks ("tickets") of pre-trained BERT-family encoders, and fine-tunes them.
//!
//! A ticket is one bit for each weight of the word embeddings, the pooler and the layers' matrices: 1 keeps the
//! pre-trained weight, 0 drops it. Liu et al. 2022 ("Learning to Win Lottery Tickets in BERT Transfer via Task-agnostic
//! Mask Training") train these bits on the pre-training objective, so that a single ticket transfers to many tasks.
//!
//! # The way of a ticket
//!
//! 1. [`base::Base`] loads a model with its tokenizer, [`text::Texts`] a corpus. [`pretrain`] makes a model where there
//!    is none.
//! 2. [`find::find`] searches for a ticket by a [`find::Method`] and leaves a [`ticket::Ticket`] in a
//!    [`run::RunDir`].
//! 3. [`tune::tune`] fine-tunes the ticket's weights on a task; dropped weights stay exactly zero.
//! 4. [`evaluate`], [`encode`], [`inspect`], [`apply`] and [`mod@pack`] use a ticket: losses on held-out text, hidden
//!    states, sparsities, a checkpoint with zeros, a checkpoint without them.
//!
//! # The methods
//!
//! Each method has one file that begins with its formulas: [`mask_training`] (TAMT), [`imp`] (iterative magnitude
//! pruning), [`magnitude`] and [`random`].
//!
//! # The parts below
//!
//! * [`train`]: the training loop. A [`train::TrainingTask`] takes its steps, a [`train::Learner`] holds all that a
//!   step changes.
//! * [`objective`]: the losses of pre-training, masked language modelling and distillation. [`scores`]: the real
//!   numbers behind trained masks. [`prune`]: sparsity, scope, and the masks that drop the lowest-ranked weights.
//! * [`run`]: directories, logs, observers and stop signals of runs. [`metrics`]: the names of all reported quantities.
//! * [`bench`](mod@bench): the speed of single operations and whole steps. [`demo`]: an invented language and a
//!   model that learned the language.
//!
//! Forward and backward passes are in `tamt-model`, tokenizers, corpora and tasks in `tamt-data`, and arithmetic in
//! `tamt-kernels`. Settings, seed and text decide the bits of every result, for any number of threads, also of a run
//! that was stopped and resumed.
//!
//! # Example
//!
//! ```
//! use tamt::inspect::Rates;
//! use tamt::magnitude::magnitude;
//! use tamt::prune::{Scope, Sparsity, pruned_matrices};
//! use tamt::ticket::{BaseCheck, Provenance, Ticket};
//! use tamt_model::{Config, Model, Parts};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = Config::from_json(
//!     r#"{"model_type": "bert", "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2,
//!         "num_attention_heads": 2, "intermediate_size": 24, "max_position_embeddings": 32, "type_vocab_size": 2}"#,
//! )?;
//! let model = Model::random(config, Parts { pooler: true, mlm_head: true, task: None }, 7);
//!
//! // A ticket of the largest 30 % of the weights of each matrix.
//! let matrices = pruned_matrices(&model, None)?;
//! let masks = magnitude(&model, &matrices, Sparsity::new(0.7)?, Scope::Local);
//! let directory = tempfile::tempdir()?;
//! Ticket::new(&model, &masks, Provenance::default()).write(&directory.path().join("ticket.safetensors"))?;
//!
//! let ticket = Ticket::read(directory.path())?;
//! assert!((Rates::of(&ticket, Some(&model)).sparsity - 0.7).abs() < 0.01);
//! assert_eq!(ticket.masks(&model, BaseCheck::NamesAndShapes)?, masks);
//! # Ok(())
//! # }
//! ```

pub mod apply;
pub mod base;
pub mod bench;
pub mod buffers;
pub mod compute;
pub mod demo;
pub mod encode;
mod eval_conditions;
pub mod evaluate;
pub mod export;
pub mod find;
pub mod imp;
pub mod import;
pub mod inspect;
pub mod magnitude;
pub mod mask_training;
mod matrix_digest;
pub mod metrics;
pub mod mlm_head;
pub mod objective;
pub mod pack;
pub mod predict;
pub mod pretrain;
pub mod prune;
pub mod random;
pub mod run;
pub mod scores;
pub mod sentence;
mod shown_path;
mod tensor_file;
#[cfg(test)]
mod testing;
pub mod text;
pub mod ticket;
pub mod train;
pub mod tune;

mod error;

pub use compute::{Compute, Kernel};
pub use error::{Error, Result, SettingDifference};
pub use evaluate::EVAL_SEED;
