//! Names in the output directory of a demonstration, and the files of the language.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tamt_data::invented::{Split, TaskSizes, World};
use tamt_files::atomic_write;

use crate::demo::settings::DemoSettings;
use crate::error::{Error, Result};

/// The training text.
pub const TRAIN_FILE: &str = "train.txt";
/// The held-out text.
pub const VALID_FILE: &str = "valid.txt";
/// The pre-trained model.
pub const MODEL_DIR: &str = "model";
/// The files of the tasks.
pub const TASKS_DIR: &str = "tasks";
/// The tokenizer.
pub const TOKENIZER_DIR: &str = "tokenizer";

/// Writes the language alone into `directory`: its tokenizer, its texts, and the files of its tasks. A second call
/// writes the same bytes.
///
/// # Errors
/// [`Error::OtherContent`] if another file has the name of one of these, ahead of any change; [`Error::Io`].
pub fn write_data(settings: &DemoSettings, directory: &Path) -> Result<()> {
    let files: Vec<(PathBuf, String)> =
        language(settings).into_iter().map(|(name, content)| (directory.join(name), content)).collect();
    files.iter().try_for_each(|(path, content)| check_free(path, content))?;
    files.iter().try_for_each(|(path, content)| write(path, content))
}

/// The files of the language, by their paths in the output directory.
fn language(settings: &DemoSettings) -> Vec<(PathBuf, String)> {
    let DemoSettings { seed, train_tokens, valid_tokens, task_train, task_dev, .. } = *settings;
    let world = World::new(seed);
    let tokenizer = world.tokenizer_files().map(|(name, content)| (Path::new(TOKENIZER_DIR).join(name), content));
    let texts = [(TRAIN_FILE, train_tokens, Split::Train), (VALID_FILE, valid_tokens, Split::Valid)]
        .map(|(name, tokens, split)| (PathBuf::from(name), world.corpus(tokens, seed, split).0));
    let sizes = TaskSizes { train: task_train, dev: task_dev, test: task_dev };
    let tasks = world.task_files(sizes, seed).into_iter();
    let tasks = tasks.map(|(name, content)| (Path::new(TASKS_DIR).join(name), content));
    tokenizer.into_iter().chain(texts).chain(tasks).collect()
}

/// Refuses a path where a file with another content is.
fn check_free(path: &Path, content: &str) -> Result<()> {
    match fs::read(path) {
        Ok(found) if found == content.as_bytes() => Ok(()),
        Ok(_) => Err(Error::OtherContent { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

/// Writes a file and the directories above it.
fn write(path: &Path, content: &str) -> Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(Error::io("create directory", directory))?;
    }
    atomic_write(path, |out| out.write_all(content.as_bytes())).map_err(Error::io("write", path))
}
