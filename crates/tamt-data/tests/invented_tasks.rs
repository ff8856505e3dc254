//! The invented tasks, read by the readers of the real tasks.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

use tamt_data::Tokenizer;
use tamt_data::invented::{TaskSizes, World};
use tamt_data::squad::{Dataset, WindowOptions, Windows};
use tamt_data::tasks::{Example, Label, Split, Task, encode, read};
use tempfile::TempDir;

const TABLES: [&str; 5] = ["cola", "sst2", "mrpc", "stsb", "rte"];
const SIZES: TaskSizes = TaskSizes { train: 600, dev: 150, test: 50 };

fn written(world_seed: u64, sizes: TaskSizes, seed: u64) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(world_seed);
    world.write_tokenizer(dir.path()).unwrap();
    world.write_tasks(dir.path(), sizes, seed).unwrap();
    dir
}

fn task(name: &str) -> &'static Task {
    Task::by_name(name).unwrap()
}

fn examples(name: &str, dir: &Path, split: Split) -> Vec<Example> {
    let examples = read(task(name), dir, split).unwrap();
    assert_eq!(examples.skipped, [], "{name}");
    examples.items
}

fn texts(example: &Example) -> (String, Option<String>) {
    (example.first.clone(), example.second.clone())
}

/// All files of a directory, by path.
fn files(dir: &Path) -> HashMap<String, String> {
    let folders = ["CoLA", "SST-2", "MRPC", "STS-B", "RTE", "Topic", "squad"].into_iter();
    let files = folders.flat_map(|folder| fs::read_dir(dir.join(folder)).unwrap().map(|entry| entry.unwrap().path()));
    files
        .map(|path| {
            let name = path.strip_prefix(dir).unwrap().to_string_lossy().into_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect()
}

#[test]
fn every_task_is_read_by_the_real_ones_reader_in_the_sizes_asked_for() {
    let dir = written(3, SIZES, 1);
    for name in TABLES {
        for (split, n) in [(Split::Train, 600), (Split::Dev, 150), (Split::Test, 50)] {
            let examples = examples(name, dir.path(), split);
            assert_eq!(examples.len(), n, "{name}");
            assert!(examples.iter().all(|e| e.label.is_some() == split.is_labelled()), "{name}");
            let pair = matches!(name, "mrpc" | "stsb" | "rte");
            assert!(examples.iter().all(|e| !e.first.is_empty() && e.second.is_some() == pair), "{name}");
            assert_eq!(examples[7].id, "7");
        }
    }
    for (split, n) in [(Split::Train, 600), (Split::Dev, 150)] {
        let dataset = Dataset::read(task("squad"), dir.path(), split).unwrap();
        assert_eq!(dataset.contexts.len(), n);
        assert!((3 * n / 2..=2 * n).contains(&dataset.questions.len()), "{} questions", dataset.questions.len());
    }
}

#[test]
fn seeds_make_tasks_and_a_smaller_one_is_the_beginning_of_a_larger() {
    let small = files(written(3, TaskSizes { train: 20, dev: 10, test: 5 }, 1).path());
    assert_eq!(small.len(), 21);
    assert_eq!(small, files(written(3, TaskSizes { train: 20, dev: 10, test: 5 }, 1).path()));
    for other in [written(3, TaskSizes { train: 20, dev: 10, test: 5 }, 2), written(4, SIZES, 1)] {
        let differs = |(name, content): (&String, &String)| name.ends_with(".toml") || small[name] != *content;
        assert!(files(other.path()).iter().all(differs));
    }
    let large = files(written(3, SIZES, 1).path());
    for (name, content) in &small {
        if !name.starts_with("squad") {
            assert!(large[name].starts_with(content), "{name}");
        }
    }
    let first = |name: &str| {
        let dir = written(3, if name == "small" { TaskSizes { train: 2, dev: 2, test: 2 } } else { SIZES }, 1);
        Dataset::read(task("squad"), dir.path(), Split::Train).unwrap().questions[0].clone()
    };
    assert_eq!(first("small"), first("large"));
}

#[test]
fn classes_are_balanced_and_grades_even() {
    let dir = written(3, TaskSizes { train: 3000, ..SIZES }, 1);
    for name in TABLES {
        let mut counts: HashMap<String, usize> = HashMap::new();
        for example in examples(name, dir.path(), Split::Train) {
            *counts.entry(format!("{:?}", example.label.unwrap())).or_default() += 1;
        }
        let labels = if name == "stsb" { 6 } else { 2 };
        assert_eq!(counts.len(), labels, "{name}: {counts:?}");
        let even = 3000 / labels;
        // Five standard deviations of a fair draw.
        let most = 5.0 * (even as f64).sqrt();
        assert!(counts.values().all(|&n| (n.abs_diff(even) as f64) < most), "{name}: {counts:?}");
    }
}

#[test]
fn no_text_is_in_two_splits_and_none_has_two_labels() {
    let dir = written(5, TaskSizes { train: 3000, dev: 500, test: 500 }, 1);
    for name in TABLES {
        let of = |split| -> HashSet<_> { examples(name, dir.path(), split).iter().map(texts).collect() };
        let (train, dev, test) = (of(Split::Train), of(Split::Dev), of(Split::Test));
        assert!(train.is_disjoint(&dev) && train.is_disjoint(&test) && dev.is_disjoint(&test), "{name}");
        let mut labels: HashMap<_, Label> = HashMap::new();
        for example in examples(name, dir.path(), Split::Train) {
            let label = example.label.unwrap();
            assert_eq!(*labels.entry(texts(&example)).or_insert(label), label, "{name}: {:?}", texts(&example));
        }
        if name == "mrpc" {
            assert!(
                train.iter().all(|(first, second)| second.as_ref() != Some(first)),
                "no words are a paraphrase of themselves"
            );
        }
    }
    let of = |split| -> HashSet<String> {
        Dataset::read(task("squad"), dir.path(), split).unwrap().contexts.into_iter().collect()
    };
    assert!(of(Split::Train).is_disjoint(&of(Split::Dev)));
}

#[test]
fn topics_are_declared_by_their_task_file_and_follow_from_the_text() {
    let dir = written(3, TaskSizes { train: 3000, dev: 500, test: 50 }, 1);
    let data = dir.path().join("Topic");
    let task = Task::from_file(&data.join("topic.toml")).unwrap();
    let of = |split| {
        let examples = read(&task, &data, split).unwrap();
        assert_eq!(examples.skipped, []);
        examples.items
    };
    let (train, dev, test) = (of(Split::Train), of(Split::Dev), of(Split::Test));
    assert_eq!((train.len(), dev.len(), test.len()), (3000, 500, 50));
    let mut labels: HashMap<String, Label> = HashMap::new();
    for example in &train {
        let label = example.label.unwrap();
        assert_eq!(*labels.entry(example.first.clone()).or_insert(label), label, "{}", example.first);
    }
    assert!(dev.iter().all(|example| !labels.contains_key(&example.first)));
    let classes: HashSet<String> = labels.values().map(|label| format!("{label:?}")).collect();
    assert_eq!(classes.len(), 10);
}

#[test]
fn every_answer_stands_where_it_is_said_to_and_is_whole_tokens() {
    for seed in 1..4 {
        let dir = written(seed, TaskSizes { train: 400, dev: 100, test: 1 }, seed);
        let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
        let dataset = Dataset::read(task("squad"), dir.path(), Split::Train).unwrap();
        assert_eq!((dataset.moved, dataset.unlocated.len()), (0, 0));
        let windows = Windows::new(&dataset, &tokenizer, WindowOptions { max_length: 128, ..WindowOptions::default() });
        let windows = windows.unwrap();
        assert_eq!(windows.len(), dataset.questions.len(), "every context fits into a window");
        for (i, question) in dataset.questions.iter().enumerate() {
            let (mut ids, mut types) = (Vec::new(), Vec::new());
            windows.fill(i, &mut ids, &mut types);
            let (start, end) = windows.window(i).answer;
            let answer = &question.answers[0].text;
            assert_eq!(ids[start..=end], tokenizer.ids(answer).unwrap(), "{answer}");
        }
    }
}

#[test]
fn sequences_are_of_known_tokens_and_short() {
    let dir = written(3, SIZES, 1);
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    let unknown = tokenizer.specials().unk.unwrap();
    for name in TABLES {
        let features = encode(&examples(name, dir.path(), Split::Train), &tokenizer, 128).unwrap();
        assert!(features.iter().all(|f| f.ids.len() < 100 && !f.ids.contains(&unknown)), "{name}");
    }
}
