//! Seeds of tokenizers, texts, tables, settings and records.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};
use tamt::find::{FindSettings, Method};
use tamt::prune::Sparsity;
use tamt::run::{TrainerState, VerbSettings};

use crate::readers::files;
use crate::seeds::{Seed, fixture, packed, read, refused};

pub(crate) fn all() -> Vec<Seed> {
    let mut seeds = tokenizers();
    seeds.extend(texts());
    seeds.extend(tables());
    seeds.extend(parquet());
    seeds.extend(squad());
    seeds.extend(runs());
    seeds.extend(sentence());
    seeds
}

/// Files by name.
fn files_of(files: &[(&str, &Value)]) -> Vec<u8> {
    let content = |value: &Value| match value {
        Value::String(text) => text.clone().into_bytes(),
        other => other.to_string().into_bytes(),
    };
    let files: Vec<(&str, Vec<u8>)> = files.iter().map(|(name, value)| (*name, content(value))).collect();
    packed(&files.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect::<Vec<_>>())
}

/// The directories that `loads.json` describes: a text as it stands, `@name` for a copy of a fixture, all else as JSON.
fn tokenizers() -> Vec<Seed> {
    let loads: Value = serde_json::from_slice(&fixture("tamt-data/tests/fixtures/loads.json")).unwrap();
    let directories: BTreeMap<String, Value> = serde_json::from_value(loads["directories"].clone()).unwrap();
    let content = |value: &Value| match value.as_str().and_then(|text| text.strip_prefix('@')) {
        Some(name) => Value::String(String::from_utf8(fixture(&format!("tamt-data/tests/fixtures/{name}"))).unwrap()),
        None => value.clone(),
    };
    let seed = |(name, directory): (&String, &Value)| {
        let files: Vec<(&String, Value)> =
            directory["files"].as_object().unwrap().iter().map(|(name, value)| (name, content(value))).collect();
        let files: Vec<(&str, &Value)> = files.iter().map(|(name, value)| (name.as_str(), value)).collect();
        read("tokenizer", name, files_of(&files))
    };
    let mut seeds: Vec<Seed> = directories.iter().map(seed).collect();
    let vocab = json!("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n##b\n");
    let class = json!({"tokenizer_class": "BertJapaneseTokenizer"});
    seeds.push(read("tokenizer", "small", files_of(&[("vocab.txt", &vocab)])));
    seeds.push(refused("tokenizer", "class", files_of(&[("vocab.txt", &vocab), ("tokenizer_config.json", &class)])));
    seeds
}

fn texts() -> Vec<Seed> {
    vec![
        read("text", "lines", "one two\r\n\n  \nthree <unk> four\n"),
        read("text", "no line end", "\u{feff}caf\u{e9} \u{6f22}\u{5b57} . ##s"),
        refused("text", "blank", "\n \n"),
        refused("text", "no text", b"a\xff\n".as_slice()),
        refused("text", "NUL", "a\0b"),
    ]
}

const NLI: &str = "name = 'nli'\nkind = 'classification'\nlabels = ['entailment', 'neutral', 'contradiction']\n";
const COLUMNS: &str = "[columns]\nfirst = 'premise'\nsecond = 'hypothesis'\nlabel = 'label'\n";

fn tables() -> Vec<Seed> {
    let nli = |file: &str| json!(format!("{NLI}[files]\ntrain = '{file}'\n{COLUMNS}"));
    let csv = json!("premise,hypothesis,label\n\"a, \"\"b\"\"\nc\",d,0\n\ne,f,1.0\ng,h,\ni,j,-1\nk,l,neutral\n");
    let tsv = json!(
        "index\tsentence1\tsentence2\tlabel\r\n0\ta \"map\t\u{e9}tude\tentailment\r\n1\tb\tc\tnot_entailment\r\n"
    );
    let jsonl = json!(
        "{\"premise\": \"a\", \"hypothesis\": \"b\", \"label\": null}\n\n{\"premise\": \"\\ud83d\", \"hypothesis\": true, \
         \"label\": 2, \"x\": [{}, 1e3]}\n{\"premise\": 1, \"hypothesis\": 0.5, \"label\": \"1.0\"}\n"
    );
    let shards = json!("premise,hypothesis,label\na,b,0\n");
    let numbers = json!(
        "name = 'stars'\nkind = 'regression'\nrange = [0.0, 5.0]\nmetrics = ['spearmanr']\nheader = false\n[files]\n\
         train = 'train.tsv'\ndev = 'dev.tsv'\n[columns]\nfirst = 0\nlabel = 1\nid = 2\n[defaults]\nbatch_size = 4\n\
         learning_rate = 1e-4\nepochs = 2\nmax_length = 16\neval_every = 5\n"
    );
    let rows = json!("good\t4.5\tx\nbad\t0\ty\n");
    let cola = json!("gj04\t1\t\tOne.\ngj04\t0\t*\tTwo the.\n");
    vec![
        read("table", "csv", files_of(&[("task.toml", &nli("train.csv")), ("train.csv", &csv)])),
        read("table", "jsonl", files_of(&[("task.toml", &nli("train.jsonl")), ("train.jsonl", &jsonl)])),
        read(
            "table",
            "shards",
            files_of(&[
                ("task.toml", &nli("train-*.csv")),
                ("train-0-of-2.csv", &shards),
                ("train-1-of-2.csv", &shards),
            ]),
        ),
        read("table", "numbers", files_of(&[("task.toml", &numbers), ("train.tsv", &rows), ("dev.tsv", &rows)])),
        refused("table", "glue", files_of(&[("train.tsv", &tsv)])),
        refused("table", "cola", files_of(&[("train.tsv", &cola)])),
        refused("table", "unknown metric", files_of(&[("task.toml", &json!(format!("{NLI}metrics = ['f2']\n")))])),
    ]
}

