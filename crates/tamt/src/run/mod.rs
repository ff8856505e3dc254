//! Everything about a training run that is not training: its directory, its logs, its observer and its stop request.
//!
//! A run directory holds `config.toml` (all resolved settings), the result, `trainer_state.json` and
//! `eval_results.json` with the Hugging Face keys, `log.jsonl`, `TensorBoard`'s event files and `checkpoint-<step>/`.
//! Every file but the two growing logs appears by atomic rename, so a reader never sees half of one.
//!
//! [`RunDir::create`] starts or resumes a run with any serializable settings:
//!
//! ```
//! use tamt::find::{FindSettings, Method};
//! use tamt::prune::Sparsity;
//! use tamt::run::RunDir;
//!
//! let directory = tempfile::tempdir()?;
//! let settings = FindSettings::new(Method::Magnitude, Sparsity::new(0.7)?, 0);
//! let run = RunDir::create(&directory.path().join("run"), &settings, false)?;
//! assert!(!run.resumed() && !run.finished());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod checkpoints;
mod directory;
mod extension;
mod files;
mod growing;
mod log;
mod new_run;
mod observer;
mod results;
mod settings;
mod stop;
mod tensorboard;
mod trainer_state;

pub use directory::RunDir;
pub use files::TRAINING_STATE_FILE;
pub(crate) use files::create_folder;
pub(crate) use log::EVAL_PREFIX;
pub use log::Log;
pub use new_run::NewRun;
pub use observer::{Observer, Silent, StepReport};
pub(crate) use results::number;
pub use results::{read_eval_results, write_eval_results};
pub use settings::{SETTINGS_FILE, VerbSettings};
pub use stop::{Hold, Stop};
pub use tensorboard::EventWriter;
pub use trainer_state::TrainerState;
