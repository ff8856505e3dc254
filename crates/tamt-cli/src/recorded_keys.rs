//! The keys of the records of runs, and what a verb records where no flag says otherwise.
//!
//! The keys are those of the settings' types, so that a new setting is known here without a list of names.

use std::collections::BTreeSet;

use serde::Serialize;
use tamt::demo::DemoSettings;
use tamt::find::{FindSettings, MaskInit, Method, paper, short};
use tamt::pretrain::{PretrainSettings, Train};
use tamt::prune::Sparsity;
use tamt::tune::{DistillSettings, InputSettings, SpanSettings, TrainingLength, TuneSettings};
use tamt_data::nearest;
use tamt_data::tasks::{Split, Task};
use toml::{Table, Value};

use crate::flat::{Flat, flattened, joined, table};

/// Settings whose flag has another name than the last part of their path.
const RENAMED: [(&str, &str); 19] = [
    ("start", "init"),
    ("part", "train"),
    ("scores.init", "score-init"),
    ("objective.kd.weight", "kd-weight"),
    ("objective.kd.representation", "kd-representation"),
    ("objective.kd.distance", "kd-distance"),
    ("objective.kd.attention", "kd-attention"),
    ("objective.kd.relation", "kd-relation"),
    ("objective.kd.relation-span", "kd-relation-layers"),
    ("distillation.temperature", "kd-temperature"),
    ("distillation.logits-weight", "kd-logits-weight"),
    ("distillation.hidden-weight", "kd-hidden-weight"),
    ("train.schedule.shape", "lr-schedule"),
    ("train.schedule.horizon", "lr-horizon-steps"),
    ("train.optimizer.kind", "optimizer"),
    ("train.optimizer.epsilon", "adam-epsilon"),
    ("optimizer.kind", "optimizer"),
    ("optimizer.epsilon", "adam-epsilon"),
    ("start.ticket", "init"),
];

/// The name of the flag for the setting at `path`, if there is a flag for that setting.
pub(crate) fn flag_of(path: &str) -> &str {
    let renamed = RENAMED.iter().find(|(recorded, _)| *recorded == path);
    renamed.map_or(path.rsplit('.').next().unwrap_or(path), |(_, flag)| flag)
}

fn flat_of<S: Serialize>(settings: &S) -> Flat {
    table(settings).map(|table| flattened(&table)).unwrap_or_default()
}

/// Whether the key at `path` describes a run of `verb` and sets nothing: the verb itself, the version, what the machine
/// decides, the name of the model in tickets, and digests of what was read. A new run computes digests of its own, since
/// an edited record may name other inputs; a resumed run compares them where the inputs have been read.
pub(crate) fn describes(verb: &str, path: &str) -> bool {
    let inputs: &[&str] = match verb {
        "find" => &["base", "tokenizer", "corpus", "eval-corpus", "start"],
        "pretrain" => &["base", "tokenizer", "corpus", "eval-corpus"],
        "tune" => &["base", "tokenizer", "ticket", "teacher", "task-file"],
        "eval" => &["base", "tokenizer", "corpus", "mlm-head", "ticket", "task-file"],
        _ => &[],
    };
    let reads_task = ["tune", "eval"].contains(&verb);
    let is_input =
        |name: &str| inputs.contains(&name) || reads_task && Split::ALL.iter().any(|split| split.name() == name);
    // The number of threads is that of the machine, where `--threads` does not say otherwise.
    let has_threads = ["find", "pretrain", "tune"].contains(&verb);
    ["verb", "tool-version"].contains(&path)
        || path == "base-model" && verb == "find"
        || path == "threads" && has_threads
        || path.strip_suffix("-sha256").is_some_and(is_input)
}

/// The settings that records of a verb may have beside its flags.
#[derive(Debug)]
pub(crate) struct Keys<'a> {
    verb: &'a str,
    /// The names of the verb's flags, which stand at the top level.
    flags: &'a [&'a str],
    settings: BTreeSet<String>,
}

