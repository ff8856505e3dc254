//! Directories of tokenizer files, read as `transformers` reads them. `tests/fixtures/make_loads.py` makes the expected
//! values.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};
use tamt_data::{Error, Tokenizer};
use tempfile::TempDir;

#[derive(Deserialize)]
struct Loads {
    texts: Vec<String>,
    pairs: Vec<(String, String)>,
    directories: BTreeMap<String, Directory>,
}

#[derive(Deserialize)]
struct Directory {
    files: BTreeMap<String, Value>,
    ids: Vec<Vec<u32>>,
    cut: Vec<Vec<u32>>,
    pairs: Vec<PairOutput>,
}

#[derive(Deserialize)]
struct PairOutput {
    ids: Vec<u32>,
    type_ids: Vec<u32>,
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn loads() -> Loads {
    serde_json::from_str(&fs::read_to_string(fixtures().join("loads.json")).unwrap()).unwrap()
}

/// A directory of these files: a text as it stands, `@name` for a copy of a fixture, anything else as JSON.
fn directory<'a>(files: impl IntoIterator<Item = (&'a str, &'a Value)>) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let content = match content {
            Value::String(text) => match text.strip_prefix('@') {
                Some(fixture) => fs::read_to_string(fixtures().join(fixture)).unwrap(),
                None => text.clone(),
            },
            other => other.to_string(),
        };
        fs::write(dir.path().join(name), content).unwrap();
    }
    dir
}

fn files(files: &BTreeMap<String, Value>) -> impl Iterator<Item = (&str, &Value)> {
    files.iter().map(|(name, content)| (name.as_str(), content))
}

/// A BERT model's directory with more files or others.
fn bert(more: &[(&str, Value)]) -> TempDir {
    let mut all = BTreeMap::from([
        ("vocab.txt".to_owned(), json!("@bert/vocab.txt")),
        ("config.json".to_owned(), json!({"model_type": "bert"})),
    ]);
    all.extend(more.iter().map(|(name, content)| ((*name).to_owned(), content.clone())));
    directory(files(&all))
}

fn refusal(dir: &TempDir) -> String {
    Tokenizer::from_dir(dir.path()).unwrap_err().to_string()
}

/// Number of pieces of the fixture `bert`.
fn pieces() -> usize {
    fs::read_to_string(fixtures().join("bert/vocab.txt")).unwrap().lines().count()
}

#[test]
fn ids_are_those_of_transformers_whatever_the_files_say() {
    let loads = loads();
    assert!(loads.directories.len() > 40 && loads.texts.len() == 70);
    for (name, wanted) in &loads.directories {
        let dir = directory(files(&wanted.files));
        let tokenizer = Tokenizer::from_dir(dir.path()).unwrap_or_else(|e| panic!("{name}: {e}"));
        for (text, ids) in loads.texts.iter().zip(&wanted.ids) {
            assert_eq!(&tokenizer.ids(text).unwrap(), ids, "{name}: {text:?}");
        }
        for (text, ids) in loads.texts.iter().zip(&wanted.cut) {
            assert_eq!(&tokenizer.encode(text, 8).unwrap(), ids, "{name}: {text:?}, cut");
        }
        for ((first, second), wanted) in loads.pairs.iter().zip(&wanted.pairs) {
            let pair = tokenizer.encode_pair(first, second, 12).unwrap();
            assert_eq!(pair.ids, wanted.ids, "{name}: {first:?}, {second:?}");
            assert_eq!(pair.type_ids, wanted.type_ids, "{name}: {first:?}, {second:?}");
        }
    }
}

#[test]
fn a_written_tokenizer_is_the_same_beside_any_model() {
    let loads = loads();
    for (name, wanted) in &loads.directories {
        let dir = directory(files(&wanted.files));
        let copy = tempfile::tempdir().unwrap();
        Tokenizer::from_dir(dir.path()).unwrap().save_to(copy.path()).unwrap();
        let other = if name.contains("roberta") { "bert" } else { "roberta" };
        fs::write(copy.path().join("config.json"), json!({"model_type": other}).to_string()).unwrap();
        let tokenizer = Tokenizer::from_dir(copy.path()).unwrap_or_else(|e| panic!("{name}: {e}"));
        for (text, ids) in loads.texts.iter().zip(&wanted.ids) {
            assert_eq!(&tokenizer.ids(text).unwrap(), ids, "{name}: {text:?}");
        }
        for ((first, second), wanted) in loads.pairs.iter().zip(&wanted.pairs) {
            let pair = tokenizer.encode_pair(first, second, 12).unwrap();
            assert_eq!((pair.ids, pair.type_ids), (wanted.ids.clone(), wanted.type_ids.clone()), "{name}");
        }
    }
}

