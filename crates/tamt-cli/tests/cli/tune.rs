//! Fine-tuning on tasks: the reported scores are those of the written model.

use std::fs;
use std::path::Path;

use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use serde_json::{Map, Value, json};

use crate::common::{Tensors, at, bert, bytes, golden, json_file, keeps, magnitude, masked, object, record_of, tamt};
use crate::task_files::{cola, is_marked, pairs, scores, sentence, squad, with_pooler, write};

/// Long enough to learn a word, short enough for a test.
const COURSE: &str = "--learning-rate 5e-3 --batch-size 8 --max-steps 60 --eval-every 20 --logging-steps 10";

/// Fine-tunes and returns the result, after a comparison with `eval_results.json`.
#[track_caller]
fn tune(line: &str, output: &str) -> Map<String, Value> {
    let result = object(&tamt(&format!("tune {line} --output-dir {output} --json --quiet")).success());
    assert_eq!(json_file(format!("{output}/eval_results.json")), Value::Object(result.clone()));
    result
}

/// Evaluates the written model, and expects each metric to equal the one in `result` with `prefix` before its name.
#[track_caller]
fn evaluates_as(result: &Map<String, Value>, prefix: &str, output: &str, task: &str) -> Map<String, Value> {
    let evaluated = object(&tamt(&format!("eval --model {output} {task} --json --quiet")).success());
    let metrics: Vec<_> = evaluated.iter().filter(|(name, _)| !["task", "examples"].contains(&name.as_str())).collect();
    assert!(metrics.len() > 1, "{evaluated:?}");
    for (name, value) in metrics {
        assert_eq!(Some(value), result.get(&format!("{prefix}{name}")), "{name}: {evaluated:?} of {result:?}");
    }
    evaluated
}

/// Expects the weights that a ticket drops to be exactly zero in the written model, and trained weights to have changed.
#[track_caller]
fn pruned_weights_are_zero(ticket: &str, base: &str, output: &str) {
    let ticket = Tensors::read(format!("{ticket}/ticket.safetensors"));
    let base = Tensors::read(format!("{base}/model.safetensors"));
    let tuned = Tensors::read(format!("{output}/model.safetensors"));
    let mut matrices = 0;
    for name in ticket.names() {
        let family = if base.header.contains_key(&masked("bert", &name)) { "bert" } else { "roberta" };
        let weight = &masked(family, &name);
        if !tuned.header.contains_key(weight) {
            assert!(weight.ends_with("pooler.dense.weight"), "{weight} is lost");
            continue;
        }
        let cols = tuned.shape(weight)[1];
        let (bits, before, after) = (ticket.bytes(&name), base.floats(weight), tuned.floats(weight));
        let (mut moved, mut kept) = (0, 0);
        for (i, (before, after)) in before.iter().zip(&after).enumerate() {
            if keeps(bits, cols, i / cols, i % cols) {
                kept += 1;
                moved += usize::from(before != after);
            } else {
                assert_eq!(after.to_bits(), 0, "{weight}[{i}]");
            }
        }
        // Only the embeddings of words in the training set change.
        let expected = if weight.contains("word_embeddings") { 0 } else { kept / 2 };
        assert!(moved > expected, "{weight}: {moved} of {kept} kept weights have moved");
        matrices += 1;
    }
    assert!(matrices > 12, "{matrices}");
}

