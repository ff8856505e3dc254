//! How sentence-transformers encodes a text with a model: the settings in `modules.json` and the files of its modules.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use tamt_model::sentence::{MODULES_FILE, SENTENCE_FILE, SentenceModules, TRANSFORMER, TRANSFORMER_FILES};
use tamt_model::write::atomic_write;

use crate::base::Base;
use crate::encode::{EncodeSettings, Pool};
use crate::error::{Error, Result};

/// Settings that a caller chooses; `None` is the model's own setting.
#[derive(Clone, Copy, Debug, Default)]
pub struct EncodeChoices {
    /// The pooling. A caller that chooses it also does without the modules that are not supported.
    pub pool: Option<Pool>,
    /// Most tokens of a text, special tokens included.
    pub max_length: Option<usize>,
    /// Whether vectors get unit length.
    pub normalize: Option<bool>,
}

/// What the modules of a model say.
#[derive(Debug, Default)]
struct Said {
    pool: Option<Pool>,
    normalize: bool,
    max_length: Option<usize>,
    lower_case: bool,
    prompt: String,
    /// Whether the pooling leaves out the tokens of a prompt.
    without_prompt: bool,
    /// The first module or setting that is not supported, in words.
    unsupported: Option<String>,
}

/// The settings of an encoding: the caller's choices, else those of the model's sentence-transformers files, else the
/// mean over tokens and the model's maximal length. The strings are notes for a user, a sentence each.
///
/// # Errors
/// If a file is malformed, or [`Error::Setting`] if a module is not supported and the caller chooses no pooling.
pub fn encode_settings(base: &Base, choices: EncodeChoices) -> Result<(EncodeSettings, Vec<String>)> {
    let longest = base.max_length();
    let mut settings = EncodeSettings {
        pool: choices.pool.unwrap_or_default(),
        normalize: choices.normalize.unwrap_or(false),
        max_length: choices.max_length.unwrap_or(longest),
        ..EncodeSettings::default()
    };
    let Some(modules) = SentenceModules::of_model(&base.directory)? else { return Ok((settings, Vec::new())) };
    let said = Said::by(&modules, &base.directory)?;
    let list = modules.root.join(MODULES_FILE);
    let mut notes = Vec::new();
    match (said.unsupported, choices.pool) {
        (Some(what), None) => {
            let reason = format!("{} has {what}; choose a pooling to encode without it", list.display());
            return Err(Error::setting("pool", reason));
        }
        (Some(what), Some(_)) => notes.push(format!("ignored in {}: {what}", list.display())),
        (None, _) => {}
    }
    let mut followed = Vec::new();
    if choices.pool.is_none() && said.pool.is_some() {
        settings.pool = said.pool.unwrap_or_default();
        followed.push(format!("pooling {}", if settings.pool == Pool::Cls { "cls" } else { "mean" }));
    }
    if choices.normalize.is_none() && said.normalize && settings.pool != Pool::None {
        settings.normalize = true;
        followed.push("vectors of unit length".to_owned());
    }
    if let (None, Some(max_length)) = (choices.max_length, said.max_length.filter(|&length| length < longest)) {
        settings.max_length = max_length;
        followed.push(format!("at most {max_length} tokens"));
    }
    if said.lower_case {
        settings.lower_case = true;
        followed.push("lower case".to_owned());
    }
    settings.without_prompt = said.without_prompt && choices.pool.is_none();
    if !said.prompt.is_empty() {
        followed.push(format!("the prompt {:?} before each text", said.prompt));
        settings.prompt = said.prompt;
    }
    if !followed.is_empty() {
        notes.insert(0, format!("as {} says: {}", list.display(), followed.join(", ")));
    }
    Ok((settings, notes))
}

impl Said {
    fn by(modules: &SentenceModules, encoder: &Path) -> Result<Self> {
        let mut said = Self::default();
        said.read_prompt(&modules.root)?;
        for module in &modules.modules {
            let directory = if module.path.is_empty() { modules.root.clone() } else { modules.root.join(&module.path) };
            match module.kind.as_str() {
                TRANSFORMER => said.read_transformer(encoder)?,
                "Pooling" => said.read_pooling(&directory)?,
                "Normalize" => said.normalize = true,
                // Dropout does nothing outside training.
                "Dropout" => {}
                kind => said.refuse(format!("a module {kind}, which is not supported")),
            }
        }
        Ok(said)
    }

    fn refuse(&mut self, what: String) {
        self.unsupported.get_or_insert(what);
    }

    /// The length of texts: `max_seq_length`, else the tokenizer's.
    fn read_transformer(&mut self, encoder: &Path) -> Result<()> {
        let files = TRANSFORMER_FILES.iter().map(|name| encoder.join(name));
        let own = files.filter(|path| path.is_file()).map(|path| object(&path)).next().transpose()?.unwrap_or_default();
        let tokenizer = encoder.join("tokenizer_config.json");
        let tokenizer = if tokenizer.is_file() { object(&tokenizer)? } else { Map::new() };
        let length = own.get("max_seq_length").filter(|value| !value.is_null());
        // Tokenizers without a limit have 1e30.
        let length = length.or_else(|| tokenizer.get("model_max_length")).and_then(Value::as_f64);
        self.max_length = length.filter(|&length| length >= 1.0).map(|length| length as usize);
        self.lower_case = own.get("do_lower_case") == Some(&Value::Bool(true));
        if own.get("processing_kwargs").and_then(Value::as_object).is_some_and(|kwargs| !kwargs.is_empty()) {
            self.refuse("an encoder with processing_kwargs, which are not supported".to_owned());
        }
        for (key, supported) in [("transformer_task", "feature-extraction"), ("module_output_name", "token_embeddings")]
        {
            match own.get(key) {
                None | Some(Value::Null) => {}
                Some(value) if value == supported => {}
                Some(value) => self.refuse(format!("an encoder whose {key} is {value}, which is not supported")),
            }
        }
        Ok(())
    }

