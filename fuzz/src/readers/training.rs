//! Checkpoints of a run: the training state and the record.

use std::path::Path;
use std::sync::OnceLock;

use tamt::magnitude::magnitude;
use tamt::objective::StepLoss;
use tamt::prune::{Scope, Sparsity, pruned_matrices};
use tamt::run::{RunDir, Silent, Stop, TRAINING_STATE_FILE};
use tamt::scores::{ScoreSettings, Scores};
use tamt::train::{
    Learner, Metrics, OptimizerSettings, Schedule, Session, Shape, StepResult, TrainSettings, TrainingTask, Watch,
    train,
};
use tamt::{Compute, Kernel, Result};
use tamt_model::{Config, Masks, Model, Parts, Trainable};

use crate::readers::files;

/// The step of the checkpoint.
pub(crate) const STEP: u64 = 3;

pub(crate) const FILES: [&str; 2] = [TRAINING_STATE_FILE, "trainer_state.json"];

/// A run of each kind resumes from the checkpoint, takes a step and saves; or it refuses the checkpoint.
pub(crate) fn training(input: &[u8]) -> bool {
    let mut resumed = false;
    for mode in [Mode::Weights, Mode::MaskedWeights, Mode::Scores] {
        let dir = files::empty();
        let checkpoint = dir.path().join(format!("checkpoint-{STEP}"));
        let files = files::several(input, &FILES);
        let run = RunDir::create(dir.path(), &toml::Table::new(), false).expect("a run can begin");
        std::fs::rename(files.path(), checkpoint).expect("the file system is one");
        resumed |= resume(mode, run);
    }
    resumed
}

/// What learns.
#[derive(Clone, Copy)]
pub(crate) enum Mode {
    Weights,
    MaskedWeights,
    Scores,
}

/// Whether a run resumed from its checkpoint.
fn resume(mode: Mode, directory: RunDir) -> bool {
    let mut observer = Silent;
    let path = directory.path().to_owned();
    let outcome = trained(mode, STEP + 1, &mut Session { directory, observer: &mut observer, stop: Stop::new() });
    if let Err(error) = outcome {
        assert!(error.to_string().contains("checkpoint-3"), "{error}");
        return false;
    }
    assert!(path.join(format!("checkpoint-{}", STEP + 1)).join(TRAINING_STATE_FILE).is_file());
    true
}

/// Trains to the step `steps` with updates of no effect, and saves there.
pub(crate) fn trained(mode: Mode, steps: u64, session: &mut Session<'_>) -> Result<()> {
    let mut model = tiny_model().clone();
    let optimizer = OptimizerSettings::adamw(1e-3);
    let compute = Compute { kernel: Kernel::Dense, ..Compute::default() };
    let ids = pruned_matrices(&model, None)?;
    let sparsity = Sparsity::new(0.5)?;
    let masks: Masks = magnitude(&model, &ids, sparsity, Scope::Local);
    let mut learner = match mode {
        Mode::Weights => {
            let trainable = Trainable::weights(&model, None);
            Learner::of_weights(&mut model, &trainable, optimizer)
        }
        Mode::MaskedWeights => {
            let trainable = Trainable::weights(&model, Some(&masks));
            Learner::of_masked_weights(&mut model, masks, &trainable, optimizer, compute)
        }
        Mode::Scores => {
            let scores = Scores::new(&model, &ids, &masks, ScoreSettings::default(), sparsity, Scope::Local, 1);
            Learner::of_scores(&mut model, masks, scores, &[], optimizer, compute)
        }
    };
    let settings = TrainSettings {
        max_steps: steps,
        schedule: Schedule { shape: Shape::Constant, warmup_steps: 0, horizon: steps },
        optimizer,
        eval_every: 0,
        save_every: 0,
        save_minutes: 0.0,
        logging_steps: 1,
    };
    train(&mut Still, &mut learner, &settings, "fuzz", session).map(|_| ())
}

/// A training whose gradients are zero.
struct Still;

impl TrainingTask for Still {
    fn step(&mut self, learner: &mut Learner<'_>, step: u64, learning_rate: f64) -> Result<StepResult> {
        let grad_norm = learner.update(learning_rate);
        learner.reset_thresholds();
        learner.binarize(step + 1);
        let loss = StepLoss { total: 1.0, task: None, mlm: None, kd: None, tokens: 1 };
        // The gradients stay zero, so a norm that is not finite would come from elsewhere.
        assert_eq!(grad_norm, 0.0);
        Ok(StepResult { loss, grad_norm })
    }

    fn evaluate(&mut self, _: &mut Learner<'_>, _: u64, _: &mut Watch<'_>) -> Result<Metrics> {
        Ok(Metrics::new())
    }

    fn save(&self, _: &Learner<'_>, _: &Path, _: u64) -> Result<()> {
        Ok(())
    }

    fn batches_per_epoch(&self) -> u64 {
        1
    }

    fn batch_size(&self) -> usize {
        1
    }
}

/// A random BERT of one layer of width 4.
pub(crate) fn tiny_model() -> &'static Model {
    static MODEL: OnceLock<Model> = OnceLock::new();
    MODEL.get_or_init(|| {
        let config = Config::from_json(
            r#"{"model_type": "bert", "vocab_size": 12, "hidden_size": 4, "num_hidden_layers": 1,
                "num_attention_heads": 2, "intermediate_size": 6, "max_position_embeddings": 8, "type_vocab_size": 2}"#,
        )
        .expect("the configuration is valid");
        Model::random(config, Parts { pooler: true, mlm_head: true, task: None }, 7)
    })
}
