//! The main job on an embedded default: an invented language, a small BERT that learns it, and its tickets by every
//! method at several sparsities, compared by their losses on text that none of them saw.
//!
//! Everything goes through the pieces that a user has, and stays in the output directory as a user's runs would:
//!
//! ```text
//! tokenizer/  train.txt  valid.txt      the language
//! model/                                the pre-trained model, in Hugging Face layout
//! tickets/tamt-mlm-0.7/ ...             a run for every method and sparsity
//! tickets/imp-0.9/sparsity-0.7/ ...     iterative pruning passes the lower sparsities on its way
//! tasks/CoLA/train.tsv ...              tasks in the language, in the files of the real ones
//! tuned/cola/tamt-mlm-0.7-seed-1/ ...   a fine-tuning for every task, ticket and seed: scores and predictions
//! results.json  results.md  results.csv
//! ```

mod report;
mod scores;
mod settings;
mod stages;
mod transfer;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use report::{DemoReport, Loss, TicketLosses, cell, percent};
pub use scores::ScoreRow;
pub use settings::DemoSettings;
pub use transfer::{TASKS_DIR, TUNED_DIR, TaskScore};

use serde::Serialize;
use serde_json::{Map, Value};
use tamt_data::invented::{Split, World};
use tamt_data::{Blocks, Corpus, ReadOptions, Tail, Tokenizer};
use tamt_model::write::atomic_write;
use tamt_model::{Model, Parts};

use crate::base::Base;
use crate::evaluate::{EvalText, Wanted};
use crate::find::{Method, Texts, find};
use crate::pretrain::pretrain;
use crate::prune::Sparsity;
use crate::run::{Observer, RunDir, Stop, read_eval_results};
use crate::ticket::Ticket;
use crate::{Error, Result};
use stages::Stages;

/// The text that is trained on, in the output directory.
pub const TRAIN_FILE: &str = "train.txt";
/// The text that is evaluated on, in the output directory.
pub const VALID_FILE: &str = "valid.txt";
/// The pre-trained model, in the output directory.
pub const MODEL_DIR: &str = "model";

const TOKENIZER_DIR: &str = "tokenizer";
const TICKETS_DIR: &str = "tickets";

/// Runs the demonstration and leaves everything it makes in `output_dir`.
///
/// With `resume`, runs that have ended are taken as they are, and one that was stopped goes on.
///
/// # Errors
/// If the directory holds something else, the settings make no sense, a run is stopped or fails, or a file cannot be
/// written.
pub fn run(
    settings: &DemoSettings,
    output_dir: &Path,
    resume: bool,
    observer: &mut dyn Observer,
    stop: &Stop,
) -> Result<DemoReport> {
    settings.validate()?;
    if output_dir.to_str().is_none() {
        return Err(Error::setting("output-dir", "the name is not Unicode, so no result could contain it"));
    }
    let directory = RunDir::create(output_dir, &record("demo", settings)?, resume)?;
    let mut demo = Demo { settings, directory, stop, stages: Stages::new(settings, observer), seconds: 0.0 };
    let (tokenizer, texts) = demo.language()?;
    let mut base = demo.model(&tokenizer, &texts)?;
    let mut report = demo.compare(&mut base, &texts)?;
    drop(base);
    demo.transfer(&tokenizer, &mut report)?;
    save(&report, output_dir)?;
    Ok(report)
}

/// Writes the language alone into `directory`: its tokenizer, its texts, and the files of its tasks.
///
/// # Errors
/// If a file cannot be written.
pub fn write_data(settings: &DemoSettings, directory: &Path) -> Result<()> {
    let DemoSettings { seed, train_tokens, valid_tokens, .. } = *settings;
    let world = World::new(seed);
    let tokenizer = directory.join(TOKENIZER_DIR);
    fs::create_dir_all(&tokenizer).map_err(Error::io("create directory", &tokenizer))?;
    world.write_tokenizer(&tokenizer)?;
    // Writing again writes the same bytes.
    world.write_corpus(&directory.join(TRAIN_FILE), train_tokens, seed, Split::Train)?;
    world.write_corpus(&directory.join(VALID_FILE), valid_tokens, seed, Split::Valid)?;
    transfer::write_tasks(&world, settings, &directory.join(TASKS_DIR))
}

struct Demo<'a> {
    settings: &'a DemoSettings,
    directory: RunDir,
    stop: &'a Stop,
    stages: Stages<'a>,
    /// Seconds of the runs so far.
    seconds: f64,
}

