//! Studies: every combination of a plan is run once, whatever happens, and what is done stays done.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use serde_json::{Value, json};

use crate::common::{
    at, bert, bytes, files, json_file, magnitude, object, record_of, result_of, stderr, tamt, tamt_command,
};
use crate::study_plans::{base, names, numbers, plan, record, run, runs, tasks};

/// A search of a few steps.
const TICKETS: &str = "[tickets]\nmethods = ['random', 'magnitude', 'tamt-mlm']\nsparsities = [0.5]\nseeds = [1, 2]\n\
    max-steps = 12\nbatch-size = 2\nblock-size = 12\nlearning-rate = 1e-3\n";

const TASKS: &str = "[tasks]\nnames = ['cola']\nseeds = [1, 2]\nmax-steps = 4\nbatch-size = 8\nmax-length = 16\n\
    train-examples = [16, 'all']\n[tasks.cola]\ndata = 'one'\n";

/// Every file below `root` with the time of its last change, but for the store's own.
fn times(root: &Path) -> BTreeMap<PathBuf, SystemTime> {
    let own = |name: &str| name.split('/').any(|part| part == ".study");
    let found = files(root).into_iter().filter(|(name, _)| !own(name));
    found.map(|(_, path)| (path.clone(), path.metadata().unwrap().modified().unwrap())).collect()
}

#[test]
fn every_combination_is_a_run_with_its_labels_and_a_second_call_touches_no_file() {
    let directory = tempfile::tempdir().unwrap();
    tasks(directory.path());
    let plan = plan(&directory, "plan.toml", &format!("{TICKETS}[losses]\n{TASKS}"));
    let store = at(&directory, "out");
    let line = format!("study {plan} --output-dir {store}");
    let result = object(&tamt(&format!("{line} --json --quiet")).success());
    // Two random tickets, two trained ones, and one by magnitude, which draws nothing; each beside the dense model in two
    // subsets and with two seeds.
    let expected = [("tickets/", 5), ("losses/", 6), ("tasks/", 24)];
    for (kind, count) in expected {
        assert_eq!(runs(&store).iter().filter(|name| name.starts_with(kind)).count(), count, "{kind}");
    }
    assert_eq!((&result["runs"], &result["done"], &result["open"]), (&json!(35), &json!(35), &json!(0)));

    let tuned = record(run(&store, "tasks/cola-16-seed2-tamt-mlm-0.5-seed1-"));
    let ticket = run(&store, "tickets/tamt-mlm-0.5-seed1-").file_name().unwrap().to_str().unwrap().to_owned();
    let labels = json!({"base": "bert", "method": "tamt-mlm", "sparsity": 0.5, "scope": "local", "start": "magnitude",
        "ticket_seed": 1, "steps": 12, "ticket": ticket, "task": "cola", "seed": 2, "train_examples": 16});
    assert_eq!(tuned["labels"], labels);
    let dense = record(run(&store, "losses/dense-"));
    assert_eq!((&dense["labels"]["method"], &dense["labels"]["ticket"]), (&json!("dense"), &Value::Null));
    assert_eq!(json_file(run(&store, "losses/dense-").join("eval_results.json"))["block_size"], 12);

    let study = json_file(format!("{store}/study.json"));
    assert_eq!(study["runs"].as_array().unwrap().len(), 35);
    let before = times(directory.path());
    tamt(&line).success().stdout(contains("35 of 35 runs are done"));
    let after = times(directory.path());
    let changed: Vec<_> = after.iter().filter(|(path, time)| before.get(*path) != Some(time)).collect();
    assert!(changed.is_empty() && after.len() == before.len(), "{changed:?}");
}

