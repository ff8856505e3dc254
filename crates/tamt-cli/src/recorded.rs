//! The record of a run, its `config.toml`, as flags of the verb that wrote it.

use std::collections::BTreeMap;

use clap::{Arg, Command};
use tamt::train::SAVE_MINUTES;
use toml::{Table, Value};

use crate::effects::Effects;
use crate::flat::{Flat, flattened};
use crate::recorded_keys::{Keys, describes, flag_of, own, same};
use crate::toml_lines::place;

/// Flags without a meaning in a file.
pub(crate) const TYPED_ONLY: [&str; 3] = ["config", "help", "version"];

/// The verb that recorded `table`; `None` for a file that a person wrote.
pub(crate) fn verb(table: &Table) -> Option<&str> {
    table.get("tool-version")?;
    table.get("verb")?.as_str()
}

/// The recorded settings by the names of flags; `text` is the text of `table`, a record of the verb `command`. What the
/// machine decides and what belongs to one call (threads, output) is left out, and so is what describes the run.
///
/// # Errors
/// A key that no record of the verb has, a setting twice, and another value of a setting that no flag sets than the verb
/// records itself: each would have no effect.
pub(crate) fn flags(command: &Command, text: &str, table: &Table) -> Result<Table, String> {
    let verb = command.get_name();
    let names: Vec<&str> =
        command.get_arguments().filter_map(Arg::get_long).filter(|name| !TYPED_ONLY.contains(name)).collect();
    if let Some((path, problem)) = Keys::of(verb, &names).unknown(table) {
        return Err(format!("{}{problem}{}", place(text, &path), other_version(table)));
    }
    let record = flattened(table);
    let own = own(verb, &record);
    let mut flags = Table::new();
    let mut places: BTreeMap<&str, &String> = BTreeMap::new();
    for (path, value) in record.iter().filter(|(path, _)| !describes(verb, path)) {
        let name = flag_of(path);
        if !names.contains(&name) {
            refuse_other(verb, path, value, &own).map_err(|problem| format!("{}{problem}", place(text, path)))?;
            continue;
        }
        if let Some(other) = places.insert(name, path) {
            // The key that a person added has the name of the flag.
            let (added, path) = if other == name { (other, path) } else { (path, other) };
            return Err(format!("{}`{added}` and `{path}` are the same setting, --{name}", place(text, added)));
        }
        flags.insert(name.to_owned(), value.clone());
    }
    leave_out_consequences(verb, table, &own, &mut flags);
    if verb == "find" {
        leave_out_unused(&own, &mut flags);
    }
    Ok(flags)
}

/// Refuses the value of a setting without a flag if the verb records another one.
fn refuse_other(verb: &str, path: &str, value: &Value, own: &[Flat]) -> Result<(), String> {
    match own.first().map(|own| own.get(path)) {
        None => Ok(()),
        Some(Some(recorded)) if same(recorded, value) => Ok(()),
        Some(Some(recorded)) => {
            Err(format!("`{path}` cannot be set: with these settings `tamt {verb}` has {recorded}"))
        }
        Some(None) => Err(format!("`{path}` cannot be set: `tamt {verb}` has none with these settings")),
    }
}

/// The end of an error about a record of another version of the program.
fn other_version(table: &Table) -> String {
    let here = env!("CARGO_PKG_VERSION");
    match table.get("tool-version").and_then(Value::as_str) {
        Some(there) if there != here => format!("; version {there} wrote the file, and this is {here}"),
        _ => String::new(),
    }
}

/// Whether the flag `name` has a value that the verb takes without the flag.
fn is_own(own: &[Flat], flags: &Table, name: &str) -> bool {
    let values = own.iter().flatten().filter(|(path, _)| flag_of(path) == name).map(|(_, value)| value);
    flags.get(name).is_some_and(|given| values.into_iter().any(|value| same(value, given)))
}

