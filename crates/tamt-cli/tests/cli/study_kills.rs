//! Studies whose workers are killed end in the same numbers as undisturbed ones.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Child;

use predicates::str::contains;

use crate::common::{at, signal, start, tamt, wait_for};
use crate::study_plans::{numbers, plan, record, run, runs, tasks};

/// 3 methods, 2 sparsities, 2 seeds, 3 tasks, 2 tuning seeds: 87 runs, of which magnitude's have one seed.
const PLAN: &str = "[tickets]\nmethods = ['random', 'magnitude', 'tamt-mlm']\nsparsities = [0.5, 0.7]\nseeds = [1, 2]\n\
    max-steps = STEPS\nsave-every = 10\nbatch-size = 2\nblock-size = 12\nlearning-rate = 1e-3\n[losses]\n\
    [tasks]\nnames = ['cola', 'two', 'three']\nseeds = [1, 2]\nmax-steps = STEPS\nsave-every = 10\neval-every = 20\n\
    batch-size = 4\nmax-length = 16\nlearning-rate = 2e-3\n\
    [tasks.cola]\ndata = 'one'\n[tasks.two]\ntask-file = 'task.toml'\ndata = 'two'\n\
    [tasks.three]\ntask-file = 'task.toml'\ndata = 'three'\n";

/// A number without a pattern.
fn mixed(i: u64) -> u64 {
    let z = i.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z ^ (z >> 29)
}

/// Files and directories below `root`: a measure of progress that needs no clock.
fn entries(root: &Path) -> u64 {
    let Ok(list) = std::fs::read_dir(root) else { return 0 };
    list.filter_map(Result::ok).map(|entry| 1 + if entry.path().is_dir() { entries(&entry.path()) } else { 0 }).sum()
}

/// Runs the study of `plan` with `workers`, kills workers `kills` times at moments that `seed` draws, and starts them again,
/// but for one that stays dead.
fn disturbed(plan: &str, store: &str, workers: usize, kills: u64, total: u64, seed: u64) {
    let worker = if workers > 1 { " --worker" } else { "" };
    let start = || start(&format!("study {plan} --output-dir {store} --threads 1 --quiet{worker}"));
    let mut running: Vec<Option<Child>> = (0..workers).map(|_| Some(start())).collect();
    let mut killed = 0;
    for kill in 0..kills {
        // A moment: so many files more than at the last kill.
        let moment = entries(Path::new(store)) + mixed(seed * 1000 + kill) % (2 * total / kills);
        let victim = mixed(seed * 7000 + kill) as usize % workers;
        let Some(child) = &mut running[victim] else { continue };
        while entries(Path::new(store)) < moment && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        if child.try_wait().unwrap().is_none() {
            child.kill().unwrap();
            assert_eq!(child.wait().unwrap().signal(), Some(9));
            killed += 1;
        }
        let stays_dead = workers > 1 && killed == kills / 2 && running.iter().all(Option::is_some);
        running[victim] = if stays_dead { None } else { Some(start()) };
    }
    for child in running.iter_mut().flatten() {
        let status = child.wait().unwrap();
        assert!(status.success(), "{status}");
    }
    assert!(killed > kills / 2, "only {killed} of {kills} kills hit a worker at work");
}

fn kills(steps: u64, kills: u64) {
    let directory = tempfile::tempdir().unwrap();
    tasks(directory.path());
    let text = PLAN.replace("STEPS", &steps.to_string());
    let plan = plan(&directory, "plan.toml", &text);
    let whole = at(&directory, "whole");
    tamt(&format!("study {plan} --output-dir {whole} --quiet")).success();
    let (expected, total) = (numbers(&whole), entries(Path::new(&whole)));
    for (workers, seed) in [(1, 11), (3, 12)] {
        let store = at(&directory, format!("killed-{workers}"));
        disturbed(&plan, &store, workers, kills, total, seed);
        assert_eq!(numbers(&store), expected, "{workers} workers");
    }
}

#[test]
fn a_study_whose_workers_are_killed_has_the_tables_of_an_undisturbed_one() {
    kills(20, 5);
}

/// Minutes: `cargo test --workspace --test cli twenty_kills -- --ignored`.
#[test]
#[ignore = "takes minutes"]
fn twenty_kills_change_no_digit() {
    kills(60, 20);
}

#[test]
fn a_signal_stops_a_study_after_a_checkpoint_and_the_same_command_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let text = "[tickets]\nmethods = ['tamt-mlm']\nsparsities = [0.5]\nseeds = [1]\nmax-steps = 3000\nsave-every = 50\n\
        batch-size = 2\nblock-size = 12\n";
    let plan = plan(&directory, "plan.toml", text);
    let (whole, stopped) = (at(&directory, "whole"), at(&directory, "stopped"));
    tamt(&format!("study {plan} --output-dir {whole} --quiet")).success();
    for jobs in ["", " --jobs 2"] {
        let name = run(&whole, "tickets/").file_name().unwrap().to_str().unwrap().to_owned();
        let _ = std::fs::remove_dir_all(&stopped);
        let mut child = start(&format!("study {plan} --output-dir {stopped}{jobs}"));
        wait_for(&Path::new(&stopped).join(format!("tickets/{name}/checkpoint-100")), &mut child);
        signal(&child, "TERM");
        assert_eq!(child.wait().unwrap().code(), Some(143));
        let run = run(&stopped, "tickets/");
        assert!(!run.join("study-run.json").exists(), "it was to stop in the middle");
        let line = format!("study {plan} --output-dir {stopped}");
        tamt(&line).success().stderr(contains("going on with tickets/"));
        assert_eq!(numbers(&stopped), numbers(&whole));
        assert_eq!(record(&run)["attempts"], 2);
        assert_eq!(runs(&stopped).len(), 1);
    }
}
