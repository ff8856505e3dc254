//! Usage, help and configuration files, through the real binary.

#[allow(dead_code, reason = "the tests of the verbs use the rest")]
#[path = "cli/common.rs"]
mod common;

use std::fs;
use std::path::PathBuf;

use assert_cmd::assert::Assert;
use predicates::prelude::{PredicateBooleanExt, predicate};
use predicates::str::{contains, is_empty, starts_with};
use tempfile::TempDir;

use crate::common::tamt_command;

const VERBS: [&str; 18] = [
    "demo", "pretrain", "find", "tune", "inspect", "eval", "predict", "encode", "serve", "apply", "pack", "unpack",
    "export", "import", "study", "bench", "report", "cache",
];

/// A complete command line of `find`, to which tests add flags.
const FIND: [&str; 9] =
    ["find", "--model", "./no-such-model", "--method", "random", "--sparsity", "0.7", "--output-dir", "run"];

fn tamt<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Assert {
    tamt_command().args(arguments).assert()
}

fn find_with(arguments: &[&str]) -> Assert {
    tamt(FIND.iter().chain(arguments).copied())
}

/// Runs `line` with `--config` and a file that holds `toml`.
fn with_config(toml: &str, line: &[&str]) -> (Assert, TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("flags.toml");
    fs::write(&path, toml).unwrap();
    let mut command = tamt_command();
    command.current_dir(&directory).args(line).arg("--config").arg(&path);
    (command.assert(), directory, path)
}

#[test]
fn every_verb_explains_itself_with_examples() {
    for verb in VERBS {
        tamt([verb, "--help"])
            .success()
            .stdout(contains(format!("Usage: tamt {verb}")))
            .stdout(contains("Examples:"))
            .stdout(contains("--json").and(contains("--threads <N>")))
            // The plan of a study has the precision of its runs.
            .stdout(predicate::function(|text: &str| verb == "study" || text.contains("--precision")))
            .stdout(contains("--quiet").and(contains("--config <FILE.toml>")))
            .stderr(is_empty());
    }
}

