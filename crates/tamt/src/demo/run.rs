//! The course of a demonstration.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value};
use tamt_data::{Corpus, ReadOptions, Tokenizer};
use tamt_model::write::atomic_write;
use tamt_model::{Model, Parts};

use crate::base::Base;
use crate::demo::files::{MODEL_DIR, TICKETS_DIR, TOKENIZER_DIR, TRAIN_FILE, VALID_FILE, write_data};
use crate::demo::report::{DemoReport, TicketLosses, percent};
use crate::demo::settings::DemoSettings;
use crate::demo::stages::Stages;
use crate::demo::transfer::transfer;
use crate::error::{Error, Result};
use crate::evaluate::{EvalLosses, EvalText};
use crate::find::{Method, Texts, find};
use crate::metrics::{KD_COSINE, MLM_LOSS};
use crate::pretrain::pretrain;
use crate::prune::Sparsity;
use crate::run::{Observer, RunDir, Stop, VerbSettings, number, read_eval_results};
use crate::ticket::Ticket;

/// Runs the demonstration in `output_dir`. With `resume`, finished runs keep their results, and a stopped run goes on.
///
/// # Errors
/// If the directory holds another run, the settings do not fit together, a run is stopped or fails, or a file cannot be
/// written.
pub fn run(
    settings: &DemoSettings,
    output_dir: &Path,
    resume: bool,
    observer: &mut dyn Observer,
    stop: &Stop,
) -> Result<DemoReport> {
    settings.validate()?;
    let directory = RunDir::create(output_dir, &VerbSettings::new("demo", settings), resume)?;
    let mut demo = Demo { settings, directory, stop, stages: Stages::new(settings, observer), seconds: 0.0 };
    let (tokenizer, texts) = demo.language()?;
    let mut base = demo.model(&tokenizer, &texts)?;
    let mut report = demo.compare(&mut base, &texts)?;
    drop(base);
    demo.transfer(&tokenizer, &mut report)?;
    save(&report, output_dir)?;
    Ok(report)
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
    /// Writes the files of the language, and reads its tokenizer and its texts.
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

    /// Pre-trains the model, or loads the model of a finished pre-training.
    fn model(&mut self, tokenizer: &Tokenizer, texts: &Texts) -> Result<Base> {
        self.stages.begin("pre-training");
        let path = self.directory.file(MODEL_DIR);
        let settings = self.settings.pretraining();
        let directory = self.run_directory(&path, "pretrain", &settings)?;
        let result = if directory.finished() {
            directory.retire_checkpoints_of_finished(|steps| settings.train.schedule.goes_on_after(steps))?;
            read_eval_results(&path)?
        } else {
            let config = self.settings.config(tokenizer.vocab_size())?;
            let model = Model::random(config, Parts { pooler: true, mlm_head: true, task: None }, settings.seed);
            let stop = self.stop.clone();
            pretrain(model, tokenizer, texts, &settings, directory, &mut self.stages, stop)?.to_json(&path)
        };
        let loss = number(&result, MLM_LOSS, &path)?;
        self.ended(&format!("MLM loss {loss:.3}"), number(&result, "seconds", &path)?);
        Base::load(path)
    }

    /// Finds and evaluates all tickets.
    fn compare(&mut self, base: &mut Base, texts: &Texts) -> Result<DemoReport> {
        let (Some(train), Some(eval)) = (&texts.train, &texts.eval) else {
            unreachable!("`language` reads both texts")
        };
        let text = self.held_out_text(base, eval.clone())?;
        let dense = text.evaluate(&mut base.model, None, EvalLosses { mlm: true, kd: false }, None, |_| Ok(()))?;
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
            eval_tokens: dense.tokens,
            eval_block_size: dense.conditions.block_size,
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
            transfer(self.settings, root, resumed, tokenizer, &report.tickets, &mut self.stages, self.stop)?;
        let runs: usize = scores.iter().map(|score| score.scores.len()).sum();
        // The runs share the threads of the pool.
        self.ended(&format!("{runs} runs"), seconds / rayon::current_num_threads() as f64);
        report.scores = scores;
        report.seconds = self.seconds;
        Ok(())
    }

    /// The held-out text, masked as in the evaluations of the runs.
    fn held_out_text(&self, base: &Base, corpus: Arc<Corpus>) -> Result<EvalText> {
        let probability = self.settings.pretraining().objective.mlm_probability;
        EvalText::new(corpus, &base.tokenizer, self.settings.block_size, probability, self.settings.compute)
    }

    fn ticket(&mut self, method: Method, sparsity: Sparsity, base: &Base, texts: &Texts) -> Result<TicketLosses> {
        self.stages.begin(&format!("{} at {}", method.name(), percent(sparsity)));
        let (path, result) = self.find(method, sparsity, base, texts)?;
        let ticket = TicketLosses {
            method,
            sparsity,
            steps: number(&result, "steps", &path)? as u64,
            mlm_loss: number(&result, MLM_LOSS, &path)?,
            kd_cosine: number(&result, KD_COSINE, &path)?,
            ticket: path.clone(),
        };
        self.ended(&ticket.summary(), number(&result, "seconds", &path)?);
        Ok(ticket)
    }

    /// One run of iterative pruning, and its tickets at the lower sparsities.
    fn imp(&mut self, base: &mut Base, texts: &Texts, text: &EvalText) -> Result<Vec<TicketLosses>> {
        let (method, highest) = (Method::Imp, self.settings.highest_sparsity()?);
        self.stages.begin(&format!("{} to {}", method.name(), percent(highest)));
        let (run, result) = self.find(method, highest, base, texts)?;
        let mut tickets = Vec::with_capacity(self.settings.sparsities.len());
        for &sparsity in &self.settings.sparsities {
            let path = run.join(format!("sparsity-{}", sparsity.share()));
            let ticket = Ticket::read(&path)?;
            let masks = base.masks_of(&ticket, false)?;
            let losses =
                text.evaluate(&mut base.model, Some(&masks), EvalLosses { mlm: true, kd: true }, None, |_| Ok(()))?;
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

    /// Runs a search, or reads the result of a finished one. Returns the run directory and the result.
    fn find(
        &mut self,
        method: Method,
        sparsity: Sparsity,
        base: &Base,
        texts: &Texts,
    ) -> Result<(PathBuf, Map<String, Value>)> {
        let name = format!("{}-{}", method.name(), sparsity.share());
        let path = self.directory.file(TICKETS_DIR).join(name);
        let settings = self.settings.finding(method, sparsity);
        let directory = self.run_directory(&path, "find", &settings)?;
        let result = if directory.finished() {
            directory.retire_checkpoints_of_finished(|steps| settings.goes_on_after(steps))?;
            read_eval_results(&path)?
        } else {
            find(base.clone(), texts, &settings, directory, &mut self.stages, self.stop.clone())?.to_json()
        };
        Ok((path, result))
    }

    fn run_directory<S: Serialize>(&self, path: &Path, verb: &str, settings: &S) -> Result<RunDir> {
        self.directory.check_held()?;
        RunDir::create(path, &VerbSettings::new(verb, settings), self.directory.resumed())
    }

    /// Ends the stage, after runs of `seconds`.
    fn ended(&mut self, outcome: &str, seconds: f64) {
        self.seconds += seconds;
        self.stages.end(&format!("{outcome} ({seconds:.1} s)"));
    }
}

impl TicketLosses {
    fn summary(&self) -> String {
        format!("MLM loss {:.3}, KD loss (1 - cos) {:.3}", self.mlm_loss, self.kd_cosine)
    }
}

fn nothing_masked() -> Error {
    Error::setting("valid-tokens", "the held-out text is so short that no token of it is masked")
}

/// Cross-entropy of `held_out` under the frequencies of `train` with add-one smoothing: `-mean log((n_t + 1) / (N +
/// V))`.
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
    use crate::run::{Silent, StepReport};

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
        let read = |name: &str| std::fs::read_to_string(root.path().join(name)).unwrap();
        assert_eq!(
            serde_json::from_str::<Value>(&read("results.json")).unwrap()["tickets"].as_array().unwrap().len(),
            12
        );
        assert_eq!((read("results.md"), read("results.csv")), (report.to_markdown(), report.to_csv()));
    }

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

    #[cfg(unix)]
    #[test]
    fn a_directory_whose_name_is_not_utf_8_holds_a_demonstration() {
        use std::os::unix::ffi::OsStrExt;
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join(std::ffi::OsStr::from_bytes(b"d\xe9mo"));
        let settings = DemoSettings { methods: vec![Method::Magnitude], ..tiny() };
        let report = run(&settings, &directory, false, &mut Silent, &Stop::new()).unwrap();
        let results: Value = serde_json::from_slice(&std::fs::read(directory.join("results.json")).unwrap()).unwrap();
        assert_eq!(results["output_dir"], *directory.to_string_lossy());
        assert!(report.tickets[0].ticket.starts_with(&directory));
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
