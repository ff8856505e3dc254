//! The pre-training of a demonstration's model.

use std::path::Path;
use std::sync::Arc;

use tamt_data::{Corpus, ReadOptions, Tokenizer};
use tamt_model::{Model, Parts};

use crate::demo::files::{MODEL_DIR, TOKENIZER_DIR, TRAIN_FILE, VALID_FILE};
use crate::demo::settings::DemoSettings;
use crate::error::Result;
use crate::find::Texts;
use crate::metrics::{MLM_ACCURACY, MLM_LOSS};
use crate::pretrain::pretrain;
use crate::run::{Observer, RunDir, Stop, VerbSettings, number, read_eval_results};
use crate::train::Session;

/// What the pre-training reached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PretrainedBase {
    /// MLM loss on the held-out text, in nats a token.
    pub mlm_loss: f64,
    /// Share of the masked tokens of the held-out text that the model predicts.
    pub mlm_accuracy: f64,
    /// Seconds of training, over all attempts.
    pub seconds: f64,
}

/// Pre-trains a model on the language in `directory` ([`write_data`](crate::demo::write_data)) and writes the model
/// into [`MODEL_DIR`] there. A finished pre-training keeps its result, and a stopped one goes on.
///
/// # Errors
/// If the files of the language are missing or damaged, the settings do not fit together, the training is stopped or
/// fails, or a file cannot be written.
pub fn pretrain_base(
    settings: &DemoSettings,
    directory: &Path,
    observer: &mut dyn Observer,
    stop: &Stop,
) -> Result<PretrainedBase> {
    let path = directory.join(MODEL_DIR);
    let training = settings.pretraining();
    let run = RunDir::create(&path, &VerbSettings::new("pretrain", &training), path.exists())?;
    let result = if run.finished() {
        run.retire_checkpoints_of_finished(|steps| training.train.schedule.goes_on_after(steps))?;
        read_eval_results(&path)?
    } else {
        let tokenizer = Tokenizer::from_dir(&directory.join(TOKENIZER_DIR))?;
        let corpus = |name: &str| -> Result<Arc<Corpus>> {
            Ok(Arc::new(Corpus::read(&[directory.join(name)], &tokenizer, ReadOptions::default())?))
        };
        let texts = Texts { train: Some(corpus(TRAIN_FILE)?), eval: Some(corpus(VALID_FILE)?) };
        let config = settings.config(tokenizer.vocab_size())?;
        let model = Model::random(config, Parts { pooler: true, mlm_head: true, task: None }, settings.seed);
        let session = Session { directory: run, observer, stop: stop.clone() };
        pretrain(model, &tokenizer, None, &texts, &training, session)?.to_json(&path)
    };
    Ok(PretrainedBase {
        mlm_loss: number(&result, MLM_LOSS, &path)?,
        mlm_accuracy: number(&result, MLM_ACCURACY, &path)?,
        seconds: number(&result, "seconds", &path)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::files::write_data;
    use crate::error::Error;
    use crate::run::{Silent, StepReport};

    /// Asks the run to stop after some steps.
    struct StopAfter(u64, Stop);

    impl Observer for StopAfter {
        fn step(&mut self, _: &StepReport<'_>) {
            self.0 -= 1;
            if self.0 == 0 {
                self.1.request(2);
            }
        }
    }

    #[test]
    fn a_stopped_pre_training_goes_on_to_the_same_model_and_a_finished_one_stays() {
        let settings = DemoSettings {
            train_tokens: 6_000,
            valid_tokens: 1_000,
            hidden_size: 16,
            layers: 2,
            heads: 2,
            pretrain_steps: 6,
            task_train: 1,
            task_dev: 1,
            ..DemoSettings::default()
        };
        let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let weights = |root: &Path| std::fs::read(root.join(MODEL_DIR).join("model.safetensors")).unwrap();
        write_data(&settings, whole.path()).unwrap();
        let expected = pretrain_base(&settings, whole.path(), &mut Silent, &Stop::new()).unwrap();
        write_data(&settings, parts.path()).unwrap();
        let stop = Stop::new();
        let stopped = pretrain_base(&settings, parts.path(), &mut StopAfter(4, stop.clone()), &stop).unwrap_err();
        assert!(matches!(stopped, Error::Stopped { signal: 2, .. }), "{stopped}");
        let resumed = pretrain_base(&settings, parts.path(), &mut Silent, &Stop::new()).unwrap();
        assert_eq!((resumed.mlm_loss, resumed.mlm_accuracy), (expected.mlm_loss, expected.mlm_accuracy));
        assert_eq!(weights(whole.path()), weights(parts.path()));
        let again = pretrain_base(&settings, whole.path(), &mut StopAfter(1, stop.clone()), &Stop::new()).unwrap();
        assert_eq!(again, expected);
    }
}
