//! Predictions for new texts: those of an evaluation, in the order and the form of the input.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use predicates::prelude::PredicateBooleanExt;
use predicates::str::{contains, is_empty};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::common::{
    at, bert, bytes, copy_of_bert, copy_of_classifier, json_file, magnitude, object, signal, split, tamt, tamt_reading,
};
use crate::task_files::{cola, is_marked, pairs, sentence, squad, write};

/// Long enough for predictions that differ from text to text.
const COURSE: &str = "--learning-rate 5e-3 --batch-size 8 --max-steps 30 --eval-every 15";

fn text_of(path: impl AsRef<Path>) -> String {
    String::from_utf8(bytes(path)).unwrap()
}

fn json_lines(path: impl AsRef<Path>) -> Vec<Value> {
    text_of(path).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A model that is tuned on a task.
fn tuned(directory: &TempDir, task: &str) -> String {
    let run = at(directory, "run");
    tamt(&format!("tune --model {} {task} {COURSE} --output-dir {run} --quiet", bert())).success();
    run
}

/// What `eval` scores.
fn evaluated(model: &str, task: &str) -> Map<String, Value> {
    object(&tamt(&format!("eval --model {model} {task} --json --quiet")).success())
}

/// The predicted lines for a file, as JSON objects, and the summary.
fn predicted(directory: &TempDir, line: &str) -> (Vec<Value>, Map<String, Value>) {
    let output = at(directory, "predicted.jsonl");
    let summary = object(&tamt(&format!("predict {line} --output {output} --json --quiet")).success());
    let lines = json_lines(&output);
    assert_eq!(summary["records"], json!(lines.len()));
    (lines, summary)
}

#[test]
fn labels_of_a_development_set_are_those_that_an_evaluation_scores() {
    let directory = tempfile::tempdir().unwrap();
    let data = cola(&directory.path().join("data"));
    let task = format!("--task cola --data {data}");
    let run = tuned(&directory, &format!("{task} --max-length 6"));
    let (lines, summary) = predicted(&directory, &format!("--model {run} --input {data}/dev.tsv"));
    // `tune` writes the predictions of its last evaluation: id, prediction, label.
    let scored: Vec<(String, bool)> = text_of(format!("{run}/predictions.tsv"))
        .lines()
        .skip(1)
        .map(|line| line.split('\t').collect::<Vec<_>>())
        .map(|cells| (cells[1].to_owned(), cells[1] == cells[2]))
        .collect();
    let labels: Vec<&str> = lines.iter().map(|line| line["label"].as_str().unwrap()).collect();
    assert_eq!(labels, scored.iter().map(|(label, _)| label.as_str()).collect::<Vec<_>>());
    assert!(labels.contains(&"0") && labels.contains(&"1"), "one label says little: {labels:?}");
    for label in ["0", "1"] {
        assert_eq!(summary["labels"][label], json!(labels.iter().filter(|other| **other == label).count()));
    }
    // The evaluation takes the length of the tuning, too.
    let [[tn, fp], [fn_, tp]] = lines.iter().zip(&scored).fold([[0.0; 2]; 2], |mut counts, (line, (_, right))| {
        let said = line["label"] == "1";
        counts[usize::from(said == *right)][usize::from(said)] += 1.0;
        counts
    });
    let product: f64 = (tp + fp) * (tp + fn_) * (tn + fp) * (tn + fn_);
    let matthews = (tp * tn - fp * fn_) / product.sqrt();
    let metric = evaluated(&run, &task)["matthews_correlation"].as_f64().unwrap();
    assert!((metric - matthews).abs() < 1e-12, "{metric} {matthews}");
    for line in &lines {
        let label = line["label"].as_str().unwrap();
        let of = |label: &str| line["probabilities"][label].as_f64().unwrap();
        assert!(line["score"] == line["probabilities"][label] && (of("0") + of("1") - 1.0).abs() < 1e-12, "{line}");
        assert_eq!(of("1") > of("0"), label == "1");
    }
    // The test file has other columns, and ids.
    let (lines, _) = predicted(&directory, &format!("--model {run} --input {data}/test.tsv"));
    let ids: Vec<String> = (0..12).map(|i| (3 * i).to_string()).collect();
    assert_eq!(lines.iter().map(|line| line["id"].as_str().unwrap()).collect::<Vec<_>>(), ids);
}

#[test]
fn numbers_of_pairs_are_those_that_an_evaluation_scores() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("data");
    let header = "index\tsentence1\tsentence2\tscore";
    let grade = |a: &str, b: &str| 2.5 * f64::from(u8::from(is_marked(a)) + u8::from(is_marked(b)));
    let row = |i: u64, a: &str, b: &str, grade: &f64| format!("{i}\t{a}\t{b}\t{grade:.3}");
    write(&folder, "train.tsv", &pairs(header, 0, 60, grade, row));
    write(&folder, "dev.tsv", &pairs(header, 500, 30, grade, row));
    let task = format!("--task stsb --data {}", folder.display());
    let run = tuned(&directory, &task);
    let dev = folder.join("dev.tsv");
    let (lines, _) = predicted(&directory, &format!("--model {run} --input {}", dev.display()));
    // The shortest decimal of a number in single precision stands for that number.
    let said: Vec<f64> = lines.iter().map(|line| f64::from(line["value"].as_f64().unwrap() as f32)).collect();
    let rows = text_of(dev);
    let gold: Vec<f64> = rows.lines().skip(1).map(|row| row.rsplit('\t').next().unwrap().parse().unwrap()).collect();
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let covariance = |a: &[f64], b: &[f64]| {
        let (mean_a, mean_b) = (mean(a), mean(b));
        a.iter().zip(b).map(|(a, b)| (a - mean_a) * (b - mean_b)).sum::<f64>()
    };
    let pearson = covariance(&said, &gold) / (covariance(&said, &said) * covariance(&gold, &gold)).sqrt();
    let metric = evaluated(&run, &task)["pearson"].as_f64().unwrap();
    assert!((metric - pearson).abs() < 1e-12, "{metric} {pearson}");
}