#[test]
fn a_tuned_ticket_is_a_model_that_evaluates_as_was_reported() {
    let directory = tempfile::tempdir().unwrap();
    let (run, half) = (at(&directory, "run"), at(&directory, "half"));
    let data = cola(&directory.path().join("tasks/CoLA"));
    magnitude(&bert(), 0.5, &half);
    // The directory of the task, or one of several tasks.
    let line = format!("--model {} --ticket {half} --task CoLA --data {} {COURSE}", bert(), at(&directory, "tasks"));
    let result = tune(&line, &run);
    assert_eq!(
        (&result["task"], &result["train_examples"], &result["steps"]),
        (&json!("cola"), &json!(96), &json!(60))
    );
    // The model has a new pooler for the task, which the ticket does not prune.
    assert_eq!((&result["encoder_sparsity"], &result["sparsity"]), (&json!(0.5), &json!(0.5)));
    assert!(result["best_matthews_correlation"].as_f64().unwrap() > 0.6, "it learns: {result:?}");

    let evaluated = evaluates_as(&result, "best_", &run, &format!("--task cola --data {data}"));
    assert_eq!((&evaluated["task"], &evaluated["examples"]), (&json!("cola"), &json!(40)));
    let kept = at(&directory, "kept");
    tamt(&format!("eval --model {run} --task cola --data {data} --output-dir {kept}")).success();
    let (measured, tuned) = (record_of(&kept), record_of(&run));
    for input in ["tokenizer-sha256", "dev-sha256"] {
        assert_eq!(measured[input], tuned[input], "{input}");
    }
    assert_eq!(object(&tamt(&format!("eval --config {kept}/config.toml --json --quiet")).success()), evaluated);
    pruned_weights_are_zero(&half, &bert(), &run);

    let config = json_file(format!("{run}/config.json"));
    assert_eq!(config["id2label"], json!({"0": "0", "1": "1"}));
    assert_eq!(config["architectures"], json!(["BertForSequenceClassification"]));
    assert_eq!(config["problem_type"], "single_label_classification");
    for name in ["vocab.txt", "tokenizer.json", "log.jsonl", "config.toml"] {
        assert!(Path::new(&run).join(name).is_file(), "{name}");
    }

    let predictions = Path::new(&run).join("predictions.tsv");
    let lines = String::from_utf8(bytes(&predictions)).unwrap();
    assert_eq!((lines.lines().count(), lines.lines().next()), (41, Some("index\tprediction\tlabel")));
    let (_, _, matthews) = scores(&predictions, "1");
    assert!((matthews - result["best_matthews_correlation"].as_f64().unwrap()).abs() < 1e-12, "{matthews}");

    let state = json_file(format!("{run}/trainer_state.json"));
    assert_eq!(state["best_metric"], result["best_matthews_correlation"]);
    assert_eq!(state["best_global_step"], result["best_step"]);
    assert_eq!((&state["global_step"], &state["train_batch_size"]), (&json!(60), &json!(8)));
    let history = state["log_history"].as_array().unwrap();
    let at_best = history.iter().find(|entry| {
        entry["step"] == result["best_step"]
            && entry.get("eval_matthews_correlation") == result.get("best_matthews_correlation")
    });
    assert!(at_best.is_some(), "{history:?}");
}

#[test]
fn a_metric_has_its_value_of_the_best_and_of_the_final_model() {
    let directory = tempfile::tempdir().unwrap();
    let data = cola(directory.path());
    let task = format!("--task cola --data {data}");
    let (best, last) = (at(&directory, "best"), at(&directory, "last"));
    // The rate is so small that the loss changes and the score does not, so the first evaluation stays the best one.
    let line = format!("--model {} {task} --batch-size 8 --learning-rate 1e-6 --max-steps 12 --eval-every 4", bert());
    let result = tune(&line, &best);
    assert_eq!((&result["best_step"], &result["steps"]), (&json!(4), &json!(12)));
    assert_ne!(result["best_loss"], result["loss"]);
    evaluates_as(&result, "best_", &best, &task);

    let result = tune(&format!("{line} --keep final"), &last);
    assert_eq!(result["best_step"], json!(4));
    evaluates_as(&result, "", &last, &task);
    assert_ne!(bytes(format!("{best}/model.safetensors")), bytes(format!("{last}/model.safetensors")));
}

#[test]
fn early_stopping_ends_a_run_whose_score_does_not_rise() {
    let directory = tempfile::tempdir().unwrap();
    let (data, run) = (cola(directory.path()), at(&directory, "run"));
    let line = format!(
        "--model {} --task cola --data {data} --batch-size 8 --learning-rate 1e-6 --max-steps 400 --eval-every 4",
        bert()
    );
    let result = tune(&format!("{line} --early-stopping 2"), &run);
    assert_eq!((&result["best_step"], &result["steps"]), (&json!(4), &json!(12)));
    evaluates_as(&result, "best_", &run, &format!("--task cola --data {data}"));
}

