//! `trainer_state.json`, the progress of a run.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::Result;
use crate::run::results::{read_json, write_json};

pub(super) const STATE_FILE: &str = "trainer_state.json";

/// The progress of a run, with the keys of `TrainerState` in Hugging Face `transformers`
/// (`src/transformers/trainer_callback.py`), so that tools for their file read this one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrainerState {
    /// The best value so far of the metric that compares checkpoints.
    pub best_metric: Option<f64>,
    /// The step with the best value.
    pub best_global_step: Option<u64>,
    /// The checkpoint of that step.
    pub best_model_checkpoint: Option<String>,
    /// Passes through the training data so far, in fractions.
    pub epoch: Option<f64>,
    /// Optimiser steps between two evaluations.
    pub eval_steps: u64,
    /// Optimiser steps completed.
    pub global_step: u64,
    /// Always false here: no hyper-parameter search is running.
    pub is_hyper_param_search: bool,
    /// Always true here: there is one process.
    pub is_local_process_zero: bool,
    /// Always true here: there is one process.
    pub is_world_process_zero: bool,
    /// The logged values, oldest first; every entry has `step` and `epoch` beside its values.
    pub log_history: Vec<Map<String, Value>>,
    /// Optimiser steps between two log entries.
    pub logging_steps: u64,
    /// Optimiser steps the run consists of.
    pub max_steps: u64,
    /// Tokens trained on so far.
    pub num_input_tokens_seen: u64,
    /// Epochs the run consists of, rounded up.
    pub num_train_epochs: u64,
    /// Optimiser steps between two checkpoints.
    pub save_steps: u64,
    /// State of callbacks; none here.
    pub stateful_callbacks: Map<String, Value>,
    /// Floating-point operations so far; not counted, hence zero.
    pub total_flos: f64,
    /// Sequences in a training batch.
    pub train_batch_size: Option<u64>,
    /// The name of a hyper-parameter trial; none here.
    pub trial_name: Option<String>,
    /// The parameters of a hyper-parameter trial; none here.
    pub trial_params: Option<Map<String, Value>>,
}

impl Default for TrainerState {
    fn default() -> Self {
        Self {
            best_metric: None,
            best_global_step: None,
            best_model_checkpoint: None,
            epoch: None,
            eval_steps: 0,
            global_step: 0,
            is_hyper_param_search: false,
            is_local_process_zero: true,
            is_world_process_zero: true,
            log_history: Vec::new(),
            logging_steps: 0,
            max_steps: 0,
            num_input_tokens_seen: 0,
            num_train_epochs: 0,
            save_steps: 0,
            stateful_callbacks: Map::new(),
            total_flos: 0.0,
            train_batch_size: None,
            trial_name: None,
            trial_params: None,
        }
    }
}

impl TrainerState {
    /// Adds an entry for the present step and epoch to the history. Values that are not finite become `null`.
    pub fn log(&mut self, values: &[(&str, f64)]) {
        let mut entry: Map<_, _> = values.iter().map(|&(name, value)| (name.to_owned(), Value::from(value))).collect();
        entry.insert("step".to_owned(), self.global_step.into());
        if let Some(epoch) = self.epoch {
            entry.insert("epoch".to_owned(), epoch.into());
        }
        self.log_history.push(entry);
    }

    /// Writes `trainer_state.json` into `directory`, a run or a checkpoint.
    ///
    /// # Errors
    /// [`Error::Model`](crate::Error::Model) if the file cannot be written.
    pub fn write(&self, directory: &Path) -> Result<()> {
        write_json(&directory.join(STATE_FILE), self)
    }

    /// Reads `trainer_state.json` from `directory`.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if the file cannot be read and [`Error::Damaged`](crate::Error::Damaged) if it
    /// holds something else.
    pub fn read(directory: &Path) -> Result<Self> {
        read_json(&directory.join(STATE_FILE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_survives_writing_and_reading() {
        let directory = tempfile::tempdir().unwrap();
        let mut state = TrainerState { global_step: 20, epoch: Some(0.5), max_steps: 40, ..TrainerState::default() };
        state.log(&[("loss", 0.1 + 0.2), ("grad_norm", f64::INFINITY)]);
        state.best_metric = Some(2.0 / 3.0);
        state.write(directory.path()).unwrap();
        assert_eq!(TrainerState::read(directory.path()).unwrap(), state);
        assert_eq!(state.log_history[0]["grad_norm"], Value::Null);
        assert_eq!(state.log_history[0]["step"], 20);
    }

    /// The keys that `TrainerState().save_to_json` of transformers writes.
    #[test]
    fn the_keys_are_those_of_transformers() {
        let keys = [
            "best_global_step",
            "best_metric",
            "best_model_checkpoint",
            "epoch",
            "eval_steps",
            "global_step",
            "is_hyper_param_search",
            "is_local_process_zero",
            "is_world_process_zero",
            "log_history",
            "logging_steps",
            "max_steps",
            "num_input_tokens_seen",
            "num_train_epochs",
            "save_steps",
            "stateful_callbacks",
            "total_flos",
            "train_batch_size",
            "trial_name",
            "trial_params",
        ];
        let written = serde_json::to_value(TrainerState::default()).unwrap();
        let mut written: Vec<_> = written.as_object().unwrap().keys().cloned().collect();
        written.sort();
        assert_eq!(written, keys);
    }
}