fn parquet() -> Vec<Seed> {
    let own = ["delta_1", "delta_2", "delta_length_2", "dictionary_2", "plain_2"];
    let file = |name: &str| fixture(&format!("tamt-data/tests/fixtures/hub/{name}.parquet"));
    let mut seeds: Vec<Seed> = own.iter().map(|name| read("parquet", name, file(&format!("own/{name}")))).collect();
    seeds.push(refused("parquet", "kinds", file("own/kinds")));
    seeds.push(refused("parquet", "gzip", file("own/gzip")));
    seeds.push(read("parquet", "zstd", file("mnli/train-00000-of-00002")));
    seeds.push(read("parquet", "snappy", file("mnli/train-00001-of-00002")));
    seeds.push(read("parquet", "none", file("mnli/test_matched-00000-of-00001")));
    seeds
}

fn squad() -> Vec<Seed> {
    let file = |qas: Value| {
        json!({"version": "v2.0", "data": [{"title": "t", "paragraphs": [{"context": "A caf\u{e9} in Z\u{fc}rich kept her map.", "qas": qas}]}]}).to_string()
    };
    let answer = json!([{"text": "Z\u{fc}rich", "answer_start": 10}]);
    vec![
        read(
            "squad",
            "answers",
            file(json!([
                {"id": "1", "question": "where", "answers": answer, "is_impossible": false},
                {"id": "2", "question": "why", "answers": [], "is_impossible": true},
            ])),
        ),
        read(
            "squad",
            "ids and nulls",
            file(json!([
                {"id": 1, "question": "where", "answers": [{"text": " her map", "answer_start": "21"}]},
                {"id": 1.5, "question": "why", "answers": null, "is_impossible": null},
                {"id": null, "question": "", "answers": [{"text": "gone", "answer_start": null}]},
                {"id": [2], "question": "who", "answers": [{"text": "map"}, {"text": "", "answer_start": -1}]},
            ])),
        ),
        refused("squad", "twice", file(json!([{"id": 1, "question": "a"}, {"id": "1", "question": "b"}]))),
        refused("squad", "empty", r#"{"data": []}"#),
    ]
}

fn runs() -> Vec<Seed> {
    let settings = FindSettings::new(Method::TamtKd, Sparsity::new(0.7).unwrap(), 10);
    let settings = toml::Table::try_from(VerbSettings::new("find", &settings)).unwrap().to_string();
    let mut state = TrainerState { global_step: 5, epoch: Some(0.5), max_steps: 9, ..TrainerState::default() };
    state.log(&[("loss", 0.1 + 0.2), ("grad_norm", f64::INFINITY)]);
    let dir = files::empty();
    state.write(dir.path()).unwrap();
    let state = fs::read_to_string(dir.path().join("trainer_state.json")).unwrap();
    let results = json!({"eval_loss": 1.5, "eval_samples": 7, "eval_accuracy": null});
    let log =
        "{\"step\":5,\"seconds\":0.5,\"loss\":1.0}\n{\"step\":5,\"seconds\":1.0,\"eval_loss\":null}\n{\"step\":6,\"lo";
    let old = String::from_utf8(fixture("tamt-cli/tests/fixtures/run-0.1.0/config.toml")).unwrap();
    let run = |name: &str, settings: &str| {
        let files = [
            ("config.toml", &json!(settings)),
            ("trainer_state.json", &json!(state)),
            ("eval_results.json", &results),
            ("log.jsonl", &json!(log)),
        ];
        read("run", name, files_of(&files))
    };
    vec![
        run("find", &settings),
        run("of the first version", &old),
        run("tune", "verb = 'tune'\nlr-schedule = 'constant'\nseeds = [1, 2]\n[duration]\nepochs = 3.0\n"),
        run("other types", "huge = 9223372036854775807\ninf = -inf\nlist = [[], {}]"),
    ]
}

fn sentence() -> Vec<Seed> {
    let modules = |path: &str| {
        json!([
            {"idx": 0, "name": "0", "path": path, "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
        ])
    };
    let old = json!({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false, "include_prompt": true});
    let new = json!({"embedding_dimension": 16, "pooling_mode": ["mean"], "include_prompt": false});
    let length = json!({"max_seq_length": 5, "do_lower_case": true, "transformer_task": "feature-extraction"});
    let limit = json!({"model_max_length": 1e30});
    let prompts = json!({"prompts": {"query": "ask: "}, "default_prompt_name": "query"});
    let dense = json!([{"path": "", "type": "a.Transformer"}, {"path": "2_Dense", "type": "a.Dense"}]);
    vec![
        read(
            "sentence",
            "cls",
            files_of(&[
                ("modules.json", &modules("")),
                ("1_Pooling/config.json", &old),
                ("sentence_bert_config.json", &length),
            ]),
        ),
        read(
            "sentence",
            "in a directory",
            files_of(&[
                ("modules.json", &modules("0_Transformer")),
                ("1_Pooling/config.json", &new),
                ("0_Transformer/sentence_bert_config.json", &length),
                ("tokenizer_config.json", &limit),
            ]),
        ),
        refused(
            "sentence",
            "prompt",
            files_of(&[
                ("modules.json", &modules("")),
                ("1_Pooling/config.json", &new),
                ("config_sentence_transformers.json", &prompts),
            ]),
        ),
        refused("sentence", "dense", files_of(&[("modules.json", &dense)])),
    ]
}