#[test]
fn several_seeds_have_a_run_each_and_a_mean_and_a_deviation() {
    let directory = tempfile::tempdir().unwrap();
    let (data, run, alone) = (cola(directory.path()), at(&directory, "run"), at(&directory, "alone"));
    let line = format!(
        "tune --model {} --task cola --data {data} --batch-size 8 --learning-rate 5e-3 --max-steps 20 --json --quiet",
        bert()
    );
    let result = object(&tamt(&format!("{line} --seeds 1,2 --output-dir {run}")).success());
    let runs: Vec<Value> = [1, 2].map(|seed| json_file(format!("{run}/seed-{seed}/eval_results.json"))).to_vec();
    assert_eq!((&result["seeds"], &result["runs"]), (&json!([1, 2]), &json!(runs)));
    assert_ne!(runs[0]["loss"], runs[1]["loss"]);
    let [a, b] = [0, 1].map(|i| runs[i]["loss"].as_f64().unwrap());
    let (mean, std) = (result["mean"]["loss"].as_f64().unwrap(), result["std"]["loss"].as_f64().unwrap());
    assert!((mean - f64::midpoint(a, b)).abs() < 1e-12 && (std - (a - b).abs() / 2f64.sqrt()).abs() < 1e-12);
    assert!(result["mean"].get("seed").is_none() && result["mean"].get("matthews_correlation").is_some());

    // One seed of --seeds is the seed of the run, in its record too.
    tamt(&format!("{line} --seeds 2 --output-dir {alone}")).success();
    assert_eq!(record_of(&alone)["seed"], 2.into());
    let weights = |directory: &str| bytes(format!("{directory}/model.safetensors"));
    assert_eq!(weights(&alone), weights(&format!("{run}/seed-2")));
    let again = object(&tamt(&format!("{line} --seeds 1,2 --output-dir {run} --resume")).success());
    assert_eq!(again, result);
}

#[test]
fn a_small_training_set_is_the_same_for_a_ticket_and_for_the_dense_model() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("data");
    cola(&folder);
    // Sentence i has i words, so that the number of tokens tells which sentences were seen.
    let rows: String = (1..=30).map(|i| format!("made\t{}\t\t{}\n", i % 2, vec!["lis"; i].join(" "))).collect();
    write(&folder, "train.tsv", &rows);
    let half = at(&directory, "half");
    magnitude(&bert(), 0.5, &half);
    let seen = |name: &str, flags: &str| {
        let run = at(&directory, name);
        let data = folder.display();
        let line = format!("--model {} --task cola --data {data} --batch-size 8 --epochs 1 {flags}", bert());
        let result = tune(&line, &run);
        (
            result["train_examples"].clone(),
            json_file(format!("{run}/trainer_state.json"))["num_input_tokens_seen"].clone(),
        )
    };
    let mut of_seeds = Vec::new();
    for n in [1, 4] {
        for seed in [1, 2, 3] {
            let flags = format!("--train-examples {n} --seed {seed}");
            let dense = seen(&format!("dense-{n}-{seed}"), &flags);
            assert_eq!(dense.0, json!(n));
            assert_eq!(dense, seen(&format!("ticket-{n}-{seed}"), &format!("{flags} --ticket {half}")));
            of_seeds.push(dense);
        }
    }
    assert!(of_seeds[..3].iter().any(|seen| seen != &of_seeds[0]), "other seeds, other sentences: {of_seeds:?}");
    // One epoch of all: 30 sentences of 1 to 30 words between two special tokens.
    assert_eq!(seen("all", ""), (json!(30), json!(30 * 31 / 2 + 2 * 30)));
}

