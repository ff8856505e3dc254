//! What a demonstration consists of: sizes, steps and learning rates, chosen for two cores and five minutes.

use serde::{Deserialize, Serialize};
use serde_json::json;
use tamt_data::tasks::Task;
use tamt_model::Config;

use crate::find::{FindSettings, Method, imp_rounds};
use crate::pretrain::{PretrainSettings, Train};
use crate::prune::Sparsity;
use crate::tune::{Duration, Keep, TuneSettings};
use crate::{Compute, Error, Result};

/// Everything that decides the result of a demonstration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DemoSettings {
    /// Decides the language, its texts, the start weights and every run.
    pub seed: u64,
    /// Tokens of the text that is trained on, at least.
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
    /// Its learning rate at its highest.
    pub pretrain_learning_rate: f64,
    /// Steps of a mask training.
    pub mask_steps: u64,
    /// The learning rate that mask training on MLM, alone or with distillation, starts with.
    pub mlm_learning_rate: f64,
    /// The one that mask training on distillation alone starts with: its gradients are steadier.
    pub kd_learning_rate: f64,
    /// Steps between two prunings of iterative pruning.
    pub imp_steps_per_round: u64,
    /// The learning rate that each of its rounds starts with.
    pub imp_learning_rate: f64,
    /// The methods to compare.
    pub methods: Vec<Method>,
    /// The sparsities to compare them at.
    pub sparsities: Vec<Sparsity>,
    /// Those of them whose tickets are fine-tuned on tasks; none for no tasks.
    pub task_sparsities: Vec<Sparsity>,
    /// Those of the methods whose tickets are.
    pub task_methods: Vec<Method>,
    /// Examples of a task to train on; passages, of some questions each, for span questions.
    pub task_train: usize,
    /// Examples of a task to measure by.
    pub task_dev: usize,
    /// Times through the training set; once, for span questions.
    pub task_epochs: f64,
    /// The learning rate that fine-tuning starts with.
    pub task_learning_rate: f64,
    /// Seeds of fine-tuning, a run each.
    pub task_seeds: Vec<u64>,
    /// How products are computed.
    #[serde(flatten)]
    pub compute: Compute,
}

/// The tasks of a demonstration.
pub(super) const TASKS: [&str; 6] = ["cola", "sst2", "mrpc", "stsb", "rte", "squad"];

impl Default for DemoSettings {
    /// All methods at 60, 70, 80 and 90 % on a BERT of four layers.
    fn default() -> Self {
        let sparsities = [0.6, 0.7, 0.8, 0.9].map(|share| Sparsity::new(share).expect("a share lies between 0 and 1"));
        Self {
            seed: 42,
            train_tokens: 1_000_000,
            valid_tokens: 16_000,
            hidden_size: 128,
            layers: 4,
            heads: 4,
            block_size: 32,
            positions: 64,
            batch_size: 32,
            pretrain_steps: 1000,
            pretrain_learning_rate: 1e-3,
            mask_steps: 120,
            mlm_learning_rate: 4e-4,
            kd_learning_rate: 2e-3,
            imp_steps_per_round: 50,
            imp_learning_rate: 5e-4,
            methods: Method::ALL.to_vec(),
            sparsities: sparsities.to_vec(),
            task_sparsities: sparsities[1..3].to_vec(),
            task_methods: vec![Method::Random, Method::Magnitude, Method::Imp, Method::TamtMlm, Method::TamtKd],
            task_train: 300,
            task_dev: 100,
            task_epochs: 2.0,
            task_learning_rate: 5e-4,
            task_seeds: vec![1, 2],
            compute: Compute::default(),
        }
    }
}

impl DemoSettings {
    /// Checks what the runs themselves would only find out after others have ended.
    ///
    /// # Errors
    /// [`Error::Setting`] without a method or a sparsity, and if iterative pruning does not pass through one.
    pub fn validate(&self) -> Result<()> {
        if self.methods.is_empty() {
            return Err(Error::setting("method", "there is none to demonstrate"));
        }
        let highest = self.highest_sparsity()?;
        let is_tenth = |share: f64| (share * 10.0 - (share * 10.0).round()).abs() < 1e-9;
        let between = self.sparsities.iter().find(|&&s| s != highest && !is_tenth(s.share()));
        match between.filter(|_| self.methods.contains(&Method::Imp)) {
            Some(share) => {
                let reason = format!("imp passes through whole tenths on its way, and {} is none", share.share());
                Err(Error::setting("sparsity", reason))
            }
            None => Ok(()),
        }
    }