#[test]
fn labels_of_pairs_are_those_that_an_evaluation_scores() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("MRPC");
    let header = "\u{feff}Quality\t#1 ID\t#2 ID\t#1 String\t#2 String";
    let same = |a: &str, b: &str| u8::from(is_marked(a) || is_marked(b));
    // A quotation mark is part of a text, and a ragged row is left out of an evaluation.
    let row = |i: u64, a: &str, b: &str, label: &u8| match i {
        507 => format!("{label}\t{a}\r"),
        _ => format!("{label}\t{i}\t{i}\t\"{a}\t{b}\r"),
    };
    write(&folder, "train.tsv", &pairs(header, 0, 60, same, row));
    write(&folder, "dev.tsv", &pairs(header, 500, 30, same, row));
    let task = format!("--task mrpc --data {}", directory.path().display());
    let run = tuned(&directory, &task);
    let (lines, summary) = predicted(&directory, &format!("--model {run} --input {}/dev.tsv", folder.display()));
    assert_eq!((lines.len(), &summary["unusable"]), (30, &json!(1)));
    assert_eq!(lines[7], json!({"label": null, "error": "2 columns, not 5"}));
    let labels: Vec<&str> = lines.iter().filter_map(|line| line["label"].as_str()).collect();
    let predictions = text_of(format!("{run}/predictions.tsv"));
    let scored: Vec<&str> = predictions.lines().skip(1).map(|line| line.split('\t').nth(1).unwrap()).collect();
    assert_eq!(labels, scored);
    assert_eq!(evaluated(&run, &task)["examples"], json!(29));
    // The order of the columns decides.
    let swapped = "--columns #2,#1";
    let reverse = rows_of_pairs(&folder.join("dev.tsv"));
    write(&folder, "reverse.csv", &reverse);
    let (other, _) =
        predicted(&directory, &format!("--model {run} --input {}/reverse.csv {swapped}", folder.display()));
    let probabilities = |lines: &[Value]| -> Vec<Value> {
        let usable = lines.iter().filter(|line| line["label"].is_string());
        usable.map(|line| line["probabilities"].clone()).collect()
    };
    assert_eq!(probabilities(&lines), probabilities(&other));
}

