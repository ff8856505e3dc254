//! The inputs of a demonstration: an invented language, and a small BERT that learns the language.
//!
//! ```text
//! tokenizer/  train.txt  valid.txt      the language
//! tasks/CoLA/train.tsv ...              tasks in the language, in the file formats of the real tasks
//! model/                                the pre-trained model, in Hugging Face layout
//! ```
//!
//! What the demonstration compares on them is a plan of a study, which belongs to the command.

mod base;
mod files;
mod settings;

pub use base::{PretrainedBase, pretrain_base};
pub use files::{MODEL_DIR, TASKS_DIR, TOKENIZER_DIR, TRAIN_FILE, VALID_FILE, write_data};
pub use settings::DemoSettings;
