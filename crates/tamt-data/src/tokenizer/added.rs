//! Tokens beside the vocabulary: special tokens and added tokens, from all files that can hold them.
//!
//! The rules are those of `transformers` 5 (`PreTrainedTokenizerBase._from_pretrained`, `TokenizersBackend.__init__`):
//! `added_tokens_decoder` of `tokenizer_config.json` holds all added tokens; where this key is absent,
//! `special_tokens_map.json`, `added_tokens.json` and the added tokens of `tokenizer.json` hold together.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};
use tokenizers::{AddedToken, NormalizedString, Normalizer, Tokenizer};

use crate::error::Result;
use crate::tokenizer::class::Class;
use crate::tokenizer::json::{JsonFile, bad, shortened};

/// The order in which `transformers` adds special tokens.
const ROLES: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// The tokens that the files beside a vocabulary name.
pub(super) struct Tokens {
    /// Special tokens by role. `None`: the file says that there is none.
    named: BTreeMap<String, Option<AddedToken>>,
    /// Special tokens without a role.
    extra: Vec<AddedToken>,
    /// Added tokens by id, each with the name of its file.
    added: BTreeMap<u32, (AddedToken, &'static str)>,
    class: Class,
}

/// An added token in a file. The defaults are those of `tokenizers.AddedToken` in Python.
#[derive(Deserialize)]
struct Fields {
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    normalized: Option<bool>,
    #[serde(default)]
    special: bool,
}

impl Fields {
    fn token(self, special: bool) -> AddedToken {
        AddedToken::from(self.content, special)
            .single_word(self.single_word)
            .lstrip(self.lstrip)
            .rstrip(self.rstrip)
            .normalized(self.normalized.unwrap_or(!special))
    }
}

impl Tokens {
    /// Reads the tokens of `dir`. `description` is the content of its `tokenizer.json`, if there is one.
    pub(super) fn read(dir: &Path, class: Class, config: &JsonFile, description: Option<&Value>) -> Result<Self> {
        let mut tokens = Self { named: BTreeMap::new(), extra: Vec::new(), added: BTreeMap::new(), class };
        tokens.read_named(config, false)?;
        let extra = ["extra_special_tokens", "additional_special_tokens"].map(|key| config.get(key));
        let extra = extra.into_iter().flatten().find(|value| !is_empty(value));
        if let Some(value) = extra {
            tokens.read_extra(value, &config.path)?;
        }
        match config.get("added_tokens_decoder") {
            Some(value) => tokens.read_decoder(value, &config.path)?,
            None => tokens.read_other_files(dir, extra.is_some(), description)?,
        }
        Ok(tokens)
    }

    /// The token of a role such as `cls_token`.
    pub(super) fn role(&self, role: &str) -> Option<String> {
        match self.named.get(role) {
            Some(token) => token.as_ref().map(|token| token.content.clone()),
            None => self.default_token(role).map(str::to_owned),
        }
    }

    fn default_token(&self, role: &str) -> Option<&'static str> {
        self.class.default_tokens().iter().find(|(name, _)| *name == role).map(|(_, token)| *token)
    }

    /// Reads the keys `*_token` of a file.
    fn read_named(&mut self, file: &JsonFile, all_special: bool) -> Result<()> {
        for (key, value) in file.map.iter().filter(|(key, _)| key.ends_with("_token")) {
            let token = match value {
                Value::Null => None,
                // `add_bos_token` and `add_eos_token`, which `transformers` ignores beside a vocabulary.
                Value::Bool(_) | Value::Number(_) if !ROLES.contains(&key.as_str()) => continue,
                value => Some(special_token(value, all_special, &file.path)?),
            };
            self.named.insert(key.clone(), token);
        }
        Ok(())
    }

    /// Reads `extra_special_tokens`: a list of tokens, or an object of roles and tokens.
    fn read_extra(&mut self, value: &Value, path: &Path) -> Result<()> {
        match value {
            Value::Array(tokens) => {
                for token in tokens {
                    let token = special_token(token, true, path)?;
                    if !self.extra.contains(&token) {
                        self.extra.push(token);
                    }
                }
            }
            Value::Object(tokens) => {
                for (role, token) in tokens {
                    self.named.insert(role.clone(), Some(special_token(token, true, path)?));
                }
            }
            other => return Err(bad(path, format!("{} is no list of special tokens", shortened(other)))),
        }
        Ok(())
    }

