//! The real files of GLUE and SQuAD, if they are available.

#![allow(clippy::print_stdout, reason = "measurements and skips are printed")]

use std::path::{Path, PathBuf};

use tamt_data::Tokenizer;
use tamt_data::squad::{Dataset, PredictOptions, SpanScores, WindowLogits, WindowOptions, Windows, evaluate, predict};
use tamt_data::tasks::{Example, Label, Split, Task, encode, read};

fn task(name: &str) -> &'static Task {
    Task::by_name(name).unwrap()
}

fn shared() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let path = std::env::var_os("TAMT_SHARED").map_or_else(beside, PathBuf::from).join("data");
    if !path.is_dir() {
        println!("skipped: no data at {}", path.display());
        return None;
    }
    Some(path)
}

fn class(example: &Example) -> u32 {
    match example.label {
        Some(Label::Class(class)) => class,
        other => panic!("{other:?} is no class"),
    }
}

#[test]
fn glue_files_are_read_to_the_last_line() {
    let Some(data) = shared() else {
        return;
    };
    for (name, train, dev) in [("cola", 8551, 1043), ("sst2", 67349, 872), ("rte", 2490, 277), ("mrpc", 3668, 408)] {
        for (split, expected) in [(Split::Train, train), (Split::Dev, dev)] {
            let examples = read(task(name), &data.join("glue"), split).unwrap();
            assert_eq!(examples.items.len(), expected, "{name}");
            assert_eq!(examples.skipped, [], "{name}");
            assert!(examples.items.iter().all(|e| !e.first.trim().is_empty()), "{name}");
            let ones = examples.items.iter().filter(|e| class(e) == 1).count();
            assert!((expected / 4..expected * 4 / 5).contains(&ones), "{name}: {ones} of class 1");
        }
    }
}

#[test]
fn glue_examples_become_sequences_of_a_real_tokenizer() {
    let Some(data) = shared() else {
        return;
    };
    let tokenizer = Tokenizer::from_dir(&data.join("minilm-l6-h384")).unwrap();
    let specials = tokenizer.specials();
    for name in ["cola", "rte"] {
        let examples = read(task(name), &data.join("glue"), Split::Dev).unwrap().items;
        let features = encode(&examples, &tokenizer, 128).unwrap();
        assert_eq!(features.len(), examples.len());
        for feature in &features {
            assert!((3..=128).contains(&feature.ids.len()) && feature.ids.len() == feature.type_ids.len());
            let separators = feature.ids.iter().filter(|&&id| id == specials.sep).count();
            assert_eq!(separators, if name == "rte" { 2 } else { 1 });
            assert_eq!(feature.type_ids.last(), Some(&u32::from(name == "rte")));
        }
    }
}

#[test]
fn squad_files_are_read_and_every_answer_is_found() {
    let Some(data) = shared() else {
        return;
    };
    for (split, questions) in [(Split::Train, 87599), (Split::Dev, 10570)] {
        let dataset = Dataset::read(task("squad"), &data.join("squad"), split).unwrap();
        assert_eq!(dataset.questions.len(), questions);
        assert_eq!((dataset.moved, dataset.unlocated.len()), (0, 0));
        for question in &dataset.questions {
            let span = question.span().unwrap();
            assert_eq!(&dataset.contexts[question.context][span], question.answers[0].text.trim());
        }
    }
}

/// The scores of a model that predicts all tokens correctly. Such a model still fails on answers that are part of a word
/// ("gold" in "golden") and, with the usual limit of 30 tokens, on long answers.
#[test]
fn right_tokens_give_right_answers() {
    let Some(data) = shared() else {
        return;
    };
    let tokenizer = Tokenizer::from_dir(&data.join("minilm-l6-h384")).unwrap();
    for (split, every) in [(Split::Dev, 1), (Split::Train, 10)] {
        let dataset = Dataset::read(task("squad"), &data.join("squad"), split).unwrap();
        let chosen: Vec<usize> = (0..dataset.questions.len()).step_by(every).collect();
        let dataset = dataset.select(&chosen).unwrap();
        let windows = Windows::new(&dataset, &tokenizer, WindowOptions::default()).unwrap();
        let sure = |at: usize, len: usize| {
            let mut logits = vec![0.0; len];
            logits[at] = 9.0;
            logits
        };
        let logits: Vec<WindowLogits> = (0..windows.len())
            .map(|i| {
                let ((start, end), len) = (windows.window(i).answer, windows.ids_len(i));
                WindowLogits { start: sure(start, len), end: sure(end, len) }
            })
            .collect();
        for (max_answer_tokens, least) in [(30, 99.0), (384, 99.5)] {
            let options = PredictOptions { max_answer_tokens, ..PredictOptions::default() };
            let predictions = predict(&dataset, &windows, &logits, options).unwrap();
            let SpanScores { all, .. } = evaluate(&dataset, &predictions).unwrap();
            println!(
                "{}: {} questions, {} windows, answers of at most {max_answer_tokens} tokens: exact match {:.3}, F1 {:.3}",
                split.name(),
                all.total,
                windows.len(),
                all.exact_match,
                all.f1
            );
            assert!(all.exact_match > least);
        }
    }
}
