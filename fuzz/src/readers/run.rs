//! The directory of a run: settings, record, log, result.

use std::fs;

use tamt::run::{Log, RunDir, TrainerState, read_eval_results, write_eval_results};

use crate::readers::files;

const FILES: [&str; 4] = ["config.toml", "trainer_state.json", "eval_results.json", "log.jsonl"];

/// A run resumes with its own settings; record and result are written and read again; a log is cut where it should be.
pub(crate) fn run(input: &[u8]) -> bool {
    let dir = files::several(input, &FILES);
    let path = dir.path();
    let state = TrainerState::read(path);
    if let Ok(state) = &state {
        let copy = files::empty();
        state.write(copy.path()).expect("a record can be written");
        assert_eq!(&TrainerState::read(copy.path()).expect("a written record is read"), state);
    }
    let results = read_eval_results(path);
    if let Ok(results) = &results {
        let copy = files::empty();
        write_eval_results(copy.path(), results).expect("a result can be written");
        assert_eq!(&read_eval_results(copy.path()).expect("a written result is read"), results);
    }
    let settings = fs::read_to_string(path.join("config.toml")).ok();
    let settings = settings.and_then(|text| toml::from_str::<toml::Table>(&text).ok());
    let mut is_resumed = false;
    // No setting of a run is a date, which becomes a table here, or NaN, which differs from itself.
    let is_plain = |settings: &toml::Table| toml::Table::try_from(settings).is_ok_and(|copy| copy == *settings);
    if let Some(settings) = settings.filter(is_plain) {
        let run = RunDir::create(path, &settings, true).expect("a run resumes with its own settings");
        assert!(run.resumed());
        assert_eq!(run.finished(), path.join("eval_results.json").is_file());
        drop(run);
        let other: toml::Table = toml::from_str("method = 'magnitude'\n[train]\nmax-steps = 9").expect("it is TOML");
        let _ = RunDir::create(path, &other, true);
        is_resumed = true;
    }
    log(path);
    state.is_ok() && results.is_ok() && is_resumed
}

/// The lines that stay for a run resumed after step 5 are at most those that stay after step 6, and stay when cut again.
fn log(path: &std::path::Path) {
    let file = path.join("log.jsonl");
    let mut before = usize::MAX;
    for resumed in [(6, true), (5, true), (5, true), (5, false)] {
        Log::open(path, Some(resumed)).expect("a log can be cut");
        let lines = fs::read(&file).expect("the log exists");
        assert!(lines.is_empty() || lines.ends_with(b"\n"));
        assert!(lines.len() <= before);
        before = lines.len();
    }
}
