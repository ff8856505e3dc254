//! One attempt at a run, through the same code as its command.

use std::any::Any;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Instant;

use anyhow::{Result, anyhow};
use tamt::run::SETTINGS_FILE;
use tamt_study::files;
use tamt_study::labels::{Kind, Labels};
use tamt_study::record::{FORMAT, Machine, Outcome, RESULTS_FILE, Record, TICKET_FILE, WrittenFile};
use tamt_study::run::{Run, Source};
use tamt_study::store::{State, Store};

use crate::args::Verb;
use crate::command_line;
use crate::messages::with_causes;
use crate::printer::Printer;
use crate::verbs::{eval, find, tune};

/// How an attempt ended.
pub(super) enum Ended {
    /// With a record: a result or a failure.
    Recorded(Outcome),
    /// By this signal, after a checkpoint.
    Stopped(i32),
    /// Another process still writes the run's directory.
    Busy,
}

/// A run whose lease this process holds.
pub(super) struct Attempt<'a> {
    pub(super) run: &'a Run,
    pub(super) store: &'a Store,
    pub(super) attempts: u64,
    pub(super) printer: Printer,
    ticket: Option<Source>,
    started: Instant,
}

impl<'a> Attempt<'a> {
    pub(super) fn new(run: &'a Run, store: &'a Store, attempts: u64, printer: Printer) -> Self {
        Self { run, store, attempts, printer, ticket: None, started: Instant::now() }
    }

    /// Makes the attempt. `state` is the run's state ahead of it.
    pub(super) fn make(mut self, state: &State) -> Result<Ended> {
        let directory = self.store.directory(self.run);
        let steps = self.steps()?;
        if matches!(state, State::Damaged { .. }) {
            self.store.set_aside(self.run)?;
        }
        let is_old = *state == State::Started && self.run.kind != Kind::Losses;
        if self.run.kind == Kind::Losses {
            // A measurement has no checkpoints, and its command takes an empty directory only.
            files::remove(&directory)?;
        }
        let mut outcome = self.execute(&directory, &steps);
        let of_old_files = outcome.as_ref().err().filter(|error| is_old && is_of_old_files(error, &directory));
        if let Some(error) = of_old_files {
            self.printer.progress(&format!("{}: {}; the run begins anew", self.run.name, self.told(error)));
            self.store.set_aside(self.run)?;
            outcome = self.execute(&directory, &steps);
        }
        match outcome {
            Ok(()) => {
                let lost = self.results().find(|file| !directory.join(file).is_file());
                let error = lost.map(|file| format!("it ended without {file}"));
                self.record(&directory, error)
            }
            Err(error) => match error.downcast_ref::<tamt::Error>() {
                Some(tamt::Error::Stopped { signal, .. }) => Ok(Ended::Stopped(*signal)),
                Some(tamt::Error::Locked { .. }) => Ok(Ended::Busy),
                _ => {
                    let told = self.told(&error);
                    self.record(&directory, Some(told))
                }
            },
        }
    }

    /// An error with its causes, in a line.
    fn told(&self, error: &anyhow::Error) -> String {
        with_causes(error, &self.run.command)
    }

