//! Fine-tuning a ticket (or the dense model) on a task, and measuring the tuned model as the benchmarks do.
//!
//! Pruned weights stay exactly zero; all other parameters train: surviving weights, biases, layer norms, embeddings,
//! the head (Liu et al. 2022, section 4.2). A run has one seed; [`summary`] combines the results of several seeds.

mod answers;
mod best;
mod chance;
mod inputs;
mod labels;
mod loss;
mod model;
mod own_task;
mod predictor;
mod result;
mod run;
mod settings;
mod task_record;
mod teacher;
mod training;

pub use answers::Answers;
pub(crate) use inputs::Targets;
pub use inputs::{Inputs, TaskData};
pub use labels::LabelOrder;
pub(crate) use loss::TaskLoss;
pub use model::{TaskModel, head_kind};
pub use own_task::OwnTask;
pub(crate) use predictor::{Decisions, Predictor, head_outputs};
pub use result::{BEST_PREFIX, Tuned, is_measured, summary};
pub use run::{TEST_PREDICTIONS_DIR, tune};
pub use settings::{DistillSettings, InputSettings, KeptModel, SpanSettings, TrainingLength, TuneSettings};
pub use teacher::check_teacher;
