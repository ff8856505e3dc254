//! The record of a run, its `config.toml`, as flags of the verb that wrote it.

use tamt::train::SAVE_MINUTES;
use toml::{Table, Value};

/// Settings whose flag has another name.
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

/// Flags that only methods with masks to train take, in `find`.
const OF_MASKS: [&str; 9] = [
    "init",
    "score-init",
    "init-scale",
    "binarizer",
    "threshold",
    "rethreshold-every",
    "freeze-head",
    "allow-other-base",
    "ticket-steps",
];

/// Flags that only methods with steps to take have, in `find`, beside those of masks.
const OF_TRAINING: [&str; 18] = [
    "corpus",
    "max-steps",
    "batch-size",
    "dropout",
    "eval-every",
    "save-every",
    "save-minutes",
    "logging-steps",
    "optimizer",
    "learning-rate",
    "lr-schedule",
    "lr-horizon-steps",
    "warmup-steps",
    "weight-decay",
    "adam-epsilon",
    "clip",
    "max-grad-norm",
    "rewind",
];

/// The verb that recorded `table`; `None` for a file that a person wrote.
pub(crate) fn verb(table: &Table) -> Option<&str> {
    table.get("tool-version")?;
    table.get("verb")?.as_str()
}

/// The recorded settings by the names of flags. Settings without a flag, digests for example, have names that no flag
/// has. What the machine decides and what belongs to one call (threads, output) is left out.
pub(crate) fn flags(table: &Table) -> Table {
    let mut flags = Table::new();
    flatten("", table, &mut flags);
    for name in ["verb", "tool-version", "threads"] {
        flags.remove(name);
    }
    leave_out_consequences(table, &mut flags);
    if verb(table) == Some("find") {
        leave_out_unused(&mut flags);
    }
    flags
}

fn flatten(prefix: &str, table: &Table, flags: &mut Table) {
    for (key, value) in table {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        if let Value::Table(inner) = value {
            flatten(&path, inner, flags);
            continue;
        }
        let renamed = RENAMED.iter().find(|(recorded, _)| *recorded == path);
        flags.insert(renamed.map_or(key.as_str(), |(_, flag)| flag).to_owned(), value.clone());
    }
}

/// Leaves out the settings that follow from others, so that they follow again if a typed flag changes the others.
fn leave_out_consequences(table: &Table, flags: &mut Table) {
    let integer = |flags: &Table, name: &str| flags.get(name).and_then(Value::as_integer);
    // Zero stands for never, which the flag cannot say.
    for name in ["eval-every", "logging-steps"] {
        if integer(flags, name) == Some(0) {
            flags.remove(name);
        }
    }
    let in_loop = table.contains_key("train");
    if in_loop && integer(flags, "lr-horizon-steps") == integer(flags, "max-steps") {
        flags.remove("lr-horizon-steps");
    }
    let minutes = flags.get("save-minutes").and_then(Value::as_float).unwrap_or(SAVE_MINUTES);
    if minutes == SAVE_MINUTES {
        flags.remove("save-minutes");
        if integer(flags, "save-every") == Some(0) {
            flags.remove("save-every");
        }
    }
    let replaced = [("seeds", "seed"), ("task-file-sha256", "task"), ("new", "train")];
    for (present, name) in replaced {
        if flags.contains_key(present) {
            flags.remove(name);
        }
    }
}

/// Leaves out the settings that a method of `find` has no use for.
fn leave_out_unused(flags: &mut Table) {
    let method = flags.get("method").and_then(Value::as_str).unwrap_or_default().to_owned();
    let has_masks = method.starts_with("tamt-");
    let trains = has_masks || method == "imp";
    let evaluates = flags.contains_key("eval-corpus");
    let is_uniform = flags.get("score-init").and_then(Value::as_str) == Some("uniform");
    let has_ticket = !matches!(flags.get("init").and_then(Value::as_str), Some("magnitude" | "random"));
    let is_unused = |name: &str| {
        (!has_masks && OF_MASKS.contains(&name))
            || (!trains && OF_TRAINING.contains(&name))
            || (!trains && !evaluates && ["block-size", "mlm-probability"].contains(&name))
            || (name == "seed" && !trains && method != "random")
            || (name == "rewind" && method != "imp")
            || (name == "freeze-head" && method == "tamt-kd")
            || (name == "init" && is_uniform)
            || (name == "allow-other-base" && !has_ticket)
    };
    let unused: Vec<String> = flags.keys().filter(|name| is_unused(name)).cloned().collect();
    unused.iter().for_each(|name| {
        flags.remove(name);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags_of(toml: &str) -> Vec<String> {
        let table = toml::from_str(&format!("tool-version = '0.1.0'\n{toml}")).unwrap();
        flags(&table).iter().map(|(name, value)| format!("{name} {value}")).collect()
    }

    #[test]
    fn a_search_without_training_has_the_flags_that_it_uses() {
        let record = "verb = 'find'\nmethod = 'magnitude'\nseed = 42\nsparsity = 0.5\nstart = 'magnitude'\n\
            block-size = 512\nthreads = 2\n[train]\nmax-steps = 0\nsave-every = 0\n[scores]\ninit = 'two-level'";
        assert_eq!(flags_of(record), ["method \"magnitude\"", "sparsity 0.5"]);
    }

    #[test]
    fn what_follows_from_other_settings_is_left_to_follow() {
        let record = |horizon: u64, minutes: &str| {
            format!(
                "verb = 'pretrain'\npart = 'all'\n[train]\nmax-steps = 9\neval-every = 0\nsave-every = 0\n\
                 save-minutes = {minutes}\n[train.schedule]\nhorizon = {horizon}"
            )
        };
        assert_eq!(flags_of(&record(9, "10.0")), ["max-steps 9", "train \"all\""]);
        let expected = ["lr-horizon-steps 20", "max-steps 9", "save-every 0", "save-minutes 0.0", "train \"all\""];
        assert_eq!(flags_of(&record(20, "0.0")), expected);
    }
}