impl<'a> Keys<'a> {
    pub(crate) fn of(verb: &'a str, flags: &'a [&'a str]) -> Self {
        let mut settings = BTreeSet::new();
        for settings_of_verb in widest(verb) {
            settings.extend(settings_of_verb.into_keys());
        }
        Self { verb, flags, settings }
    }

    /// The first key of `table` that no record of the verb has, as its path and what is wrong with it.
    pub(crate) fn unknown(&self, table: &Table) -> Option<(String, String)> {
        self.unknown_below("", table)
    }

    fn unknown_below(&self, prefix: &str, table: &Table) -> Option<(String, String)> {
        table.iter().find_map(|(key, value)| {
            let path = joined(prefix, key);
            let below = format!("{path}.");
            let is_table = self.settings.iter().any(|known| known.starts_with(&below));
            let is_setting = self.settings.contains(&path)
                || describes(self.verb, &path)
                || prefix.is_empty() && self.flags.contains(&key.as_str());
            match value {
                Value::Table(inner) if is_table => self.unknown_below(&path, inner),
                Value::Table(_) if is_setting => {
                    let problem = format!("`{path}` is a single value, not a table");
                    Some((path, problem))
                }
                Value::Table(_) => Some(self.unknown_key(path)),
                _ if is_setting => None,
                _ if is_table => {
                    let problem = format!("`{path}` is a table, not a single value");
                    Some((path, problem))
                }
                _ => Some(self.unknown_key(path)),
            }
        })
    }

    fn unknown_key(&self, path: String) -> (String, String) {
        let meant = self.meant(&path).map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
        let problem = format!("unknown key `{path}`: no record of `tamt {}` has it{meant}", self.verb);
        (path, problem)
    }

    /// The known key that is nearest to `path`: in the same table, else by the whole path, else by its last part or by the
    /// name of its flag in any table.
    fn meant(&self, path: &str) -> Option<String> {
        let (table, name) = split(path);
        let name = name.replace('_', "-");
        let settings = || self.settings.iter().map(String::as_str);
        let tables = settings().map(|known| split(known).0).filter(|table| !table.is_empty());
        let all: BTreeSet<&str> = settings().chain(tables).collect();
        let beside = all.iter().map(|known| split(known)).filter(|(of, _)| *of == table).map(|(_, name)| name);
        if let Some(near) = nearest(&name, beside) {
            return Some(joined(table, near));
        }
        let alike = all.iter().copied().filter(|known| nearest(&name, [split(known).1]).is_some());
        if let Some(near) = nearest(path, alike) {
            return Some(near.to_owned());
        }
        let by_name: Vec<(&str, &str)> =
            settings().flat_map(|known| [(split(known).1, known), (flag_of(known), known)]).collect();
        let near = nearest(&name, by_name.iter().map(|(name, _)| *name).chain(self.flags.iter().copied()))?;
        Some(by_name.iter().find(|(name, _)| *name == near).map_or(near, |(_, known)| known).to_owned())
    }
}

/// The table of a path, empty at the top level, and its last part.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('.').unwrap_or(("", path))
}

/// Settings of a verb that together have every key.
fn widest(verb: &str) -> Vec<Flat> {
    match verb {
        "find" => Sparsity::new(0.5).map_or_else(|_| Vec::new(), |sparsity| widest_find(sparsity).to_vec()),
        "pretrain" => {
            let mut settings = PretrainSettings::new(Train::All, 1);
            settings.objective.dropout = Some(0.0);
            vec![flat_of(&settings)]
        }
        "tune" => Task::all().iter().flat_map(widest_tune).collect(),
        "eval" => vec![flat_of(&InputSettings { max_length: 1, spans: Some(SpanSettings::default()) })],
        "demo" => vec![flat_of(&DemoSettings::default())],
        _ => Vec::new(),
    }
}

fn widest_find(sparsity: Sparsity) -> [Flat; 2] {
    let mut settings = FindSettings::new(Method::TamtMlmKd, sparsity, 1);
    settings.layers = Some(vec![0]);
    settings.ticket_steps = vec![0];
    settings.objective.dropout = Some(0.0);
    let with_ticket = FindSettings { start: MaskInit::Ticket("ticket".into()), ..settings.clone() };
    [flat_of(&settings), flat_of(&with_ticket)]
}

fn widest_tune(task: &Task) -> [Flat; 2] {
    let mut settings = TuneSettings::new(task);
    settings.train_examples = Some(1);
    settings.lr_horizon_steps = Some(1);
    settings.dropout = Some(0.0);
    settings.early_stopping = Some(1);
    settings.distillation = Some(DistillSettings::default());
    let in_steps = TuneSettings { duration: TrainingLength::MaxSteps(1), ..settings.clone() };
    [flat_of(&settings), flat_of(&in_steps)]
}