    fn read_decoder(&mut self, value: &Value, path: &Path) -> Result<()> {
        let not = |value| bad(path, format!("added_tokens_decoder: {} is no added token", shortened(value)));
        for (id, value) in value.as_object().ok_or_else(|| not(value))? {
            let id = id.parse().map_err(|_| bad(path, format!("added_tokens_decoder: {id:?} is no token id")))?;
            let fields = Fields::deserialize(value).map_err(|_| not(value))?;
            let special = fields.special;
            self.add(id, fields.token(special), "tokenizer_config.json", path)?;
        }
        Ok(())
    }

    /// Reads the files that older versions of `transformers` wrote.
    fn read_other_files(&mut self, dir: &Path, has_extra: bool, description: Option<&Value>) -> Result<()> {
        let map = JsonFile::read(&dir.join("special_tokens_map.json"))?;
        self.read_named(&map, true)?;
        if let Some(value) = map.get("extra_special_tokens") {
            self.read_extra(value, &map.path)?;
        }
        // Their spellings are matched as they stand, but for those of `additional_special_tokens` alone, which are
        // normalised: `transformers` looks at the latter only later.
        let mut special: BTreeSet<String> = self.extra.iter().map(|token| token.content.clone()).collect();
        let stated = ROLES.iter().filter_map(|role| self.named.get(*role)?.as_ref());
        special.extend(stated.map(|token| token.content.clone()));
        if let Some(value) = map.get("additional_special_tokens")
            && !has_extra
            && !map.has("extra_special_tokens")
        {
            self.read_extra(value, &map.path)?;
        }

        let file = JsonFile::read(&dir.join("added_tokens.json"))?;
        for (content, id) in &file.map {
            let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
            let id = id.ok_or_else(|| bad(&file.path, format!("the id of {content:?} is no token id")))?;
            let token = AddedToken::from(content.clone(), special.contains(content));
            self.add(id, token, "added_tokens.json", &file.path)?;
        }
        for (id, token) in description.map_or(Ok(Vec::new()), |d| tokens_of(d, dir))? {
            self.add(id, token, "tokenizer.json", &dir.join("tokenizer.json"))?;
        }
        Ok(())
    }

    fn add(&mut self, id: u32, token: AddedToken, file: &'static str, path: &Path) -> Result<()> {
        if let Some((other, its_file)) = self.added.get(&id)
            && other.content != token.content
        {
            let (first, second) = (&other.content, &token.content);
            return Err(bad(path, format!("token {id} is {second:?}, and {its_file} says that it is {first:?}")));
        }
        self.added.insert(id, (token, file));
        Ok(())
    }

    /// Adds the tokens to a tokenizer, in the order of `transformers`.
    ///
    /// # Errors
    ///
    /// [`Error::BadTokenizer`](crate::Error::BadTokenizer) if a token does not get the id that its file states, or if two
    /// tokens have one spelling after normalisation.
    pub(super) fn add_to(&self, inner: &mut Tokenizer, dir: &Path) -> Result<()> {
        let present: BTreeSet<String> =
            inner.get_added_tokens_decoder().into_values().map(|token| token.content).collect();
        let tokens = self.in_order(&present, |content| inner.token_to_id(content).is_some());
        let path = dir.join("tokenizer_config.json");
        inner.add_tokens(tokens).map_err(|e| bad(&path, format!("its added tokens: {e}")))?;
        refuse_equal_spellings(inner, &path)?;
        for (&id, (token, file)) in &self.added {
            let given = inner.token_to_id(&token.content);
            if given != Some(id) {
                let content = &token.content;
                let given = given.map_or("none".to_owned(), |id| id.to_string());
                let reason =
                    format!("the id of the added token {content:?} is {id}, and the vocabulary leaves {given}");
                return Err(bad(&dir.join(file), reason));
            }
        }
        Ok(())
    }