#[test]
fn a_tokenizer_json_without_a_model_keeps_its_template_when_written_beside_one() {
    let source = fixtures().join("bert_json");
    let copy = tempfile::tempdir().unwrap();
    let original = Tokenizer::from_dir(&source).unwrap();
    original.save_to(copy.path()).unwrap();
    fs::write(copy.path().join("config.json"), r#"{"model_type": "bert"}"#).unwrap();
    let written = Tokenizer::from_dir(copy.path()).unwrap();
    assert_eq!(written.specials(), original.specials());
    assert_eq!(written.specials().second_type, 1);
}

#[test]
fn tokenizers_of_other_classes_are_refused_with_their_name() {
    for class in ["BertJapaneseTokenizer", "HerbertTokenizer", "GPT2TokenizerFast", "PreTrainedTokenizer", "Own"] {
        let dir = bert(&[("tokenizer_config.json", json!({"tokenizer_class": class}))]);
        let message = refusal(&dir);
        assert!(message.contains(class) && message.contains("tokenizer_config.json"), "{message}");
        let dir = bert(&[("config.json", json!({"model_type": "bert", "tokenizer_class": class}))]);
        let message = refusal(&dir);
        assert!(message.contains(class) && message.contains("config.json"), "{message}");
    }
    for (key, value) in [
        ("word_tokenizer_type", json!("mecab")),
        ("subword_tokenizer_type", json!("character")),
        ("auto_map", json!({"AutoTokenizer": ["own.Own", null]})),
        ("fast_tokenizer_files", json!(["tokenizer.4.0.json"])),
        ("tokenizer_class", json!(3)),
        ("added_tokens_decoder", json!({"x": {"content": "a"}})),
        ("added_tokens_decoder", json!({"3": "a"})),
        ("added_tokens_decoder", json!([])),
        ("extra_special_tokens", json!("a")),
        ("mask_token", json!(7)),
        ("unk_token", json!(null)),
        ("strip_accents", json!("yes")),
    ] {
        let dir = bert(&[("tokenizer_config.json", json!({key: value}))]);
        let message = refusal(&dir);
        assert!(message.contains("tokenizer_config.json"), "{key}: {value}: {message}");
        assert!(matches!(Tokenizer::from_dir(dir.path()), Err(Error::BadTokenizer { .. })));
    }
}

#[test]
fn the_refusal_of_a_class_says_how_its_tokenizer_json_is_read_as_it_stands() {
    let mut all = loads().directories["roberta json as it stands"].files.clone();
    assert!(all.contains_key("tokenizer.json"));
    for class in ["XLMRobertaTokenizer", "CamembertTokenizerFast"] {
        let mut config = all["tokenizer_config.json"].clone();
        config["tokenizer_class"] = json!(class);
        all.insert("tokenizer_config.json".to_owned(), config.clone());
        let message = refusal(&directory(files(&all)));
        let advice =
            "`\"tokenizer_class\": \"PreTrainedTokenizerFast\"` in tokenizer_config.json reads the tokenizer.json";
        assert!(message.contains(class) && message.contains(advice), "{message}");
        config["tokenizer_class"] = json!("PreTrainedTokenizerFast");
        all.insert("tokenizer_config.json".to_owned(), config);
        Tokenizer::from_dir(directory(files(&all)).path()).unwrap();
        // A directory without the file gets no such advice.
        let dir = bert(&[("tokenizer_config.json", json!({"tokenizer_class": class}))]);
        assert!(!refusal(&dir).contains("as it stands"));
    }
}

#[test]
fn a_class_without_its_vocabulary_is_refused() {
    let dir = bert(&[("config.json", json!({"model_type": "roberta"}))]);
    let message = refusal(&dir);
    assert!(message.contains("RobertaTokenizer") && message.contains("vocab.txt"), "{message}");
    let dir = bert(&[("tokenizer_config.json", json!({"tokenizer_class": "PreTrainedTokenizerFast"}))]);
    assert!(refusal(&dir).contains("there is only vocab.txt"));
    // The model of a `tokenizer.json` must be that of the class.
    let loads = loads();
    let mut all = loads.directories["bert json"].files.clone();
    all.insert("tokenizer_config.json".to_owned(), json!({"tokenizer_class": "RobertaTokenizer"}));
    let message = refusal(&directory(files(&all)));
    assert!(message.contains("tokenizer.json") && message.contains("WordPiece"), "{message}");
}

#[test]
fn an_added_token_that_does_not_get_its_id_is_refused() {
    let n = pieces();
    for (name, content) in [
        ("added_tokens.json", json!({"<ent>": n + 1})),
        ("added_tokens.json", json!({"the": n})),
        ("tokenizer_config.json", json!({"added_tokens_decoder": {"900": {"content": "<ent>"}}})),
    ] {
        let message = refusal(&bert(&[(name, content.clone())]));
        assert!(message.contains(name) && message.contains("added token"), "{content}: {message}");
    }
    let loads = loads();
    let mut all = loads.directories["added tokens of json"].files.clone();
    all.insert("added_tokens.json".to_owned(), json!({"<other>": n}));
    let message = refusal(&directory(files(&all)));
    assert!(message.contains("covid-19") && message.contains("<other>"), "{message}");
}

#[test]
fn the_template_of_a_tokenizer_json_that_stands_is_looked_at() {
    let loads = loads();
    let mut all = loads.directories["cased json as it stands"].files.clone();
    all.get_mut("tokenizer.json").unwrap()["post_processor"] = json!(null);
    let message = refusal(&directory(files(&all)));
    assert!(message.contains("tokenizer.json") && message.contains("post_processor"), "{message}");
    all.get_mut("tokenizer.json").unwrap()["post_processor"] = json!({"type": "RobertaProcessing", "cls": ["the", 7], "sep": ["x", 9], "trim_offsets": true, "add_prefix_space": true});
    let tokenizer = Tokenizer::from_dir(directory(files(&all)).path()).unwrap();
    let specials = tokenizer.specials();
    assert_eq!((specials.cls, specials.sep, specials.pair_separators, specials.second_type), (7, 9, 2, 0));
}

#[test]
fn a_special_token_outside_the_vocabulary_is_refused() {
    let mut all = loads().directories["cased json as it stands"].files.clone();
    let description = all.get_mut("tokenizer.json").unwrap();
    description["post_processor"] = json!({"type": "BertProcessing", "cls": ["[CLS]", 4096], "sep": ["[SEP]", 3]});
    let message = refusal(&directory(files(&all)));
    assert!(message.contains("tokenizer.json") && message.contains("4096"), "{message}");
    // An id without a next one would make a table of no rows.
    let vocab = json!({"<s>": 0, "</s>": 1, "<mask>": 2, "<unk>": 3, "<pad>": 4, "a": u32::MAX});
    let dir = directory([("vocab.json", &vocab), ("merges.txt", &json!(""))]);
    let message = refusal(&dir);
    assert!(message.contains("vocab.json") && message.contains("4294967295"), "{message}");
}

#[test]
fn empty_last_lines_of_a_vocabulary_are_no_pieces() {
    let text = fs::read_to_string(fixtures().join("bert/vocab.txt")).unwrap();
    for end in ["\n", "\n\n\n", "  \n", "\r\n"] {
        let dir = bert(&[("vocab.txt", json!(format!("{text}{end}")))]);
        assert_eq!(Tokenizer::from_dir(dir.path()).unwrap().vocab_size() as usize, pieces(), "{end:?}");
    }
}

#[test]
fn a_damaged_tokenizer_json_is_an_error_and_no_panic() {
    let whole = loads().directories["added tokens of json as it stands"].files["tokenizer.json"].to_string();
    let step = whole.len() / 150;
    for at in (0..whole.len()).step_by(step).filter(|&at| whole.is_char_boundary(at)) {
        for damaged in [whole[..at].to_owned(), whole.replacen(&whole[at..=at], "7", 1), whole[at..].to_owned()] {
            let dir = directory([("tokenizer.json", &Value::String(damaged))]);
            if let Ok(tokenizer) = Tokenizer::from_dir(dir.path()) {
                let _ = tokenizer.ids("the covid-19 map");
            }
        }
    }
}

#[test]
fn added_tokens_of_one_spelling_after_normalisation_are_refused() {
    let two = json!({"covid": pieces(), "COVID": pieces() + 1});
    let message = refusal(&bert(&[("added_tokens.json", two.clone())]));
    assert!(message.contains(r#""COVID" and "covid""#), "{message}");
    // A cased tokenizer tells them apart.
    let cased = json!({"do_lower_case": false});
    let dir = bert(&[("added_tokens.json", two), ("tokenizer_config.json", cased)]);
    let ids = Tokenizer::from_dir(dir.path()).unwrap().ids("covid COVID").unwrap();
    assert_eq!(ids.iter().map(|&id| id as usize).collect::<Vec<_>>(), [pieces(), pieces() + 1]);
}

#[test]
fn a_panic_of_the_tokenizers_crate_is_an_error_that_names_the_file_or_the_text() {
    let files_of = |name: &str| loads().directories[name].files.clone();
    // The crate cuts a prefix off the second piece of a merge without looking at its length.
    let mut all = files_of("roberta json as it stands");
    all.get_mut("tokenizer.json").unwrap()["model"]["continuing_subword_prefix"] = json!("##########");
    let message = refusal(&directory(files(&all)));
    assert!(message.contains("tokenizer.json: not a usable tokenizer"), "{message}");
    // The crate cuts a text into pieces of no characters.
    let mut all = files_of("cased json as it stands");
    all.get_mut("tokenizer.json").unwrap()["pre_tokenizer"] = json!({"type": "FixedLength", "length": 0});
    let tokenizer = Tokenizer::from_dir(directory(files(&all)).path()).unwrap();
    let error = tokenizer.ids("the map").unwrap_err();
    assert!(matches!(&error, Error::Tokenize { text, .. } if text == "the map"), "{error}");
}