#[test]
fn the_recorded_command_makes_the_same_numbers_again() {
    let directory = tempfile::tempdir().unwrap();
    tasks(directory.path());
    let tasks = TASKS.replace("[16, 'all']", "[16]").replace("[1, 2]", "[1]");
    let plan = plan(&directory, "plan.toml", &format!("{}[losses]\n{tasks}", TICKETS.replace("[1, 2]", "[2]")));
    let store = at(&directory, "out");
    tamt(&format!("study {plan} --output-dir {store} --quiet")).success();
    for prefix in ["tickets/tamt-mlm", "losses/tamt-mlm", "tasks/cola-16-seed1-tamt-mlm"] {
        let done = run(&store, prefix);
        let command: Vec<String> = serde_json::from_value(record(&done)["command"].clone()).unwrap();
        let again = at(&directory, format!("again-{}", prefix.replace('/', "-")));
        let words = command[1..].iter().map(|word| match word.starts_with("--output-dir=") {
            true => format!("--output-dir={again}"),
            false => word.clone(),
        });
        tamt(&format!("{} --quiet", words.collect::<Vec<_>>().join(" "))).success();
        assert_eq!(result_of(&done), result_of(&again), "{prefix}");
    }
}

#[test]
fn a_longer_plan_runs_what_is_new_alone_and_plans_share_a_store() {
    let directory = tempfile::tempdir().unwrap();
    let store = at(&directory, "store");
    let of = |name: &str, sparsities: &str| {
        let tickets = TICKETS.replace("[0.5]", sparsities).replace("'tamt-mlm'", "'tamt-kd'");
        let plan = plan(&directory, name, &format!("{tickets}[losses]\n"));
        format!("study {plan} --store {store} --output-dir {}", at(&directory, format!("{name}-out")))
    };
    tamt(&of("short.toml", "[0.5]")).success();
    let (first, before) = (runs(&store), times(&Path::new(&store).join("tickets")));
    // The same store by another path.
    let line = of("long.toml", "[0.5, 0.75]").replace(&store, &at(&directory, "short.toml-out/../store"));
    tamt(&line).success().stderr(contains("0.75").and(contains("beginning tickets/tamt-kd-0.5").not()));
    let added: Vec<String> = runs(&store).difference(&first).cloned().collect();
    assert_eq!(added.len(), 10, "{added:?}");
    assert!(added.iter().all(|name| name.contains("0.75")), "{added:?}");
    for (path, time) in before {
        assert_eq!(path.metadata().unwrap().modified().unwrap(), time, "{}", path.display());
    }

    // Pruning for one plan keeps what the other one names.
    tamt(&format!("{} --prune", of("short.toml", "[0.5]"))).success().stdout(contains("removed 0 directories"));
    fs::remove_dir_all(at(&directory, "long.toml-out")).unwrap();
    tamt(&format!("{} --prune", of("short.toml", "[0.5]"))).success().stdout(contains("removed 10 directories"));
    assert_eq!(runs(&store), first);
}

#[test]
fn a_preset_in_a_plan_stands_for_its_flags_in_the_runs_of_all_methods() {
    let directory = tempfile::tempdir().unwrap();
    let store = at(&directory, "store");
    let of = |name: &str, tickets: &str| {
        let axes =
            "methods = ['random', 'magnitude', 'imp', 'tamt-mlm', 'tamt-kd']\nsparsities = [0.35]\nseeds = [1]\n";
        let plan = plan(&directory, name, &format!("[tickets]\n{axes}batch-size = 2\n{tickets}"));
        format!("study {plan} --store {store} --output-dir {}", at(&directory, format!("{name}-out")))
    };
    tamt(&of("preset.toml", "preset = 'short'\nmax-steps = 6\nblock-size = 12\n")).success();
    let (names, before) = (runs(&store), times(Path::new(&store)));
    assert_eq!(names.len(), 5);
    let rates = [("imp", 3e-4), ("tamt-mlm", 2e-4), ("tamt-kd", 1e-3)]
        .map(|(method, rate)| format!("[tickets.{method}]\nlearning-rate = {rate}\n"))
        .concat();
    let flags = format!("max-steps = 6\nblock-size = 12\nrethreshold-every = 20\n{rates}");
    tamt(&of("flags.toml", &flags)).success().stdout(contains("5 of 5 runs are done"));
    assert_eq!(runs(&store), names);
    let after = times(Path::new(&store));
    assert!(before.keys().all(|path| after.get(path) == before.get(path)), "{names:?}");
}

