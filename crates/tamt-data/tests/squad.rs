//! Irregular SQuAD files, and windows of tokenizers other than BERT's.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tamt_data::squad::{Dataset, PredictOptions, Prediction, WindowLogits, WindowOptions, Windows, evaluate, predict};
use tamt_data::tasks::{Split, Task};
use tamt_data::{Error, Tokenizer};

fn file(paragraphs: &Value) -> Value {
    json!({"version": "x", "data": [{"title": "t", "paragraphs": paragraphs}]})
}

fn read(content: &str) -> Result<Dataset, Error> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dev-v2.0.json");
    fs::write(&path, content).unwrap();
    Dataset::read(Task::by_name("squad2").unwrap(), dir.path(), Split::Dev)
}

fn tokenizer(name: &str) -> Tokenizer {
    Tokenizer::from_dir(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)).unwrap()
}

const CONTEXT: &str = "A café in Zürich serves naïve painters; the KEEPER kept her map 北京.";

fn questions() -> Dataset {
    let answer = |text: &str, start: i64| json!({"text": text, "answer_start": start});
    let qa = |id: &str, answers: Vec<Value>| json!({"id": id, "question": "who kept the map", "answers": answers});
    let paragraph = json!({"context": CONTEXT, "qas": [
        qa("placed", vec![answer("Zürich", 10)]),
        qa("moved", vec![answer("KEEPER", 0)]),
        qa("absent", vec![answer("the sailor", 3)]),
        qa("second", vec![json!({"text": "nowhere"}), answer("her sea", -1), answer("北京", 9999)]),
        json!({"id": "none", "question": "why", "answers": [], "is_impossible": true}),
        json!({"id": "plausible", "question": "why", "answers": [answer("map", 1)], "is_impossible": true}),
    ]});
    read(&file(&json!([paragraph])).to_string()).unwrap()
}

#[test]
fn answers_are_located_by_characters_moved_or_counted_as_unlocated() {
    let dataset = questions();
    let span = |i: usize| dataset.questions[i].span().map(|span| &CONTEXT[span]);
    assert_eq!(span(0), Some("Zürich"));
    assert_eq!(span(1), Some("KEEPER"));
    assert_eq!(span(2), None);
    assert_eq!(span(3), Some("北京"));
    assert_eq!((dataset.moved, &*dataset.unlocated), (2, &["absent".to_owned()][..]));
    let trainable: Vec<bool> = dataset.questions.iter().map(tamt_data::squad::Question::is_trainable).collect();
    assert_eq!(trainable, [true, true, false, true, true, true]);
    assert!(dataset.questions[5].answers.is_empty(), "plausible answers are not right ones");

    let some = dataset.select(&[1, 2]).unwrap();
    assert_eq!(some.questions, dataset.questions[1..3]);
    assert_eq!(some.unlocated, ["absent"]);
    assert!(matches!(dataset.select(&[6]), Err(Error::OutOfRange { .. })));
}

#[test]
fn a_question_of_squad2_without_answers_is_unanswerable_whatever_its_flag_says() {
    let with = |more: &Value| {
        let mut qa = json!({"id": "q", "question": "why"});
        qa.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        file(&json!([{"context": CONTEXT, "qas": [qa]}])).to_string()
    };
    for more in [
        json!({"answers": []}),
        json!({"answers": null}),
        json!({}),
        json!({"answers": [], "is_impossible": null}),
        json!({"answers": [], "is_impossible": false}),
        json!({"answers": null, "is_impossible": true}),
    ] {
        let question = &read(&with(&more)).unwrap().questions[0];
        assert!(question.impossible && question.is_trainable() && question.answers.is_empty(), "{more}");
    }
    // Every question of the first version has an answer, so that one without answers has lost them.
    let dir = tempfile::tempdir().unwrap();
    for more in [json!({"answers": []}), json!({"answers": [], "is_impossible": true})] {
        fs::write(dir.path().join("dev-v1.1.json"), with(&more)).unwrap();
        let dataset = Dataset::read(Task::by_name("squad").unwrap(), dir.path(), Split::Dev).unwrap();
        assert!(!dataset.questions[0].impossible && !dataset.questions[0].is_trainable(), "{more}");
    }
}