#[test]
fn similarity_is_a_number() {
    let directory = tempfile::tempdir().unwrap();
    let (folder, run) = (directory.path().join("data"), at(&directory, "run"));
    let header = "index\tsentence1\tsentence2\tscore";
    let grade = |a: &str, b: &str| 2.5 * f64::from(u8::from(is_marked(a)) + u8::from(is_marked(b)));
    let row = |i: u64, a: &str, b: &str, grade: &f64| format!("{i}\t{a}\t{b}\t{grade:.3}");
    write(&folder, "train.tsv", &pairs(header, 0, 80, grade, row));
    write(&folder, "dev.tsv", &pairs(header, 500, 30, grade, row));
    let task = format!("--task stsb --data {}", folder.display());
    let result = tune(&format!("--model {} {task} {COURSE}", bert()), &run);
    evaluates_as(&result, "best_", &run, &task);
    assert!(result["best_pearson"].as_f64().unwrap() > 0.5, "{result:?}");
    assert!(result.contains_key("spearmanr") && result.contains_key("loss"));
    let config = json_file(format!("{run}/config.json"));
    assert_eq!((&config["problem_type"], &config["id2label"]), (&json!("regression"), &json!({"0": "LABEL_0"})));
    let predictions = String::from_utf8(bytes(format!("{run}/predictions.tsv"))).unwrap();
    for line in predictions.lines().skip(1) {
        let [_, said, label] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line:?}") };
        assert!((0.0..=5.0).contains(&said.parse::<f64>().unwrap()) && ["0.000", "2.500", "5.000"].contains(&label));
    }
}

#[test]
fn pairs_are_judged_by_accuracy_and_f1() {
    let directory = tempfile::tempdir().unwrap();
    let (folder, run) = (directory.path().join("MRPC"), at(&directory, "run"));
    let header = "\u{feff}Quality\t#1 ID\t#2 ID\t#1 String\t#2 String";
    let same = |a: &str, b: &str| u8::from(is_marked(a) || is_marked(b));
    let row = |i: u64, a: &str, b: &str, label: &u8| format!("{label}\t{i}\t{i}\t\"{a}\t{b}\r");
    write(&folder, "train.tsv", &pairs(header, 0, 80, same, row));
    write(&folder, "dev.tsv", &pairs(header, 500, 30, same, row));
    let task = format!("--task mrpc --data {}", directory.path().display());
    let result = tune(&format!("--model {} {task} {COURSE}", bert()), &run);
    evaluates_as(&result, "best_", &run, &task);
    let (accuracy, f1, _) = scores(&Path::new(&run).join("predictions.tsv"), "1");
    assert!((accuracy - result["best_accuracy"].as_f64().unwrap()).abs() < 1e-12);
    assert!((f1 - result["best_f1"].as_f64().unwrap()).abs() < 1e-12);
}

#[test]
fn mnli_has_two_sets_to_evaluate_on_and_two_for_the_server() {
    let directory = tempfile::tempdir().unwrap();
    let (folder, run) = (directory.path().join("data"), at(&directory, "run"));
    let labels = ["contradiction", "entailment", "neutral"];
    let label = |a: &str, b: &str| labels[usize::from(is_marked(a)) + usize::from(is_marked(b))];
    let row = |i: u64, a: &str, b: &str, label: &&str| format!("{i}\t{a}\t{b}\t{label}");
    for (name, from, n) in [("train", 0, 80), ("dev_matched", 500, 20), ("dev_mismatched", 600, 25)] {
        let rows = pairs("index\tsentence1\tsentence2\tgold_label", from, n, label, row);
        write(&folder, &format!("{name}.tsv"), &rows);
    }
    for (name, from, n) in [("test_matched", 700, 5), ("test_mismatched", 800, 6)] {
        let rows = pairs("index\tsentence1\tsentence2", from, n, label, |i, a, b, _| format!("{i}\t{a}\t{b}"));
        write(&folder, &format!("{name}.tsv"), &rows);
    }
    let task = format!("--task mnli --data {}", folder.display());
    let result = tune(&format!("--model {} {task} {COURSE} --predict-test", bert()), &run);
    let evaluated = evaluates_as(&result, "best_", &run, &task);
    assert_eq!(evaluated["examples"], json!(45));
    for (name, suffix, n) in [("predictions.tsv", "", 20.0), ("predictions_mm.tsv", "_mm", 25.0)] {
        let (accuracy, _, _) = scores(&Path::new(&run).join(name), "neutral");
        let reported = result[&format!("best_accuracy{suffix}")].as_f64().unwrap();
        assert!((accuracy - reported).abs() < 1e-12 && (accuracy * n).fract() < 1e-9, "{name}");
    }
    for (name, first, lines) in [("MNLI-m.tsv", "700", 6), ("MNLI-mm.tsv", "800", 7)] {
        let text = String::from_utf8(bytes(format!("{run}/test_predictions/{name}"))).unwrap();
        assert_eq!((text.lines().count(), text.lines().next()), (lines, Some("index\tprediction")), "{name}");
        let (index, said) = text.lines().nth(1).unwrap().split_once('\t').unwrap();
        assert!(index == first && labels.contains(&said), "{text}");
    }
}