/// What a verb records without further flags for the run of `record`, once for each preset. Empty where that cannot be
/// known from the record.
pub(crate) fn own(verb: &str, record: &Flat) -> Vec<Flat> {
    match verb {
        "find" => own_of_find(record).unwrap_or_default(),
        "pretrain" => vec![flat_of(&PretrainSettings::new(Train::All, 1))],
        "tune" => {
            let named = record.get("task").and_then(Value::as_str).and_then(Task::by_name);
            // The task of a file has no constants of its own among the settings without a flag.
            named.or(Task::all().first()).map(|task| flat_of(&TuneSettings::new(task))).into_iter().collect()
        }
        "demo" => vec![flat_of(&DemoSettings::default())],
        _ => Vec::new(),
    }
}

fn own_of_find(record: &Flat) -> Option<Vec<Flat>> {
    let method: Method = record.get("method")?.clone().try_into().ok()?;
    let sparsity = Sparsity::new(record.get("sparsity")?.as_float()?).ok()?;
    let recorded =
        record.get("train.max-steps").and_then(Value::as_integer).and_then(|steps| u64::try_from(steps).ok());
    let steps = recorded.filter(|_| method.trains()).unwrap_or(0);
    let plain = FindSettings::new(method, sparsity, steps);
    let presets = [short(method, sparsity), paper(method, sparsity)].into_iter().flatten().map(|preset| {
        let mut settings = plain.clone();
        settings.batch_size = preset.batch_size;
        settings.block_size = preset.block_size;
        settings.train.optimizer.learning_rate = preset.learning_rate;
        flat_of(&settings)
    });
    Some(std::iter::once(flat_of(&plain)).chain(presets).collect())
}

/// Whether two recorded values mean the same: 1 is 1.0.
pub(crate) fn same(one: &Value, other: &Value) -> bool {
    let number = |value: &Value| value.as_float().or_else(|| value.as_integer().map(|number| number as f64));
    one == other || number(one).zip(number(other)).is_some_and(|(one, other)| one == other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown(verb: &str, toml: &str) -> Option<(String, String)> {
        Keys::of(verb, &["max-steps", "quiet", "learning-rate", "output-dir"]).unknown(&toml::from_str(toml).unwrap())
    }

    #[test]
    fn an_unknown_key_is_found_in_every_table_and_the_nearest_one_is_named() {
        for (verb, toml, path, meant) in [
            ("find", "sparsty = 0.6", "sparsty", "sparsity"),
            ("find", "learning-rat = 0.6", "learning-rat", "train.optimizer.learning-rate"),
            ("find", "lr-schedul = 'linear'", "lr-schedul", "train.schedule.shape"),
            (
                "find",
                "[train.optimizer]\nlearning-rat = 1",
                "train.optimizer.learning-rat",
                "train.optimizer.learning-rate",
            ),
            ("find", "[objectve.kd]\nweight = 1", "objectve", "objective"),
            ("find", "[train]\nsedule.shape = 1", "train.sedule", "train.schedule"),
            ("find", "[train]\nseed = 1", "train.seed", "seed"),
            ("find", "corpsu-sha256 = ''", "corpsu-sha256", ""),
            ("find", "out-dir = ''", "out-dir", "output-dir"),
            ("tune", "[distilation]\ntemperature = 1", "distilation", "distillation"),
            ("pretrain", "[objective.kd]\nweight = 1", "objective.kd", ""),
            ("eval", "[spans]\nn-bets = 1", "spans.n-bets", "spans.n-best"),
        ] {
            let (found, problem) = unknown(verb, toml).unwrap();
            assert_eq!(found, path);
            match meant {
                "" => assert!(problem.ends_with("has it"), "{problem}"),
                _ => assert!(problem.ends_with(&format!("; did you mean {meant}?")), "{problem}"),
            }
        }
        assert_eq!(unknown("find", "train = 3").unwrap().1, "`train` is a table, not a single value");
        assert_eq!(unknown("find", "[seed]\nx = 3").unwrap().1, "`seed` is a single value, not a table");
    }

    #[test]
    fn digests_and_flags_at_the_top_are_known() {
        let known = "verb = 'find'\ntool-version = '0.0.1'\nthreads = 2\nbase-sha256 = ''\nquiet = true\nmax-steps = 3";
        assert_eq!(unknown("find", known), None);
        assert_eq!(unknown("tune", "dev-mismatched-sha256 = []\n[duration]\nepochs = 1"), None);
    }
}
