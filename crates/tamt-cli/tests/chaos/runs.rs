//! The runs that are disturbed: their command lines, their inputs, and what each ends with if nothing happens.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::common::{bert, copy_of_bert, corpus, split};
use crate::task_files::{cola, squad, with_pooler};
use crate::tree;

/// The verbs that train.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verb {
    Find,
    Tune,
    Pretrain,
}

impl Verb {
    pub(crate) const ALL: [Self; 3] = [Self::Find, Self::Tune, Self::Pretrain];

    /// What distinguishes the runs of a verb: `{here}` stands for the directory of the inputs.
    pub(crate) fn variants(self) -> &'static [&'static str] {
        match self {
            Self::Find => &[
                "--method tamt-mlm-kd --sparsity 0.7 --rethreshold-every 4",
                "--method imp --sparsity 0.4",
                "--method tamt-kd --sparsity 0.5 --init random --scope global",
                "--method tamt-mlm --sparsity 0.7 --save-minutes 1e-9",
                "--method imp --sparsity 0.3 --rewind none --save-every 0 --save-minutes 1e-9",
            ],
            Self::Tune => &[
                "--task cola --data {here}/cola --ticket {here}/ticket --seeds 1,2 --keep best",
                "--task cola --data {here}/cola --early-stopping 4 --keep best --predict-test",
                "--task squad --data {here}/squad --ticket {here}/ticket --keep final --save-minutes 1e-9",
                "--task cola --data {here}/cola --teacher {here}/teacher --ticket {here}/ticket --kd-hidden-weight 1",
            ],
            Self::Pretrain => &[
                "--model {here}/model --train all",
                "--new {here}/model/config.json --tokenizer {here}/model --save-minutes 1e-9",
                "--model {here}/model --train head --save-every 0 --save-minutes 1e-9",
            ],
        }
    }
}

/// A run: a verb, one of its variants, and how many times its usual number of steps is doubled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Which {
    pub(crate) verb: Verb,
    pub(crate) variant: usize,
    pub(crate) doublings: u32,
}

/// Inputs in a temporary directory, which has the run directory in a folder of its own.
pub(crate) struct Runs {
    root: tempfile::TempDir,
    finished: BTreeMap<Which, Finished>,
}

/// A run that nothing disturbed.
#[derive(Clone)]
pub(crate) struct Finished {
    pub(crate) directory: PathBuf,
    pub(crate) took: Duration,
}

/// An ended process.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) said: String,
}

impl Runs {
    pub(crate) fn new() -> Self {
        let runs = Self { root: tempfile::tempdir().unwrap(), finished: BTreeMap::new() };
        copy_of_bert(&runs.at("model"));
        cola(&runs.at("cola"));
        squad(&runs.at("squad"), false);
        fs::create_dir(runs.place()).unwrap();
        fs::copy(corpus(), runs.at("corpus.txt")).unwrap();
        // A model with a pooler, which a model for a task has.
        with_pooler(&bert(), &runs.at("base"));
        let make = |words: &str| {
            let ended = runs.finish(words, &[]);
            assert!(ended.status.success(), "{}", ended.said);
        };
        make("find --model {here}/model --method magnitude --sparsity 0.5 --output-dir {here}/ticket");
        make(
            "tune --model {here}/base --task cola --data {here}/cola --max-steps 8 --batch-size 8 \
             --output-dir {here}/teacher",
        );
        runs
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// The folder of the run directory, which may become a disk of its own.
    pub(crate) fn place(&self) -> PathBuf {
        self.at("place")
    }

    /// The run directory.
    pub(crate) fn run(&self) -> PathBuf {
        self.place().join("run")
    }

    /// The command line of a run.
    pub(crate) fn line(&self, Which { verb, variant, doublings }: Which) -> String {
        let patience = format!("--early-stopping {}", 4 << doublings);
        let words = verb.variants()[variant].replace("--early-stopping 4", &patience);
        let text = "--corpus {here}/corpus.txt --eval-corpus {here}/corpus.txt --batch-size 2 --block-size 12";
        let course = "--logging-steps 2 --eval-every 5 --output-dir {here}/place/run --threads 1";
        let default = |flag: &str, value| if words.contains(flag) { "" } else { value };
        let save = default("--save-every", "--save-every 3");
        let (steps, fewer_steps) = (40 << doublings, 24 << doublings);
        match verb {
            Verb::Find => {
                format!(
                    "find --model {{here}}/model {words} {text} {course} {save} --max-steps {steps} \
                     --learning-rate 1e-3"
                )
            }
            Verb::Tune => format!(
                "tune --model {{here}}/model {words} {course} {save} --max-steps {fewer_steps} --batch-size 4 \
                 --learning-rate 2e-3"
            ),
            Verb::Pretrain => format!("pretrain {words} {text} {course} {save} --max-steps {steps}"),
        }
    }

    /// Starts the binary with the words of `line` behind the program and the arguments of `wrapper`.
    pub(crate) fn start(&self, line: &str, wrapper: &[&str]) -> Child {
        let binary = assert_cmd::cargo::cargo_bin("tamt");
        let line = line.replace("{here}", self.root.path().to_str().unwrap());
        let words = wrapper.iter().map(|&word| word.to_owned()).chain([binary.to_str().unwrap().to_owned()]);
        let words: Vec<String> = words.chain(split(&line)).collect();
        Command::new(&words[0])
            .args(&words[1..])
            // All runs share the stored tokens of this directory.
            .env("XDG_CACHE_HOME", self.at("cache"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // A file could be cut by a full disk. A run says less than a pipe holds.
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Runs a command line to its end.
    pub(crate) fn finish(&self, line: &str, wrapper: &[&str]) -> Ended {
        ended(self.start(line, wrapper))
    }

    /// Removes what a failed case has left.
    pub(crate) fn clean(&self) {
        remove(&self.run());
        if self.at("model-elsewhere").exists() {
            fs::rename(self.at("model-elsewhere"), self.at("model")).unwrap();
        }
    }

    /// The run without a disturbance, made by the first call. The directory of the run is free afterwards.
    pub(crate) fn finished(&mut self, which: Which) -> Finished {
        if let Some(finished) = self.finished.get(&which) {
            return finished.clone();
        }
        let started = Instant::now();
        let ended = self.finish(&self.line(which), &[]);
        assert!(ended.status.success(), "{}", ended.said);
        let took = started.elapsed();
        let directory = self.at(&format!("{:?}-{}-{}", which.verb, which.variant, which.doublings));
        fs::rename(self.run(), &directory).unwrap();
        tree::assert_whole(&directory, &directory);
        let finished = Finished { directory, took };
        self.finished.insert(which, finished.clone());
        finished
    }
}

/// Waits for the end of a process.
pub(crate) fn ended(child: Child) -> Ended {
    let output = child.wait_with_output().unwrap();
    Ended { status: output.status, said: String::from_utf8(output.stderr).unwrap() }
}

/// Removes a directory that a running process may be writing to.
pub(crate) fn remove(directory: &Path) {
    while directory.exists() {
        // An entry that appears during the removal makes it fail.
        let _ = fs::remove_dir_all(directory);
    }
}