#[test]
fn the_length_of_a_run_is_that_of_its_preset_where_a_plan_has_tickets_on_the_way() {
    let directory = tempfile::tempdir().unwrap();
    let tickets = "[tickets]\nmethods = ['tamt-kd']\nsparsities = [0.35]\nsteps = [0, 600]\npreset = 'short'\n\
        batch-size = 1\nblock-size = 6\n";
    let (plan, store) = (plan(&directory, "plan.toml", tickets), at(&directory, "store"));
    tamt(&format!("study {plan} --output-dir {store}")).success();
    let run = run(&store, "tickets/tamt-kd-0.35-");
    assert_eq!(record(&run)["labels"]["steps"], 600);
    assert!(run.join("step-0/ticket.safetensors").is_file());
}

#[test]
fn tickets_on_the_way_are_of_one_run_and_equal_those_of_shorter_runs() {
    let directory = tempfile::tempdir().unwrap();
    let tickets = "[tickets]\nmethods = ['tamt-mlm']\nsparsities = [0.6]\nseeds = [3]\nbatch-size = 2\nblock-size = 12\n\
        learning-rate = 1e-2\nlr-schedule = 'constant'\nrethreshold-every = 2\n";
    let long = plan(&directory, "long.toml", &format!("{tickets}steps = [0, 5, 9]\n[losses]\n"));
    let store = at(&directory, "out");
    tamt(&format!("study {long} --output-dir {store} --quiet")).success();
    let search = run(&store, "tickets/");
    assert_eq!(record(&search)["labels"]["steps"], 9);
    assert_eq!(runs(&store).iter().filter(|name| name.starts_with("losses/tamt-mlm")).count(), 3);
    let label = record(run(&store, "losses/tamt-mlm-0.6-seed3-step5-"))["labels"].clone();
    let name = search.file_name().unwrap().to_str().unwrap();
    assert_eq!((&label["steps"], &label["ticket"]), (&json!(5), &json!(format!("{name}/step-5"))));

    let short = at(&directory, "short");
    let flags = "--method tamt-mlm --sparsity 0.6 --seed 3 --batch-size 2 --block-size 12 --learning-rate 1e-2 \
        --lr-schedule constant --rethreshold-every 2 --max-steps 5 --quiet";
    tamt(&format!("find --model {} --corpus {} {flags} --output-dir {short}", bert(), crate::common::corpus()))
        .success();
    assert_eq!(bytes(search.join("step-5/ticket.safetensors")), bytes(format!("{short}/ticket.safetensors")));
    let similarity = format!("inspect {} --against {} --json", search.join("step-0").display(), at(&directory, "omp"));
    magnitude(&bert(), 0.6, &at(&directory, "omp"));
    assert_eq!(object(&tamt(&similarity).success())["jaccard"], 1.0);

    // Another step is written by the same run, done again; the losses that are there stay.
    let before = runs(&store);
    let longer = plan(&directory, "longer.toml", &format!("{tickets}steps = [0, 5, 7, 9]\n[losses]\n"));
    tamt(&format!("study {longer} --output-dir {store}")).success().stderr(contains("asks for its ticket step-7"));
    let added: Vec<String> = runs(&store).difference(&before).cloned().collect();
    assert!(matches!(&added[..], [one] if one.contains("step7")), "{added:?}");
    assert!(search.join("step-5/ticket.safetensors").is_file());
}

