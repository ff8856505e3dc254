//! Files that appear whole, and JSON in them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tamt_files::atomic_write;

use crate::error::{Error, Result};

/// A name in the directory of `path` that no other thread or process uses, on any machine.
pub(crate) fn temporary(path: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let host = gethostname::gethostname().to_string_lossy().into_owned();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    path.with_file_name(format!(".tmp-{host}-{}-{number}", process::id()))
}

/// Writes a file so that `path` holds all of it or what was there.
///
/// # Errors
/// [`Error::Io`].
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    atomic_write(path, |file| file.write_all(bytes)).map_err(Error::io("write", path))
}

/// Writes a value as indented JSON, whole.
///
/// # Errors
/// [`Error::Io`].
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut bytes = serde_json::to_vec_pretty(value)
        .map_err(|error| Error::Damaged { path: path.to_owned(), reason: error.to_string() })?;
    bytes.push(b'\n');
    write_whole(path, &bytes)
}

/// Reads a JSON file; `None` if there is none.
///
/// # Errors
/// [`Error::Io`], and [`Error::Damaged`] for another format.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let Some(bytes) = read(path)? else { return Ok(None) };
    let value = serde_json::from_slice(&bytes);
    value.map(Some).map_err(|error| Error::Damaged { path: path.to_owned(), reason: error.to_string() })
}

/// The content of a file; `None` if there is none.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

/// Creates a directory with its parents.
///
/// # Errors
/// [`Error::Io`].
pub fn create_directory(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(Error::io("create directory", path))
}

/// Removes a file, or a directory with its content, if it exists.
///
/// # Errors
/// [`Error::Io`].
pub fn remove(path: &Path) -> Result<()> {
    // A look at what the path is would come too early: another process may create a directory there after the look.
    let outcome = match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => fs::remove_file(path),
        outcome => outcome,
    };
    match outcome {
        Err(error) if !is_missing(&error) => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// The names of a directory's entries, sorted; none if the directory is missing.
///
/// # Errors
/// [`Error::Io`].
pub fn entries(directory: &Path) -> Result<Vec<String>> {
    let list = |error| Error::io("list", directory)(error);
    let entries = match fs::read_dir(directory) {
        Err(error) if is_missing(&error) => return Ok(Vec::new()),
        entries => entries.map_err(list)?,
    };
    let names = entries.filter_map(|entry| entry.map(|entry| entry.file_name().into_string().ok()).transpose());
    let mut names: Vec<String> = match names.collect::<io::Result<_>>() {
        // Another process removed the directory meanwhile.
        Err(error) if is_missing(&error) => return Ok(Vec::new()),
        names => names.map_err(list)?,
    };
    names.sort_unstable();
    Ok(names)
}

/// Whether the error says that there is no such file.
pub(crate) fn is_missing(error: &io::Error) -> bool {
    // A parent of the path may be a file, or removed by another process.
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn files_and_directories_are_removed_and_what_is_missing_is_no_error() {
        let root = tempfile::tempdir().unwrap();
        let (file, directory) = (root.path().join("file"), root.path().join("directory"));
        fs::write(&file, "text").unwrap();
        create_directory(&directory.join("inner")).unwrap();
        for path in [&file.join("below"), &file, &directory] {
            remove(path).unwrap();
        }
        assert!(entries(root.path()).unwrap().is_empty());
        remove(&directory).unwrap();
    }

    #[test]
    fn a_directory_that_another_process_creates_meanwhile_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("run");
        let create = || {
            for _ in 0..2000 {
                // The directory may be there still.
                let _ = fs::create_dir(&path);
            }
        };
        thread::scope(|scope| {
            let creating = scope.spawn(create);
            while !creating.is_finished() {
                remove(&path).unwrap();
            }
        });
    }
}