    /// The files without which the run is not done.
    fn results(&self) -> impl Iterator<Item = &'static str> + use<> {
        let ticket = (self.run.kind == Kind::Find).then_some(TICKET_FILE);
        [RESULTS_FILE].into_iter().chain(ticket)
    }

    /// Records a failure without an attempt.
    pub(super) fn fail(self, error: String) -> Result<()> {
        let directory = self.store.directory(self.run);
        self.record(&directory, Some(error)).map(|_| ())
    }

    /// The steps whose tickets the search writes: those of the plan, and those that it has written for other plans.
    fn steps(&self) -> Result<Vec<u64>> {
        let mut steps = self.run.ticket_steps.clone();
        if self.run.kind == Kind::Find {
            steps.extend(self.store.steps_in(self.run)?);
        }
        steps.sort_unstable();
        steps.dedup();
        Ok(steps)
    }

    /// Runs the command.
    fn execute(&mut self, directory: &Path, steps: &[u64]) -> Result<()> {
        let mut words = self.command(directory, steps)?;
        let resumes = self.run.kind != Kind::Losses && directory.is_dir();
        if resumes {
            words.push("--resume".to_owned());
        }
        let line: Vec<OsString> = words.into_iter().map(OsString::from).collect();
        // The words are those of the plan; what a resumed run adds to them is its record.
        let refused = |text: String| if resumes { unreadable_record(directory, &text) } else { anyhow!(text) };
        let cli = command_line::parse(&line).map_err(|error| refused(error.render().to_string()))?;
        let printer = self.printer.nested();
        let verb = || match &cli.verb {
            Verb::Find(args) => find::run(args, printer),
            Verb::Eval(args) => eval::run(args, printer),
            Verb::Tune(args) => tune::run(args, printer),
            _ => Err(anyhow!("a study runs find, eval and tune")),
        };
        // A defect that one run meets does not end the study.
        catch_unwind(AssertUnwindSafe(verb)).unwrap_or_else(|panic| Err(anyhow!("panicked: {}", panic_text(&*panic))))
    }

    /// The whole command line.
    fn command(&mut self, directory: &Path, steps: &[u64]) -> Result<Vec<String>> {
        let mut words = self.run.command.clone();
        if let Some(ticket) = &self.run.ticket {
            let (source, folder) = self.store.find(ticket)?.ok_or_else(|| anyhow!("its ticket is gone"))?;
            words.push(format!("--ticket={}", folder.join(TICKET_FILE).display()));
            self.ticket = Some(source);
        }
        if !steps.is_empty() {
            let steps: Vec<String> = steps.iter().map(u64::to_string).collect();
            words.push(format!("--ticket-steps={}", steps.join(",")));
        }
        words.push(format!("--output-dir={}", directory.display()));
        Ok(words)
    }

    /// Writes the record of the end.
    fn record(mut self, directory: &Path, error: Option<String>) -> Result<Ended> {
        let status = if error.is_some() { Outcome::Failed } else { Outcome::Done };
        let steps = self.steps()?;
        let command = self.command(directory, &steps).unwrap_or_else(|_| self.run.command.clone());
        let tickets = self.run.folders().chain(steps.iter().map(|step| format!("step-{step}")));
        let mut paths: Vec<String> = tickets.map(|folder| format!("{folder}/{TICKET_FILE}")).collect();
        paths.extend([TICKET_FILE, RESULTS_FILE, "model.safetensors"].map(str::to_owned));
        paths.sort_unstable();
        paths.dedup();
        let files = paths.iter().filter_map(|path| WrittenFile::of(directory, path)).collect();
        let precision = precision(&self.run.command);
        let machine = Machine {
            cpu: tamt_kernels::processor(precision),
            threads: rayon::current_num_threads(),
            precision: serde_json::to_value(precision)?.as_str().unwrap_or_default().to_owned(),
        };
        files::create_directory(directory)?;
        let record = Record {
            format: FORMAT,
            kind: self.run.kind,
            id: self.run.id.clone(),
            name: self.run.name.clone(),
            status,
            error,
            attempts: self.attempts,
            labels: Labels { ticket: self.ticket.as_ref().map(Source::label), ..self.run.labels.clone() },
            command,
            seconds: logged_seconds(directory).max(self.started.elapsed().as_secs_f64()),
            machine,
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            files,
        };
        record.write(directory)?;
        Ok(Ended::Recorded(status))
    }
}

/// Seconds of training over all attempts, as the last line of the log has them; 0 without a log.
fn logged_seconds(directory: &Path) -> f64 {
    let log = std::fs::read_to_string(directory.join("log.jsonl")).unwrap_or_default();
    let last = log.lines().next_back().and_then(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    last.and_then(|line| line.get("seconds")?.as_f64()).unwrap_or(0.0)
}

/// The precision that a command line means on this machine.
fn precision(words: &[String]) -> tamt_kernels::Precision {
    match words.iter().find_map(|word| word.strip_prefix("--precision=")) {
        Some("f32") => tamt_kernels::Precision::F32,
        Some("bf16") => tamt_kernels::Precision::Bf16,
        _ => tamt_kernels::Precision::native(),
    }
}

/// The error of a record that the command line does not take, as one that another version wrote.
fn unreadable_record(directory: &Path, text: &str) -> anyhow::Error {
    let path = directory.join(SETTINGS_FILE);
    // The usage follows the first line, and the path stands ahead of the reason.
    let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
    let reason = first.trim_start_matches(&*path.to_string_lossy()).trim_start_matches(": ").to_owned();
    tamt::Error::Damaged { path, reason }.into()
}

/// Whether an error says that the files of an earlier attempt in `directory` cannot be gone on with. Any other error (a full
/// disk, a text that cannot be read) is no reason to begin anew: the checkpoints stay for the next attempt.
fn is_of_old_files(error: &anyhow::Error, directory: &Path) -> bool {
    use tamt::Error::{Damaged, Io, NothingToResume, Occupied, SettingsDiffer};
    match error.downcast_ref::<tamt::Error>() {
        Some(Damaged { .. } | NothingToResume { .. } | Occupied { .. } | SettingsDiffer { .. }) => true,
        Some(Io { path, source, .. }) => {
            source.kind() == ErrorKind::NotFound && path.starts_with(directory) && directory.is_dir()
        }
        _ => false,
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}