#[test]
fn predictions_for_the_server_carry_the_names_of_the_test_file() {
    let directory = tempfile::tempdir().unwrap();
    let (data, run) = (cola(directory.path()), at(&directory, "run"));
    tune(&format!("--model {} --task cola --data {data} {COURSE} --predict-test", bert()), &run);
    let text = String::from_utf8(bytes(format!("{run}/test_predictions/CoLA.tsv"))).unwrap();
    let rows: Vec<(&str, &str)> = text.lines().map(|line| line.split_once('\t').unwrap()).collect();
    assert_eq!(rows[0], ("index", "prediction"));
    let indices: Vec<String> = (0..12).map(|i| (3 * i).to_string()).collect();
    assert_eq!(rows[1..].iter().map(|row| row.0).collect::<Vec<_>>(), indices);
    let right = rows[1..].iter().zip(2000..).filter(|(row, i)| (row.1 == "1") == is_marked(&sentence(*i))).count();
    assert!(right >= 9, "it learns: {right} of 12");
}

#[test]
fn answers_are_pieces_of_their_contexts() {
    let directory = tempfile::tempdir().unwrap();
    let (data, run) = (squad(directory.path(), false), at(&directory, "run"));
    let task = format!("--task squad --data {data} --doc-stride 6 --max-length 24 --n-best 3");
    let result = tune(&format!("--model {} {task} {COURSE}", bert()), &run);
    evaluates_as(&result, "best_", &run, &task);
    let predictions = json_file(format!("{run}/predictions.json"));
    let nbest = json_file(format!("{run}/nbest_predictions.json"));
    let questions = json_file(format!("{data}/dev-v1.1.json"));
    let mut exact = 0;
    let paragraphs = questions["data"][0]["paragraphs"].as_array().unwrap();
    for paragraph in paragraphs {
        let (context, qa) = (paragraph["context"].as_str().unwrap(), &paragraph["qas"][0]);
        let id = qa["id"].as_str().unwrap();
        let said = predictions[id].as_str().unwrap();
        assert!(!said.is_empty() && context.contains(said), "{said:?} of {context:?}");
        let candidates = nbest[id].as_array().unwrap();
        assert!((1..=3).contains(&candidates.len()) && candidates[0]["text"] == said, "{candidates:?}");
        exact += usize::from(qa["answers"][0]["text"] == said);
    }
    let expected = 100.0 * exact as f64 / paragraphs.len() as f64;
    assert!((result["best_exact_match"].as_f64().unwrap() - expected).abs() < 1e-9, "{result:?}, not {expected}");
    assert!(!Path::new(&run).join("null_odds.json").exists());
    let config = json_file(format!("{run}/config.json"));
    assert_eq!(config["architectures"], json!(["BertForQuestionAnswering"]));
}

#[test]
fn questions_may_have_no_answer_and_the_threshold_decides() {
    let directory = tempfile::tempdir().unwrap();
    let (data, run) = (squad(directory.path(), true), at(&directory, "run"));
    let task = format!("--task squad2 --data {data}");
    let result = tune(&format!("--model {} {task} {COURSE}", bert()), &run);
    evaluates_as(&result, "best_", &run, &task);
    let (odds, said) = (json_file(format!("{run}/null_odds.json")), json_file(format!("{run}/predictions.json")));
    for (id, odds) in odds.as_object().unwrap() {
        assert_eq!(odds.as_f64().unwrap() > 0.0, said[id] == "", "{id}");
    }
    assert_eq!(odds.as_object().unwrap().len(), 12);
    for (threshold, right) in [("-1e9", 100.0), ("1e9", 0.0)] {
        let line = format!("eval --model {run} {task} --null-threshold {threshold} --json --quiet");
        assert_eq!(object(&tamt(&line).success())["NoAns_exact_match"], json!(right), "{threshold}");
    }
}

