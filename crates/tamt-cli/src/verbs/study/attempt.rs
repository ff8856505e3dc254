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
use crate::signals::wait_if_ending;
use crate::verbs::{eval, find, tune};

/// How an attempt ended.
pub(super) enum Ended {
    /// With a record: a result or a failure.
    Recorded(Outcome),
    /// By this signal, after a checkpoint.
    Stopped(i32),
    /// Another process writes the run's directory, or makes the run's ticket anew: a later attempt ends otherwise.
    Busy,
    /// Without a record: the lease is another worker's, which writes it.
    Lost,
}

/// A run whose lease this process holds.
pub(super) struct Attempt<'a> {
    pub(super) run: &'a Run,
    pub(super) store: &'a Store,
    pub(super) attempts: u64,
    pub(super) printer: Printer,
    /// Whether another worker has taken the lease.
    is_lost: &'a dyn Fn() -> bool,
    ticket: Option<Source>,
    started: Instant,
}

impl<'a> Attempt<'a> {
    pub(super) fn new(
        run: &'a Run,
        store: &'a Store,
        attempts: u64,
        printer: Printer,
        is_lost: &'a dyn Fn() -> bool,
    ) -> Self {
        Self { run, store, attempts, printer, is_lost, ticket: None, started: Instant::now() }
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
        // A lost lease makes the files those of another worker.
        if let Some(error) = of_old_files
            && !(self.is_lost)()
        {
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
            Err(error) => self.ended_by(&error, &directory, is_old),
        }
    }