#[test]
fn one_run_of_iterative_pruning_writes_all_levels_as_runs_of_their_own_would() {
    let directory = tempfile::tempdir().unwrap();
    let of = |name: &str, sparsities: &str| {
        let tickets = format!(
            "[tickets]\nmethods = ['imp']\nsparsities = {sparsities}\nseeds = [1]\nsteps-per-round = 3\nbatch-size = 2\n\
             block-size = 12\nlearning-rate = 1e-3\n[losses]\n"
        );
        plan(&directory, name, &tickets)
    };
    let (both, alone) = (at(&directory, "both"), at(&directory, "alone"));
    tamt(&format!("study {} --output-dir {both} --quiet", of("both.toml", "[0.3, 0.5]"))).success();
    tamt(&format!("study {} --output-dir {alone} --quiet", of("alone.toml", "[0.3]"))).success();
    let (search, other) = (run(&both, "tickets/"), run(&alone, "tickets/"));
    let level = search.join("sparsity-0.3/ticket.safetensors");
    let masks = |path: &Path| {
        let tensors = crate::common::Tensors::read(path);
        tensors.names().iter().map(|name| tensors.bytes(name).to_vec()).collect::<Vec<_>>()
    };
    assert_eq!(masks(&level), masks(&other.join("ticket.safetensors")));
    // The same ticket by its content: the losses are the same run, wherever the ticket is from.
    assert_eq!(run(&both, "losses/imp-0.3").file_name(), run(&alone, "losses/imp-0.3").file_name());

    // A higher level is a new search, and a lower one is there already.
    let before = runs(&both);
    tamt(&format!("study {} --output-dir {both} --quiet", of("more.toml", "[0.3, 0.4, 0.5, 0.6]"))).success();
    let mut added: Vec<String> = runs(&both).difference(&before).cloned().collect();
    added.iter_mut().for_each(|name| *name = name.rsplit_once('-').unwrap().0.to_owned());
    assert_eq!(added, ["losses/imp-0.4-seed1", "losses/imp-0.6-seed1", "tickets/imp-0.6-seed1"]);

    // Grids of one plan share their searches too.
    let grids = "[tickets]\nmethods = ['imp']\nseeds = [1]\nsteps-per-round = 3\nbatch-size = 2\nblock-size = 12\n\
        learning-rate = 1e-3\n[[tickets.grid]]\nsparsities = [0.5]\n[[tickets.grid]]\nsparsities = [0.3]\n[losses]\n";
    let (grids, store) = (plan(&directory, "grids.toml", grids), at(&directory, "grids"));
    let told = object(&tamt(&format!("study {grids} --output-dir {store} --json")).success());
    assert_eq!(told["runs"], 4, "a search, and the losses of two levels and of the dense model");
    assert_eq!(runs(&store).len(), 4);
    assert_eq!(masks(&run(&store, "tickets/imp-0.5").join("sparsity-0.3/ticket.safetensors")), masks(&level));
}

#[test]
fn damaged_results_are_told_and_made_again() {
    let directory = tempfile::tempdir().unwrap();
    let plan = plan(&directory, "plan.toml", &format!("{TICKETS}[losses]\n"));
    let store = at(&directory, "out");
    let line = format!("study {plan} --output-dir {store}");
    tamt(&line).success();
    let whole = numbers(&store);
    let spoil = |prefix: &str, file: &str, spoil: &dyn Fn(Vec<u8>) -> Vec<u8>| {
        let path = run(&store, prefix).join(file);
        fs::write(&path, spoil(bytes(&path))).unwrap();
    };
    let half = |content: Vec<u8>| content[..content.len() / 2].to_vec();
    spoil("losses/magnitude", "eval_results.json", &half);
    // Other digits are still a result in form.
    let other = |content: Vec<u8>| String::from_utf8(content).unwrap().replacen('4', "5", 1).into_bytes();
    spoil("losses/tamt-mlm-0.5-seed1", "eval_results.json", &other);
    spoil("losses/random-0.5-seed2", "study-run.json", &half);
    fs::remove_file(run(&store, "tickets/tamt-mlm-0.5-seed2").join("ticket.safetensors")).unwrap();
    spoil("tickets/tamt-mlm-0.5-seed1", "ticket.safetensors", &half);
    // Another mask of the same size.
    let flipped = |mut content: Vec<u8>| {
        *content.last_mut().unwrap() ^= 1;
        content
    };
    spoil("tickets/random-0.5-seed1", "ticket.safetensors", &flipped);

    let status = object(&tamt(&format!("{line} --status --json")).success());
    let damaged = status["runs"].as_array().unwrap().iter().filter(|run| run["state"] == "damaged").count();
    assert_eq!(damaged, 6, "{status:?}");
    let told = stderr(&tamt(&line).success());
    assert_eq!(told.matches("the run is done again").count(), 6, "{told}");
    assert_eq!(numbers(&store), whole);
    assert_eq!(names(format!("{store}/.study/aside/losses")).len(), 3);
    tamt(&format!("{line} --prune")).success();
    assert!(!Path::new(&store).join(".study/aside").exists());
    assert_eq!(numbers(&store), whole);
}