/// The usable rows of MRPC's TSV as CSV, the second text first.
fn rows_of_pairs(tsv: &Path) -> String {
    let rows = text_of(tsv);
    let cells = rows.lines().skip(1).map(|row| row.trim_end().split('\t').collect::<Vec<_>>());
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let rows =
        cells.filter(|cells| cells.len() == 5).map(|cells| format!("{},{}\n", quoted(cells[4]), quoted(cells[3])));
    "#1,#2\n".to_owned() + &rows.collect::<String>()
}

#[test]
fn answers_are_those_that_an_evaluation_scores_with_their_places() {
    for unanswerable in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let data = squad(&directory.path().join("data"), unanswerable);
        let (name, file) = if unanswerable { ("squad2", "dev-v2.0.json") } else { ("squad", "dev-v1.1.json") };
        let input = format!("{data}/{file}");
        // A character of two bytes: places count characters.
        let marked = text_of(&input).replace("basgen", "bäsgen");
        fs::write(&input, &marked).unwrap();
        let run = tuned(&directory, &format!("--task {name} --data {data} --doc-stride 6 --max-length 24 --n-best 3"));
        let (lines, summary) = predicted(&directory, &format!("--model {run} --input {input}"));
        let predictions = json_file(format!("{run}/predictions.json"));
        let nbest = json_file(format!("{run}/nbest_predictions.json"));
        let questions: Value = serde_json::from_str(&marked).unwrap();
        let paragraphs = questions["data"][0]["paragraphs"].as_array().unwrap();
        assert_eq!((lines.len(), paragraphs.len()), (12, 12));
        let mut table = "question,context,id\n".to_owned();
        for (line, paragraph) in lines.iter().zip(paragraphs) {
            let (context, qa) = (paragraph["context"].as_str().unwrap(), &paragraph["qas"][0]);
            let id = qa["id"].as_str().unwrap();
            let answer = line["answer"].as_str().unwrap();
            assert_eq!((line["id"].as_str(), &predictions[id]), (Some(id), &json!(answer)));
            match (line["start"].as_u64(), line["end"].as_u64()) {
                (Some(start), Some(end)) => {
                    let text: String = context.chars().skip(start as usize).take((end - start) as usize).collect();
                    assert_eq!(text, answer);
                }
                place => assert!(answer.is_empty() && place == (None, None), "{line}"),
            }
            let candidate = |text: &str| nbest[id].as_array().unwrap().iter().find(|c| c["text"] == text).unwrap();
            assert_eq!(line["score"], candidate(answer)["probability"]);
            assert_eq!(line.get("no_answer"), unanswerable.then(|| &candidate("")["probability"]));
            table.push_str(&format!("{},{context},{id}\n", qa["question"].as_str().unwrap()));
        }
        let silent = lines.iter().filter(|line| line["answer"] == "").count();
        assert_eq!(summary["without_answer"], json!(silent));
        // The same questions as columns.
        let path = directory.path().join("questions.csv");
        fs::write(&path, table).unwrap();
        assert_eq!(predicted(&directory, &format!("--model {run} --input {}", path.display())).0, lines);
    }
}

