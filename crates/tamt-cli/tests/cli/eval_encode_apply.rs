//! A model under a ticket: evaluated, used to encode texts, and written as a checkpoint.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use predicates::str::{contains, is_empty};

use crate::common::{
    Tensors, at, bert, bytes, change_json, copy_of_bert, copy_of_classifier, corpus, golden, json_file, keeps,
    magnitude, magnitude_line, object, record_of, split, tamt, tamt_in, tamt_reading,
};

fn evaluation() -> String {
    format!("eval --model {} --corpus {} --block-size 16 --json", bert(), corpus())
}

#[test]
fn the_dense_model_is_at_no_distance_from_itself_and_a_ticket_is() {
    let directory = tempfile::tempdir().unwrap();
    let dense = object(&tamt(&evaluation()).success());
    assert_eq!((&dense["kd_cosine"], &dense["kd_mse"]), (&0.0.into(), &0.0.into()));
    // 1656 tokens in 119 windows of at most 14, and two special tokens around each.
    assert_eq!(dense["tokens"], 1656 + 2 * 119);
    let loss = dense["mlm_loss"].as_f64().unwrap();
    assert_eq!(dense["perplexity"], loss.exp());

    let ticket = magnitude(&bert(), 0.7, &at(&directory, "ticket"));
    let sparse = object(&tamt(&format!("{} --ticket {ticket}", evaluation())).success());
    assert!(sparse["kd_cosine"].as_f64().unwrap() > 0.001 && sparse["mlm_loss"] != dense["mlm_loss"], "{sparse:?}");
}

#[test]
fn losses_are_those_that_pytorch_computed() {
    // The column "PyTorch" of tests/golden/check_losses.py: MLM loss, share of masked tokens that are predicted, 1 - cos
    // and squared difference of hidden states; dense and with magnitude masks at 70 %.
    let expected = [
        ("bert", None, [4.967_037_38, 1.0 / 243.0, 0.0, 0.0]),
        ("bert", Some(0.7), [4.944_920_05, 3.0 / 243.0, 0.088_895_321_6, 0.191_403_341]),
        ("roberta", None, [5.811_626_70, 0.0, 0.0, 0.0]),
        ("roberta", Some(0.7), [5.789_326_96, 8.0 / 386.0, 0.110_010_669, 0.222_299_275]),
    ];
    let directory = tempfile::tempdir().unwrap();
    for (kind, sparsity, losses) in expected {
        let mut line = format!("eval --model {} --corpus {} --block-size 16 --precision f32", golden(kind), corpus());
        if let Some(sparsity) = sparsity {
            let run = magnitude(&golden(kind), sparsity, &at(&directory, kind));
            line.push_str(&format!(" --ticket {run}"));
        }
        let found = object(&tamt(&format!("{line} --json")).success());
        for (key, expected) in ["mlm_loss", "mlm_accuracy", "kd_cosine", "kd_mse"].into_iter().zip(losses) {
            let value = found[key].as_f64().unwrap();
            assert!((value - expected).abs() < 1e-6, "{kind} {sparsity:?} {key}: {value}, not {expected}");
        }
    }
}

#[test]
fn a_result_is_kept_with_the_settings_that_measure_it_again_and_is_not_written_over() {
    let directory = tempfile::tempdir().unwrap();
    let (ticket, kept) = (magnitude(&bert(), 0.7, &at(&directory, "ticket")), at(&directory, "kept"));
    let line = format!("{} --ticket {ticket} --max-tokens 500 --output-dir {kept}", evaluation());
    let printed = object(&tamt(&line).success());
    let mut written = json_file(format!("{kept}/eval_results.json"));
    assert_eq!(written.as_object_mut().unwrap().remove("output_dir"), Some(kept.clone().into()));
    assert_eq!(written, serde_json::Value::Object(printed));
    let (record, search) = (record_of(&kept), record_of(&ticket));
    for input in ["base-sha256", "tokenizer-sha256"] {
        assert_eq!(record[input], search[input], "{input}");
    }
    let again = object(&tamt(&format!("eval --config {kept}/config.toml --json")).success());
    assert_eq!(written, serde_json::Value::Object(again));
    tamt(&line).code(1).stderr(contains("already holds a run"));
}

