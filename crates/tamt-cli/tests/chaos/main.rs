//! Runs that are killed at random moments, or that lose their disk, directory, model or clock, and go on: each ends with
//! the bits of a run that nothing disturbed, or says what is gone, and no file is half-written under its final name.
//!
//! A seed decides what happens to which run. The moment of the run that it meets also depends on the machine's speed, so
//! a case that fails is repeated with `CHAOS_SEED` a few times.

#![cfg(unix)]
#![allow(clippy::print_stdout, reason = "a long test tells what it does")]

#[path = "../cli/common.rs"]
#[allow(dead_code, reason = "the helpers of other tests")]
mod common;
#[path = "../cli/task_files.rs"]
#[allow(dead_code, reason = "the helpers of other tests")]
mod task_files;

mod calls;
mod disturb;
mod events;
mod random;
mod runs;
mod tree;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::disturb::{Disk, Disturbance, Moment, assert_ended, disturb, has_faketime, mend};
use crate::random::Random;
use crate::runs::{Ended, Finished, Runs, Verb, Which, remove};

/// Attempts to meet a run ahead of its end, before a run of twice as many steps takes its place.
const ATTEMPTS: u32 = 10;

/// Times that a run becomes twice as long: a machine may end a run between two looks at its files.
const DOUBLINGS: u32 = 6;

/// One disturbed run.
struct Case {
    verb: Verb,
    variant: usize,
    what: Disturbance,
    seed: u64,
}

/// Disturbs a run at a random moment, lets the run go on, sometimes disturbs the resumed run as well, and compares the
/// end. Returns a line about the case.
fn run(case: &Case, runs: &mut Runs) -> String {
    let Case { verb, variant, what, seed } = *case;
    let mut random = Random::new(seed);
    let mut told = Vec::new();
    let times = 1 + random.below(2);
    let first = (0..=DOUBLINGS).find_map(|doublings| {
        let which = Which { verb, variant, doublings };
        let (finished, line) = (runs.finished(which), runs.line(which));
        let disk = (what == Disturbance::FullDisk).then(|| Disk::mount(&runs.place()).unwrap());
        let met = meet_new(&line, what, &finished, runs, &mut random)?;
        Some((finished, line, disk, met))
    });
    let (finished, line, disk, met) = first.unwrap_or_else(|| panic!("{what:?} missed runs of each length"));
    let mut met = Some(met);
    for time in 0..times {
        if time > 0 {
            let moment = Moment::random(&mut random, &finished, 0);
            met = meet_at(moment, &format!("{line} --resume"), what, &finished, runs, &mut random);
        }
        let Some((moment, ended)) = met.take() else { break };
        told.push(format!("{moment:?}, {}", how(&ended)));
        assert_ended(what, &ended, runs);
        tree::assert_whole(&runs.run(), &finished.directory);
        if time == 0 && ended.status.code().is_some_and(|code| code > 0) && what != Disturbance::InterruptTwice {
            assert_no_trace_without_steps(runs, &ended);
        }
        if what == Disturbance::ModelRemoved {
            let refused = runs.finish(&format!("{line} --resume"), &[]);
            assert_eq!(refused.status.code(), Some(1), "{}", refused.said);
            assert_ended(what, &refused, runs);
        }
        mend(what, runs, &mut random);
    }
    let wrapper: &[&str] =
        if what == Disturbance::ClockSetBack && has_faketime() { &["faketime", "-f", "-400d"] } else { &[] };
    let ended = runs.finish(&format!("{line} --resume"), wrapper);
    assert!(ended.status.success(), "{}", ended.said);
    tree::assert_whole(&runs.run(), &finished.directory);
    tree::assert_same(&runs.run(), &finished.directory);
    remove(&runs.run());
    drop(disk);
    told.join("; ")
}

/// Starts a run and disturbs it at a random moment, again and again until a run notices. `None` if none does.
fn meet_new(
    line: &str,
    what: Disturbance,
    finished: &Finished,
    runs: &Runs,
    random: &mut Random,
) -> Option<(Moment, Ended)> {
    (0..ATTEMPTS).find_map(|attempt| {
        let moment = Moment::random(random, finished, attempt);
        let met = meet_at(moment, line, what, finished, runs, random);
        if met.is_none() {
            remove(&runs.run());
        }
        met
    })
}

