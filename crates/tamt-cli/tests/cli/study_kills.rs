//! Studies whose workers are killed end in the same numbers as undisturbed ones.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Child;
use std::thread;
use std::time::Instant;

use predicates::str::contains;

use crate::common::{
    DEADLINE, Seen, at, has_result, json_file, long_enough, newest_checkpoint, object, reaches, signal, start, stderr,
    stopped_at, tamt,
};
use crate::study_plans::{names, numbers, plan, record, run, runs, tasks};
use crate::task_files::mixed;

/// 3 methods, 2 sparsities, 2 seeds, 3 tasks, 2 tuning seeds: 87 runs, of which magnitude's have one seed.
const PLAN: &str = "[tickets]\nmethods = ['random', 'magnitude', 'tamt-mlm']\nsparsities = [0.5, 0.7]\nseeds = [1, 2]\n\
    max-steps = STEPS\nsave-every = 10\nbatch-size = 2\nblock-size = 12\nlearning-rate = 1e-3\n[losses]\n\
    [tasks]\nnames = ['cola', 'two', 'three']\nseeds = [1, 2]\nmax-steps = STEPS\nsave-every = 10\neval-every = 20\n\
    batch-size = 4\nmax-length = 16\nlearning-rate = 2e-3\n\
    [tasks.cola]\ndata = 'one'\n[tasks.two]\ntask-file = 'task.toml'\ndata = 'two'\n\
    [tasks.three]\ntask-file = 'task.toml'\ndata = 'three'\n";

/// Runs the study of `plan` with `workers`, kills workers `kills` times at moments that `seed` draws, and starts them again,
/// but for one that stays dead. The number of kills that hit a worker at work: the study may end ahead of others.
fn disturbed(plan: &str, store: &str, workers: usize, kills: u64, total: u64, seed: u64) -> u64 {
    let worker = if workers > 1 { " --worker" } else { "" };
    let start = || start(&format!("study {plan} --output-dir {store} --threads 1 --quiet{worker}"));
    let mut running: Vec<Child> = (0..workers).map(|_| start()).collect();
    let (mut seen, mut killed) = (Seen::default(), 0);
    for kill in 0..kills {
        // A moment within each part of the study: the files of the part begin to appear, and some more have appeared than
        // at the last kill.
        let part = total / kills;
        let moment = (part * kill + mixed(seed * 1000 + kill) % part).max(seen.look(Path::new(store)) + 1);
        let mut child = running.swap_remove(mixed(seed * 7000 + kill) as usize % running.len());
        while seen.look(Path::new(store)) < moment && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert!(status.signal() == Some(9) || status.success(), "{status}");
        killed += u64::from(!status.success());
        if workers > 1 && running.len() + 1 == workers && killed == kills / 2 {
            // This one stays dead.
            continue;
        }
        running.push(start());
    }
    for child in &mut running {
        let status = child.wait().unwrap();
        assert!(status.success(), "{status}");
    }
    killed
}

fn kills(steps: u64, kills: u64) {
    long_enough(steps, |steps| {
        let directory = tempfile::tempdir().unwrap();
        tasks(directory.path());
        let plan = plan(&directory, "plan.toml", &PLAN.replace("STEPS", &steps.to_string()));
        let whole = at(&directory, "whole");
        tamt(&format!("study {plan} --output-dir {whole} --quiet")).success();
        let (expected, total) = (numbers(&whole), Seen::default().look(Path::new(&whole)));
        let mut are_most_hits = true;
        for (workers, seed) in [(1, 11), (3, 12)] {
            let store = at(&directory, format!("killed-{workers}"));
            let killed = disturbed(&plan, &store, workers, kills, total, seed);
            assert_eq!(numbers(&store), expected, "{workers} workers");
            are_most_hits &= killed > kills / 2;
        }
        are_most_hits.then_some(())
    });
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
    long_enough(1000, |steps| {
        let text = format!(
            "[tickets]\nmethods = ['tamt-mlm']\nsparsities = [0.5]\nseeds = [1]\nmax-steps = {steps}\nsave-every = 50\n\
             batch-size = 2\nblock-size = 12\n"
        );
        let plan = plan(&directory, "plan.toml", &text);
        let whole = at(&directory, format!("whole-{steps}"));
        tamt(&format!("study {plan} --output-dir {whole} --quiet")).success();
        let name = run(&whole, "tickets/").file_name().unwrap().to_str().unwrap().to_owned();
        for jobs in ["", " --jobs 2"] {
            let stopped = at(&directory, format!("stopped{}-{steps}", jobs.len()));
            let search = Path::new(&stopped).join("tickets").join(&name);
            let mut child = start(&format!("study {plan} --output-dir {stopped}{jobs}"));
            if !reaches(&search, 100, &mut child) {
                return None;
            }
            signal(&child, "TERM");
            let code = child.wait_with_output().unwrap().status.code();
            if has_result(&search) {
                assert!([Some(0), Some(143)].contains(&code), "{code:?}");
                return None;
            }
            assert_eq!(code, Some(143));
            assert!(!search.join("study-run.json").exists(), "it was to stop in the middle");
            let line = format!("study {plan} --output-dir {stopped}");
            tamt(&line).success().stderr(contains("going on with tickets/"));
            assert_eq!(numbers(&stopped), numbers(&whole));
            assert_eq!(record(&search)["attempts"], 2);
            assert_eq!(runs(&stopped).len(), 1);
        }
        Some(())
    });
}