impl Demo<'_> {
    /// Writes the language's files, and reads its texts as anyone would.
    fn language(&mut self) -> Result<(Tokenizer, Texts)> {
        self.stages.begin("an invented language");
        write_data(self.settings, self.directory.path())?;
        let tokenizer = Tokenizer::from_dir(&self.directory.file(TOKENIZER_DIR))?;
        let corpus = |name: &str| -> Result<Arc<Corpus>> {
            let path = self.directory.file(name);
            Ok(Arc::new(Corpus::read(&[path], &tokenizer, ReadOptions::default())?))
        };
        let (train, eval) = (corpus(TRAIN_FILE)?, corpus(VALID_FILE)?);
        let (pieces, trained, held_out) = (tokenizer.vocab_size(), train.tokens.len(), eval.tokens.len());
        self.stages.end(&format!("{pieces} word pieces, {trained} tokens to train on, {held_out} held out"));
        Ok((tokenizer, Texts { train: Some(train), eval: Some(eval) }))
    }

    /// Pre-trains the model, or takes the one that is there.
    fn model(&mut self, tokenizer: &Tokenizer, texts: &Texts) -> Result<Base> {
        self.stages.begin("pre-training");
        let path = self.directory.file(MODEL_DIR);
        let settings = self.settings.pretraining();
        let directory = RunDir::create(&path, &record("pretrain", &settings)?, self.directory.resumed())?;
        let result = if directory.finished() {
            read_eval_results(&path)?
        } else {
            let config = self.settings.config(tokenizer.vocab_size())?;
            let model = Model::random(config, Parts { pooler: true, mlm_head: true, task: None }, settings.seed);
            let stop = self.stop.clone();
            pretrain(model, tokenizer, texts, &settings, directory, &mut self.stages, stop)?.to_json(&path)
        };
        let loss = number(&result, "mlm_loss", &path)?;
        self.ended(&format!("MLM loss {loss:.3}"), number(&result, "seconds", &path)?);
        Base::load(&path.to_string_lossy())
    }

    /// Finds all tickets and measures them.
    fn compare(&mut self, base: &mut Base, texts: &Texts) -> Result<DemoReport> {
        let (train, eval) = both(texts)?;
        let text = self.held_out_text(base, eval.clone())?;
        let dense = text.evaluate(&mut base.model, None, Wanted { mlm: true, kd: false }, None, |_| ())?;
        let mut tickets = Vec::new();
        for &method in &self.settings.methods {
            if method == Method::Imp {
                tickets.extend(self.imp(base, texts, &text)?);
                continue;
            }
            for &sparsity in &self.settings.sparsities {
                tickets.push(self.ticket(method, sparsity, base, texts)?);
            }
        }
        Ok(DemoReport {
            output_dir: self.directory.path().to_owned(),
            seed: self.settings.seed,
            seconds: self.seconds,
            frequency_loss: frequency_loss(&train.tokens, &eval.tokens, base.tokenizer.vocab_size()),
            dense_mlm_loss: dense.mlm_loss.ok_or_else(nothing_masked)?,
            tickets,
            scores: Vec::new(),
        })
    }

    /// Fine-tunes the dense model and tickets on tasks.
    fn transfer(&mut self, tokenizer: &Tokenizer, report: &mut DemoReport) -> Result<()> {
        if self.settings.task_sparsities.is_empty() {
            return Ok(());
        }
        self.stages.begin("fine-tuning on six tasks");
        let (root, resumed) = (self.directory.path(), self.directory.resumed());
        let (scores, seconds) =
            transfer::transfer(self.settings, root, resumed, tokenizer, &report.tickets, &mut self.stages, self.stop)?;
        let runs: usize = scores.iter().map(|score| score.scores.len()).sum();
        // Several runs go on at a time.
        self.ended(&format!("{runs} runs"), seconds / rayon::current_num_threads() as f64);
        report.scores = scores;
        report.seconds = self.seconds;
        Ok(())
    }

    /// The held-out text as every run evaluates it.
    fn held_out_text(&self, base: &Base, corpus: Arc<Corpus>) -> Result<EvalText> {
        let specials = base.tokenizer.specials();
        let blocks = Blocks::new(corpus, self.settings.block_size, Tail::Keep, specials)?;
        let probability = self.settings.pretraining().objective.mlm_probability;
        Ok(EvalText::new(blocks, *specials, probability, crate::EVAL_SEED).with_compute(self.settings.compute))
    }

    fn ticket(&mut self, method: Method, sparsity: Sparsity, base: &Base, texts: &Texts) -> Result<TicketLosses> {
        self.stages.begin(&format!("{} at {}", method.name(), percent(sparsity)));
        let (path, result) = self.find(method, sparsity, base, texts)?;
        let ticket = TicketLosses {
            method,
            sparsity,
            steps: number(&result, "steps", &path)? as u64,
            mlm_loss: number(&result, "mlm_loss", &path)?,
            kd_cosine: number(&result, "kd_cosine", &path)?,
            ticket: path.clone(),
        };
        self.ended(&ticket.summary(), number(&result, "seconds", &path)?);
        Ok(ticket)
    }

    /// One run of iterative pruning, and the tickets that it left on its way.
    fn imp(&mut self, base: &mut Base, texts: &Texts, text: &EvalText) -> Result<Vec<TicketLosses>> {
        let (method, highest) = (Method::Imp, self.settings.highest_sparsity()?);
        self.stages.begin(&format!("{} to {}", method.name(), percent(highest)));
        let (run, result) = self.find(method, highest, base, texts)?;
        let mut tickets = Vec::with_capacity(self.settings.sparsities.len());
        for &sparsity in &self.settings.sparsities {
            let path = run.join(format!("sparsity-{}", sparsity.share()));
            let ticket = Ticket::read(&path)?;
            let masks = base.masks_of(&ticket, false)?;
            let losses = text.evaluate(&mut base.model, Some(&masks), Wanted { mlm: true, kd: true }, None, |_| ())?;
            tickets.push(TicketLosses {
                method,
                sparsity,
                ticket: path,
                steps: ticket.provenance.steps,
                mlm_loss: losses.mlm_loss.ok_or_else(nothing_masked)?,
                kd_cosine: losses.kd_cosine.ok_or_else(nothing_masked)?,
            });
        }
        let summaries: Vec<_> = tickets.iter().map(|t| format!("{} {}", percent(t.sparsity), t.summary())).collect();
        self.ended(&summaries.join("; "), number(&result, "seconds", &run)?);
        Ok(tickets)
    }

    /// Runs a find, or takes the result that is there.
    fn find(&mut self, method: Method, sparsity: Sparsity, base: &Base, texts: &Texts) -> Result<Outcome> {
        let name = format!("{}-{}", method.name(), sparsity.share());
        let path = self.directory.file(TICKETS_DIR).join(name);
        let settings = self.settings.finding(method, sparsity);
        let directory = RunDir::create(&path, &record("find", &settings)?, self.directory.resumed())?;
        let result = if directory.finished() {
            read_eval_results(&path)?
        } else {
            find(base.clone(), texts, &settings, directory, &mut self.stages, self.stop.clone())?.to_json()
        };
        Ok((path, result))
    }

    fn ended(&mut self, outcome: &str, seconds: f64) {
        self.seconds += seconds;
        self.stages.end(&format!("{outcome} ({seconds:.1} s)"));
    }
}

