//! The sizes, steps and learning rates of a demonstration, chosen for two cores and five minutes.

use serde::{Deserialize, Serialize};
use serde_json::json;
use tamt_data::tasks::Task;
use tamt_model::Config;

use crate::compute::Compute;
use crate::error::{Error, Result};
use crate::find::{FindSettings, Method, imp_rounds};
use crate::pretrain::{PretrainSettings, Train};
use crate::prune::Sparsity;
use crate::tune::{KeptModel, TrainingLength, TuneSettings};

/// All settings that decide the result of a demonstration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DemoSettings {
    /// The seed of the language, its texts, the initial weights and every run.
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
    /// Steps of a mask training.
    pub mask_steps: u64,
    /// The first learning rate of mask training on MLM, alone or with distillation.
    pub mlm_learning_rate: f64,
    /// The first learning rate of mask training on distillation alone, whose gradients are steadier.
    pub kd_learning_rate: f64,
    /// Steps between two prunings of iterative pruning.
    pub imp_steps_per_round: u64,
    /// The first learning rate of each round of iterative pruning.
    pub imp_learning_rate: f64,
    /// The methods to compare.
    pub methods: Vec<Method>,
    /// The sparsities to compare at.
    pub sparsities: Vec<Sparsity>,
    /// The sparsities whose tickets are fine-tuned on tasks; none for no tasks.
    pub task_sparsities: Vec<Sparsity>,
    /// The methods whose tickets are fine-tuned on tasks.
    pub task_methods: Vec<Method>,
    /// Training examples of a task; contexts, each with several questions, for span questions.
    pub task_train: usize,
    /// Development examples of a task.
    pub task_dev: usize,
    /// Passes through the training set; span questions have one.
    pub task_epochs: f64,
    /// The first learning rate of fine-tuning.
    pub task_learning_rate: f64,
    /// Seeds of fine-tuning, with a run each.
    pub task_seeds: Vec<u64>,
    /// The kernel and the precision of matrix products.
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
    /// Checks the settings that a run would refuse only after other runs have ended.
    ///
    /// # Errors
    /// [`Error::Setting`] if there is no method or no sparsity, or if iterative pruning steps over a sparsity.
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

    /// The settings of a fine-tuning: the task's, at the size of a demonstration, without a written model.
    pub fn tuning(&self, task: &Task, seed: u64) -> TuneSettings {
        let mut settings = TuneSettings::new(task);
        settings.compute = self.compute;
        settings.seed = seed;
        // A small batch makes more steps of few examples.
        settings.batch_size = 8;
        let is_span = settings.inputs.spans.is_some();
        settings.duration = TrainingLength::Epochs(if is_span { 1.0 } else { self.task_epochs });
        settings.optimizer.learning_rate = self.task_learning_rate;
        settings.inputs.max_length = self.positions;
        if let Some(spans) = &mut settings.inputs.spans {
            spans.doc_stride = self.positions / 2;
            spans.max_query_length = self.positions / 2;
        }
        settings.keep = KeptModel::None;
        settings.eval_every = 0;
        settings
    }

    /// The final sparsity of iterative pruning, which passes through the others.
    pub(super) fn highest_sparsity(&self) -> Result<Sparsity> {
        let highest = self.sparsities.iter().copied().reduce(|a, b| if b > a { b } else { a });
        highest.ok_or_else(|| Error::setting("sparsity", "there is none to demonstrate"))
    }

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
        settings
    }

    /// The settings of a search. The learning rates are far above the paper's, because hundreds of steps must move
    /// scores as far as the paper's thousands of steps.
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
        assert_eq!(error, "sparsity: imp passes through whole tenths on its way, and 0.65 is none");
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
