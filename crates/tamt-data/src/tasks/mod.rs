//! Downstream tasks: their files, columns, labels and metrics.
//!
//! A [`Task`] is a declaration. [`Task::by_name`] finds those of GLUE and `SQuAD`; [`Task::from_file`] reads a user's own
//! from a TOML file. All code works on the declaration, so a new task needs no code.
//!
//! [`read()`] turns the files of a split into [`Example`]s, for each of four table formats. [`encode`] turns examples into
//! tokens. [`Task::score`] computes metrics of predictions, and [`submission()`] writes predictions in the format of the
//! GLUE server. [`squad`](crate::squad) reads span questions. [`Records`] streams texts without labels.

mod benchmarks;
mod csv;
mod example;
mod features;
mod input_layout;
mod jsonl;
mod label;
mod layout;
mod locate;
mod parquet;
mod read;
mod records;
mod source;
mod submission;
mod table;
mod table_blocks;
mod task;
mod task_file;
mod tsv;

pub use crate::head::{Head, Label};
pub use example::{Example, Examples, Skipped};
pub use features::{Feature, encode, encode_one, subset};
pub use input_layout::{IdColumn, InputLayout, TextColumns};
pub use locate::files_of;
pub(crate) use locate::{Located, locate};
pub use read::{read, read_noted};
pub use records::{Record, Records};
pub use source::{Column, Columns, Format, Layout, Source, Split};
pub use submission::submission;
pub use task::{Defaults, Task};