#[test]
fn a_model_of_transformers_has_the_probabilities_of_its_pipeline() {
    // from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline
    // m = AutoModelForSequenceClassification.from_pretrained(f"tests/golden/{kind}/classifier")
    // t = AutoTokenizer.from_pretrained(f"tests/golden/{kind}")
    // p = pipeline("text-classification", model=m, tokenizer=t, top_k=None)
    // p([text])[0]; p([{"text": "taltul lordil", "text_pair": "basgen starkel lis"}])[0]
    let expected = [
        (
            "bert",
            [
                [0.598_811_626, 0.229_421_362, 0.171_767_056],
                [0.586_472_452, 0.207_454_801, 0.206_072_718],
                [0.611_258_984, 0.214_624_032, 0.174_116_954],
            ],
            [0.573_666_632, 0.230_490_744, 0.195_842_668],
        ),
        (
            "roberta",
            [
                [0.314_030_319, 0.345_648_259, 0.340_321_422],
                [0.306_939_840, 0.410_306_215, 0.282_753_944],
                [0.306_051_850, 0.310_798_854, 0.383_149_296],
            ],
            [0.307_352_453, 0.319_264_978, 0.373_382_539],
        ),
    ];
    let close = |line: &Value, expected: [f64; 3]| {
        for (i, expected) in expected.into_iter().enumerate() {
            let found = line["probabilities"][format!("LABEL_{i}")].as_f64().unwrap();
            assert!((found - expected).abs() < 1e-5, "{line}: {i} is not {expected}");
        }
    };
    for (kind, single, pair) in expected {
        let directory = tempfile::tempdir().unwrap();
        let model = copy_of_classifier(kind, &directory.path().join("model"));
        fs::write(at(&directory, "texts.txt"), "taltul lordil basgen\n\nDurbastan, rolstir! folsta lis").unwrap();
        fs::write(at(&directory, "pairs.tsv"), "b\ta\nbasgen starkel lis\ttaltul lordil\n").unwrap();
        let of = |line: &str| predicted(&directory, &format!("--model {model} --precision f32 {line}")).0;
        let lines = of(&format!("--input {}", at(&directory, "texts.txt")));
        assert_eq!(lines.len(), 3);
        lines.iter().zip(single).for_each(|(line, expected)| close(line, expected));
        close(&of(&format!("--input {} --columns a,b", at(&directory, "pairs.tsv")))[0], pair);
        // Other names for the same outputs.
        let lines = of(&format!("--input {} --labels x,y,z", at(&directory, "texts.txt")));
        assert!(
            lines[0]["probabilities"]["x"].as_f64().unwrap() > 0.3
                && lines[0]["probabilities"].get("LABEL_0").is_none()
        );
    }
}

#[test]
fn every_record_has_a_line_in_order_whatever_the_form() {
    let directory = tempfile::tempdir().unwrap();
    let model = copy_of_classifier("bert", &directory.path().join("model"));
    // Lengths in no order, so that batches of similar lengths mix the records.
    let texts: Vec<String> = (0..40).map(|i| if i % 7 == 3 { String::new() } else { sentence(i) }).collect();
    let write = |name: &str, text: String| {
        fs::write(at(&directory, name), text).unwrap();
        at(&directory, name)
    };
    let text = write("texts.txt", texts.join("\n") + "\n");
    let (expected, summary) = predicted(&directory, &format!("--model {model} --input {text}"));
    assert_eq!((expected.len(), &summary["unusable"]), (40, &json!(0)));
    assert_eq!(expected[3]["probabilities"], expected[10]["probabilities"], "an empty text is a text");
    let rows = |row: &dyn Fn(&str) -> String| texts.iter().map(|text| row(text)).collect::<String>();
    let tsv = write("texts.tsv", "n\ttext\n".to_owned() + &rows(&|text| format!("\"\t{text}\n")));
    let csv = write("texts.csv", "text,n\r\n".to_owned() + &rows(&|text| format!("\"{text}\",\"a\nb,\"\r\n")));
    let lines = write("texts.jsonl", rows(&|text| json!({"n": [1], "text": text}).to_string() + "\n"));
    for input in [&tsv, &csv, &lines] {
        assert_eq!(
            predicted(&directory, &format!("--model {model} --input {input} --columns text")).0,
            expected,
            "{input}"
        );
    }
    let bare = write("bare.tsv", rows(&|text| format!("x\t{text}\n")));
    let line = format!("--model {model} --input {bare} --columns 1 --no-header");
    assert_eq!(predicted(&directory, &line).0, expected);

    // From stdin to stdout, where nothing else appears.
    let piped = tamt_reading(&format!("predict --model {model} --input - --output -"), &bytes(&text)).success();
    let piped = String::from_utf8(piped.get_output().stdout.clone()).unwrap();
    let mut rows = piped.lines();
    let header = "label\tscore\tprobabilities.LABEL_0\tprobabilities.LABEL_1\tprobabilities.LABEL_2";
    assert_eq!(rows.next(), Some(header));
    for (row, expected) in rows.by_ref().zip(&expected) {
        let cells: Vec<&str> = row.split('\t').collect();
        let number = |i: usize| json!(cells[i].parse::<f64>().unwrap());
        assert_eq!((json!(cells[0]), number(1)), (expected["label"].clone(), expected["score"].clone()));
        assert_eq!(number(4), expected["probabilities"]["LABEL_2"]);
    }
    assert_eq!(piped.lines().count(), 41);
    let line = format!("predict --model {model} --input - --output - --output-format jsonl");
    let piped = tamt_reading(&line, b"").success();
    assert!(piped.get_output().stdout.is_empty());
}

