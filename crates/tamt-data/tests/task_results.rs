//! Tokens, decisions, scores and submissions of examples.

use std::path::Path;

use tamt_data::metrics::Metric;
use tamt_data::tasks::{Example, Label, Split, Task, encode, submission};
use tamt_data::{Error, Tokenizer};

fn task(name: &str) -> &'static Task {
    Task::by_name(name).unwrap()
}

#[test]
fn submissions_spell_labels_and_keep_numbers_in_range() {
    let example = |id: &str| Example { id: id.to_owned(), first: String::new(), second: None, label: None };
    let examples = [example("5"), example("7")];
    let of = |name: &str, labels: [Label; 2]| submission(task(name), &examples, &labels);
    assert_eq!(
        of("rte", [Label::Class(1), Label::Class(0)]).unwrap(),
        "index\tprediction\n5\tnot_entailment\n7\tentailment\n"
    );
    assert_eq!(of("cola", [Label::Class(1), Label::Class(0)]).unwrap(), "index\tprediction\n5\t1\n7\t0\n");
    assert_eq!(
        of("stsb", [Label::Value(5.25), Label::Value(1.23456)]).unwrap(),
        "index\tprediction\n5\t5.000\n7\t1.235\n"
    );
    assert!(matches!(of("rte", [Label::Class(2), Label::Class(0)]), Err(Error::OutOfRange { .. })));
    assert!(matches!(of("rte", [Label::Value(2.0), Label::Class(0)]), Err(Error::WrongKind { .. })));
    assert!(matches!(of("stsb", [Label::Class(2), Label::Class(0)]), Err(Error::WrongKind { .. })));
    assert!(matches!(submission(task("rte"), &examples, &[Label::Class(0)]), Err(Error::Count { .. })));
    assert_eq!(task("mnli").submissions[1], (Split::TestMismatched, "MNLI-mm.tsv".to_owned()));
}

#[test]
fn logits_decide_and_decisions_are_scored() {
    let rte = task("rte");
    assert_eq!(rte.decide(&[0.5, 0.5]).unwrap(), Label::Class(0));
    assert_eq!(task("mnli").decide(&[0.5, -1.0, 0.75]).unwrap(), Label::Class(2));
    assert_eq!(task("stsb").decide(&[0.5]).unwrap(), Label::Value(0.5));
    assert!(matches!(rte.decide(&[0.5]), Err(Error::Count { .. })));
    assert!(matches!(task("squad").decide(&[0.5, 0.5]), Err(Error::WrongKind { .. })));

    let example = |label| Example { id: String::new(), first: String::new(), second: None, label };
    let examples = [example(Some(Label::Class(0))), example(Some(Label::Class(1)))];
    let scores = rte.score(&examples, &[Label::Class(0), Label::Class(0)]).unwrap();
    assert_eq!(scores.get(Metric::Accuracy), Some(0.5));
    assert!(matches!(rte.score(&[example(None)], &[Label::Class(0)]), Err(Error::Count { .. })));
}

#[test]
fn examples_become_features_in_order_and_cut_to_length() {
    let example = |first: &str, second: Option<&str>| Example {
        id: String::new(),
        first: first.to_owned(),
        second: second.map(ToOwned::to_owned),
        label: Some(Label::Class(1)),
    };
    let text = "the lighthouse keeper counted forty waves before the lantern";
    let examples: Vec<Example> = (0..300).map(|i| example(text, (i % 3 == 0).then_some("the map"))).collect();
    for name in ["bert", "roberta"] {
        let tokenizer =
            Tokenizer::from_dir(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)).unwrap();
        let features = encode(&examples, &tokenizer, 12).unwrap();
        assert_eq!(features.len(), 300);
        for (i, feature) in features.iter().enumerate() {
            let (ids, type_ids) = if i % 3 == 0 {
                let pair = tokenizer.encode_pair(text, "the map", 12).unwrap();
                (pair.ids, pair.type_ids)
            } else {
                let ids = tokenizer.encode(text, 12).unwrap();
                let type_ids = vec![0; ids.len()];
                (ids, type_ids)
            };
            assert_eq!((&feature.ids, &feature.type_ids), (&ids, &type_ids), "{name} {i}");
            assert_eq!(feature.label, Some(Label::Class(1)));
        }
        assert!(matches!(encode(&examples, &tokenizer, 2), Err(Error::Length { .. })));
    }
}
