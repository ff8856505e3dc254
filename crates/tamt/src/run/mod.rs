//! Everything about a training run that is not training: its directory, its logs, who watches it and who stops it.
//!
//! A run directory holds `config.toml` (all resolved settings), the result, `trainer_state.json` and
//! `eval_results.json` with the Hugging Face keys, `log.jsonl`, `TensorBoard`'s event files and `checkpoint-<step>/`.
//! Every file but the two growing logs appears by atomic rename, so a reader never sees half of one.

mod directory;
mod log;
mod observer;
mod settings;
mod stop;
mod tensorboard;
mod trainer_state;

pub use directory::{RunDir, TICKET_FILE, TRAINING_STATE_FILE};
pub use log::Log;
pub use observer::{Observer, Silent, StepReport};
pub use stop::Stop;
pub use tensorboard::EventWriter;
pub use trainer_state::{TrainerState, read_eval_results, write_eval_results};