#[test]
fn mistakes_of_a_plan_are_told_all_at_once_ahead_of_any_run() {
    let directory = tempfile::tempdir().unwrap();
    tasks(directory.path());
    let text = "[base]\nmodel = 'BERT'\n\n[tickets]\nmethods = ['random', 'tamt-mlm']\nsparsities = [0.5, 1.2]\n\
        seeds = [1, 1]\nbatch-sise = 2\nmax-steps = 4\noutput-dir = 'x'\n[tickets.random]\nlearning-rate = 1e-3\n\n\
        [losses]\n\n[tasks]\nnames = ['cola', 'colla']\ndata = 'none'\nmax-steps = 'few'\n[[tasks.grid]]\nsparsities = [0.9]\n\
        [tasks.rte]\nepochs = 2\n[tasks.own]\ntask-file = 'later.toml'\n[tasks.coal]\nepochs = 2\n";
    let path = directory.path().join("plan.toml");
    fs::write(&path, text.replace("BERT", &bert())).unwrap();
    let told = stderr(&tamt(&format!("study {} --output-dir {}", path.display(), at(&directory, "out"))).code(2));
    let expected = [
        (5, "tamt-mlm trains on text, and base `bert` has no `corpus`"),
        (6, "1.2: it is the fraction"),
        (7, "`seeds` has 1 twice: two runs with one name"),
        (8, "unknown key `batch-sise` in [tickets]; did you mean `batch-size`?"),
        (10, "`output-dir` cannot stand in [tickets]"),
        (12, "`learning-rate` has no effect with random"),
        (14, "no `validation`"),
        (17, "there is no task \"colla\""),
        (17, "no directory"),
        (18, "none"),
        (19, "`max-steps`"),
        (21, "no ticket of the plan has 0.9"),
        (26, "[tasks.coal] is for no task of `names`; did you mean `cola`?"),
    ];
    for (line, problem) in expected {
        let found = told.lines().any(|told| told.contains(&format!("plan.toml:{line}: ")) && told.contains(problem));
        assert!(found, "{line}: {problem}:\n{told}");
    }
    // Tables of tasks that are not among the names, with files that need not be there.
    assert!(["[tasks.rte]", "[tasks.own]", "later.toml"].iter().all(|text| !told.contains(text)), "{told}");
    assert!(!Path::new(&at(&directory, "out")).exists());
}

#[test]
fn two_searches_that_labels_do_not_tell_apart_are_a_mistake() {
    let directory = tempfile::tempdir().unwrap();
    let grids = "[tickets]\nmethods = ['tamt-mlm']\nsparsities = [0.5]\nmax-steps = 4\n[[tickets.grid]]\n\
        learning-rate = 1e-3\n[[tickets.grid]]\nlearning-rate = 1e-4\n";
    let path = plan(&directory, "plan.toml", grids);
    let told = stderr(&tamt(&format!("study {path} --output-dir {}", at(&directory, "out"))).code(2));
    assert!(told.contains("two runs with one name, tamt-mlm-0.5-seed42"), "{told}");
    // The same search in two grids is one run.
    let path = plan(&directory, "plan.toml", &grids.replace("1e-4", "1e-3"));
    tamt(&format!("study {path} --output-dir {} --quiet", at(&directory, "out"))).success();
    assert_eq!(runs(at(&directory, "out")).len(), 1);
}