#[test]
fn the_version_is_printed() {
    tamt(["--version"]).success().stdout(concat!("tamt ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn an_unknown_limit_of_instructions_is_refused_by_what_computes() {
    let command = |cap: &str, verb: &[&str]| tamt_command().env("TAMT_CPU", cap).args(verb).assert();
    let known = "TAMT_CPU is \"avx3\"; known are portable, avx2, avx512, avx512-bf16, avx512-dpbf16";
    command("avx3", &["bench"]).code(2).stderr(contains(known));
    command("avx3", &["completions", "bash"]).success();
    command("", &["cache"]).success();
}

#[test]
fn wrong_usage_exits_with_2_and_says_so_on_stderr() {
    let cases: [(&[&str], &str); 21] = [
        (&["fnd"], "find"),
        (&["find", "--sparsity", "0.7"], "--model <MODEL>"),
        (&["inspect"], "<TICKET>"),
        (&["inspect", "ticket", "--colour"], "--colour"),
        (&["demo", "--threads", "0"], "for '--threads <N>': it must be at least 1"),
        (&["find", "--threads", "100000"], "for '--threads <N>': it is a whole number from 1 to 1024"),
        (&["study", "--jobs", "100000"], "for '--jobs <N>': it is a whole number from 1 to 1024"),
        (&["tune", "--learning-rate", "-1"], "for '--learning-rate <X>': it must be above 0"),
        (&["find", "--dropout", "-0.1"], "for '--dropout <P>': it must be at least 0 and below 1"),
        (&["predict", "--n-best", "0"], "for '--n-best <N>': it must be at least 1"),
        (&["demo", "--precision", "f64"], "bf16"),
        (&["find", "--dropout", "0.99999999"], "in single precision it is 1"),
        (&["tune", "--learning-rate", "1e-50"], "in single precision it is 0"),
        (
            &["pretrain", "--corpus", "c", "--output-dir", "d", "--max-steps", "1"],
            "<--model <MODEL>|--new <CONFIG.json>>",
        ),
        (&["pretrain", "--corpus", "c", "--output-dir", "d", "--max-steps", "1", "--new", "n"], "--tokenizer <DIR>"),
        (&["eval", "--model", "m", "--task", "cola"], "--task"),
        (&["apply", "--model", "m", "--output-dir", "d"], "--ticket <TICKET>"),
        (&["pack", "--output-dir", "d"], "--model <MODEL>"),
        (&["unpack", "--model", "m"], "--output-dir <DIR>"),
        (&["study", "p", "--output-dir", "d", "--precision", "f32"], "[tickets], [losses] and [tasks]"),
        (&["study", "p", "--output-dir", "d", "--kernel", "dense"], "[tickets], [losses] and [tasks]"),
    ];
    for (line, expected) in cases {
        tamt(line.iter().copied()).code(2).stdout(is_empty()).stderr(starts_with("error: ").and(contains(expected)));
    }
}

#[test]
fn the_nearest_verb_flag_or_value_is_suggested() {
    for (line, suggested) in [
        (&["fnd"][..], "a similar subcommand exists: 'find'"),
        (&["find", "--method", "magnitud"], "a similar value exists: 'magnitude'"),
        (&["find", "--scope", "globl"], "a similar value exists: 'global'"),
        (&["inspect", "t", "--agianst", "u"], "a similar argument exists: '--against'"),
    ] {
        tamt(line.iter().copied()).code(2).stdout(is_empty()).stderr(contains(suggested));
    }
}

#[test]
fn no_verb_at_all_shows_the_help_and_is_wrong_usage() {
    tamt([]).code(2).stdout(is_empty()).stderr(contains("Usage: tamt <COMMAND>"));
}

#[test]
fn a_percentage_as_sparsity_is_met_with_the_fraction() {
    for typed in ["70", "70%"] {
        tamt(["find", "--sparsity", typed]).code(2).stderr(contains("did you mean 0.7?"));
    }
    for typed in ["0", "1", "-0.5", "100"] {
        tamt(["find", "--sparsity", typed]).code(2).stderr(contains("above 0 and below 1"));
    }
}

#[test]
fn methods_that_train_need_a_corpus() {
    for method in ["imp", "tamt-mlm", "tamt-kd", "tamt-mlm-kd"] {
        tamt(["find", "--model", "m", "--sparsity", "0.7", "--output-dir", "d", "--method", method])
            .code(2)
            .stderr(contains("--corpus <FILE>..."));
    }
}

#[test]
fn methods_that_train_must_be_told_how_long() {
    tamt(["find", "--model", "m", "--sparsity", "0.7", "--output-dir", "d", "--method", "tamt-kd", "--corpus", "c"])
        .code(2)
        .stdout(is_empty())
        .stderr(contains("give --max-steps N, or --preset short or paper"));
}

#[test]
fn a_preset_at_a_sparsity_the_paper_has_not_is_wrong_usage() {
    tamt("find --model m --output-dir d --method tamt-kd --corpus c --preset paper --sparsity 0.75".split(' '))
        .code(2)
        .stdout(is_empty())
        .stderr(contains("--preset: the paper has no run at sparsity 0.75"));
    tamt("find --model ./m --output-dir d --method tamt-kd --corpus c --preset short --sparsity 0.75".split(' '))
        .code(1)
        .stderr(contains("./m"));
}

#[test]
fn steps_and_seeds_that_no_run_can_have_are_refused() {
    for (flag, value) in [
        ("--max-steps", "0"),
        ("--max-steps", "-1"),
        ("--save-every", "-1"),
        ("--save-minutes", "-1"),
        ("--seed", "-1"),
        ("--seed", "9223372036854775808"),
        ("--warmup-steps", "many"),
    ] {
        let expected = format!("for '{flag} <");
        find_with(&[&format!("{flag}={value}")]).code(2).stdout(is_empty()).stderr(contains(&expected));
        find_with(&[flag, value]).code(2).stdout(is_empty()).stderr(contains(&expected));
    }
}

#[test]
fn a_configuration_file_supplies_required_flags_and_repeated_ones() {
    let toml = "model = 'm'\nmethod = 'tamt-mlm'\noutput_dir = 'd'\ncorpus = ['a', 'b']\n\
        layers = [0, 1]\nlearning-rate = 5e-5\nfreeze_head = true\nresume = false\n";
    let (assert, ..) = with_config(toml, &["find"]);
    assert.code(2).stderr(contains("not provided:\n  --sparsity <FRACTION>\n\n"));
    let (assert, ..) = with_config(&format!("{toml}sparsity = 70"), &["find"]);
    assert.code(2).stderr(contains("did you mean 0.7?"));
}

#[test]
fn the_command_line_wins_over_the_configuration_file() {
    let (assert, ..) = with_config("sparsity = 1.5", &FIND);
    assert.stderr(contains("did you mean").not().and(contains("--sparsity").not()));
    let (assert, ..) = with_config("sparsity = 0.5", &["find", "--sparsity", "50"]);
    assert.code(2).stderr(contains("'50'"));
}

#[test]
fn a_wrong_value_that_nobody_typed_is_told_with_its_file() {
    let (assert, _directory, path) = with_config("seed = -1", &FIND);
    let told = format!("tip: --seed is in {}", path.display());
    assert.code(2).stderr(contains("for '--seed <N>': it must be at least 0").and(contains(told)));
    let (assert, ..) = with_config("steps_per_round = 3", &[&FIND[..], &["--max-steps", "2"]].concat());
    assert.code(2).stderr(contains("cannot be used with").and(contains("tip: --steps-per-round is in ")));
    let (assert, ..) = with_config("dropout = 0.1", &[&FIND[..], &["--seed", "-1"]].concat());
    assert.code(2).stderr(contains("'--seed <N>'").and(contains("tip:").not()));
}

#[test]
fn an_unknown_key_is_named_with_its_file_and_the_keys_there_are() {
    for key in ["sparsty", "config", "help", "pool"] {
        let (assert, _directory, path) = with_config(&format!("{key} = 'x'"), &FIND);
        assert
            .code(2)
            .stdout(is_empty())
            .stderr(contains(path.display().to_string()).and(contains(format!("unknown key `{key}`"))))
            .stderr(contains("sparsity"));
    }
}

#[test]
fn the_nearest_key_of_a_configuration_file_is_suggested_with_the_line() {
    for (toml, line, key, meant) in [
        ("sparsty = 0.5", 1, "sparsty", "sparsity"),
        ("# flags\nseed = 1\n\neval_corpse = 'x'", 4, "eval_corpse", "eval-corpus"),
        ("seed = 1\n[maxsteps]\nx = 1", 2, "maxsteps", "max-steps"),
        ("\"learning rate\" = 1", 1, "learning rate", "learning-rate"),
    ] {
        let (assert, ..) = with_config(toml, &FIND);
        assert
            .code(2)
            .stderr(contains(format!("flags.toml: line {line}: unknown key `{key}`; ")))
            .stderr(contains(format!("; did you mean {meant}?")));
    }
}

#[test]
fn values_of_the_wrong_kind_in_a_configuration_file_are_named() {
    let cases = [
        ("resume = 'yes'", "`resume` is true or false, not a string"),
        ("seed = [1, 2]", "`seed` is a string or a number, not an array"),
        ("seed = true", "`seed` is a string or a number, not a boolean"),
        ("corpus = [1, [2]]", "`corpus` is an array of strings or numbers, and holds an array"),
        ("eval_corpus = false", "`eval_corpus` is a string, a number, or an array of them, not a boolean"),
        ("[seed]\nx = 1", "`seed` is a string or a number, not a table"),
        ("save_every = 1\nsave-every = 2", "given twice, in two spellings"),
        ("seed = -1", "--seed"),
        ("seed = ", "line 1"),
    ];
    for (toml, expected) in cases {
        let (assert, ..) = with_config(toml, &FIND);
        assert.code(2).stdout(is_empty()).stderr(contains(expected));
    }
}

#[test]
fn a_configuration_file_that_cannot_be_read_is_wrong_usage() {
    find_with(&["--config", "no/such/file.toml"]).code(2).stderr(contains("no/such/file.toml: there is no such file"));
}

#[test]
fn a_configuration_file_is_no_way_around_an_unknown_flag() {
    let (assert, ..) = with_config("seed = 1", &["find", "--sparsty", "0.5"]);
    assert.code(2).stderr(contains("--sparsty"));
}

#[test]
fn completions_name_every_verb_and_its_flags() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = tamt(["completions", shell]).success().get_output().stdout.clone();
        let script = String::from_utf8(script).unwrap();
        for verb in VERBS {
            assert!(script.contains(verb), "{shell} does not complete {verb}");
        }
        assert!(script.contains("rethreshold-every"), "{shell} does not complete the flags of find");
    }
    tamt(["completions", "csh"]).code(2).stderr(contains("bash"));
}

#[test]
fn a_page_of_the_manual_is_written_for_every_verb() {
    let directory = tempfile::tempdir().unwrap();
    let pages = directory.path().join("man1");
    tamt(["man", pages.to_str().unwrap()]).success();
    assert!(fs::read_to_string(pages.join("tamt.1")).unwrap().contains("tamt\\-find(1)"));
    for verb in VERBS {
        let page = fs::read_to_string(pages.join(format!("tamt-{verb}.1"))).unwrap();
        assert!(page.contains("\\-\\-threads"), "the page of {verb} has no flags");
    }
}
