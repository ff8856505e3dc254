//! A study: many runs of `find`, `eval` and `tune` from one declarative plan, in a store that workers share.
//!
//! 1. [`plan`] reads a plan, a TOML file, and remembers the line of each value.
//! 2. [`expand`](mod@expand) turns the plan's grids into [`run::Run`]s: command lines with labels, in the order of the
//!    work. A run is known by its [`identity`]: a digest of its resolved settings and of the content of its inputs.
//! 3. [`store`] keeps a directory for each run, with `study-run.json` as the last file of a finished run, and judges
//!    whether a run is done, failed, damaged or to be done.
//! 4. [`lease`] and [`worker`] let processes on one machine or on many share the runs. [`queue`] chooses the next one.
//!
//! This crate knows no model and computes nothing: the meaning of flags and the execution of runs belong to the program,
//! which implements [`commands::Commands`].

pub mod commands;
mod error;
pub mod expand;
pub mod files;
pub mod identity;
pub mod labels;
pub mod lease;
pub mod plan;
pub mod problems;
pub mod queue;
pub mod record;
pub mod run;
pub mod store;
pub mod study;
pub mod worker;

pub use error::{Error, Result};