    /// The end by an error: a recorded failure, unless the error is none of the run.
    fn ended_by(self, error: &anyhow::Error, directory: &Path, is_old: bool) -> Result<Ended> {
        if (self.is_lost)() {
            return Ok(Ended::Lost);
        }
        if let Some(ended) = end_without_failure(error, is_old) {
            return Ok(ended);
        }
        if let Some(ticket) = &self.run.ticket
            && self.store.find(ticket)?.is_none()
        {
            // A worker of another plan has set the search aside to do it again.
            return Ok(Ended::Busy);
        }
        let told = self.told(error);
        self.record(directory, Some(told))
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

    /// The steps whose tickets the search writes: those of the plan, those that it has written for other plans, and
    /// those of its record, without which it would not go on.
    fn steps(&self) -> Result<Vec<u64>> {
        let mut steps = self.run.ticket_steps.clone();
        if self.run.kind == Kind::Find {
            steps.extend(self.store.steps_in(self.run)?);
            steps.extend(recorded_steps(&self.store.directory(self.run)));
        }
        steps.sort_unstable();
        steps.dedup();
        Ok(steps)
    }

    /// Runs the command. A signal that ends the process causes errors, which are never returned.
    fn execute(&mut self, directory: &Path, steps: &[u64]) -> Result<()> {
        self.call(directory, steps).inspect_err(|_| wait_if_ending())
    }

    /// Runs the command, whatever ends it.
    fn call(&mut self, directory: &Path, steps: &[u64]) -> Result<()> {
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

    /// Writes the record of the end, unless the lease is lost.
    fn record(mut self, directory: &Path, error: Option<String>) -> Result<Ended> {
        let status = if error.is_some() { Outcome::Failed } else { Outcome::Done };
        let steps = self.steps()?;
        let command = self.command(directory, &steps).unwrap_or_else(|_| self.run.command.clone());
        let tickets = self.run.folders().chain(steps.iter().map(|step| format!("step-{step}")));
        let mut paths: Vec<String> = tickets.map(|folder| format!("{folder}/{TICKET_FILE}")).collect();
        paths.extend([TICKET_FILE, RESULTS_FILE, "model.safetensors"].map(str::to_owned));
        paths.sort_unstable();
        paths.dedup();
        let files = paths.iter().filter_map(|path| WrittenFile::of(directory, path).transpose());
        let files: tamt_study::Result<Vec<_>> = files.collect();
        // The digests of the files have taken their time.
        if (self.is_lost)() {
            return Ok(Ended::Lost);
        }
        // Nothing reads the files of a failed run, whose error counts more than theirs.
        let files = if status == Outcome::Failed { files.unwrap_or_default() } else { files? };
        let precision = precision(&self.run.command);
        let machine = Machine {
            cpu: tamt_kernels::processor(precision),
            threads: rayon::current_num_threads(),
            precision: serde_json::to_value(precision)?.as_str().unwrap_or_default().to_owned(),
        };
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
        files::create_directory(directory)?;
        record.write(directory)?;
        Ok(Ended::Recorded(status))
    }
}

/// The steps in the record of the search in `directory`. A record that cannot be read has none: the search tells of it
/// when it goes on.
fn recorded_steps(directory: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(directory.join(SETTINGS_FILE)).unwrap_or_default();
    let record: toml::Table = toml::from_str(&text).unwrap_or_default();
    let steps = record.get("ticket-steps").and_then(toml::Value::as_array);
    steps.into_iter().flatten().filter_map(|step| u64::try_from(step.as_integer()?).ok()).collect()
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

/// The end of an attempt whose error says nothing about the run; `is_old` as in [`Attempt::make`].
fn end_without_failure(error: &anyhow::Error, is_old: bool) -> Option<Ended> {
    match error.downcast_ref::<tamt::Error>()? {
        tamt::Error::Stopped { signal, .. } => Some(Ended::Stopped(*signal)),
        tamt::Error::Locked { .. } => Some(Ended::Busy),
        // The directory held no run when the attempt began.
        tamt::Error::Occupied { .. } if !is_old => Some(Ended::Busy),
        _ => None,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A run whose command is refused.
    fn run(kind: Kind, name: &str) -> Run {
        Run {
            kind,
            id: format!("{name}-id"),
            name: name.to_owned(),
            labels: Labels::default(),
            choice: String::new(),
            command: ["tamt", "find", "--no-such-flag"].map(str::to_owned).to_vec(),
            ticket_steps: Vec::new(),
            levels: Vec::new(),
            alternatives: Vec::new(),
            ticket: None,
            line: 1,
        }
    }

    fn attempt<'a>(run: &'a Run, store: &'a Store, is_lost: &'a dyn Fn() -> bool) -> Attempt<'a> {
        Attempt::new(run, store, 1, Printer::new(false, true), is_lost)
    }

    #[test]
    fn an_attempt_whose_lease_is_lost_writes_no_record() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let search = run(Kind::Find, "search");
        let directory = store.directory(&search);
        let failed = attempt(&search, &store, &|| true).make(&State::ToDo).unwrap();
        assert!(matches!(failed, Ended::Lost));
        let done = attempt(&search, &store, &|| true).record(&directory, None).unwrap();
        assert!(matches!(done, Ended::Lost) && !directory.exists());
        let failed = attempt(&search, &store, &|| false).make(&State::ToDo).unwrap();
        assert!(matches!(failed, Ended::Recorded(Outcome::Failed)));
        assert!(Record::read(&directory).unwrap().is_some());
    }

    #[test]
    fn a_run_whose_ticket_is_made_anew_has_not_failed() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let ticket = run(Kind::Find, "search").ticket_after(None);
        let losses = Run { ticket: Some(ticket), ..run(Kind::Losses, "losses") };
        let ended = attempt(&losses, &store, &|| false).make(&State::ToDo).unwrap();
        assert!(matches!(ended, Ended::Busy));
        assert!(!store.directory(&losses).exists());
    }

    #[test]
    fn a_directory_that_was_empty_and_is_not_is_that_of_another_process() {
        let occupied = tamt::Error::Occupied { path: "run".into(), found: SETTINGS_FILE.to_owned() };
        let error = anyhow::Error::from(occupied);
        assert!(matches!(end_without_failure(&error, false), Some(Ended::Busy)));
        assert!(end_without_failure(&error, true).is_none());
        assert!(end_without_failure(&anyhow!("another error"), false).is_none());
    }
}