#[test]
fn ids_of_any_type_are_texts_and_positions_may_be_floats_texts_or_null() {
    let read_with = |id: Value, start: Value| {
        let answer = json!({"text": "Zürich", "answer_start": start});
        let qa = json!({"id": id, "question": "where", "answers": [answer], "is_impossible": null});
        read(&file(&json!([{"context": CONTEXT, "qas": [qa]}])).to_string())
    };
    for (id, expected) in
        [(json!(262), "262"), (json!("262"), "262"), (json!(1.5), "1.5"), (json!(true), "true"), (json!([1]), "[1]")]
    {
        assert_eq!(read_with(id, json!(10)).unwrap().questions[0].id, expected);
    }
    // `json!` has no integers of 2^64 and more.
    let digits = "340282366920938463463374607431768211456";
    let qa = format!(r#"{{"id": {digits}, "question": "where", "answers": []}}"#);
    let text = file(&json!([{"context": CONTEXT, "qas": ["QA"]}])).to_string().replace("\"QA\"", &qa);
    assert_eq!(read(&text).unwrap().questions[0].id, digits);
    for start in [json!(10), json!(10.0), json!("10"), json!(" 10.0")] {
        let dataset = read_with(json!("q"), start.clone()).unwrap();
        assert_eq!(
            (dataset.questions[0].span(), dataset.moved),
            (CONTEXT.find("Zürich").map(|at| at..at + 7), 0),
            "{start}"
        );
    }
    for start in [json!(null), json!(-1), json!("-1"), json!(1e15)] {
        let dataset = read_with(json!("q"), start.clone()).unwrap();
        assert!(dataset.questions[0].span().is_some() && dataset.moved == 1, "{start}: found by the text");
    }
    for start in [json!(10.5), json!("ten"), json!([10]), json!(true)] {
        let error = read_with(json!("q"), start.clone()).unwrap_err();
        assert!(error.to_string().contains(&format!("answer_start is {start}, which is no position")), "{error}");
    }
    let twice = json!([{"context": "c", "qas": [{"id": 1, "question": "?"}, {"id": "1", "question": "?"}]}]);
    assert!(read(&file(&twice).to_string()).unwrap_err().to_string().contains("two questions have the id \"1\""));
}

#[test]
fn white_space_around_an_answer_moves_it_nowhere() {
    // The last answer is elsewhere.
    for (text, start, moved) in
        [(" Zürich", 9, 0), (" Zürich ", 9, 0), ("Zürich ", 10, 0), (" Zürich", 10, 0), (" Zürich", 4, 1)]
    {
        let answer = json!({"text": text, "answer_start": start});
        let qa = json!({"id": "q", "question": "where", "answers": [answer]});
        let dataset = read(&file(&json!([{"context": CONTEXT, "qas": [qa]}])).to_string()).unwrap();
        let span = dataset.questions[0].span().unwrap();
        assert_eq!((&CONTEXT[span], dataset.moved), ("Zürich", moved), "{text:?} at {start}");
    }
}

#[test]
fn half_a_character_in_a_context_keeps_the_positions_of_answers() {
    let qa = json!({"id": "q", "question": "who", "answers": [{"text": "she", "answer_start": 4}]});
    let content = file(&json!([{"context": "a@ b she", "qas": [qa]}])).to_string();
    let dataset = read(&content.replace("a@ b she", r"a\ud83d \ude00she")).unwrap();
    assert_eq!(dataset.contexts[0], "a\u{fffd} \u{fffd}she");
    assert_eq!((dataset.questions[0].span(), dataset.moved), (Some(8..11), 0));
}

#[test]
fn a_window_over_any_tokenizer_leads_back_to_the_answers_text() {
    let dataset = questions();
    for name in ["bert", "bert_cased", "roberta"] {
        let tokenizer = tokenizer(name);
        let options = WindowOptions { max_length: 60, stride: 7, max_query: 5 };
        let windows = Windows::new(&dataset, &tokenizer, options).unwrap();
        let sure = |at: usize, len: usize| {
            let mut logits = vec![0.0; len];
            logits[at] = 9.0;
            logits
        };
        let logits: Vec<WindowLogits> = (0..windows.len())
            .map(|i| {
                let (start, end) = windows.window(i).answer;
                let len = windows.ids_len(i);
                WindowLogits { start: sure(start, len), end: sure(end, len) }
            })
            .collect();
        let options = PredictOptions { unanswerable: true, max_answer_tokens: 60, ..PredictOptions::default() };
        let predictions = predict(&dataset, &windows, &logits, options).unwrap();
        for (question, prediction) in dataset.questions.iter().zip(&predictions) {
            let expected = question.span().map_or("", |span| &CONTEXT[span]);
            let whole = windows.of_question(0).any(|i| windows.window(i).tokens > 0);
            assert!(whole);
            assert_eq!(prediction.text, expected, "{name}: {}", question.id);
        }
        let scores = evaluate(&dataset, &predictions).unwrap();
        assert_eq!((scores.all.total, scores.no_answer.unwrap().exact_match), (6, 100.0));
        // The gold answer of "absent" is in no window.
        assert_eq!(scores.has_answer.unwrap().exact_match, 75.0);
    }
}

#[test]
fn windows_have_the_form_of_a_pair_and_the_size_asked_for() {
    let dataset = questions();
    for (name, separators) in [("bert", 1), ("roberta", 2)] {
        let tokenizer = tokenizer(name);
        let specials = tokenizer.specials();
        let options = WindowOptions { max_length: 20, stride: 4, max_query: 3 };
        let windows = Windows::new(&dataset, &tokenizer, options).unwrap();
        assert!(windows.len() >= 2 * dataset.questions.len(), "{name}: {} windows", windows.len());
        for i in 0..windows.len() {
            let (mut ids, mut types) = (Vec::new(), Vec::new());
            windows.fill(i, &mut ids, &mut types);
            assert!(ids.len() <= 20 && ids.len() == types.len());
            assert_eq!((ids[0], *ids.last().unwrap()), (specials.cls, specials.sep));
            let start = windows.context_start(i);
            assert!(ids[start - separators..start].iter().all(|&id| id == specials.sep), "{name}");
            let second = u32::from(separators == 1);
            assert!(types[..start].iter().all(|&t| t == 0) && types[start..].iter().all(|&t| t == second));
        }
        let short = WindowOptions { max_length: 5, ..options };
        assert!(matches!(Windows::new(&dataset, &tokenizer, short), Err(Error::Length { .. })));
        let still = WindowOptions { stride: 0, ..options };
        assert!(matches!(Windows::new(&dataset, &tokenizer, still), Err(Error::OutOfRange { .. })));
    }
}

#[test]
fn files_that_are_no_questions_are_refused() {
    let qa = json!({"id": "q", "question": "?", "answers": []});
    let twice = file(&json!([{"context": "c", "qas": [qa, qa]}])).to_string();
    assert!(read(&twice).unwrap_err().to_string().contains("two questions have the id \"q\""));
    assert!(matches!(read(&file(&json!([])).to_string()), Err(Error::NoExamples { .. })));
    for content in ["", "[]", "{\"data\": 3}", "{\"data\": [{\"paragraphs\": [{}]}]}", &twice[..40]] {
        assert!(matches!(read(content), Err(Error::BadFile { .. })), "{content}");
    }
}

#[test]
fn an_empty_context_gives_an_empty_answer() {
    let qa = json!({"id": "q", "question": "who", "answers": [{"text": "x", "answer_start": 0}]});
    let dataset = read(&file(&json!([{"context": "", "qas": [qa]}])).to_string()).unwrap();
    let windows = Windows::new(&dataset, &tokenizer("bert"), WindowOptions::default()).unwrap();
    assert_eq!(windows.len(), 1);
    let len = windows.ids_len(0);
    let logits = [WindowLogits { start: vec![1.0; len], end: vec![1.0; len] }];
    let predictions = predict(&dataset, &windows, &logits, PredictOptions::default()).unwrap();
    let [Prediction { text, candidates, .. }] = predictions.as_slice() else {
        panic!("one question, {} predictions", predictions.len());
    };
    assert_eq!((text.as_str(), candidates.len(), candidates[0].probability), ("", 1, 1.0));
    assert_eq!(evaluate(&dataset, &predictions).unwrap().all.f1, 0.0);
}