/// Starts a run, or lets it go on, and disturbs it at a moment. `None` if the run did not notice, because it had ended or
/// was about to: the run then has its result.
fn meet_at(
    moment: Moment,
    line: &str,
    what: Disturbance,
    finished: &Finished,
    runs: &Runs,
    random: &mut Random,
) -> Option<(Moment, Ended)> {
    let mut child = runs.start(line, what.wrapper());
    let is_met = moment.wait(&mut child, &runs.run());
    let ended = if is_met { disturb(what, child, runs, random) } else { runs::ended(child) };
    assert!(is_met || ended.status.success(), "{}", ended.said);
    // A run that has read its model does without.
    if !ended.status.success() || is_met && what == Disturbance::ModelRemoved {
        return Some((moment, ended));
    }
    if is_met {
        mend(what, runs, random);
    }
    if what != Disturbance::DirectoryRemoved {
        tree::assert_whole(&runs.run(), &finished.directory);
        tree::assert_same(&runs.run(), &finished.directory);
    }
    None
}

/// Asserts that a run that ended by itself without a step has left no directory.
fn assert_no_trace_without_steps(runs: &Runs, ended: &Ended) {
    let has_steps = runs.run().exists() && {
        let files = common::files(&runs.run());
        let is_output = |name: &String| ["safetensors", "tsv"].iter().any(|end| name.ends_with(end));
        files.keys().any(is_output)
            || files.iter().any(|(name, path)| name.ends_with("log.jsonl") && fs::metadata(path).unwrap().len() > 0)
    };
    assert!(has_steps || !runs.run().exists(), "a run without a step left its directory: {}", ended.said);
}

/// How a process ended, in a few words.
fn how(ended: &Ended) -> String {
    let last = ended.said.lines().rev().find(|line| line.contains("error") || line.contains("saved"));
    format!("{}{}", ended.status, last.map_or_else(String::new, |line| format!(" ({line})")))
}

fn seed() -> u64 {
    env::var("CHAOS_SEED").map_or(19, |seed| seed.parse().unwrap())
}

/// Runs `count` cases of each verb, each kind of disturbance in turn.
fn run_all(count: usize) {
    let mut runs = Runs::new();
    let possible: Vec<Disturbance> = Disturbance::ALL
        .into_iter()
        .filter(|what| {
            let obstacle = what.obstacle(&runs);
            obstacle.iter().for_each(|obstacle| println!("skipped: {what:?}, {obstacle}"));
            obstacle.is_none()
        })
        .collect();
    if !has_faketime() {
        println!("skipped: another clock for resumed runs, no faketime");
    }
    // By verb and kind: the cases that ended as they should, and all of them.
    let mut done: BTreeMap<(Verb, Disturbance), [u32; 2]> = BTreeMap::new();
    for i in 0..count {
        for verb in Verb::ALL {
            let what = possible[(i + verb as usize * 3) % possible.len()];
            let variant = (i / possible.len() + i) % verb.variants().len();
            let case = Case { verb, variant, what, seed: seed() + (3 * i + verb as usize) as u64 };
            println!("{verb:?} {variant}, {what:?}, seed {}", case.seed);
            let outcome = catch_unwind(AssertUnwindSafe(|| run(&case, &mut runs)));
            println!("  {}", outcome.as_deref().unwrap_or("FAILED"));
            let [good, all] = done.entry((verb, what)).or_default();
            *good += u32::from(outcome.is_ok());
            *all += 1;
            if outcome.is_err() {
                runs.clean();
            }
        }
    }
    for ((verb, what), [good, all]) in &done {
        println!("{verb:?}, {what:?}: {good} of {all}");
    }
    let [good, all] = done.values().fold([0, 0], |sum, case| [sum[0] + case[0], sum[1] + case[1]]);
    println!("{good} of {all} disturbed runs ended with the bits of undisturbed ones");
    assert_eq!(good, all);
}

#[test]
fn disturbed_runs_that_go_on_end_with_the_bits_of_undisturbed_ones() {
    run_all(9);
}

/// `CHAOS_RUNS` of each verb, by default 100.
#[test]
#[ignore = "takes ten minutes"]
fn hundreds_of_disturbed_runs_that_go_on_end_with_the_bits_of_undisturbed_ones() {
    run_all(env::var("CHAOS_RUNS").map_or(100, |count| count.parse().unwrap()));
}
