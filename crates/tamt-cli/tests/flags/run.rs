//! Runs of the binary in a directory of their own, and what a run leaves.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use serde_json::Value;

use crate::common::{
    Tensors, bert, bytes, copy_of_bert, copy_of_classifier, corpus, files, golden, split, tamt_command,
};
use crate::task_files::{cola, cola_rows, is_marked, pairs, questions, squad, write};

/// The end, the output and the files of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// All files below the working directory but the inputs, by their paths.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
}

impl Outcome {
    fn text(&self, path: &str) -> String {
        self.files.get(path).map_or_else(String::new, |bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    /// The lines of the run's log that have `key`, as their values.
    pub(crate) fn log(&self, key: &str) -> Vec<Value> {
        let log = self.text("run/log.jsonl");
        log.lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).unwrap().get_mut(key).map(Value::take))
            .collect()
    }

    /// A value of the run's result.
    pub(crate) fn result(&self, key: &str) -> Value {
        self.json("eval_results.json")[key].take()
    }

    /// A value of the run's `trainer_state.json`.
    pub(crate) fn state(&self, key: &str) -> u64 {
        self.json("trainer_state.json")[key].as_u64().unwrap()
    }

    /// Whether the output holds a text.
    pub(crate) fn says(&self, text: &str) -> bool {
        self.stdout.contains(text) || self.stderr.contains(text)
    }

    /// The record of the run.
    pub(crate) fn record(&self) -> toml::Table {
        toml::from_str(&self.text("run/config.toml")).unwrap()
    }

    /// The tensors of the run's model.
    pub(crate) fn model(&self) -> Tensors {
        Tensors::parse(&self.files["run/model.safetensors"])
    }

    /// A file of the run as JSON.
    pub(crate) fn json(&self, name: &str) -> Value {
        serde_json::from_str(&self.text(&format!("run/{name}"))).unwrap_or_default()
    }

    /// The paths of the files, but of logs for TensorBoard, whose names hold the time.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.files.keys().map(String::as_str).filter(|name| !name.contains("tfevents")).collect()
    }
}

/// The outcome of the last of `lines`, which run one after the other in a new directory with the inputs of [`inputs`].
/// `{bert}`, `{roberta}` and `{corpus}` stand for the small models and their text. `turn` tells repetitions of a line
/// apart; each outcome is computed once.
pub(crate) fn outcome(lines: &[&str], turn: u8) -> Arc<Outcome> {
    type Cell = Arc<OnceLock<Arc<Outcome>>>;
    type Cells = HashMap<(Vec<String>, u8), Cell>;
    static OUTCOMES: OnceLock<Mutex<Cells>> = OnceLock::new();
    let key = (lines.iter().map(|&line| line.to_owned()).collect(), turn);
    let cell = OUTCOMES.get_or_init(Mutex::default).lock().unwrap().entry(key).or_default().clone();
    cell.get_or_init(|| Arc::new(run_all(lines))).clone()
}

fn run_all(lines: &[&str]) -> Outcome {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    inputs(root);
    let given = files(root);
    let (last, earlier) = lines.split_last().unwrap();
    for line in earlier {
        let setup = run(root, line);
        assert_eq!(setup.code, 0, "{line}\n{}", setup.stderr);
    }
    let mut outcome = run(root, last);
    outcome.files.retain(|path, _| !given.contains_key(path));
    outcome
}

fn run(root: &Path, line: &str) -> Outcome {
    let line = line.replace("{bert}", &bert()).replace("{roberta}", &golden("roberta")).replace("{corpus}", &corpus());
    let output = tamt_command().current_dir(root).args(split(&line)).output().unwrap();
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    let files = files(root).into_iter().map(|(name, path)| (name, bytes(path))).collect();
    Outcome { code: output.status.code().unwrap(), stdout, stderr, files }
}

/// Task files, halves of the small models' text, models, configurations and flags.
fn inputs(root: &Path) {
    cola(&root.join("cola"));
    write(&root.join("other-cola"), "train.tsv", &cola_rows(3000, 96));
    write(&root.join("other-cola"), "dev.tsv", &cola_rows(4000, 40));
    squad(&root.join("squad"), true);
    squad(&root.join("squad"), false);
    long_questions(&root.join("long-questions"));
    own_task(root);

    let text = fs::read_to_string(corpus()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    write(root, "short.txt", &lines[..lines.len() / 2].join("\n"));
    write(root, "other.txt", &lines[lines.len() / 2..].join("\n"));

    // Rows for the tokens of both tokenizers.
    let config = fs::read_to_string(bert() + "/config.json").unwrap();
    let config = config.replace("\"vocab_size\": 96", "\"vocab_size\": 272");
    write(root, "two-layers.json", &config);
    write(root, "one-layer.json", &config.replace("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1"));
    write(root, "seed.toml", "seed = 7\n");
    other_weights(&root.join("other-bert"));
    copy_of_classifier("bert", &root.join("classifier"));
}

/// Questions of three words.
fn long_questions(directory: &Path) {
    squad(directory, true);
    let mut all = questions(0, 40, true);
    for paragraph in all["data"][0]["paragraphs"].as_array_mut().unwrap() {
        let question = &mut paragraph["qas"][0]["question"];
        *question = [question.as_str().unwrap(); 3].join(" ").into();
    }
    write(directory, "train-v2.0.json", &all.to_string());
}

/// A task of three labels, declared twice, with the labels in two orders.
fn own_task(root: &Path) {
    let label = |a: &str, b: &str| ["bad", "fair", "good"][usize::from(is_marked(a)) + usize::from(is_marked(b))];
    let rows = |from| pairs("first,second,label", from, 40, label, |_, a, b, label| format!("{a},{b},{label}"));
    write(&root.join("own"), "train.csv", &rows(0));
    write(&root.join("own"), "dev.csv", &rows(500));
    for (name, labels) in [("own.toml", "'bad', 'fair', 'good'"), ("turned.toml", "'good', 'fair', 'bad'")] {
        let declaration = format!(
            "name = 'own'\nkind = 'classification'\nlabels = [{labels}]\n[files]\ntrain = 'train.csv'\n\
             dev = 'dev.csv'\n[columns]\nfirst = 'first'\nsecond = 'second'\nlabel = 'label'\n"
        );
        write(root, name, &declaration);
    }
}

/// The small BERT with one weight of its first query matrix replaced.
fn other_weights(to: &Path) {
    copy_of_bert(to);
    let path = to.join("model.safetensors");
    let mut tensors = Tensors::read(&path);
    let query = "bert.encoder.layer.0.attention.self.query.weight";
    tensors.bytes_mut(query)[..4].copy_from_slice(&0.5f32.to_le_bytes());
    tensors.write(&path);
}
