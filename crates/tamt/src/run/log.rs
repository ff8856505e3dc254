//! `log.jsonl` and `TensorBoard`'s event file, the growing logs of a run.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Instant;

use serde::Deserialize;
use serde_json::{Map, Value};
use tamt_model::write::atomic_write;

use crate::error::{Error, Result};
use crate::run::growing::GrowingFile;
use crate::run::tensorboard::EventWriter;

/// The name of the log in a run directory.
pub(super) const FILE: &str = "log.jsonl";

/// How the name of a logged value of an evaluation begins.
pub(crate) const EVAL_PREFIX: &str = "eval_";

/// The two growing logs of a run: `log.jsonl`, one JSON object a line, and `TensorBoard`'s event file.
///
/// A line is `{"step": .., "seconds": .., <the logged values>}`; `seconds` is the wall-clock time spent on the run
/// so far, over all its resumptions. Values that are not finite are `null`.
#[derive(Debug)]
pub struct Log {
    lines: GrowingFile,
    events: EventWriter,
    opened: Instant,
    seconds_before: f64,
}

/// The fields of a line that decide whether it stays on a resume.
#[derive(Deserialize)]
struct Line {
    step: u64,
    #[serde(default)]
    seconds: f64,
    #[serde(flatten)]
    values: Map<String, Value>,
}

impl Line {
    fn is_evaluation(&self) -> bool {
        self.values.keys().any(|name| name.starts_with(EVAL_PREFIX))
    }
}

impl Log {
    /// Opens the logs of the run in `directory`, in a new event file.
    ///
    /// A run resumed after a step repeats the later steps, and the evaluation after the step unless the second value
    /// says that it has ended; their lines are dropped, so that each is logged once. With `None` the log starts empty.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Model`] if a log cannot be read, written or created.
    pub fn open(directory: &Path, resumed: Option<(u64, bool)>) -> Result<Self> {
        let path = directory.join(FILE);
        let (lines, seconds_before) = match resumed {
            Some((step, evaluated)) => lines_up_to(&path, step, evaluated)?,
            None => (Vec::new(), 0.0),
        };
        atomic_write(&path, |file| file.write_all(&lines))?;
        let lines = GrowingFile::open(&path)?;
        let mut events = EventWriter::create(directory)?;
        events.restart_at(resumed.map_or(0, |(step, _)| step + 1))?;
        Ok(Self { lines, events, opened: Instant::now(), seconds_before })
    }

    /// Seconds of the run ahead of its last resumption.
    pub(crate) fn seconds_before(&self) -> f64 {
        self.seconds_before
    }

    /// Logs `values` by name as those of optimiser step `step`; no name is "step" or "seconds".
    ///
    /// # Errors
    /// [`Error::Io`] if a log cannot be written.
    pub fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> Result<()> {
        let seconds = self.seconds_before + self.opened.elapsed().as_secs_f64();
        let mut line = format!("{{\"step\":{step},\"seconds\":{seconds:.3}");
        for &(name, value) in values {
            // Writing to a string does not fail.
            let _ = write!(line, ",{}:{}", Value::from(name), Value::from(value));
        }
        line.push_str("}\n");
        self.lines.append(line.as_bytes())?;
        self.events.scalars(step, values)
    }

    /// Waits until the disk holds everything logged so far.
    ///
    /// # Errors
    /// [`Error::Io`] if a log cannot be written.
    pub fn flush(&mut self) -> Result<()> {
        self.lines.flush()?;
        self.events.flush()
    }
}

/// The lines of the log at `path` that belong to steps up to `step`, with the evaluation of `step` if it has ended, and the seconds that the last of them records.
fn lines_up_to(path: &Path, step: u64, evaluated: bool) -> Result<(Vec<u8>, f64)> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        outcome => outcome.map_err(Error::io("read", path))?,
    };
    let (mut lines, mut seconds) = (Vec::new(), 0.0);
    for text in bytes.split(|&byte| byte == b'\n') {
        // A kill or a power cut can leave a torn line. A torn line is dropped and does not stop a run from resuming.
        let Ok(line) = serde_json::from_slice::<Line>(text) else {
            continue;
        };
        if line.step < step || line.step == step && (evaluated || !line.is_evaluation()) {
            lines.extend_from_slice(text);
            lines.push(b'\n');
            seconds = line.seconds;
        }
    }
    Ok((lines, seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(directory: &Path) -> Vec<Value> {
        let text = fs::read_to_string(directory.join(FILE)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_line_holds_the_step_the_seconds_and_the_values() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = Log::open(directory.path(), None).unwrap();
        log.scalars(10, &[("loss", 0.1 + 0.2), ("kd \"cosine\"", f64::NAN)]).unwrap();
        log.flush().unwrap();
        let line = &lines(directory.path())[0];
        assert_eq!(line["step"], 10);
        assert!(line["seconds"].as_f64().unwrap() >= 0.0);
        assert_eq!(line["loss"], 0.1 + 0.2);
        assert_eq!(line["kd \"cosine\""], Value::Null);
    }

    #[test]
    fn a_resumed_run_has_each_step_once_and_time_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = Log::open(directory.path(), None).unwrap();
        log.seconds_before = 1000.0;
        for step in [1, 2, 3] {
            log.scalars(step, &[("loss", 9.0)]).unwrap();
        }
        drop(log);
        let path = directory.path().join(FILE);
        let torn = [fs::read(&path).unwrap(), b"\xff\n{\"step\":2,\"lo".to_vec()].concat();
        fs::write(&path, torn).unwrap();

        let mut log = Log::open(directory.path(), Some((2, true))).unwrap();
        log.scalars(3, &[("loss", 1.0)]).unwrap();
        let lines = lines(directory.path());
        let steps: Vec<_> = lines.iter().map(|line| line["step"].as_u64().unwrap()).collect();
        assert_eq!(steps, [1, 2, 3]);
        assert_eq!(lines[2]["loss"], 1.0);
        assert!(lines[2]["seconds"].as_f64().unwrap() >= 1000.0);
    }

    #[test]
    fn an_evaluation_that_a_resumed_run_repeats_is_logged_once() {
        for (evaluated, expected) in [(true, 2), (false, 1)] {
            let directory = tempfile::tempdir().unwrap();
            let mut log = Log::open(directory.path(), None).unwrap();
            log.scalars(5, &[("loss", 1.0)]).unwrap();
            log.scalars(5, &[("eval_loss", 1.0)]).unwrap();
            Log::open(directory.path(), Some((5, evaluated))).unwrap();
            assert_eq!(lines(directory.path()).len(), expected);
        }
    }

    #[test]
    fn a_run_that_starts_over_empties_the_log() {
        let directory = tempfile::tempdir().unwrap();
        Log::open(directory.path(), None).unwrap().scalars(1, &[]).unwrap();
        Log::open(directory.path(), None).unwrap();
        assert!(lines(directory.path()).is_empty());
    }

    #[test]
    fn every_opening_gets_its_own_event_file() {
        let directory = tempfile::tempdir().unwrap();
        for resume in [None, Some((1, true)), Some((2, false))] {
            Log::open(directory.path(), resume).unwrap();
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 4);
    }
}
