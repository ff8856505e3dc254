//! Directories of the files in an input.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

/// The start of the line before a file of an input.
const HEADER: &[u8] = b"@@ ";

/// An empty directory, in memory where the system has `/dev/shm`.
pub(crate) fn empty() -> TempDir {
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    dir.expect("a directory can be made")
}

/// A directory with one file.
pub(crate) fn one(name: &str, bytes: &[u8]) -> TempDir {
    let dir = empty();
    write(dir.path(), name, bytes);
    dir
}

/// A directory with the files of an input that have one of `names`. A line `@@ NAME` precedes each file, whose last line
/// end does not belong to the file.
pub(crate) fn several(input: &[u8], names: &[&str]) -> TempDir {
    let dir = empty();
    for (name, bytes) in sections(input) {
        if names.contains(&name) {
            write(dir.path(), name, bytes);
        }
    }
    dir
}

/// The files of an input, by name.
pub(crate) fn sections(input: &[u8]) -> Vec<(&str, &[u8])> {
    let is_start = |at: &usize| input[*at..].starts_with(HEADER) && (*at == 0 || input[at - 1] == b'\n');
    let starts: Vec<usize> = (0..input.len()).filter(is_start).collect();
    let mut sections = Vec::new();
    for (i, &start) in starts.iter().enumerate() {
        let end = starts.get(i + 1).map_or(input.len(), |next| next - 1);
        let section = &input[start + HEADER.len()..end];
        let Some(line) = section.iter().position(|&b| b == b'\n') else { continue };
        if let Ok(name) = std::str::from_utf8(&section[..line]) {
            sections.push((name, &section[line + 1..]));
        }
    }
    sections
}

fn write(dir: &Path, name: &str, bytes: &[u8]) {
    let path = dir.join(name);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).expect("a directory can be made");
    }
    fs::write(path, bytes).expect("a file can be written");
}