#[test]
fn the_dense_model_lacks_flags_of_tickets() {
    let directory = tempfile::tempdir().unwrap();
    tasks(directory.path());
    let masked = format!("[tickets]\nmethods = ['magnitude']\nsparsities = [0.5]\n{TASKS}");
    let dense = masked.replace("[tasks]\n", "[tasks]\ndense-pooler = true\n");
    let (store, out) = (at(&directory, "store"), at(&directory, "out"));
    // The dense model and the ticket, with two seeds and two numbers of examples; then the ticket alone.
    for (text, count) in [(masked, 8), (dense, 12)] {
        let path = plan(&directory, "plan.toml", &text);
        tamt(&format!("study {path} --output-dir {out} --store {store} --quiet")).success();
        assert_eq!(runs(&store).iter().filter(|name| name.starts_with("tasks/")).count(), count);
    }
}

#[test]
fn each_of_several_values_of_a_setting_is_for_runs_of_its_own_that_the_report_tells_apart() {
    let directory = tempfile::tempdir().unwrap();
    tasks(directory.path());
    let several = "[tickets]\nmethods = ['magnitude', 'tamt-mlm']\nsparsities = [0.5]\nmax-steps = 4\nbatch-size = 2\n\
        block-size = 12\nlearning-rate = [1e-3, 2e-3]\n[tasks]\nnames = ['cola']\nbatch-size = 8\nmax-length = 16\n\
        learning-rate = [1e-4, 1e-3]\n[tasks.cola]\ndata = 'one'\nepochs = [1, 2]\n";
    let path = plan(&directory, "plan.toml", several);
    let out = at(&directory, "out");
    tamt(&format!("study {path} --output-dir {out} --quiet")).success();
    // Magnitude, which has no learning rate, and two trained masks; these and the dense model with four recipes.
    let of = |kind: &str| runs(&out).iter().filter(|name| name.starts_with(kind)).count();
    assert_eq!((of("tickets/"), of("tasks/")), (3, 16));
    tamt(&format!("report {out} --quiet")).success();
    let report = fs::read_to_string(format!("{out}/report/report.md")).unwrap();
    for column in ["CoLA, epochs 1.0, learning-rate 0.0001", "CoLA, epochs 2.0, learning-rate 0.001"] {
        assert!(report.contains(column), "{report}");
    }
    assert!(report.contains("\n| tamt-mlm, learning-rate 0.002 | "), "{report}");

    // A plan with one of the values shares the runs.
    let one = several.replace("[1e-4, 1e-3]", "1e-3").replace("[1, 2]", "2").replace("[1e-3, 2e-3]", "2e-3");
    let path = plan(&directory, "one.toml", &one);
    let answer = object(&tamt(&format!("study {path} --output-dir {out} --quiet --json")).success());
    assert_eq!((&answer["runs"], runs(&out).len()), (&json!(5), 19));
    assert_eq!(record(run(&out, "tickets/magnitude"))["attempts"], 1);

    let mistakes = [
        (several.replace("[1, 2]", "[1, 1]"), "`epochs` has 1 twice"),
        (several.replace("[1, 2]", "[]"), "`epochs` is a single value, not an array"),
        (format!("{several}[losses]\nblock-size = [12, 16]\n"), "`block-size` is a single value, not an array"),
    ];
    for (text, mistake) in mistakes {
        let path = plan(&directory, "mistake.toml", &text);
        let told = stderr(&tamt(&format!("study {path} --output-dir {out}")).code(2));
        assert!(told.contains(mistake), "{told}");
    }
}

#[test]
fn a_setting_that_matters_beside_one_of_several_values_is_kept_beside_all() {
    let directory = tempfile::tempdir().unwrap();
    let tickets = "[tickets]\nmethods = ['tamt-mlm']\nsparsities = [0.5]\nmax-steps = 1\nbatch-size = 2\n\
        block-size = 12\nlr-schedule = ['constant', 'linear']\nlr-horizon-steps = 50\n";
    let (path, out) = (plan(&directory, "plan.toml", tickets), at(&directory, "out"));
    tamt(&format!("study {path} --output-dir {out} --quiet")).success();
    let horizon =
        |name: String| record_of(format!("{out}/{name}"))["train"]["schedule"]["horizon"].as_integer().unwrap();
    assert_eq!(runs(&out).into_iter().map(horizon).collect::<Vec<_>>(), [50, 50]);
}