#[test]
fn only_the_objectives_asked_for_are_measured() {
    for (objective, mlm, kd) in [("mlm", true, false), ("kd", false, true), ("all", true, true)] {
        let result = object(&tamt(&format!("{} --objective {objective}", evaluation())).success());
        let has = |keys: &[&str]| keys.iter().filter(|key| result.contains_key(**key)).count();
        assert_eq!(has(&["mlm_loss", "perplexity", "mlm_accuracy", "masked_tokens"]), if mlm { 4 } else { 0 });
        assert_eq!(has(&["kd_cosine", "kd_mse"]), if kd { 2 } else { 0 });
        assert!(result.contains_key("tokens"));
    }
}

#[test]
fn the_seed_decides_which_tokens_are_masked() {
    let loss = |seed| object(&tamt(&format!("{} --seed {seed}", evaluation())).success())["mlm_loss"].clone();
    assert_eq!(loss(42), object(&tamt(&evaluation()).success())["mlm_loss"]);
    assert_ne!(loss(42), loss(43));
}

#[test]
fn a_prefix_of_the_text_is_evaluated_when_asked_for_and_that_is_said() {
    let limited = tamt(&format!("{} --max-tokens 140", evaluation())).success();
    assert_eq!(object(&limited)["tokens"], 140 + 2 * 10);
    limited.stderr(contains("only the first 140 of 1,656 tokens of the text are evaluated"));
    let all = object(&tamt(&evaluation()).success());
    assert_eq!(object(&tamt(&format!("{} --max-tokens 99999", evaluation())).success()), all);
}

#[test]
fn a_ticket_is_evaluated_with_the_head_that_was_trained_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let run = at(&directory, "mlm");
    let found = object(
        &tamt(&format!(
            "find --model {} --method tamt-mlm --sparsity 0.7 --corpus {1} --eval-corpus {1} --output-dir {run} \
             --max-steps 20 --batch-size 4 --block-size 16 --learning-rate 1e-2 --json",
            bert(),
            corpus()
        ))
        .success(),
    );
    let loss = |head: &str| {
        object(&tamt(&format!("{} --ticket {run} --mlm-head {head}", evaluation())).success())["mlm_loss"].clone()
    };
    assert_ne!(found["mlm_loss"], found["mlm_loss_trained_head"]);
    assert_eq!(loss("pretrained"), found["mlm_loss"]);
    assert_eq!(loss("ticket"), found["mlm_loss_trained_head"]);
    assert_eq!(loss(&format!("{run}/mlm_head.safetensors")), found["mlm_loss_trained_head"]);
    tamt(&format!("{} --mlm-head ticket", evaluation()))
        .code(2)
        .stdout(is_empty())
        .stderr(contains("there is no --ticket"));
}

#[test]
fn vectors_come_in_the_order_of_the_lines_and_pools_agree_with_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let lines: Vec<String> = fs::read_to_string(corpus()).unwrap().lines().take(3).map(str::to_owned).collect();
    let input = format!("{}\r\n\n{}\n{}", lines[0], lines[1], lines[2]);
    let encode = |pool: &str| {
        let output = at(&directory, format!("{pool}.safetensors"));
        let line = format!("encode --model {} --input - --output {output} --pool {pool} --json", bert());
        let result = object(&tamt_reading(&line, input.as_bytes()).success());
        // The blank line is a text as well, so that the index of a vector is the number of its line.
        assert_eq!((&result["texts"], &result["hidden_size"]), (&4.into(), &16.into()));
        Tensors::read(output)
    };
    let (none, cls, mean) = (encode("none"), encode("cls"), encode("mean"));
    assert_eq!(none.names(), ["text.0", "text.1", "text.2", "text.3"]);
    assert_eq!((cls.shape("embeddings"), mean.shape("embeddings")), (vec![4, 16], vec![4, 16]));
    assert_eq!(none.shape("text.1"), [2, 16]);
    for text in 0..4 {
        let states = none.floats(&format!("text.{text}"));
        let row = |tensors: &Tensors| tensors.floats("embeddings")[16 * text..][..16].to_vec();
        assert_eq!(row(&cls), states[..16], "text {text}");
        let tokens = states.len() / 16;
        for (column, &value) in row(&mean).iter().enumerate() {
            let sum: f64 = (0..tokens).map(|token| f64::from(states[16 * token + column])).sum();
            assert_eq!(value, (sum / tokens as f64) as f32, "text {text}, column {column}");
        }
    }

    let (file, output) = (at(&directory, "texts.txt"), at(&directory, "file.safetensors"));
    fs::write(&file, input).unwrap();
    tamt(&format!("encode --model {} --input {file} --output {output} --pool mean", bert())).success();
    assert_eq!(Tensors::read(output).data, mean.data);
}