#[test]
fn a_task_of_ones_own_in_csv_and_in_json_lines() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("data");
    let label = |a: &str, _: &str| if is_marked(a) { "good" } else { "bad" };
    let row = |i: u64, a: &str, _: &str, label: &&str| {
        if i.is_multiple_of(2) { format!("{a},{label}") } else { format!("\"{a},\",{label}") }
    };
    write(&folder, "train.csv", &pairs("text,verdict", 0, 80, label, row));
    write(&folder, "dev.csv", &pairs("text,verdict", 500, 30, label, row));
    write(
        directory.path(),
        "verdicts.toml",
        "name = 'verdicts'\nkind = 'classification'\nlabels = ['bad', 'good']\nmetrics = ['accuracy', 'f1']\n\
         primary = 'f1'\n[files]\ntrain = 'train.csv'\ndev = 'dev.csv'\n[columns]\nfirst = 'text'\nlabel = 'verdict'\n",
    );
    let task = format!("--task-file {} --data {}", at(&directory, "verdicts.toml"), folder.display());
    let run = at(&directory, "verdicts");
    let result = tune(&format!("--model {} {task} {COURSE}", bert()), &run);
    assert_eq!((&result["task"], &result["primary_metric"]), (&json!("verdicts"), &json!("f1")));
    evaluates_as(&result, "best_", &run, &task);
    let (accuracy, f1, _) = scores(&Path::new(&run).join("predictions.tsv"), "good");
    assert!((accuracy - result["best_accuracy"].as_f64().unwrap()).abs() < 1e-12 && accuracy > 0.7, "{result:?}");
    assert!((f1 - result["best_f1"].as_f64().unwrap()).abs() < 1e-12);
    assert_eq!(json_file(format!("{run}/config.json"))["id2label"], json!({"0": "bad", "1": "good"}));

    let count = |a: &str, b: &str| u8::from(is_marked(a)) + u8::from(is_marked(b));
    let row = |i: u64, a: &str, b: &str, n: &u8| json!({"name": format!("n{i}"), "a": a, "b": b, "n": n}).to_string();
    let lines = |from, n| pairs("", from, n, count, row).trim_start().to_owned();
    write(&folder, "train.jsonl", &lines(0, 80));
    write(&folder, "dev.jsonl", &lines(500, 30));
    write(&folder, "test.jsonl", &lines(700, 4));
    write(
        directory.path(),
        "counts.toml",
        "name = 'counts'\nkind = 'regression'\n[files]\ntrain = 'train.jsonl'\ndev = 'dev.jsonl'\n\
         test = 'test.jsonl'\n[columns]\nid = 'name'\nfirst = 'a'\nsecond = 'b'\nlabel = 'n'\n[defaults]\n\
         batch_size = 8\nlearning_rate = 5e-3\nepochs = 4\n",
    );
    let task = format!("--task-file {} --data {}", at(&directory, "counts.toml"), folder.display());
    let run = at(&directory, "counts");
    let result = tune(&format!("--model {} {task} --predict-test", bert()), &run);
    assert_eq!(result["steps"], json!(40), "80 examples, batches of 8, 4 epochs");
    evaluates_as(&result, "best_", &run, &task);
    let text = String::from_utf8(bytes(format!("{run}/test_predictions/counts.tsv"))).unwrap();
    assert!(text.starts_with("index\tprediction\nn700\t"), "{text}");
}

