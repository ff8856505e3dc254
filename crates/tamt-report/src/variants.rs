//! Settings that set runs apart whose labels are equal.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::run::{Kind, Run};

/// Settings that labels, seeds or digests cover, and settings that change no result.
const COVERED: [&str; 34] = [
    "verb",
    "tool-version",
    "threads",
    "kernel",
    "seed",
    "seeds",
    "model",
    "base-model",
    "method",
    "sparsity",
    "scope",
    "start",
    "task",
    "task-file",
    "data",
    "ticket",
    "ticket-sha256",
    "teacher",
    "tokenizer",
    "start.ticket",
    "new",
    "corpus",
    "eval-corpus",
    "train-examples",
    "train.max-steps",
    "train.schedule.horizon",
    "keep",
    "predict-test",
    "test-sha256",
    "test-mismatched-sha256",
    "logging-steps",
    "save-every",
    "save-minutes",
    "allow-other-base",
];

/// The end of the names of inputs' digests.
const DIGEST: &str = "-sha256";

fn is_covered(key: &str) -> bool {
    COVERED.contains(&key)
        || ["train.save-every", "train.save-minutes", "train.logging-steps", "train.eval-every"].contains(&key)
}

/// The variant of each run: empty, or the settings that differ among runs with the same labels.
///
/// Runs of one kind, base and method (of a task: base and task) are compared. Where two of them have equal labels,
/// seeds included, and different settings, the names of these settings become part of the names of all.
pub(crate) fn variants(runs: &[Run]) -> Vec<String> {
    let mut groups: BTreeMap<(Family, String), Vec<usize>> = BTreeMap::new();
    for (i, run) in runs.iter().enumerate() {
        groups.entry((family(run), format!("{:?}", run.labels))).or_default().push(i);
    }
    let mut telling: HashMap<Family, BTreeSet<&str>> = HashMap::new();
    for ((family, _), members) in &groups {
        let first = &runs[members[0]].settings;
        for run in &members[1..] {
            let other = &runs[*run].settings;
            let keys = first.keys().chain(other.keys()).map(String::as_str);
            let differing = keys.filter(|key| first.get(*key) != other.get(*key) && !is_covered(key));
            telling.entry(family.clone()).or_default().extend(differing);
        }
    }
    let variant = |run: &Run| {
        let keys = telling.get(&family(run))?;
        let texts = keys.iter().map(|key| match run.settings.get(*key) {
            Some(value) => match short(key).strip_suffix(DIGEST) {
                Some(input) => format!("{input} {}", first_digits(value)),
                // A head may be that of a directory.
                None => format!("{} {}", short(key), value.rsplit('/').next().unwrap_or(value)),
            },
            None => format!("no {}", short(key).strip_suffix(DIGEST).unwrap_or(short(key))),
        });
        Some(texts.collect::<Vec<_>>().join(", "))
    };
    runs.iter().map(|run| variant(run).unwrap_or_default()).collect()
}

/// The runs among which settings are compared.
type Family = (Kind, String, String);

fn family(run: &Run) -> Family {
    let subject = match run.kind {
        Kind::Tune => run.labels.task.clone().unwrap_or_default(),
        _ => run.labels.method.clone(),
    };
    (run.kind, run.labels.base.clone(), subject)
}

/// The first digits of a digest, or of each one of a list.
fn first_digits(value: &str) -> String {
    let digits = |digest: &str| digest.chars().filter(char::is_ascii_hexdigit).take(8).collect::<String>();
    value.split(',').map(digits).collect::<Vec<_>>().join(" + ")
}

/// The last part of a setting's name, which is the name of its flag.
fn short(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}