/// A run directory and what its `eval_results.json` holds.
type Outcome = (PathBuf, Map<String, Value>);

impl TicketLosses {
    fn summary(&self) -> String {
        format!("MLM loss {:.3}, KD loss {:.3}", self.mlm_loss, self.kd_cosine)
    }
}

/// What a run directory records of a run's settings.
fn record<S: Serialize>(verb: &str, settings: &S) -> Result<toml::Table> {
    let mut table = toml::Table::try_from(settings)
        .map_err(|error| Error::setting("seed", format!("the settings cannot be recorded: {error}")))?;
    table.insert("verb".to_owned(), verb.into());
    table.insert("tool-version".to_owned(), env!("CARGO_PKG_VERSION").into());
    Ok(table)
}

/// A number of a run's result.
fn number(result: &Map<String, Value>, key: &str, run: &Path) -> Result<f64> {
    result.get(key).and_then(Value::as_f64).ok_or_else(|| Error::Damaged {
        path: run.join("eval_results.json"),
        reason: format!("it has no number called {key}"),
    })
}

fn both(texts: &Texts) -> Result<(&Arc<Corpus>, &Arc<Corpus>)> {
    let train = texts.train.as_ref().ok_or_else(|| Error::setting("corpus", "there is none"))?;
    let eval = texts.eval.as_ref().ok_or_else(|| Error::setting("eval-corpus", "there is none"))?;
    Ok((train, eval))
}

fn nothing_masked() -> Error {
    Error::setting("valid-tokens", "the held-out text is so short that no token of it is masked")
}

/// Cross-entropy of `held_out` under the frequencies of `train`, each counted once more than it is:
/// `-mean log((n_t + 1) / (N + V))`.
fn frequency_loss(train: &[u32], held_out: &[u32], vocab_size: u32) -> f64 {
    let mut counts = vec![1_u64; vocab_size as usize];
    for &token in train {
        counts[token as usize] += 1;
    }
    let total = train.len() as f64 + f64::from(vocab_size);
    let sum: f64 = held_out.iter().map(|&token| (counts[token as usize] as f64 / total).ln()).sum();
    -sum / held_out.len() as f64
}