#[test]
fn a_teacher_pulls_the_student_to_itself() {
    let directory = tempfile::tempdir().unwrap();
    let (data, half) = (cola(directory.path()), at(&directory, "half"));
    magnitude(&bert(), 0.5, &half);
    let task = format!("--task cola --data {data}");
    let teacher = at(&directory, "teacher");
    let dense = tune(&format!("--model {} {task} {COURSE}", bert()), &teacher);
    assert!(dense["best_matthews_correlation"].as_f64().unwrap() > 0.6, "{dense:?}");

    let line = format!("--model {} --ticket {half} {task} {COURSE}", bert());
    let (alone, taught) = (at(&directory, "alone"), at(&directory, "taught"));
    tune(&line, &alone);
    tune(&format!("{line} --teacher {teacher}"), &taught);
    let log = fs::read_to_string(format!("{taught}/log.jsonl")).unwrap();
    let losses: Vec<f64> =
        log.lines().filter_map(|line| serde_json::from_str::<Value>(line).unwrap().get("kd_loss")?.as_f64()).collect();
    assert!(losses.len() == 6 && losses[5] < 0.7 * losses[0], "{losses:?}");
    assert_ne!(bytes(format!("{alone}/model.safetensors")), bytes(format!("{taught}/model.safetensors")));
    pruned_weights_are_zero(&half, &bert(), &taught);
    assert!(!fs::read_to_string(format!("{alone}/log.jsonl")).unwrap().contains("kd_loss"));

    let without = format!("tune {line} --teacher {} --output-dir {}", bert(), at(&directory, "without"));
    tamt(&without).code(1).stderr(contains("it has no head for cola; it was not fine-tuned"));
    tamt(&format!("tune {line} --kd-temperature 3 --output-dir {}", at(&directory, "without")))
        .code(2)
        .stderr(contains("--teacher"));
    let nothing = at(&directory, "nothing");
    tamt(&format!("tune {line} --teacher {teacher} --kd-logits-weight 0 --kd-hidden-weight 0 --output-dir {nothing}"))
        .code(2)
        .stderr(contains("--kd-logits-weight: with --kd-hidden-weight 0 too, the teacher teaches nothing"));
    assert!(!Path::new(&nothing).exists());
}

#[test]
fn both_families_learn_sentences_and_spans_with_a_ticket_that_masks_the_pooler() {
    let directory = tempfile::tempdir().unwrap();
    let data = cola(&directory.path().join("CoLA"));
    let spans = squad(&directory.path().join("squad"), false);
    for family in ["bert", "roberta"] {
        let (model, half) = (at(&directory, format!("{family}-model")), at(&directory, format!("{family}-half")));
        with_pooler(&golden(family), Path::new(&model));
        magnitude(&model, 0.5, &half);
        let bits = Tensors::read(format!("{half}/ticket.safetensors"));
        assert!(bits.header.contains_key("pooler.dense.weight.bitmask"), "{:?}", bits.names());
        for (task, pooled) in
            [(format!("--task cola --data {data}"), family == "bert"), (format!("--task squad --data {spans}"), false)]
        {
            let run = at(&directory, format!("{family}-{}", task.len()));
            let result = tune(&format!("--model {model} --ticket {half} {task} {COURSE}"), &run);
            evaluates_as(&result, "best_", &run, &task);
            pruned_weights_are_zero(&half, &model, &run);
            let written = Tensors::read(format!("{run}/model.safetensors"));
            assert_eq!(
                written.header.contains_key(&format!("{family}.pooler.dense.weight")),
                pooled,
                "{family} {task}"
            );
        }
    }
}

#[test]
fn a_tuned_model_is_tuned_further_with_its_head() {
    let directory = tempfile::tempdir().unwrap();
    let data = cola(directory.path());
    let task = format!("--task cola --data {data}");
    let (first, second, fresh) = (at(&directory, "first"), at(&directory, "second"), at(&directory, "fresh"));
    tune(&format!("--model {} {task} {COURSE}", bert()), &first);
    // The rates are so small that the result depends on the initial head only.
    let line = format!("--model {first} {task} --learning-rate 1e-12 --max-steps 1");
    let result = tune(&line, &second);
    let evaluated = object(&tamt(&format!("eval --model {first} {task} --json --quiet")).success());
    assert_eq!(result["matthews_correlation"], evaluated["matthews_correlation"]);
    let result = tune(&format!("{line} --new-head"), &fresh);
    assert_ne!(result["loss"], evaluated["loss"]);
    // Without `--json`, the same numbers as a table.
    let text = tamt(&format!("eval --model {first} {task}")).success();
    text.stdout(contains("examples (dev)").and(contains("matthews_correlation")));
}
