//! Names in the output directory of a demonstration, and the files of the language.

use std::fs;
use std::path::Path;

use tamt_data::invented::{Split, TaskSizes, World};

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
/// If a file cannot be written.
pub fn write_data(settings: &DemoSettings, directory: &Path) -> Result<()> {
    let DemoSettings { seed, train_tokens, valid_tokens, task_train, task_dev, .. } = *settings;
    let world = World::new(seed);
    let create = |name: &str| -> Result<_> {
        let path = directory.join(name);
        fs::create_dir_all(&path).map_err(Error::io("create directory", &path))?;
        Ok(path)
    };
    world.write_tokenizer(&create(TOKENIZER_DIR)?)?;
    world.write_corpus(&directory.join(TRAIN_FILE), train_tokens, seed, Split::Train)?;
    world.write_corpus(&directory.join(VALID_FILE), valid_tokens, seed, Split::Valid)?;
    let sizes = TaskSizes { train: task_train, dev: task_dev, test: task_dev };
    Ok(world.write_tasks(&create(TASKS_DIR)?, sizes, seed)?)
}