/// Leaves out the settings that follow from others, so that they follow again if a typed flag changes the others.
fn leave_out_consequences(verb: &str, table: &Table, own: &[Flat], flags: &mut Table) {
    let integer = |flags: &Table, name: &str| flags.get(name).and_then(Value::as_integer);
    // Zero stands for never, which the flag cannot say; only tasks have another default.
    if verb != "tune" && integer(flags, "eval-every") == Some(0) {
        flags.remove("eval-every");
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
    // Beside several seeds stands the default one, and beside a new model that all weights learn. Another value is for
    // the parser, which refuses the two flags together.
    for (present, name) in [("seeds", "seed"), ("new", "train")] {
        if flags.contains_key(present) && is_own(own, flags, name) {
            flags.remove(name);
        }
    }
    // The name of a task with a file is that in the file.
    if flags.contains_key("task-file") {
        flags.remove("task");
    }
}

/// Leaves out the settings of a search without an effect, unless somebody set them: then the run says that they have none.
fn leave_out_unused(own: &[Flat], flags: &mut Table) {
    let Some(effects) = Effects::of_record(flags) else { return };
    // The model, which the record does not hold, decides the longest block.
    let follows = |name: &str| name == "block-size" || is_own(own, flags, name);
    let unused: Vec<String> = flags.keys().filter(|name| !effects.has(name) && follows(name)).cloned().collect();
    unused.iter().for_each(|name| {
        flags.remove(name);
    });
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::args::Cli;

    fn read(toml: &str) -> Result<Table, String> {
        let table: Table = toml::from_str(&format!("tool-version = '0.1.0'\n{toml}")).unwrap();
        let mut command = Cli::command();
        command.build();
        let verb = verb(&table).unwrap().to_owned();
        flags(command.find_subcommand(verb).unwrap(), toml, &table)
    }

    fn flags_of(toml: &str) -> Vec<String> {
        read(toml).unwrap().iter().map(|(name, value)| format!("{name} {value}")).collect()
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

    #[test]
    fn what_no_flag_sets_is_what_the_verb_has() {
        let record = "verb = 'find'\nmethod = 'tamt-kd'\nsparsity = 0.5\n[objective]\nmlm = false\n\
            [train]\nmax-steps = 3\noptimizer.beta1 = 0.9";
        assert!(read(record).is_ok());
        for (from, to, problem) in [
            ("0.9", "0.8", "line 8: `train.optimizer.beta1` cannot be set: with these settings `tamt find` has 0.9"),
            ("false", "true", "line 5: `objective.mlm` cannot be set: with these settings `tamt find` has false"),
            ("'find'", "'find'\nmax-steps = 2", "line 2: `max-steps` and `train.max-steps` are the same setting"),
        ] {
            let error = read(&record.replace(from, to)).unwrap_err();
            assert!(error.starts_with(problem), "{error}");
        }
    }

    #[test]
    fn what_has_no_use_is_left_out_unless_somebody_set_it() {
        let record = "verb = 'find'\nmethod = 'magnitude'\nsparsity = 0.5\nseed = 42\n[train]\nmax-steps = 0\n\
            optimizer.learning-rate = 5e-5";
        assert_eq!(flags_of(record), ["method \"magnitude\"", "sparsity 0.5"]);
        let edited = record.replace("5e-5", "5e-4").replace("42", "43");
        assert_eq!(flags_of(&edited), ["learning-rate 0.0005", "method \"magnitude\"", "seed 43", "sparsity 0.5"]);
        let record = "verb = 'find'\nmethod = 'tamt-kd'\nsparsity = 0.5\n[train]\nmax-steps = 3\n\
            optimizer.clip = 'none'\noptimizer.max-grad-norm = 1.0";
        let used = ["clip \"none\"", "max-steps 3", "method \"tamt-kd\"", "sparsity 0.5"];
        assert_eq!(flags_of(record), used);
        let edited = record.replace("1.0", "2.0");
        assert_eq!(flags_of(&edited), [used[0], "max-grad-norm 2.0", used[1], used[2], used[3]]);
    }
}
