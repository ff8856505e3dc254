//! From the words of a command line to the flags of a verb.

use std::ffi::OsString;

use clap::{Command, CommandFactory, Parser};

use crate::args::Cli;
use crate::config_file;

/// Parses a command line, the program's name first, with the flags of its `--config` file. `--help` and `--version` are
/// errors as well, which know their streams and exit codes.
pub(crate) fn parse(line: &[OsString]) -> Result<Cli, clap::Error> {
    let command = Cli::command();
    let line = with_slurm_flags_joined(&command, line);
    let merged = config_file::merge(&command, line.clone())?;
    Cli::try_parse_from(merged).map_err(|error| config_file::explain(&command, &line, error))
}

/// The flag of `tamt study` whose value is optional and begins with dashes.
const SLURM: &str = "--slurm";

/// The same words with `--slurm FLAGS` as `--slurm=FLAGS`. The parser cannot tell flags of sbatch from flags of `tamt`:
/// here a word behind `--slurm` is for sbatch if the word begins with a dash and is no flag of `tamt study`.
fn with_slurm_flags_joined(command: &Command, line: &[OsString]) -> Vec<OsString> {
    let mut words: Vec<OsString> = Vec::with_capacity(line.len());
    let is_study = line.get(1).is_some_and(|verb| verb == "study");
    for word in line {
        match words.last_mut() {
            Some(last) if is_study && last == SLURM && is_for_sbatch(command, word) => {
                last.push("=");
                last.push(word);
            }
            _ => words.push(word.clone()),
        }
    }
    words
}

fn is_for_sbatch(command: &Command, word: &OsString) -> bool {
    let Some(flag) = word.to_str().filter(|word| word.starts_with('-')) else { return false };
    let name = flag.split('=').next().unwrap_or(flag).trim_start_matches('-');
    let study = command.find_subcommand("study");
    let mut known = study.into_iter().flat_map(Command::get_arguments).filter_map(clap::Arg::get_long);
    !(known.any(|known| known == name) || ["h", "help"].contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Verb;

    #[test]
    fn words_behind_slurm_are_for_sbatch_unless_they_are_flags_of_the_study() {
        let slurm = |words: &[&str]| {
            let line: Vec<OsString> =
                ["tamt", "study", "plan.toml", "--output-dir=out"].iter().chain(words).map(OsString::from).collect();
            match parse(&line).unwrap().verb {
                Verb::Study(args) => (args.slurm, args.dry_run, args.common.threads.map(usize::from)),
                other => panic!("{other:?}"),
            }
        };
        let flags = "--array=0-7 --time=24:00:00";
        let given = Some(flags.to_owned());
        assert_eq!(slurm(&["--slurm", flags]), (given.clone(), false, None));
        assert_eq!(slurm(&["--slurm", flags, "--dry-run"]), (given.clone(), true, None));
        assert_eq!(slurm(&[&format!("--slurm={flags}"), "--threads", "3"]), (given, false, Some(3)));
        assert_eq!(slurm(&["--slurm", "--dry-run"]), (Some(String::new()), true, None));
        assert_eq!(slurm(&["--slurm", "--threads=2"]), (Some(String::new()), false, Some(2)));
        assert_eq!(slurm(&["--slurm"]), (Some(String::new()), false, None));
        assert_eq!(slurm(&["--slurm", "-c4"]), (Some("-c4".to_owned()), false, None));
        assert_eq!(slurm(&["--slurm=--quiet"]), (Some("--quiet".to_owned()), false, None));
        assert_eq!(slurm(&["--threads", "1"]), (None, false, Some(1)));
    }
}