fn save(report: &DemoReport, directory: &Path) -> Result<()> {
    let mut json = serde_json::to_string_pretty(report).expect("names and finite numbers are JSON");
    json.push('\n');
    for (name, text) in [("results.json", json), ("results.md", report.to_markdown()), ("results.csv", report.to_csv())]
    {
        atomic_write(&directory.join(name), |file| file.write_all(text.as_bytes()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Silent;

    fn tiny() -> DemoSettings {
        DemoSettings {
            train_tokens: 6_000,
            valid_tokens: 1_000,
            hidden_size: 16,
            layers: 2,
            heads: 2,
            block_size: 32,
            batch_size: 4,
            pretrain_steps: 6,
            mask_steps: 4,
            imp_steps_per_round: 1,
            sparsities: vec![Sparsity::new(0.3).unwrap(), Sparsity::new(0.45).unwrap()],
            task_sparsities: vec![Sparsity::new(0.45).unwrap()],
            task_train: 12,
            task_dev: 6,
            task_epochs: 1.0,
            ..DemoSettings::default()
        }
    }

    #[test]
    fn every_method_leaves_a_ticket_at_every_sparsity_and_losses_in_three_formats() {
        let root = tempfile::tempdir().unwrap();
        let settings = tiny();
        let report = run(&settings, root.path(), false, &mut Silent, &Stop::new()).unwrap();
        assert_eq!(report.tickets.len(), 12);
        for ticket in &report.tickets {
            let of = Ticket::read(&ticket.ticket).unwrap().provenance;
            assert_eq!((of.method.as_str(), of.sparsity), (ticket.method.name(), ticket.sparsity.share()));
            assert!(ticket.mlm_loss.is_finite() && ticket.kd_cosine > 0.0);
        }
        let read = |name: &str| fs::read_to_string(root.path().join(name)).unwrap();
        assert_eq!(
            serde_json::from_str::<Value>(&read("results.json")).unwrap()["tickets"].as_array().unwrap().len(),
            12
        );
        assert_eq!((read("results.md"), read("results.csv")), (report.to_markdown(), report.to_csv()));
    }

    /// Asks the run to stop when it has taken so many steps.
    struct StopAfter(u64, Stop);

    impl Observer for StopAfter {
        fn step(&mut self, _: &crate::run::StepReport<'_>) {
            self.0 -= 1;
            if self.0 == 0 {
                self.1.request(2);
            }
        }
    }

    #[test]
    fn a_stopped_demonstration_goes_on_to_the_same_losses() {
        let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let settings = DemoSettings { methods: vec![Method::Imp, Method::TamtMlmKd], ..tiny() };
        let expected = run(&settings, whole.path(), false, &mut Silent, &Stop::new()).unwrap();
        // In the pre-training, in iterative pruning, in the second mask training.
        for (i, steps) in [4, 2 + 3, 1 + 4 + 2].into_iter().enumerate() {
            let stop = Stop::new();
            let stopped = run(&settings, parts.path(), i > 0, &mut StopAfter(steps, stop.clone()), &stop);
            assert!(matches!(stopped, Err(Error::Stopped { signal: 2, .. })), "{i}: {stopped:?}");
        }
        let report = run(&settings, parts.path(), true, &mut Silent, &Stop::new()).unwrap();
        assert_eq!(report.to_csv(), expected.to_csv());
    }

    #[test]
    fn a_directory_that_holds_a_demonstration_is_refused_and_other_settings_are_too() {
        let root = tempfile::tempdir().unwrap();
        let settings = DemoSettings { methods: vec![Method::Magnitude], ..tiny() };
        run(&settings, root.path(), false, &mut Silent, &Stop::new()).unwrap();
        let again = run(&settings, root.path(), false, &mut Silent, &Stop::new());
        assert!(matches!(again, Err(Error::Occupied { .. })), "{again:?}");
        let other = DemoSettings { seed: 1, ..settings };
        let resumed = run(&other, root.path(), true, &mut Silent, &Stop::new());
        assert!(matches!(resumed, Err(Error::SettingsDiffer { .. })), "{resumed:?}");
    }

    #[test]
    fn equally_common_tokens_cost_the_logarithm_of_their_number() {
        let tokens: Vec<u32> = (0..8).collect();
        assert!((frequency_loss(&tokens, &tokens, 8) - 8_f64.ln()).abs() < 1e-12);
        // Counts 3 + 1 and 0 + 1 of 3 + 2.
        let loss = frequency_loss(&[0, 0, 0], &[0, 1], 2);
        assert!((loss + 0.5 * (0.8_f64.ln() + 0.2_f64.ln())).abs() < 1e-12);
    }
}
