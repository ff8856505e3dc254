//! A demonstration of all methods: an invented language, a small BERT that learns the language, and tickets of every
//! method at several sparsities, compared by their losses on held-out text and by their scores on tasks.
//!
//! A demonstration calls the library's public functions and leaves the files of ordinary runs in its output directory:
//!
//! ```text
//! tokenizer/  train.txt  valid.txt      the language
//! model/                                the pre-trained model, in Hugging Face layout
//! tickets/tamt-mlm-0.7/ ...             a run for every method and sparsity
//! tickets/imp-0.9/sparsity-0.7/ ...     iterative pruning passes through the lower sparsities
//! tasks/CoLA/train.tsv ...              tasks in the language, in the file formats of the real tasks
//! tuned/cola/tamt-mlm-0.7-seed-1/ ...   a fine-tuning for every task, ticket and seed: scores and predictions
//! results.json  results.md  results.csv
//! ```

mod files;
mod findings;
mod markdown;
mod report;
mod run;
mod scores;
mod settings;
mod stages;
mod transfer;

pub use files::{MODEL_DIR, TASKS_DIR, TRAIN_FILE, TUNED_DIR, VALID_FILE, write_data};
pub use report::{DemoReport, Loss, TaskScore, TicketLosses, percent};
pub use run::run;
pub use scores::ScoreRow;
pub use settings::DemoSettings;
