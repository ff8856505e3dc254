//! Settings that set runs apart whose labels are equal.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tamt_study::labels::Labels;

use crate::run::{Kind, Run};

/// Settings that labels or seeds cover. The tickets on the way of a search change nothing of the others.
const LABELLED: [&str; 14] = [
    "verb",
    "seed",
    "seeds",
    "method",
    "sparsity",
    "scope",
    "start",
    "task",
    "ticket-sha256",
    "train-examples",
    "train.max-steps",
    "ticket-steps",
    "test-sha256",
    "test-mismatched-sha256",
];

/// Names and paths of what a run reads. Digests of the content stand beside them.
const NAMES: [&str; 11] = [
    "model",
    "base-model",
    "task-file",
    "data",
    "ticket",
    "teacher",
    "tokenizer",
    "start.ticket",
    "new",
    "corpus",
    "eval-corpus",
];

/// Settings that change no result. How often a fine-tuning is evaluated is none of them: its score is the best evaluation.
const WITHOUT_EFFECT: [&str; 13] = [
    "tool-version",
    "threads",
    "kernel",
    "keep",
    "predict-test",
    "logging-steps",
    "save-every",
    "save-minutes",
    "allow-other-base",
    "train.save-every",
    "train.save-minutes",
    "train.logging-steps",
    "train.eval-every",
];

/// Inputs of which each seed may have its own: another one is another setting only where the seeds are equal.
const OF_SEEDS: [&str; 2] = ["teacher-sha256", "start-sha256"];

/// The end of the names of inputs' digests.
const DIGEST: &str = "-sha256";

/// Whether a setting decides a result beside labels and seeds.
fn is_telling(key: &str) -> bool {
    !LABELLED.contains(&key) && is_of_result(key)
}

/// Whether a setting, or the content that it names, decides a result.
fn is_of_result(key: &str) -> bool {
    !NAMES.contains(&key) && !WITHOUT_EFFECT.contains(&key)
}

/// What decides the result of a run, as a text that a repetition of the run has, too.
pub(crate) fn identity(run: &Run) -> String {
    let settings = run.settings.iter().filter(|(key, _)| is_of_result(key));
    format!("{:?} {:?} {:?}", run.kind, run.labels, settings.collect::<Vec<_>>())
}

/// The variant of each run: empty, or the settings that differ among runs with the same labels.
///
/// Runs of one kind, base and method (of a task: base and task) are compared. Where two of them have labels that are
/// equal but for seeds, and different settings, the names of these settings become part of the names of all. A run of a
/// `runs.csv` has the variant that the file names.
pub(crate) fn variants(runs: &[Run]) -> Vec<String> {
    let mut telling: HashMap<Family, BTreeSet<&str>> = HashMap::new();
    for (family, members) in groups(runs, |labels| Labels { ticket_seed: None, seed: None, ..labels }) {
        let first = &members[0].settings;
        for other in members[1..].iter().map(|run| &run.settings) {
            let keys = first.keys().chain(other.keys()).map(String::as_str).filter(|key| !OF_SEEDS.contains(key));
            let differing = keys.filter(|key| first.get(*key) != other.get(*key) && is_telling(key));
            telling.entry(family.clone()).or_default().extend(differing);
        }
    }
    for (family, members) in groups(runs, |labels| labels) {
        // A run without such an input differs in other settings, too.
        let values = |key: &str| members.iter().filter_map(|run| run.settings.get(key)).collect::<BTreeSet<_>>();
        let differing = OF_SEEDS.into_iter().filter(|key| values(key).len() > 1);
        telling.entry(family).or_default().extend(differing);
    }
    let variant = |run: &Run| {
        if run.variant.is_some() {
            return run.variant.clone();
        }
        let keys = telling.get(&family(run))?;
        let texts = keys.iter().map(|key| match run.settings.get(*key) {
            Some(value) => match short(key).strip_suffix(DIGEST) {
                Some(input) => format!("{input} {}", first_digits(value)),
                // A head may be that of a directory.
                None => format!("{} {}", short(key), value.rsplit('/').next().unwrap_or(value)),
            },
            // Without an input there is none; without a setting, the default holds.
            None => match short(key).strip_suffix(DIGEST) {
                Some(input) => format!("no {input}"),
                None => format!("default {}", short(key)),
            },
        });
        Some(texts.collect::<Vec<_>>().join(", "))
    };
    runs.iter().map(|run| variant(run).unwrap_or_default()).collect()
}

/// The runs of each family whose labels are equal but for the name of their ticket and for what `blurred` leaves out.
fn groups(runs: &[Run], blurred: impl Fn(Labels) -> Labels) -> Vec<(Family, Vec<&Run>)> {
    let mut groups: BTreeMap<(Family, String), Vec<&Run>> = BTreeMap::new();
    for run in runs {
        let labels = blurred(Labels { ticket: None, ..run.labels.clone() });
        groups.entry((family(run), format!("{labels:?}"))).or_default().push(run);
    }
    groups.into_iter().map(|((family, _), members)| (family, members)).collect()
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
pub(crate) fn first_digits(value: &str) -> String {
    let digits = |digest: &str| digest.chars().filter(char::is_ascii_hexdigit).take(8).collect::<String>();
    value.split(',').map(digits).collect::<Vec<_>>().join(" + ")
}

/// The last part of a setting's name, which is the name of its flag.
fn short(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}