#[test]
fn texts_are_cut_to_the_length_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let output = at(&directory, "cut.safetensors");
    let line = format!("encode --model {} --input {} --output {output} --pool none", bert(), corpus());
    tamt(&format!("{line} --max-length 5")).success();
    let cut = Tensors::read(output);
    assert!(cut.names().iter().all(|name| cut.shape(name)[0] <= 5));
    tamt(&format!("{line} --max-length 41")).code(2).stderr(contains("--max-length: 41 tokens do not fit the model"));
    for length in [1, 2] {
        let expected = format!("--max-length: {length} tokens leave no room for text beside 2 special tokens");
        tamt(&format!("{line} --max-length {length}")).code(2).stderr(contains(expected));
    }
}

#[test]
fn an_applied_ticket_is_a_model_with_zeros_that_encodes_as_model_and_ticket_do() {
    let directory = tempfile::tempdir().unwrap();
    let (ticket, applied) = (magnitude(&bert(), 0.7, &at(&directory, "ticket")), at(&directory, "applied"));
    let line = format!("apply --model {} --ticket {ticket} --output-dir {applied}", bert());
    let result = object(&tamt(&format!("{line} --json")).success());
    assert_eq!(result["output_dir"], applied);
    let masks = Tensors::read(format!("{ticket}/ticket.safetensors"));
    let (dense, sparse) =
        (Tensors::read(bert() + "/model.safetensors"), Tensors::read(format!("{applied}/model.safetensors")));
    assert_eq!(dense.names(), sparse.names());
    for name in dense.names() {
        let (mut expected, shape) = (dense.floats(&name), dense.shape(&name));
        let mask = format!("{}.bitmask", name.trim_start_matches("bert."));
        if masks.header.contains_key(&mask) {
            let bits = masks.bytes(&mask);
            for (i, weight) in expected.iter_mut().enumerate() {
                if !keeps(bits, shape[1], i / shape[1], i % shape[1]) {
                    *weight = 0.0;
                }
            }
        }
        assert_eq!(sparse.floats(&name), expected, "{name}");
    }
    assert!(Path::new(&applied).join("vocab.txt").is_file());

    let encode = |model: &str, output: &str| {
        let output = at(&directory, output);
        tamt(&format!("encode --model {model} --input {} --output {output}", corpus())).success();
        Tensors::read(output).floats("embeddings")
    };
    let (through_ticket, through_zeros) =
        (encode(&format!("{} --ticket {ticket}", bert()), "a.safetensors"), encode(&applied, "b.safetensors"));
    let far = through_ticket.iter().zip(&through_zeros).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(far < 1e-5, "{far}");
    assert_ne!(encode(&bert(), "c.safetensors"), through_zeros);

    tamt(&line).code(1).stdout(is_empty()).stderr(contains("already holds config.json"));
}

