//! Messages of the command in the words of a program, in which `--max-steps N` is the keyword `max_steps`.

use clap::{ArgAction, Command};

/// Rewords the flags of a message as keywords. `verb` is the verb that takes them.
pub(crate) fn reworded(text: &str, verb: &Command) -> String {
    let mut reworded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("--") {
        let (before, flag) = rest.split_at(at);
        let name = name_of_flag(flag).unwrap_or_default();
        let is_start = !before.ends_with(|c: char| c.is_alphanumeric() || c == '-');
        let known = verb.get_arguments().find(|argument| argument.get_long() == Some(name));
        reworded.push_str(before);
        rest = &flag[2 + name.len()..];
        match known.filter(|_| is_start) {
            Some(argument) => {
                reworded.push_str(&keyword(name));
                rest = without_placeholder(rest);
                if matches!(argument.get_action(), ArgAction::SetTrue) && !rest.starts_with([':', '\'']) {
                    reworded.push_str("=True");
                }
            }
            None => reworded.push_str(&flag[..2 + name.len()]),
        }
    }
    reworded + rest
}

/// The name of the flag at the start of a text: `max-steps` of `--max-steps <N>`.
pub(crate) fn name_of_flag(text: &str) -> Option<&str> {
    text.strip_prefix("--")?.split(|c: char| !(c.is_ascii_lowercase() || c == '-')).next()
}

/// The keyword of a flag's name: `max_steps` of `max-steps`.
pub(crate) fn keyword(name: &str) -> String {
    name.replace('-', "_")
}

/// A text after a flag, without the placeholder of the flag's value: ` <FRACTION>`, ` <FILE>...`.
fn without_placeholder(text: &str) -> &str {
    let after = text.strip_prefix(" <").and_then(|value| value.split_once('>')).map(|(_, after)| after);
    after.map_or(text, |after| after.strip_prefix("...").unwrap_or(after))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::args::Cli;

    #[test]
    fn flags_of_a_verb_become_keywords_and_other_words_stay() {
        let mut command = Cli::command();
        command.build();
        let find = command.find_subcommand("find").unwrap();
        let pairs = [
            ("tamt-mlm trains: give --max-steps N", "tamt-mlm trains: give max_steps N"),
            ("invalid value '2' for '--sparsity <FRACTION>': no", "invalid value '2' for 'sparsity': no"),
            ("  --corpus <FILE>...", "  corpus"),
            ("give --resume to go on, or another --output-dir", "give resume=True to go on, or another output_dir"),
            ("--resume: no", "resume: no"),
            ("x--seed, -- and --unknown-flag stay", "x--seed, -- and --unknown-flag stay"),
        ];
        for (text, expected) in pairs {
            assert_eq!(reworded(text, find), expected);
        }
    }
}
