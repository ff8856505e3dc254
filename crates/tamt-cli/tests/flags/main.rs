//! Every flag of `find`, `tune` and `pretrain` has a test that would notice if the flag were ignored.
//!
//! Most tests compare the run of a base line with runs that differ from it by one flag: each run must show another
//! result, and a second run of the base line the same one. What is compared comes from the engine (losses, written
//! tensors, files, scores), never from the record of the settings.

// The definitions of the flags, which the library of the command keeps to itself.
#[allow(dead_code, unused_imports, reason = "the tests read the names of the flags only")]
#[path = "../../src/args/mod.rs"]
mod args;
#[allow(dead_code, reason = "the tests of the verbs use the rest")]
#[path = "../cli/common.rs"]
mod common;
#[allow(dead_code, reason = "the tests of the verbs use the rest")]
#[path = "../cli/task_files.rs"]
mod task_files;

mod compare;
mod find;
mod optimizer;
mod pretrain;
mod run;
mod run_flags;
mod tune;

use std::collections::BTreeSet;

use clap::CommandFactory;

/// Tests of flags, each as `"--flag" name => body;`, and the table of both, `TABLE`.
macro_rules! flags {
    ($($flag:literal $name:ident => $body:expr;)*) => {
        /// Each flag with the test that would notice if the flag were ignored.
        pub(crate) const TABLE: &[(&str, &str)] = &[$(($flag, stringify!($name)),)*];

        $(
            #[test]
            fn $name() {
                $body;
            }
        )*
    };
}
use flags;

/// Flags that clap adds to each verb.
const OF_CLAP: [&str; 1] = ["--help"];

#[test]
fn every_flag_has_a_test() {
    let mut command = args::Cli::command();
    command.build();
    for (verb, table) in [("find", find::TABLE), ("tune", tune::TABLE), ("pretrain", pretrain::TABLE)] {
        let verb = command.find_subcommand(verb).unwrap();
        let defined: BTreeSet<String> = verb
            .get_arguments()
            .map(|flag| format!("--{}", flag.get_long().expect("the verbs that train have no positional arguments")))
            .filter(|flag| !OF_CLAP.contains(&flag.as_str()))
            .collect();
        let tested: BTreeSet<String> = table.iter().map(|(flag, _)| (*flag).to_owned()).collect();
        let untested: Vec<_> = defined.difference(&tested).collect();
        assert!(untested.is_empty(), "flags of {} without a test in tests/flags: {untested:?}", verb.get_name());
        let unknown: Vec<_> = tested.difference(&defined).collect();
        assert!(unknown.is_empty(), "{} has no flags {unknown:?}", verb.get_name());
    }
}