#[test]
fn a_model_of_ones_own_task_knows_its_columns() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("data");
    let task = "name = \"own\"\nkind = \"classification\"\nlabels = [\"bad\", \"good\"]\n[files]\ntrain = \"train.csv\"\n\
         dev = \"dev.csv\"\n[columns]\nid = \"key\"\nfirst = \"left\"\nsecond = \"right\"\nlabel = \"verdict\"\n";
    let verdict = |a: &str, b: &str| if is_marked(a) == is_marked(b) { "good" } else { "bad" };
    let row = |i: u64, a: &str, b: &str, label: &&str| format!("k{i},{label},{a},{b}");
    for (name, from, n) in [("train.csv", 0, 40), ("dev.csv", 500, 20)] {
        write(&folder, name, &pairs("key,verdict,left,right", from, n, verdict, row));
    }
    write(&folder, "task.toml", task);
    let folder = folder.display();
    let run = tuned(&directory, &format!("--task-file {folder}/task.toml --data {folder}"));
    let config = json_file(format!("{run}/config.json"));
    let columns =
        json!({"header": true, "id": {"column": "key", "required": true}, "first": "left", "second": "right"});
    let inputs = json!([{"files": ["dev.csv", "train.csv"], "format": "csv", "columns": columns}]);
    assert_eq!(config["tamt_task"], json!({"name": "own", "max_length": 40, "inputs": inputs}));

    let (lines, _) = predicted(&directory, &format!("--model {run} --input {folder}/dev.csv"));
    assert!(lines[0]["id"] == "k500" && lines[0]["probabilities"]["good"].is_number());
    // Another form with the same names, and a declaration in place of the model's own.
    let rows =
        pairs("", 500, 20, verdict, |i, a, b, _| json!({"key": format!("k{i}"), "left": a, "right": b}).to_string());
    fs::write(at(&directory, "new.jsonl"), rows.trim_start()).unwrap();
    let new = at(&directory, "new.jsonl");
    for flags in ["", &format!("--task-file {folder}/task.toml")] {
        assert_eq!(predicted(&directory, &format!("--model {run} --input {new} {flags}")).0, lines);
    }
    for (line, expected) in [
        ("--input texts.txt", "the model takes pairs of texts"),
        ("--input texts.csv --columns left", "the model takes pairs of texts: name two columns"),
    ] {
        let line = format!("predict --model {run} --output {} {line}", at(&directory, "x.tsv"));
        tamt(&line).code(2).stdout(is_empty()).stderr(contains(expected));
    }
}