#[test]
fn a_failed_run_is_recorded_the_others_go_on_and_it_can_be_retried() {
    let directory = tempfile::tempdir().unwrap();
    let tickets = format!("{}[tickets.tamt-mlm]\nlearning-rate = 1e38\n[losses]\n", TICKETS.replace("[1, 2]", "[1]"));
    let plan = plan(&directory, "plan.toml", &tickets.replace("learning-rate = 1e-3\n", ""));
    let store = at(&directory, "out");
    let line = format!("study {plan} --output-dir {store}");
    for attempts in [1, 1, 2] {
        let retry = if attempts == 2 { " --retry-failed" } else { "" };
        let failed = tamt(&format!("{line}{retry}")).code(1);
        let told = stderr(&failed);
        assert!(told.contains("1 of 7 runs failed, and 1 wait for a ticket"), "{told}");
        assert!(told.contains("tickets/tamt-mlm-0.5-seed1-"), "{told}");
        let record = record(run(&store, "tickets/tamt-mlm"));
        assert_eq!(record["status"], "failed");
        assert!(record["error"].as_str().unwrap().contains("is not finite"), "{record}");
    }
    let names = runs(&store);
    assert!(names.iter().any(|name| name.starts_with("losses/magnitude")), "{names:?}");
    assert!(!names.iter().any(|name| name.starts_with("losses/tamt-mlm")), "{names:?}");
}

#[test]
fn a_dry_run_estimates_and_leaves_no_trace() {
    let directory = tempfile::tempdir().unwrap();
    tasks(directory.path());
    let plan = plan(&directory, "plan.toml", &format!("{TICKETS}[losses]\n{TASKS}"));
    let line = format!("study {plan} --output-dir {}", at(&directory, "out"));
    let result = object(&tamt(&format!("{line} --dry-run --json --quiet")).success());
    let listed = result["runs"].as_array().unwrap();
    assert_eq!(listed.len(), 35);
    assert!(listed.iter().all(|run| run["state"] == "to do" && run["seconds"].as_f64().unwrap() > 0.0));
    assert!(result["seconds"].as_f64().unwrap() > 0.0 && result["bytes"].as_f64().unwrap() > 0.0);
    assert!(!Path::new(&at(&directory, "out")).exists());
    tamt(&format!("{line} --status")).success().stdout(contains("35 runs: 0 done, 0 failed, 0 blocked, 35 open"));
    assert!(!Path::new(&at(&directory, "out")).exists());
}

#[test]
fn several_bases_and_jobs_give_the_numbers_of_one_worker() {
    let directory = tempfile::tempdir().unwrap();
    let roberta = crate::common::golden("roberta");
    let bases =
        base().replace("[base]", "[base.small]") + &base().replace("[base]", "[base.other]").replace(&bert(), &roberta);
    let path = directory.path().join("plan.toml");
    fs::write(&path, format!("{bases}{TICKETS}[losses]\n")).unwrap();
    let (one, two) = (at(&directory, "one"), at(&directory, "two"));
    tamt(&format!("study {} --output-dir {one} --quiet --threads 1", path.display())).success();
    tamt(&format!("study {} --output-dir {two} --quiet --jobs 2", path.display())).success();
    assert_eq!(runs(&one).len(), 22);
    assert_eq!(numbers(&one), numbers(&two));
}

#[test]
fn a_directory_whose_name_is_not_utf_8_is_refused_ahead_of_any_run() {
    let directory = tempfile::tempdir().unwrap();
    let plan = plan(&directory, "plan.toml", TICKETS);
    let out = directory.path().join(OsStr::from_bytes(b"o\xff"));
    let told = stderr(&tamt_command().args(["study", &plan, "--output-dir"]).arg(&out).assert().code(1));
    assert!(told.contains("needs a name in UTF-8"), "{told}");
    assert_eq!(names(directory.path()), ["plan.toml"]);
}