#[test]
fn vectors_are_not_written_over_what_is_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let encode = |output: &str| tamt(&format!("encode --model {} --input {} --output {output}", bert(), corpus()));
    encode(&at(&directory, "")).code(1).stderr(contains("is a directory"));
    encode(&at(&directory, "no/such/place.safetensors")).code(1).stderr(contains("there is no directory"));
    if Path::new("/dev/full").exists() {
        encode("/dev/full").code(1).stderr(contains("is no regular file"));
    }
    tamt_in(&directory, &format!("encode --model {} --input {} --output -", bert(), corpus()))
        .code(2)
        .stdout(is_empty())
        .stderr(contains("--output: vectors are written to a file, not to stdout"));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn what_a_command_reads_is_not_written_over() {
    let directory = tempfile::tempdir().unwrap();
    let model = copy_of_classifier("bert", &directory.path().join("model"));
    let ticket = magnitude(&model, 0.5, &at(&directory, "ticket"));
    let [texts, link, second] = ["texts.tsv", "link.tsv", "second.tsv"].map(|name| at(&directory, name));
    fs::write(&texts, "text\ntaltul lordil\n").unwrap();
    symlink(&texts, &link).unwrap();
    fs::hard_link(&texts, &second).unwrap();
    let (weights, masks) = (format!("{model}/model.safetensors"), format!("{ticket}/ticket.safetensors"));
    let tokenizer = format!("{model}/tokenizer.json");
    let read = [&texts, &weights, &masks, &tokenizer];
    let content = read.map(bytes);
    let outputs = [
        (&texts, "--input"),
        (&link, "--input"),
        (&second, "--input"),
        (&weights, "--model"),
        (&tokenizer, "--model"),
        (&masks, "--ticket"),
    ];
    for verb in ["encode", "predict"] {
        let line = format!("{verb} --model {model} --ticket {ticket}");
        for (output, flag) in outputs {
            let expected = format!("--output: {output} is a file of {flag}");
            tamt(&format!("{line} --input {texts} --output {output}"))
                .code(2)
                .stdout(is_empty())
                .stderr(contains(expected));
        }
        let mut command = Command::new(assert_cmd::cargo::cargo_bin("tamt"));
        command.args(split(&format!("{line} --input - --output {texts}"))).stdin(File::open(&texts).unwrap());
        assert_eq!(command.output().unwrap().status.code(), Some(2), "{verb}");
    }
    assert_eq!(read.map(bytes), content);
    // What a command wrote itself is no input.
    for _ in 0..2 {
        let output = format!("{model}/vectors.safetensors");
        tamt(&format!("encode --model {model} --input {texts} --output {output}")).success();
    }
}

#[test]
fn vectors_that_are_not_finite_are_no_result() {
    let directory = tempfile::tempdir().unwrap();
    let model = copy_of_bert(&directory.path().join("model"));
    let mut weights = Tensors::read(format!("{model}/model.safetensors"));
    let row = &mut weights.bytes_mut("bert.encoder.layer.0.attention.self.value.weight")[..4 * 16];
    row.as_chunks_mut::<4>().0.fill(3e38_f32.to_le_bytes());
    weights.write(format!("{model}/model.safetensors"));
    for pool in ["none", "cls", "mean"] {
        let output = at(&directory, format!("{pool}.safetensors"));
        tamt(&format!("encode --model {model} --input {} --output {output} --pool {pool}", corpus()))
            .code(1)
            .stderr(contains("the encoding of a text is not finite: the model's weights overflow"));
        assert!(!Path::new(&output).exists());
    }
}

#[test]
fn layers_that_the_configuration_leaves_out_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let model = copy_of_bert(&directory.path().join("model"));
    change_json(format!("{model}/config.json"), |config| config["num_hidden_layers"] = 1.into());
    let told =
        contains(format!("{model}: the checkpoint has 2 layers, and config.json says 1: the others are left out"));
    let output = at(&directory, "vectors.safetensors");
    tamt(&format!("encode --model {model} --input {} --output {output}", corpus())).success().stdout(told.clone());
    let find = magnitude_line(&model, 0.5, &at(&directory, "ticket"));
    tamt(find.trim_end_matches(" --quiet")).success().stdout(told);
}