    /// All tokens in the order in which `transformers` adds them. `present` holds the added tokens of the tokenizer,
    /// `known` answers whether the tokenizer knows a token.
    ///
    /// A default token that is not in the vocabulary gets an id of its own in `transformers`, behind all rows of the
    /// embeddings. The function leaves it out where this changes no other id.
    fn in_order(&self, present: &BTreeSet<String>, known: impl Fn(&str) -> bool) -> Vec<AddedToken> {
        let mut tokens: Vec<(AddedToken, bool)> = self.added.values().map(|(token, _)| (token.clone(), true)).collect();
        let first: BTreeSet<&str> = self.added.values().map(|(token, _)| token.content.as_str()).collect();
        let others = self.named.keys().map(String::as_str).filter(|role| !ROLES.contains(role));
        let mut names = BTreeSet::new();
        let mut later = Vec::new();
        for role in ROLES.into_iter().chain(others) {
            let token = match self.named.get(role) {
                Some(token) => token.clone().map(|token| (token, true)),
                None => self.default_token(role).map(|token| (AddedToken::from(token, true), false)),
            };
            if let Some(token) = token {
                names.insert(token.0.content.clone());
                later.push(token);
            }
        }
        later.extend(self.extra.iter().map(|token| (token.clone(), true)));
        for (token, stated) in later {
            let content = token.content.as_str();
            if !present.contains(content) && !first.contains(content) && !tokens.iter().any(|(t, _)| *t == token) {
                tokens.push((token, stated));
            }
        }
        let end = tokens.iter().rposition(|(token, stated)| *stated && !known(&token.content)).map_or(0, |at| at + 1);
        let needed = |(i, (token, stated)): &(usize, (AddedToken, bool))| *i < end || *stated || known(&token.content);
        let tokens = tokens.into_iter().enumerate().filter(needed).map(|(_, (token, _))| token);
        tokens.map(|token| if names.contains(&token.content) { token.special(true) } else { token }).collect()
    }
}

/// Refuses added tokens that normalisation makes equal: which of them a text means would differ from run to run.
fn refuse_equal_spellings(inner: &Tokenizer, path: &Path) -> Result<()> {
    let mut spellings: BTreeMap<String, String> = BTreeMap::new();
    for (_, token) in inner.get_added_tokens_decoder().into_iter().filter(|(_, token)| token.normalized) {
        let mut spelling = NormalizedString::from(token.content.as_str());
        if let Some(normalizer) = inner.get_normalizer() {
            normalizer.normalize(&mut spelling).map_err(|e| bad(path, e.to_string()))?;
        }
        if let Some(other) = spellings.insert(spelling.get().to_owned(), token.content.clone()) {
            let (first, second) = (other.as_str().min(&token.content), other.as_str().max(&token.content));
            let reason = format!(
                "the added tokens {first:?} and {second:?} have one spelling after normalisation, {:?}",
                spelling.get()
            );
            return Err(bad(path, reason));
        }
    }
    Ok(())
}

/// The added tokens of a `tokenizer.json`, with their ids.
pub(super) fn tokens_of(description: &Value, dir: &Path) -> Result<Vec<(u32, AddedToken)>> {
    #[derive(Deserialize)]
    struct WithId {
        id: u32,
        #[serde(flatten)]
        fields: Fields,
    }
    let Some(list) = description.get("added_tokens").and_then(Value::as_array) else {
        return Ok(Vec::new());
    };
    let read = |value| {
        let WithId { id, fields } = WithId::deserialize(value)
            .map_err(|e| bad(&dir.join("tokenizer.json"), format!("the added token {}: {e}", shortened(value))))?;
        let special = fields.special;
        Ok((id, fields.token(special)))
    };
    list.iter().map(read).collect()
}

/// A special token: its spelling, or an object with its flags.
fn special_token(value: &Value, special: bool, path: &Path) -> Result<AddedToken> {
    if let Value::String(content) = value {
        return Ok(AddedToken::from(content.clone(), true));
    }
    let fields =
        Fields::deserialize(value).map_err(|_| bad(path, format!("{} is no special token", shortened(value))))?;
    let special = special || fields.special;
    Ok(fields.token(special))
}

fn is_empty(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(Map::is_empty)
}