#[test]
fn what_cannot_be_predicted_is_refused_and_leaves_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let model = copy_of_classifier("bert", &directory.path().join("model"));
    let bare = copy_of_bert(&directory.path().join("bare"));
    let tokens = copy_of_classifier("bert", &directory.path().join("tokens"));
    let config = text_of(format!("{tokens}/config.json"));
    fs::write(format!("{tokens}/config.json"), config.replace("ForSequenceClassification", "ForTokenClassification"))
        .unwrap();
    let file = |name: &str, text: &str| {
        fs::write(at(&directory, name), text).unwrap();
        at(&directory, name)
    };
    let text = file("texts.txt", "taltul\n");
    let csv = file("texts.csv", "a,b\ntaltul,lordil\n");
    let twice = file("twice.tsv", "a\tb\ta\ntaltul\tlordil\tlis\n");
    let broken = file("broken.csv", &("text,n\n".to_owned() + &"taltul,1\n".repeat(50) + "\"lordil\n"));
    let ragged = file("ragged.tsv", &("a\tb\n".to_owned() + &"x\n".repeat(3) + &"x\ty\n".repeat(20)));
    let output = at(&directory, "out/labels.tsv");
    fs::create_dir(directory.path().join("out")).unwrap();
    for (line, code, expected) in [
        (format!("--model {bare} --input {text}"), 1, "no head to predict with: it holds a BertForMaskedLM with cls."),
        (format!("--model {tokens} --input {text}"), 1, "its head is that of a BertForTokenClassification"),
        (format!("--model {model} --input {csv}"), 2, "--columns: nothing says which column"),
        (format!("--model {model} --input {csv} --columns c"), 1, "no column \"c\"; its columns are \"a\", \"b\""),
        (
            format!("--model {model} --input {twice} --columns a"),
            1,
            "twice.tsv:1: column \"a\" stands twice in the header",
        ),
        (format!("--model {model} --input {csv} --columns a,b,c"), 2, "name one column, or the two of a pair"),
        (format!("--model {model} --input {text} --columns a"), 2, "is no table"),
        (format!("--model {model} --input {text} --format squad"), 2, "SQuAD's JSON holds questions"),
        (format!("--model {model} --input {text} --labels a,b"), 2, "--labels: 2 labels do not name the 3 outputs"),
        (format!("--model {model} --input {text} --labels a,b,a"), 2, "--labels: \"a\" is given twice"),
        (format!("--model {model} --input {text}x"), 1, "cannot read"),
        (format!("--model {model} --input {text} --max-length 41"), 2, "--max-length: 41 tokens do not fit the model"),
        (format!("--model {model} --input x.parquet"), 2, "is Parquet"),
        (
            format!("--model {model} --input {broken} --columns text"),
            1,
            "broken.csv:52: a quotation mark is not closed",
        ),
        (format!("--model {model} --input {ragged} --columns a"), 1, "ragged.tsv:2: 1 columns, not 2; 3 of 23 rows"),
        (format!("--model {model} --input {text} --task sst2"), 1, "its head has 3 outputs, and sst2 needs 2"),
    ] {
        let line = format!("predict {line} --output {output}");
        tamt(&line).code(code).stdout(is_empty()).stderr(contains(expected).and(contains("panicked").not()));
        assert_eq!(fs::read_dir(directory.path().join("out")).unwrap().count(), 0, "{line}");
    }
    let line = format!("predict --model {model} --input {text} --output - --json");
    tamt(&line).code(2).stdout(is_empty()).stderr(contains("--output has to be a file"));
    let line = format!("predict --model {model} --input {text} --output {}", directory.path().display());
    tamt(&line).code(1).stdout(is_empty()).stderr(contains("is a directory"));
}

#[test]
fn a_signal_ends_predictions_at_once_and_leaves_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let model = copy_of_classifier("bert", &directory.path().join("model"));
    let out = directory.path().join("out");
    fs::create_dir(&out).unwrap();
    for (name, code) in [("INT", 130), ("TERM", 143)] {
        let line = format!("predict --model {model} --input - --output {}", out.join("labels.tsv").display());
        let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin("tamt"))
            .args(split(&line))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // More than a block of input: the command predicts the first block, and waits for the rest of the second.
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(&("taltul ".repeat(200) + "\n").repeat(220).into_bytes()).unwrap();
        while fs::read_dir(&out).unwrap().count() == 0 {
            assert_eq!(child.try_wait().unwrap(), None);
            std::thread::yield_now();
        }
        signal(&child, name);
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains("error: stopped by signal"), "{said}");
        assert_eq!(fs::read_dir(&out).unwrap().count(), 0);
        drop(stdin);
    }
}

#[test]
fn a_ticket_and_the_model_that_it_was_applied_to_predict_alike() {
    let directory = tempfile::tempdir().unwrap();
    let model = copy_of_classifier("bert", &directory.path().join("model"));
    let (ticket, applied) = (magnitude(&model, 0.5, &at(&directory, "ticket")), at(&directory, "applied"));
    tamt(&format!("apply --model {model} --ticket {ticket} --output-dir {applied} --quiet")).success();
    fs::write(at(&directory, "texts.txt"), (0..20).map(|i| sentence(i) + "\n").collect::<String>()).unwrap();
    let input = format!("--input {} --precision f32 --kernel dense", at(&directory, "texts.txt"));
    let dense = predicted(&directory, &format!("--model {model} {input}")).0;
    let sparse = predicted(&directory, &format!("--model {model} --ticket {ticket} {input}")).0;
    assert_ne!(dense, sparse);
    assert_eq!(predicted(&directory, &format!("--model {applied} {input}")).0, sparse);
}