    fn read_pooling(&mut self, directory: &Path) -> Result<()> {
        let path = directory.join("config.json");
        let config = object(&path)?;
        let modes = pooling_modes(&config);
        match modes.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["cls"] if self.pool.is_none() => self.pool = Some(Pool::Cls),
            ["mean"] if self.pool.is_none() => self.pool = Some(Pool::Mean),
            _ => self.refuse(format!("the pooling {} ({}), which is not supported", modes.join(" + "), path.display())),
        }
        self.without_prompt |= config.get("include_prompt") == Some(&Value::Bool(false));
        if self.without_prompt && !self.prompt.is_empty() {
            self.refuse("a pooling without the prompt's tokens, which is not supported".to_owned());
        }
        Ok(())
    }

    fn read_prompt(&mut self, root: &Path) -> Result<()> {
        let path = root.join(SENTENCE_FILE);
        if !path.is_file() {
            return Ok(());
        }
        let config = object(&path)?;
        let Some(name) = config.get("default_prompt_name").and_then(Value::as_str) else { return Ok(()) };
        let prompt = config.get("prompts").and_then(|prompts| prompts.get(name)).and_then(Value::as_str);
        self.prompt = prompt.unwrap_or_default().to_owned();
        Ok(())
    }
}

/// The names of the poolings in a `1_Pooling/config.json`: the list or the string `pooling_mode`, or in older files a key
/// for each.
fn pooling_modes(config: &Map<String, Value>) -> Vec<String> {
    match config.get("pooling_mode") {
        Some(Value::String(mode)) => return vec![mode.clone()],
        Some(Value::Array(modes)) => {
            return modes.iter().map(|mode| mode.as_str().map_or_else(|| mode.to_string(), str::to_owned)).collect();
        }
        _ => {}
    }
    let flags: Vec<(&str, bool)> =
        config.iter().filter_map(|(key, value)| Some((key.strip_prefix("pooling_mode_")?, value.as_bool()?))).collect();
    if flags.is_empty() {
        return vec!["mean".to_owned()];
    }
    let chosen = flags.into_iter().filter(|(_, chosen)| *chosen);
    chosen
        .map(|(name, _)| match name {
            "cls_token" => "cls".to_owned(),
            "mean_tokens" => "mean".to_owned(),
            other => other.to_owned(),
        })
        .collect()
}

/// The JSON object in a file.
fn object(path: &Path) -> Result<Map<String, Value>> {
    let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
    serde_json::from_str(&text).map_err(|e| Error::Damaged { path: path.to_owned(), reason: e.to_string() })
}

/// Copies the sentence-transformers files of the model in `source` to `target`, where the encoder has no directory of its
/// own; nothing if there are none.
pub(crate) fn copy_modules(source: &Path, target: &Path) -> Result<()> {
    let Some(modules) = SentenceModules::of_model(source)? else { return Ok(()) };
    let list = modules.root.join(MODULES_FILE);
    let text = fs::read_to_string(&list).map_err(Error::io("read", &list))?;
    let mut entries: Value =
        serde_json::from_str(&text).map_err(|e| Error::Damaged { path: list.clone(), reason: e.to_string() })?;
    for (module, entry) in modules.modules.iter().zip(entries.as_array_mut().into_iter().flatten()) {
        if module.kind == TRANSFORMER {
            entry["path"] = "".into();
        } else if !module.path.is_empty() {
            copy_directory(&modules.root.join(&module.path), &target.join(&module.path))?;
        }
    }
    for (directory, names) in [(modules.root.as_path(), &[SENTENCE_FILE][..]), (source, &TRANSFORMER_FILES[..])] {
        for path in names.iter().map(|name| directory.join(name)).filter(|path| path.is_file()) {
            copy_file(&path, target)?;
        }
    }
    let text = format!("{entries:#}\n");
    Ok(atomic_write(&target.join(MODULES_FILE), |out| out.write_all(text.as_bytes()))?)
}

/// Copies the files of a directory; a missing directory has none.
fn copy_directory(source: &Path, target: &Path) -> Result<()> {
    fs::create_dir_all(target).map_err(Error::io("create directory", target))?;
    if !source.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(source).map_err(Error::io("read", source))? {
        let path: PathBuf = entry.map_err(Error::io("read", source))?.path();
        if path.is_file() {
            copy_file(&path, target)?;
        }
    }
    Ok(())
}

fn copy_file(path: &Path, target: &Path) -> Result<()> {
    let Some(name) = path.file_name() else { return Ok(()) };
    let mut file = fs::File::open(path).map_err(Error::io("read", path))?;
    Ok(atomic_write(&target.join(name), |out| std::io::copy(&mut file, out).map(|_| ()))?)
}
