//! The files of a snapshot beside configuration and weights, and what the cache knows of those that it lacks.
//!
//! Another program may have asked for some files of a model only. Python's `huggingface_hub` remembers the files that a
//! commit turned out not to have, as empty files in `.no_exist/<commit>`, and so does this crate. A file that is neither
//! there nor in the snapshot may exist at the hub.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use tamt_files::names::TOKENIZER_FILES;

use crate::sentence::{MODULES_FILE, SENTENCE_FILE, TRANSFORMER_FILES};

/// Those of the tokenizer files that are read where there is no `tokenizer.json`. A tokenizer without a vocabulary is an
/// error.
const VOCABULARIES: [&str; 3] = ["vocab.txt", "vocab.json", "merges.txt"];
/// A file of every repository that no model needs: only a program that asks for all files has it.
const OF_WHOLE_REPOSITORY: &str = ".gitattributes";

/// The files beside configuration and weights that are downloaded: those of the tokenizer, then those of
/// sentence-transformers.
pub(super) fn files_beside() -> impl Iterator<Item = &'static str> {
    TOKENIZER_FILES.into_iter().chain([MODULES_FILE, SENTENCE_FILE]).chain(TRANSFORMER_FILES)
}

/// Remembers which of [`files_beside`] the commit of the snapshot `dir` does not have.
pub(super) fn record_absent(dir: &Path, has: impl Fn(&str) -> bool) {
    let Some(Place { absent, .. }) = Place::of(dir) else { return };
    for name in files_beside().filter(|name| !has(name)) {
        let path = absent.join(name);
        if !path.exists() {
            // A cache that cannot be written has a note too many in offline use.
            let _ = fs::create_dir_all(&absent).and_then(|()| File::create(&path));
        }
    }
}

/// A note on the files that the model of the snapshot `dir` may have and the cache lacks, where their absence would change
/// results without an error. `None` if there are none, or if `dir` is no snapshot.
pub(crate) fn missing_note(dir: &Path) -> Option<String> {
    let place = Place::of(dir)?;
    if place.is_whole_repository(dir) {
        return None;
    }
    let is_there = |name: &str| dir.join(name).is_file();
    let is_unknown = |name: &&str| !is_there(name) && !place.absent.join(name).exists();
    let mut wanted: Vec<&str> = TOKENIZER_FILES.into_iter().filter(|name| !VOCABULARIES.contains(name)).collect();
    wanted.push(MODULES_FILE);
    // The other files of sentence-transformers are read beside the list of modules alone, and one of the encoder's files.
    if is_there(MODULES_FILE) {
        wanted.push(SENTENCE_FILE);
        if !TRANSFORMER_FILES.into_iter().any(is_there) {
            wanted.extend(TRANSFORMER_FILES);
        }
    }
    let missing: Vec<&str> = wanted.into_iter().filter(is_unknown).collect();
    (!missing.is_empty()).then(|| {
        let (path, names) = (dir.display(), missing.join(", "));
        format!("{path}: the cache lacks files that the model may have: {names}; where the hub can be reached, the model's id gets them")
    })
}

/// Where the cache keeps a model.
struct Place {
    /// The directory of files that the commit does not have.
    absent: PathBuf,
    blobs: PathBuf,
}

impl Place {
    /// The place of the model of the snapshot `dir`; `None` for any other directory.
    fn of(dir: &Path) -> Option<Self> {
        let (commit, snapshots) = (dir.file_name()?, dir.parent()?);
        let model = snapshots.parent()?;
        let is_snapshot =
            snapshots.file_name()? == "snapshots" && model.file_name()?.to_string_lossy().starts_with("models--");
        is_snapshot.then(|| Self { absent: model.join(".no_exist").join(commit), blobs: model.join("blobs") })
    }

    /// Whether `snapshot_download` of `huggingface_hub` got all files. Its end leaves no mark, but an interruption leaves
    /// unfinished files.
    fn is_whole_repository(&self, dir: &Path) -> bool {
        let blobs = fs::read_dir(&self.blobs).into_iter().flatten().flatten();
        let mut unfinished = blobs.filter(|blob| blob.path().extension().is_some_and(|e| e == "incomplete"));
        dir.join(OF_WHOLE_REPOSITORY).exists() && unfinished.next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    const OF_TOKENIZER: &str = "tokenizer.json, tokenizer_config.json, special_tokens_map.json, added_tokens.json";

    /// A cache whose only snapshot has these files, with its snapshot.
    fn snapshot(files: &[&str]) -> (TempDir, PathBuf) {
        let cache = tempfile::tempdir().unwrap();
        let dir = cache.path().join("models--org--tiny/snapshots/0123");
        fs::create_dir_all(&dir).unwrap();
        files.iter().for_each(|name| fs::write(dir.join(name), "{}").unwrap());
        (cache, dir)
    }

    /// The names in the note.
    fn missing(dir: &Path) -> String {
        let note = missing_note(dir).unwrap_or_default();
        let names = note.split_once("may have: ").map_or("", |(_, names)| names);
        names.split(';').next().unwrap_or_default().to_owned()
    }

    #[test]
    fn files_are_missing_unless_they_are_there_or_known_not_to_be() {
        let (cache, dir) = snapshot(&["config.json", "vocab.txt"]);
        assert_eq!(missing(&dir), format!("{OF_TOKENIZER}, modules.json"));
        let absent = cache.path().join("models--org--tiny/.no_exist/0123");
        fs::create_dir_all(&absent).unwrap();
        for name in ["added_tokens.json", "tokenizer.json", "special_tokens_map.json"] {
            fs::write(absent.join(name), "").unwrap();
        }
        assert_eq!(missing(&dir), "tokenizer_config.json, modules.json");
        record_absent(&dir, |name| name == "tokenizer_config.json");
        assert_eq!(missing(&dir), "tokenizer_config.json", "the model has it, and the snapshot has not");
        fs::write(dir.join("tokenizer_config.json"), "{}").unwrap();
        assert_eq!(missing_note(&dir), None);
    }

    #[test]
    fn files_of_sentence_transformers_are_missing_beside_a_list_of_modules() {
        let (_cache, dir) = snapshot(&["modules.json"]);
        let expected = [&[OF_TOKENIZER, SENTENCE_FILE][..], &TRANSFORMER_FILES].concat().join(", ");
        assert_eq!(missing(&dir), expected);
        fs::write(dir.join(TRANSFORMER_FILES[1]), "{}").unwrap();
        assert_eq!(missing(&dir), format!("{OF_TOKENIZER}, {SENTENCE_FILE}"));
    }

    #[test]
    fn a_whole_repository_lacks_nothing_once_all_of_it_arrived() {
        let (cache, dir) = snapshot(&[OF_WHOLE_REPOSITORY]);
        assert_eq!(missing_note(&dir), None);
        let blobs = cache.path().join("models--org--tiny/blobs");
        fs::create_dir(&blobs).unwrap();
        fs::write(blobs.join("abcd.incomplete"), "").unwrap();
        assert!(missing_note(&dir).is_some());
    }

    #[test]
    fn a_directory_outside_of_a_cache_has_no_note() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(missing_note(dir.path()), None);
        assert_eq!(missing_note(Path::new("snapshots/0123")), None);
    }
}
