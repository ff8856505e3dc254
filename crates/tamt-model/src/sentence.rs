//! The `modules.json` of sentence-transformers: the steps from a text to its vector, each with files of its own.

use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::text::read_text;

/// The list of modules in a model directory.
pub const MODULES_FILE: &str = "modules.json";
/// The names that sentence-transformers has had for the settings of the module of kind `Transformer`, in the directory of
/// the model.
pub const TRANSFORMER_FILES: [&str; 4] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_camembert_config.json",
    "sentence_xlm-roberta_config.json",
];
/// The settings of the whole model, beside `modules.json`.
pub const SENTENCE_FILE: &str = "config_sentence_transformers.json";
/// The kind of the module that is the encoder.
pub const TRANSFORMER: &str = "Transformer";

/// A module of a sentence-transformers model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// The directory of the module's files, relative to that of `modules.json`; empty for the same directory.
    pub path: String,
    /// The name of the module's class, without its Python module: `Transformer`, `Pooling`, `Normalize`.
    pub kind: String,
}

/// The modules of a sentence-transformers model, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentenceModules {
    /// The directory of `modules.json`.
    pub root: PathBuf,
    /// The modules.
    pub modules: Vec<Module>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

impl SentenceModules {
    /// Reads the `modules.json` of a directory; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::LfsPointer`], or [`Error::Malformed`] also for a module outside the directory.
    pub fn read(root: &Path) -> Result<Option<Self>> {
        let path = root.join(MODULES_FILE);
        if !path.is_file() {
            return Ok(None);
        }
        let malformed = |problem| Error::Malformed { path: path.clone(), problem };
        let text = read_text(&path)?;
        let entries: Vec<Entry> = serde_json::from_str(&text).map_err(|e| malformed(e.to_string()))?;
        let mut modules = Vec::with_capacity(entries.len());
        for Entry { path, kind } in entries {
            // A downloaded list is not trusted.
            if !Path::new(&path).components().all(|part| matches!(part, Component::Normal(_))) || path.contains('\\') {
                return Err(malformed(format!("`{path}` is not the directory of a module")));
            }
            let kind = kind.rsplit('.').next().unwrap_or_default().to_owned();
            modules.push(Module { path, kind });
        }
        Ok(Some(Self { root: root.to_owned(), modules }))
    }

    /// The modules of which the model in `dir` is the encoder: from `dir`, or from the directory above, where old
    /// models have theirs.
    ///
    /// # Errors
    /// Those of [`SentenceModules::read`].
    pub fn of_model(dir: &Path) -> Result<Option<Self>> {
        if let Some(modules) = Self::read(dir)? {
            return Ok(Some(modules));
        }
        let Some(root) = dir.parent() else { return Ok(None) };
        let above = Self::read(root)?;
        Ok(above.filter(|modules| modules.encoder().is_some_and(|path| path == dir)))
    }

    /// The directory of the encoder.
    #[must_use]
    pub fn encoder(&self) -> Option<PathBuf> {
        let module = self.modules.iter().find(|module| module.kind == TRANSFORMER)?;
        Some(if module.path.is_empty() { self.root.clone() } else { self.root.join(&module.path) })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn modules(text: &str) -> Result<Option<SentenceModules>> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(MODULES_FILE), text).unwrap();
        SentenceModules::read(dir.path())
    }

    #[test]
    fn a_module_has_a_kind_and_a_directory() {
        let read = modules(
            r#"[{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
                {"idx": 1, "name": "1", "path": "1_Pooling", "type": "a.b.Pooling"}]"#,
        );
        let read = read.unwrap().unwrap().modules;
        let expected = [("", "Transformer"), ("1_Pooling", "Pooling")];
        assert_eq!(read, expected.map(|(path, kind)| Module { path: path.to_owned(), kind: kind.to_owned() }));
        assert_eq!(SentenceModules::read(Path::new("no/such/directory")).unwrap(), None);
        assert!(modules("\u{feff}[]").unwrap().unwrap().modules.is_empty(), "a byte order mark");
    }

    #[test]
    fn modules_outside_the_directory_are_refused() {
        for path in ["..", "/etc", "a/../..", "."] {
            let read = modules(&format!(r#"[{{"path": "{path}", "type": "a.Pooling"}}]"#));
            assert!(matches!(&read, Err(Error::Malformed { problem, .. }) if problem.contains(path)), "{read:?}");
        }
        assert!(matches!(modules("{}"), Err(Error::Malformed { .. })));
    }

    #[test]
    fn the_encoder_of_an_old_model_is_in_a_directory_of_its_own() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join(MODULES_FILE), r#"[{"path": "0_Transformer", "type": "a.Transformer"}]"#).unwrap();
        let [encoder, other] = ["0_Transformer", "1_Pooling"].map(|name| root.path().join(name));
        for dir in [&encoder, &other] {
            fs::create_dir(dir).unwrap();
        }
        assert_eq!(SentenceModules::of_model(&encoder).unwrap().unwrap().root, root.path());
        assert_eq!(SentenceModules::of_model(&other).unwrap(), None);
    }
}
