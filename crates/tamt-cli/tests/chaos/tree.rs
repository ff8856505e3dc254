//! The files of a run: whether each is whole under its name, and whether two runs have the same.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::common::files;
use crate::events;

/// Keys of wall-clock fields in JSON.
const CLOCKS: [&str; 1] = ["seconds"];

/// Whether the file or a folder above it has a temporary name, under which nothing needs to be whole.
pub(crate) fn is_temporary(name: &str) -> bool {
    name.split('/').any(|part| part.starts_with(".tmp-") || part.starts_with(".checkpoint-"))
}

fn file_name(name: &str) -> &str {
    name.rsplit('/').next().unwrap()
}

/// Asserts that every file below `run` that has a final name is whole. `finished` is the same run without a
/// disturbance, which texts without a format of their own equal.
pub(crate) fn assert_whole(run: &Path, finished: &Path) {
    if !run.exists() {
        return;
    }
    for (name, path) in files(run).into_iter().filter(|(name, _)| !is_temporary(name)) {
        if let Err(reason) = is_whole(&name, &path, finished) {
            panic!("{} is not whole: {reason}", path.display());
        }
    }
}

fn is_whole(name: &str, path: &Path, finished: &Path) -> Result<(), String> {
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    match file_name(name) {
        ".lock" => {
            if bytes.is_empty() {
                Ok(())
            } else {
                Err("a lock has no content".to_owned())
            }
        }
        name if name.starts_with(events::PREFIX) => events::read(&bytes).map(|_| ()),
        name if name.ends_with(".safetensors") => safetensors(&bytes),
        name if name.ends_with(".json") => {
            serde_json::from_slice::<Value>(&bytes).map(|_| ()).map_err(|e| e.to_string())
        }
        name if name.ends_with(".jsonl") => lines(&bytes).map(|_| ()),
        name if name.ends_with(".toml") => {
            let text = String::from_utf8(bytes).map_err(|error| error.to_string())?;
            toml::from_str::<toml::Table>(&text).map(|_| ()).map_err(|error| error.to_string())
        }
        _ => {
            let whole = fs::read(finished.join(name)).map_err(|_| "no run without a disturbance has it".to_owned())?;
            if bytes == whole { Ok(()) } else { Err(format!("{} of {} bytes, or others", bytes.len(), whole.len())) }
        }
    }
}

/// The header parses and the tensors fill the file.
fn safetensors(bytes: &[u8]) -> Result<(), String> {
    let (length, rest) = bytes.split_first_chunk::<8>().ok_or("it has no header")?;
    let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|error| error.to_string())?;
    let header = rest.get(..length).ok_or("its header ends early")?;
    let header: BTreeMap<String, Value> = serde_json::from_slice(header).map_err(|error| error.to_string())?;
    let ends = header.values().filter_map(|tensor| tensor["data_offsets"][1].as_u64());
    let (end, present) = (ends.max().unwrap_or(0), (rest.len() - length) as u64);
    if end == present { Ok(()) } else { Err(format!("{present} of {end} bytes of tensors")) }
}

fn lines(bytes: &[u8]) -> Result<Vec<Value>, String> {
    if bytes.last().is_some_and(|&last| last != b'\n') {
        return Err("its last line has no end".to_owned());
    }
    let lines = bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).map_err(|error| error.to_string())).collect()
}

/// Asserts that two finished runs have the same files with the same content, apart from wall-clock fields, and no file
/// with a temporary name.
pub(crate) fn assert_same(run: &Path, finished: &Path) {
    let (one, other) = (files(run), files(finished));
    let is_event = |name: &str| file_name(name).starts_with(events::PREFIX);
    let names =
        |of: &BTreeMap<String, PathBuf>| -> Vec<String> { of.keys().filter(|name| !is_event(name)).cloned().collect() };
    assert_eq!(names(&one), names(&other), "the names of the files");
    for (name, path) in one.iter().filter(|(name, _)| !is_event(name)) {
        assert!(content(path) == content(&other[name]), "{name} differs from that of a run without a disturbance");
    }
    assert_eq!(events::shown(run), events::shown(finished), "TensorBoard's values");
}

/// The content of a file without its wall-clock fields.
fn content(path: &Path) -> Vec<u8> {
    let bytes = fs::read(path).unwrap();
    let name = path.to_str().unwrap();
    if name.ends_with(".jsonl") {
        let mut lines = lines(&bytes).unwrap();
        lines.iter_mut().for_each(drop_clocks);
        return Value::Array(lines).to_string().into_bytes();
    }
    if name.ends_with("eval_results.json") {
        let mut value = serde_json::from_slice(&bytes).unwrap();
        drop_clocks(&mut value);
        return value.to_string().into_bytes();
    }
    bytes
}

fn drop_clocks(value: &mut Value) {
    if let Some(map) = value.as_object_mut() {
        map.retain(|key, _| !CLOCKS.contains(&key.as_str()));
        map.values_mut().for_each(drop_clocks);
    }
    value.as_array_mut().into_iter().flatten().for_each(drop_clocks);
}