    /// The settings of a fine-tuning: the task's, at the demonstration's size. Only scores are kept.
    #[must_use]
    pub fn tuning(&self, task: &Task, seed: u64) -> TuneSettings {
        let mut settings = TuneSettings::new(task);
        settings.compute = self.compute;
        settings.seed = seed;
        // Small, for more steps: there are few examples.
        settings.batch_size = 8;
        let is_span = settings.inputs.spans.is_some();
        settings.duration = Duration::Epochs(if is_span { 1.0 } else { self.task_epochs });
        settings.optimizer.learning_rate = self.task_learning_rate;
        settings.inputs.max_length = self.positions;
        if let Some(spans) = &mut settings.inputs.spans {
            spans.doc_stride = self.positions / 2;
            spans.max_query_length = self.positions / 2;
        }
        settings.keep = Keep::None;
        settings.eval_every = 0;
        settings
    }

    /// The sparsity that iterative pruning goes to, past the others.
    pub(super) fn highest_sparsity(&self) -> Result<Sparsity> {
        let highest = self.sparsities.iter().copied().reduce(|a, b| if b > a { b } else { a });
        highest.ok_or_else(|| Error::setting("sparsity", "there is none to demonstrate"))
    }

    /// The model's shape for a vocabulary. It has no dropout: it sees no text often enough to learn it by heart.
    ///
    /// # Errors
    /// If the sizes make no encoder.
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
            // Narrow models learn nothing for long from the usual 0.02, which suits a width of 768.
            "initializer_range": 0.08,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        });
        Ok(Config::from_json(&config.to_string())?)
    }

    /// The settings of the pre-training.
    #[must_use]
    pub fn pretraining(&self) -> PretrainSettings {
        let mut settings = PretrainSettings::new(Train::All, self.pretrain_steps);
        settings.compute = self.compute;
        settings.seed = self.seed;
        settings.batch_size = self.batch_size;
        settings.block_size = self.block_size;
        settings.train.optimizer.learning_rate = self.pretrain_learning_rate;
        settings
    }

    /// The settings of a find. Learning rates are far above the paper's: hundreds of steps have to move scores as far
    /// as its thousands do.
    #[must_use]
    pub fn finding(&self, method: Method, sparsity: Sparsity) -> FindSettings {
        let (steps, learning_rate) = match method {
            Method::Random | Method::Magnitude => (0, 0.0),
            Method::Imp => (self.imp_steps_per_round * imp_rounds(sparsity), self.imp_learning_rate),
            Method::TamtMlm | Method::TamtMlmKd => (self.mask_steps, self.mlm_learning_rate),
            Method::TamtKd => (self.mask_steps, self.kd_learning_rate),
        };
        let mut settings = FindSettings::new(method, sparsity, steps);
        settings.compute = self.compute;
        settings.seed = self.seed;
        settings.batch_size = self.batch_size;
        settings.block_size = self.block_size;
        settings.rethreshold_every = 20;
        settings.train.optimizer.learning_rate = learning_rate;
        if method == Method::Imp {
            settings.train.schedule.horizon = self.imp_steps_per_round;
        }
        settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_makes_an_encoder() {
        let settings = DemoSettings::default();
        settings.validate().unwrap();
        let config = settings.config(1002).unwrap();
        assert_eq!(config.max_length(), settings.positions);
    }

    #[test]
    fn a_sparsity_that_iterative_pruning_steps_over_is_refused() {
        let shares = |shares: &[f64]| shares.iter().map(|&share| Sparsity::new(share).unwrap()).collect::<Vec<_>>();
        let mut settings = DemoSettings { sparsities: shares(&[0.65, 0.9]), ..DemoSettings::default() };
        let error = settings.validate().unwrap_err().to_string();
        assert_eq!(error, "--sparsity: imp passes through whole tenths on its way, and 0.65 is none");
        settings.sparsities = shares(&[0.3, 0.65]);
        settings.validate().unwrap();
        settings.sparsities = shares(&[0.65, 0.9]);
        settings.methods = vec![Method::TamtMlm];
        settings.validate().unwrap();
    }

    #[test]
    fn nothing_to_demonstrate_is_refused() {
        for settings in [
            DemoSettings { methods: Vec::new(), ..DemoSettings::default() },
            DemoSettings { sparsities: Vec::new(), ..DemoSettings::default() },
        ] {
            assert!(matches!(settings.validate(), Err(Error::Setting { .. })));
        }
    }
}
