//! Run directories of a study that never ran: files as `tamt study` writes them, with results from a formula.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use tamt_report::ticket::{Matrix, Ticket, TicketReader};
use tamt_study::labels::Labels;

/// A study in a directory.
pub(crate) struct Builder {
    pub(crate) root: PathBuf,
    runs: Vec<String>,
}

/// A ticket of the study.
#[derive(Clone, Debug)]
pub(crate) struct Of {
    pub(crate) method: &'static str,
    pub(crate) sparsity: f64,
    pub(crate) scope: &'static str,
    pub(crate) seed: Option<u64>,
    pub(crate) steps: Option<u64>,
}

pub(crate) const TASKS: [&str; 5] = ["cola", "sst2", "mrpc", "stsb", "squad"];
pub(crate) const METHODS: [&str; 6] = ["random", "magnitude", "imp", "tamt-kd", "tamt-mlm", "tamt-mlm-kd"];
pub(crate) const DENSE: Of = Of { method: "dense", sparsity: 0.0, scope: "local", seed: None, steps: None };

/// Steps of a whole search.
const STEPS: u64 = 400;

/// A number between -1 and 1 that depends on a text: FNV-1a, mixed.
fn noise(text: &str) -> f64 {
    let mut hash =
        text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    hash = (hash ^ (hash >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash ^= hash >> 29;
    (hash >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
}

impl Of {
    pub(crate) fn new(method: &'static str, sparsity: f64, seed: u64) -> Self {
        let draws = method != "magnitude";
        let trains = draws && method != "random";
        Self { method, sparsity, scope: "local", seed: draws.then_some(seed), steps: trains.then_some(STEPS) }
    }

    fn is_dense(&self) -> bool {
        self.method == "dense"
    }

    /// The name of the ticket: the search, with the folder of a ticket that is not the final one.
    pub(crate) fn name(&self) -> String {
        let seed = self.seed.map_or(String::new(), |seed| format!("-seed{seed}"));
        let folder = match self.steps {
            Some(steps) if steps < STEPS => format!("/step-{steps}"),
            _ => String::new(),
        };
        let scope = if self.scope == "local" { "" } else { "-global" };
        format!("{}-{}{scope}{seed}{folder}", self.method, self.sparsity)
    }

    /// How much of the dense model is lost, from 0 to 1.
    fn damage(&self) -> f64 {
        let of_method = match self.method {
            "dense" => return 0.0,
            "random" => 2.4,
            "magnitude" => 1.0,
            "imp" => 0.75,
            "tamt-kd" => 0.52,
            "tamt-mlm-kd" => 0.44,
            _ => 0.46,
        };
        let done = self.steps.map_or(1.0, |steps| 1.0 - (-(steps as f64) / 120.0).exp());
        let start = if self.method == "imp" { 1.6 } else { 1.0 };
        let factor = done * of_method + (1.0 - done) * if self.steps.is_some() { start } else { of_method };
        (factor * self.sparsity.powi(3)).min(0.9)
    }

    fn losses(&self) -> (f64, f64) {
        let jitter = 1.0 + 0.03 * noise(&format!("loss {}", self.name()));
        let mlm = 4.2 + 5.0 * self.damage() * jitter;
        let kd = 0.6 * self.damage() * jitter * if self.method == "tamt-kd" { 0.4 } else { 1.0 };
        if self.is_dense() { (4.2187, 0.0) } else { (mlm, kd) }
    }

    fn labels(&self) -> Labels {
        let ticket = !self.is_dense();
        let text = |text: &str| ticket.then(|| text.to_owned());
        Labels {
            base: "minilm-base".to_owned(),
            method: self.method.to_owned(),
            sparsity: ticket.then_some(self.sparsity),
            scope: text(self.scope),
            start: text("magnitude"),
            ticket_seed: self.seed,
            steps: self.steps,
            ..Labels::default()
        }
    }
}

impl Builder {
    pub(crate) fn new(root: &Path) -> Self {
        fs::create_dir_all(root).unwrap();
        Self { root: root.to_owned(), runs: Vec::new() }
    }

    /// Writes the files of a run.
    pub(crate) fn run(&mut self, kind: &str, name: &str, labels: &Labels, config: &str, results: &Value) -> PathBuf {
        let folder = match kind {
            "find" => "tickets",
            "tune" => "tasks",
            other => other,
        };
        let path = format!("{folder}/{name}");
        let directory = self.root.join(&path);
        fs::create_dir_all(&directory).unwrap();
        let seconds = 20.0 + 15.0 * noise(name);
        let record = json!({
            "format": 1, "kind": kind, "id": format!("{:016x}", noise(&path).to_bits()), "name": name, "status": "done",
            "error": null, "attempts": 1, "labels": labels,
            "command": ["tamt", kind, "--output-dir", path], "seconds": seconds,
            "machine": { "cpu": "A processor", "threads": 2, "precision": "f32" }, "tool_version": "0.1.0",
        });
        fs::write(directory.join("config.toml"), config).unwrap();
        fs::write(directory.join("eval_results.json"), serde_json::to_string_pretty(results).unwrap()).unwrap();
        fs::write(directory.join("study-run.json"), serde_json::to_string_pretty(&record).unwrap()).unwrap();
        self.runs.push(path);
        directory
    }

    /// The search for a ticket, with tickets after these numbers of steps.
    pub(crate) fn find(&mut self, of: &Of, on_the_way: &[u64]) {
        let steps = of.steps.unwrap_or(0);
        let (mlm, kd) = of.losses();
        let objective = match of.method {
            "tamt-kd" => "[objective]\nmlm = false\n[objective.kd]\nhidden-weight = 1.0\n",
            "tamt-mlm-kd" => "[objective]\nmlm = true\nmlm-probability = 0.15\n[objective.kd]\nhidden-weight = 1.0\n",
            _ => "[objective]\nmlm = true\nmlm-probability = 0.15\n",
        };
        let ticket_steps =
            if on_the_way.is_empty() { String::new() } else { format!("ticket-steps = {on_the_way:?}\n") };
        let config = format!(
            "verb = \"find\"\nmethod = \"{}\"\nsparsity = {}\nscope = \"{}\"\nbatch-size = 16\nblock-size = 128\n\
             start = \"magnitude\"\n{ticket_steps}{objective}[train]\nmax-steps = {steps}\n",
            of.method, of.sparsity, of.scope
        );
        let results = json!({
            "steps": steps, "seconds": 0.4 * steps as f64 + 1.0, "sparsity": of.sparsity,
            "mlm_loss": mlm, "kd_cosine": kd,
            "output_dir": "somewhere",
        });
        let directory = self.run("find", &of.name(), &of.labels(), &config, &results);
        fs::write(directory.join("ticket.safetensors"), ticket(of)).unwrap();
        let log: String =
            (0..=steps).step_by(10).map(|s| format!("{{\"step\":{s},\"seconds\":{}}}\n", 0.4 * s as f64)).collect();
        fs::write(directory.join("log.jsonl"), log).unwrap();
        for steps in on_the_way {
            let folder = directory.join(format!("step-{steps}"));
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("ticket.safetensors"), ticket(&Of { steps: Some(*steps), ..of.clone() })).unwrap();
        }
    }

    pub(crate) fn losses(&mut self, of: &Of) {
        let (mlm, kd) = of.losses();
        let labels = Labels { ticket: (!of.is_dense()).then(|| of.name()), ..of.labels() };
        let results = json!({
            "block_size": 128, "seed": 42, "mlm_probability": 0.15, "tokens": 40_000,
            "masked_tokens": 6000, "mlm_loss": mlm,
            "perplexity": mlm.exp(), "mlm_accuracy": 0.3, "kd_cosine": kd, "kd_mse": kd,
        });
        self.run("losses", &flat(&of.name()), &labels, "", &results);
    }

    pub(crate) fn tune(&mut self, of: &Of, task: &str, seed: u64, examples: u64) -> PathBuf {
        let dense = match task {
            "cola" => 0.46,
            "sst2" => 0.905,
            "mrpc" => 0.86,
            "stsb" => 0.85,
            _ => 0.79,
        };
        let scarce = 1.0 - 0.5 * (-(examples as f64) / 1500.0).exp();
        let chance = if task == "cola" || task == "stsb" { 0.0 } else { 0.5 };
        let name = format!("{task}-{}-{seed}-{examples}", flat(&of.name()));
        let kept = (1.0 - of.damage() * (1.6 - scarce)) * scarce;
        let luck = 0.012 * noise(&name) + 0.008 * noise(&format!("{task} {seed}"));
        let score = chance + (dense - chance) * kept + luck;
        let labels = Labels {
            ticket: (!of.is_dense()).then(|| of.name()),
            task: Some(task.to_owned()),
            seed: Some(seed),
            train_examples: (examples < 8000).then_some(examples),
            ..of.labels()
        };
        let config = format!(
            "verb = \"tune\"\ntask = \"{task}\"\nbatch-size = 32\nseed = {seed}\n[optimizer]\nlearning-rate = 0.0003\n"
        );
        self.run("tune", &name, &labels, &config, &Value::Object(score_results(task, score, examples, of.sparsity)))
    }

    /// Writes `study.json`.
    pub(crate) fn finish(&self, name: &str) {
        let study = json!({ "format": 1, "name": name, "plan": "plan.toml", "store": self.root, "runs": self.runs });
        fs::write(self.root.join("study.json"), study.to_string()).unwrap();
    }
}

/// Gives a finished run another result.
pub(crate) fn set(directory: &Path, values: &[(&str, f64)]) {
    let path = directory.join("eval_results.json");
    let mut results: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    for (key, value) in values {
        results[*key] = json!(value);
    }
    fs::write(path, results.to_string()).unwrap();
}

/// A name without folders.
fn flat(name: &str) -> String {
    name.replace('/', "-")
}

fn score_results(task: &str, score: f64, examples: u64, sparsity: f64) -> Map<String, Value> {
    let (keys, primary): (&[&str], &str) = match task {
        "cola" => (&["matthews_correlation"], "matthews_correlation"),
        "mrpc" => (&["accuracy", "f1", "acc_and_f1"], "acc_and_f1"),
        "stsb" => (&["pearson", "spearmanr", "corr"], "pearson"),
        "squad" => (&["exact_match", "f1"], "f1"),
        _ => (&["accuracy"], "accuracy"),
    };
    let scale = if task == "squad" { 100.0 } else { 1.0 };
    let mut results = Map::new();
    for (i, key) in keys.iter().enumerate() {
        let offset = if *key == primary { 0.0 } else { 0.01 * (i as f64 + 1.0) };
        results.insert(format!("best_{key}"), (scale * (score + offset)).into());
        results.insert((*key).to_owned(), (scale * (score + offset - 0.004)).into());
    }
    results.insert("primary_metric".to_owned(), primary.into());
    results.insert("train_examples".to_owned(), examples.into());
    results.insert("sparsity".to_owned(), sparsity.into());
    results.insert("steps".to_owned(), 750.into());
    results.insert("seconds".to_owned(), 31.5.into());
    results
}

const PARTS: [(&str, usize, usize); 6] = [
    ("attention.self.query", 16, 16),
    ("attention.self.key", 16, 16),
    ("attention.self.value", 16, 16),
    ("attention.output.dense", 16, 16),
    ("intermediate.dense", 64, 16),
    ("output.dense", 16, 64),
];

/// The file of a ticket: JSON, which the report never sees.
fn ticket(of: &Of) -> String {
    let mut matrices = vec![("embeddings.word_embeddings.weight".to_owned(), 120, 16)];
    for layer in 0..4 {
        matrices.extend(PARTS.map(|(part, rows, cols)| (format!("encoder.layer.{layer}.{part}.weight"), rows, cols)));
    }
    let moved = match of.method {
        "random" => 1.0,
        "magnitude" => 0.0,
        _ => 0.3 * (1.0 - (-(of.steps.unwrap_or(0) as f64) / 150.0).exp()),
    };
    let matrix = |(name, rows, cols): &(String, usize, usize)| {
        let shift = if of.scope == "global" { 0.12 * noise(name) } else { 0.0 };
        let bit = |i: usize| {
            let own = noise(&format!("{} {name} {i} {:?}", of.method, of.seed));
            let rank = if noise(&format!("{name} {i} {} move", of.method)).abs() < moved {
                own
            } else {
                noise(&format!("{name} {i}"))
            };
            (rank + 1.0) / 2.0 >= of.sparsity + shift
        };
        let bits: Vec<u8> =
            (0..rows * cols / 8).map(|byte| (0..8).fold(0, |b, k| b | (u8::from(bit(8 * byte + k)) << k))).collect();
        json!({ "name": name, "rows": rows, "cols": cols, "bits": bits })
    };
    json!({ "labels": of.labels(), "matrices": matrices.iter().map(matrix).collect::<Vec<_>>() }).to_string()
}

/// Reads the tickets of a [`Builder`].
pub(crate) struct Reader;

impl TicketReader for Reader {
    fn read(&self, path: &Path) -> Result<Ticket, String> {
        let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
        let value: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let matrix = |matrix: &Value| Matrix {
            name: matrix["name"].as_str().unwrap().to_owned(),
            rows: matrix["rows"].as_u64().unwrap() as usize,
            cols: matrix["cols"].as_u64().unwrap() as usize,
            bits: matrix["bits"].as_array().unwrap().iter().map(|byte| byte.as_u64().unwrap() as u8).collect(),
        };
        let matrices = value["matrices"].as_array().ok_or("no masks")?.iter().map(matrix).collect();
        let labels = serde_json::from_value(value["labels"].clone()).map_err(|error| error.to_string())?;
        Ok(Ticket { labels, matrices })
    }
}

/// A study with data for every section.
pub(crate) fn whole(root: &Path) -> Builder {
    let mut study = Builder::new(root);
    study.losses(&DENSE);
    for task in TASKS {
        (1..=3).for_each(|seed| drop(study.tune(&DENSE, task, seed, 8000)));
    }
    for sparsity in [0.5, 0.7, 0.8] {
        for method in METHODS {
            let seeds = if method == "magnitude" { 1 } else { 2 };
            for seed in 1..=seeds {
                let of = Of::new(method, sparsity, seed);
                let stepwise = sparsity == 0.7 && seed == 1 && ["imp", "tamt-mlm"].contains(&method);
                study.find(&of, if stepwise { &[0, 50, 100, 200] } else { &[] });
                study.losses(&of);
                for task in TASKS {
                    (1..=3).for_each(|tuning| drop(study.tune(&of, task, tuning, 8000)));
                }
            }
        }
    }
    for method in ["imp", "tamt-mlm"] {
        for steps in [0, 50, 100, 200] {
            let of = Of { steps: Some(steps), ..Of::new(method, 0.7, 1) };
            study.losses(&of);
            TASKS.iter().for_each(|task| drop(study.tune(&of, task, 1, 8000)));
        }
    }
    for task in ["cola", "sst2"] {
        for examples in [300, 1000, 3000] {
            for seed in [1, 2] {
                study.tune(&DENSE, task, seed, examples);
                for method in ["magnitude", "imp", "tamt-mlm"] {
                    study.tune(&Of::new(method, 0.7, 1), task, seed, examples);
                }
            }
        }
    }
    for method in ["magnitude", "tamt-mlm"] {
        let of = Of { scope: "global", ..Of::new(method, 0.7, 1) };
        study.find(&of, &[]);
        study.losses(&of);
    }
    study.finish("MiniLM, tiny");
    study
}