#[test]
fn a_worker_that_was_thought_dead_stops_and_leaves_the_run_to_the_one_that_took_it() {
    let directory = tempfile::tempdir().unwrap();
    let text = "[tickets]\nmethods = ['tamt-mlm']\nsparsities = [0.5]\nseeds = [1]\nmax-steps = 100000000\n\
        save-every = 50\nbatch-size = 2\nblock-size = 12\n";
    let plan = plan(&directory, "plan.toml", text);
    let store = at(&directory, "out");
    let line = format!("study {plan} --output-dir {store}");
    let planned = object(&tamt(&format!("{line} --status --json")).success());
    let name = planned["runs"][0]["run"].as_str().unwrap();
    let (search, leases) = (Path::new(&store).join(name), Path::new(&store).join(".study/leases"));
    let ended = thread::scope(|scope| {
        let worker = scope.spawn(|| tamt(&format!("{line} --worker --quiet --threads 1")));
        while newest_checkpoint(&search).is_none() {
            assert!(!worker.is_finished(), "it ended ahead of its first checkpoint");
            thread::yield_now();
        }
        let lease = leases.join(&names(&leases)[0]);
        let mut holder = json_file(lease.join("1"));
        (holder["worker"], holder["attempt"]) = ("another".into(), 2.into());
        fs::write(lease.join("2"), holder.to_string()).unwrap();
        worker.join().unwrap()
    });
    let name = name.strip_prefix("tickets/").unwrap();
    ended.code(1).stderr(contains(format!("another worker has taken {name}: ")));
    assert!(!search.join("study-run.json").exists());
    // Neither its own number nor that of the other worker is free.
    assert_eq!(names(leases.join(&names(&leases)[0])), ["1", "2"]);
}

#[test]
fn plans_with_other_steps_go_on_with_one_search_for_the_tickets_of_both() {
    let directory = tempfile::tempdir().unwrap();
    long_enough(1000, |steps| {
        let store = at(&directory, format!("store-{steps}"));
        let of = |early: u64| {
            let text = format!(
                "[tickets]\nmethods = ['tamt-mlm']\nsparsities = [0.5]\nseeds = [1]\nsteps = [{early}, {steps}]\n\
                 save-every = 50\nbatch-size = 2\nblock-size = 12\n"
            );
            let plan = plan(&directory, &format!("{early}-of-{steps}.toml"), &text);
            format!("study {plan} --store {store} --output-dir {}", at(&directory, format!("{early}-of-{steps}")))
        };
        let (one, other) = (of(steps - 2), of(steps - 1));
        let planned = object(&tamt(&format!("{one} --status --json")).success());
        let search = format!("{store}/{}", planned["runs"][0]["run"].as_str().unwrap());
        stopped_at(&one, &search, 100, ("TERM", 143))?;
        // A ticket that the plan asks for may belong to a step that is past.
        tamt(&other).success().stderr(contains("the run begins anew"));
        let told = stderr(&tamt(&one).success());
        assert!(!told.contains("beginning tickets/") && !told.contains("again"), "{told}");
        for early in [steps - 2, steps - 1] {
            assert!(Path::new(&search).join(format!("step-{early}/ticket.safetensors")).is_file(), "{early}");
        }
        assert_eq!(names(format!("{store}/.study/aside/tickets")).len(), 1);
        Some(())
    });
}

#[test]
fn a_run_that_another_process_writes_keeps_no_other_waiting_and_is_done_after_it() {
    let directory = tempfile::tempdir().unwrap();
    let plan = plan(&directory, "plan.toml", "[tickets]\nmethods = ['random', 'magnitude']\nsparsities = [0.5]\n");
    let store = at(&directory, "out");
    let line = format!("study {plan} --output-dir {store}");
    let planned = object(&tamt(&format!("{line} --status --json")).success());
    let directory_of = |run: usize| Path::new(&store).join(planned["runs"][run]["run"].as_str().unwrap());
    let (first, second) = (directory_of(0), directory_of(1));
    fs::create_dir_all(&first).unwrap();
    let lock = fs::File::create(first.join(".lock")).unwrap();
    lock.lock().unwrap();
    let (mut child, started) = (start(&line), Instant::now());
    while !second.join("study-run.json").exists() {
        assert!(child.try_wait().unwrap().is_none(), "it ended ahead of the second run");
        assert!(started.elapsed() < DEADLINE, "the second run waits for the first one");
        thread::yield_now();
    }
    assert!(!first.join("study-run.json").exists());
    drop(lock);
    assert!(child.wait().unwrap().success());
    assert_eq!(record(&first)["status"], "done");
}
