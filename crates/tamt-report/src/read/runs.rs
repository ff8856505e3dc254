//! From run directories to runs, and to the list of those that cannot be used.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use tamt_study::labels::DENSE;
use tamt_study::record::{RECORD_FILE, RESULTS_FILE};

use crate::read::directories::Found;
use crate::read::plain::{self, TicketsByDigest};
use crate::read::settings;
use crate::read::study_run::{self, Status, StudyRun};
use crate::run::{Kind, LeftOut, Machine, Run};
use crate::ticket::TicketReader;

/// Reads the runs that were found. A run without a whole result is left out with the reason.
pub fn read(found: &[Found], reader: &dyn TicketReader) -> (Vec<Run>, Vec<LeftOut>) {
    let all: Vec<PathBuf> = found.iter().flat_map(|found| found.runs.clone()).collect();
    let tickets = plain::tickets_by_digest(&all);
    let (mut runs, mut left_out, mut names) = (Vec::new(), Vec::new(), HashSet::new());
    let mut seen = HashSet::new();
    let directories = found.iter().flat_map(|found| found.runs.iter().map(|directory| (directory, found.of_study)));
    for (directory, of_study) in directories.filter(|(directory, _)| seen.insert((*directory).clone())) {
        let name = unique(directory, &mut names);
        let begun = of_study && !directory.join(RECORD_FILE).exists();
        if begun {
            left_out.push(LeftOut { name, reason: "it has not finished".to_owned() });
            continue;
        }
        match run(directory, &name, &tickets, reader) {
            Ok(run) => runs.push(run),
            Err(reason) => left_out.push(LeftOut { name, reason }),
        }
    }
    for Found { study, listed, not_begun, .. } in found.iter().filter(|found| found.not_begun > 0) {
        let name = study.clone().unwrap_or_default();
        left_out
            .push(LeftOut { name, reason: format!("{not_begun} of the {listed} runs of the study have not begun") });
    }
    (runs, left_out)
}

/// The shortest end of a path that no other run has.
fn unique(directory: &Path, names: &mut HashSet<String>) -> String {
    let parts: Vec<String> = directory.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    let name = (1..=parts.len()).map(|n| parts[parts.len() - n..].join("/")).find(|name| !names.contains(name));
    let name = name.unwrap_or_else(|| format!("{}-{}", directory.display(), names.len()));
    names.insert(name.clone());
    name
}

fn run(directory: &Path, name: &str, tickets: &TicketsByDigest, reader: &dyn TicketReader) -> Result<Run, String> {
    let study = study_run::read(directory).transpose()?;
    if let Some(StudyRun { status: Status::Failed, error, .. }) = &study {
        return Err(format!("it failed: {}", error.as_deref().unwrap_or("no error is recorded")));
    }
    let results = results(directory, study.as_ref())?;
    let settings = settings::read(directory)?;
    let machine = |machine: Option<Machine>| machine.unwrap_or_default().or_recorded(&settings);
    let number = |key: &str| results.get(key).and_then(Value::as_f64);
    let run = match study {
        Some(study) if study.status == Status::Open => return Err("it has not finished".to_owned()),
        Some(study) => Run {
            name: name.to_owned(),
            directory: Some(directory.to_owned()),
            kind: study.kind,
            labels: study.labels,
            id: Some(study.id),
            command: study.command,
            seconds: study.seconds.or_else(|| number("seconds")),
            machine: machine(Some(study.machine)),
            tool_version: study.tool_version.or_else(|| settings.get("tool-version").cloned()),
            scale: scale(&results),
            results,
            settings,
            variant: None,
        },
        None => {
            let kind = plain::kind(&settings)?;
            Run {
                name: name.to_owned(),
                directory: Some(directory.to_owned()),
                kind,
                labels: plain::labels(kind, &settings, tickets, reader)?,
                id: None,
                command: Vec::new(),
                seconds: number("seconds"),
                machine: machine(None),
                tool_version: settings.get("tool-version").cloned(),
                scale: scale(&results),
                results,
                settings,
                variant: None,
            }
        }
    };
    check(&run)?;
    Ok(run)
}

impl Machine {
    /// Fills gaps from the settings of a run.
    fn or_recorded(self, settings: &BTreeMap<String, String>) -> Self {
        let recorded = |key: &str| settings.get(key).cloned();
        Self {
            cpu: self.cpu,
            threads: self.threads.or_else(|| recorded("threads")?.parse().ok()),
            precision: self.precision.or_else(|| recorded("precision")),
        }
    }
}

/// The result of a run, one whole JSON object, as the run wrote it.
fn results(directory: &Path, study: Option<&StudyRun>) -> Result<Map<String, Value>, String> {
    let path = directory.join(RESULTS_FILE);
    if !path.exists() {
        return Err(format!("there is no {RESULTS_FILE}: the run has not finished"));
    }
    let bytes = fs::read(&path).map_err(|error| format!("{RESULTS_FILE} cannot be read: {error}"))?;
    if bytes.is_empty() {
        return Err(format!("{RESULTS_FILE} is empty"));
    }
    let object = serde_json::from_slice(&bytes).map_err(|error| format!("{RESULTS_FILE} is damaged: {error}"))?;
    match study {
        Some(study) if !study.wrote(RESULTS_FILE, &bytes) => Err(format!("{RESULTS_FILE} was changed after the run")),
        _ => Ok(object),
    }
}

/// The factor from metrics to percent points. Benchmarks of answers to questions print percent, other metrics are shares.
fn scale(results: &Map<String, Value>) -> f64 {
    if results.contains_key("exact_match") { 1.0 } else { 100.0 }
}

/// Checks that a result has the numbers that its kind reports.
fn check(run: &Run) -> Result<(), String> {
    match run.kind {
        Kind::Tune => {
            let metric = run.metric().ok_or_else(|| format!("{RESULTS_FILE} names no primary_metric"))?;
            if run.score().is_none() {
                return Err(format!("{RESULTS_FILE} has no finite {metric}"));
            }
            if run.labels.task.is_none() {
                return Err("no task is recorded".to_owned());
            }
            let pruned = run.number("sparsity").is_some_and(|sparsity| sparsity > 0.0);
            if pruned && run.labels.method == DENSE {
                return Err("its result is that of a ticket, and no file names the ticket".to_owned());
            }
        }
        Kind::Losses => {
            if run.number("mlm_loss").is_none() && run.number("kd_cosine").is_none() {
                return Err(format!("{RESULTS_FILE} has neither a finite mlm_loss nor a finite kd_cosine"));
            }
        }
        Kind::Find | Kind::Pretrain => {}
    }
    Ok(())
}
