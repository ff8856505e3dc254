//! The sizes of a demonstration's language and model, chosen for two cores and five minutes.

use serde::{Deserialize, Serialize};
use serde_json::json;
use tamt_model::Config;

use crate::compute::Compute;
use crate::error::Result;
use crate::pretrain::{PretrainSettings, Train};
use crate::train::DEFAULT_SEED;

/// All settings that decide the language, its tasks and the model of a demonstration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DemoSettings {
    /// The seed of the language, its texts, the initial weights and the pre-training.
    pub seed: u64,
    /// Tokens of the training text, at least.
    pub train_tokens: usize,
    /// Tokens of the held-out text, at least.
    pub valid_tokens: usize,
    /// Width of the model; its feed-forward networks are four times as wide.
    pub hidden_size: usize,
    /// Transformer layers.
    pub layers: usize,
    /// Attention heads; divides the width.
    pub heads: usize,
    /// Tokens in a sequence of pre-training, special tokens included.
    pub block_size: usize,
    /// Positions of the model: tokens in the longest sequence of a task.
    pub positions: usize,
    /// Sequences in a batch.
    pub batch_size: usize,
    /// Steps of pre-training.
    pub pretrain_steps: u64,
    /// The highest learning rate of pre-training.
    pub pretrain_learning_rate: f64,
    /// Training examples of a task; contexts, each with several questions, for span questions.
    pub task_train: usize,
    /// Development examples of a task.
    pub task_dev: usize,
    /// The kernel and the precision of matrix products.
    #[serde(flatten)]
    pub compute: Compute,
}

impl Default for DemoSettings {
    /// A BERT of four narrow layers. Many small batches teach it more than few large ones do in the same time: agreement
    /// and themes appear after about a thousand steps, whatever the batch.
    fn default() -> Self {
        Self {
            seed: DEFAULT_SEED,
            train_tokens: 1_000_000,
            valid_tokens: 16_000,
            hidden_size: 64,
            layers: 4,
            heads: 4,
            block_size: 32,
            positions: 64,
            batch_size: 16,
            pretrain_steps: 6000,
            pretrain_learning_rate: 3e-3,
            task_train: 2000,
            task_dev: 500,
            compute: Compute::default(),
        }
    }
}

impl DemoSettings {
    /// The configuration of the model for a vocabulary. Its dropout is 0, since no text repeats often enough to
    /// overfit.
    ///
    /// # Errors
    /// If the sizes do not fit together.
    pub fn config(&self, vocab_size: u32) -> Result<Config> {
        let config = json!({
            "architectures": ["BertForMaskedLM"],
            "model_type": "bert",
            "vocab_size": vocab_size,
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "intermediate_size": 4 * self.hidden_size,
            "max_position_embeddings": self.positions,
            "type_vocab_size": 2,
            // The usual 0.02 suits a width of 768; a narrow model learns more slowly from it.
            "initializer_range": 0.08,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        });
        Ok(Config::from_json(&config.to_string())?)
    }

    /// The settings of the pre-training.
    pub fn pretraining(&self) -> PretrainSettings {
        let mut settings = PretrainSettings::new(Train::All, self.pretrain_steps);
        settings.compute = self.compute;
        settings.seed = self.seed;
        settings.batch_size = self.batch_size;
        settings.block_size = self.block_size;
        settings.train.optimizer.learning_rate = self.pretrain_learning_rate;
        // A demonstration that is killed loses seconds.
        settings.train.save_every = 500;
        settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_makes_an_encoder() {
        let settings = DemoSettings::default();
        let config = settings.config(1002).unwrap();
        assert_eq!(config.max_length(), settings.positions);
    }
}
