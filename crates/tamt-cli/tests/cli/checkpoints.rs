//! Models in the layouts of other programs: read as those read them, and written again whole.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use serde_json::{Value, json};

use crate::common::{
    Tensors, at, bert, change_json, copy_of_bert, corpus, json_file, magnitude, object, split, tamt, tamt_command,
};
use crate::task_files::{cola, with_pooler};

/// The flags of a small task.
fn task(directory: &tempfile::TempDir) -> String {
    format!("--task cola --data {}", cola(&directory.path().join("data")))
}

#[test]
fn an_applied_ticket_of_a_tuned_model_evaluates_as_model_and_ticket_do() {
    let directory = tempfile::tempdir().unwrap();
    let base = with_pooler(&bert(), &directory.path().join("base"));
    let task = task(&directory);
    let [tuned, ticket, applied] = ["tuned", "ticket", "applied"].map(|name| at(&directory, name));
    let course = "--learning-rate 5e-3 --batch-size 8 --max-steps 20";
    tamt(&format!("tune --model {base} {task} {course} --output-dir {tuned} --quiet")).success();
    magnitude(&tuned, 0.5, &ticket);
    tamt(&format!("apply --model {tuned} --ticket {ticket} --output-dir {applied}")).success();
    assert_eq!(json_file(format!("{applied}/config.json")), json_file(format!("{tuned}/config.json")));
    let evaluation = |model: &str| object(&tamt(&format!("eval --model {model} {task} --json --quiet")).success());
    let (through_ticket, through_zeros) = (evaluation(&format!("{tuned} --ticket {ticket}")), evaluation(&applied));
    for (name, value) in &through_ticket {
        let near = |value: &Value| value.as_f64().map(|value| (value * 1e4).round());
        assert_eq!(near(value), near(&through_zeros[name]), "{name}");
    }
}

#[test]
fn the_type_of_written_weights_is_said_in_all_places() {
    let directory = tempfile::tempdir().unwrap();
    let base = with_pooler(&bert(), &directory.path().join("base"));
    change_json(format!("{base}/config.json"), |config| config["torch_dtype"] = json!("bfloat16"));
    let dtypes = |output: &str| {
        let config = json_file(format!("{output}/config.json"));
        (config["dtype"].clone(), config["torch_dtype"].clone())
    };
    let ticket = at(&directory, "ticket");
    magnitude(&base, 0.5, &ticket);
    let mut outputs = Vec::new();
    for (dtype, in_file, name) in
        [("", "F32", "float32"), ("--dtype bf16", "BF16", "bfloat16"), ("--dtype f16", "F16", "float16")]
    {
        let output = at(&directory, name);
        let line = format!("apply --model {base} --ticket {ticket} --output-dir {output} {dtype}");
        let result = object(&tamt(&format!("{line} --json")).success());
        let count = Tensors::read(format!("{output}/model.safetensors")).names().len();
        assert_eq!(result["dtypes"], json!({in_file: count}));
        assert_eq!(dtypes(&output), (json!(name), json!(name)));
        outputs.push(output);
    }
    // A ticket of the copy prunes the same weights: zeros are the smallest magnitudes.
    let again = at(&directory, "again");
    magnitude(&outputs[1], 0.5, &again);
    let bits = |run: &str| Tensors::read(format!("{run}/ticket.safetensors")).data;
    assert_eq!(bits(&again), bits(&ticket));

    let (tuned, pretrained) = (at(&directory, "tuned"), at(&directory, "pretrained"));
    let task = task(&directory);
    tamt(&format!("tune --model {} {task} --max-steps 1 --output-dir {tuned} --quiet", outputs[1])).success();
    let course = "--max-steps 1 --batch-size 2 --block-size 16";
    let corpus = corpus();
    tamt(&format!("pretrain --model {} --corpus {corpus} {course} --output-dir {pretrained}", outputs[1])).success();
    for output in [&tuned, &pretrained] {
        assert_eq!(dtypes(output), (json!("float32"), json!("float32")));
    }
}

#[test]
fn a_decoder_of_its_own_matters_only_where_something_is_decoded() {
    let directory = tempfile::tempdir().unwrap();
    let model = copy_of_bert(&directory.path().join("untied"));
    let path = format!("{model}/model.safetensors");
    let mut weights = Tensors::read(&path);
    let size = 96 * 16 * 4;
    let start = weights.data.len();
    let info = json!({"dtype": "F32", "shape": [96, 16], "data_offsets": [start, start + size]});
    weights.header.insert("cls.predictions.decoder.weight".to_owned(), info);
    weights.data.resize(start + size, 0);
    weights.write(&path);

    let note = "the MLM head is left out, because its `cls.predictions.decoder.weight` is not tied";
    let [vectors, run, kd, applied] = ["v.safetensors", "run", "kd", "applied"].map(|name| at(&directory, name));
    tamt(&format!("encode --model {model} --input {} --output {vectors}", corpus())).success().stdout(contains(note));
    magnitude(&model, 0.5, &run);
    let course = format!("--sparsity 0.5 --corpus {} --max-steps 1 --batch-size 2 --block-size 16", corpus());
    tamt(&format!("find --model {model} --method tamt-kd {course} --output-dir {kd}")).success();
    let refusal = "MLM decoder cls.predictions.decoder.weight of its own";
    let (mlm, pretrained) = (at(&directory, "mlm"), at(&directory, "pretrained"));
    tamt(&format!("find --model {model} --method tamt-mlm {course} --output-dir {mlm}"))
        .code(1)
        .stderr(contains(refusal).and(contains("pretrain").not()));
    let course = format!("--corpus {} --max-steps 1 --batch-size 2 --block-size 16", corpus());
    for part in ["head", "all"] {
        tamt(&format!("pretrain --model {model} --train {part} {course} --output-dir {pretrained}-{part}"))
            .code(1)
            .stderr(contains(refusal));
    }
    let evaluation = format!("eval --model {model} --corpus {} --block-size 16", corpus());
    let result = object(&tamt(&format!("{evaluation} --json")).success());
    assert!(!result.contains_key("mlm_loss"), "{result:?}");
    tamt(&format!("{evaluation} --objective mlm")).code(1).stderr(contains(refusal));

    tamt(&format!("apply --model {model} --ticket {run} --output-dir {applied}")).success();
    let written = Tensors::read(format!("{applied}/model.safetensors"));
    assert_eq!(written.names(), weights.names(), "the head is written again");
}

#[cfg(unix)]
#[test]
fn paths_that_are_not_utf_8_are_read_and_written() {
    use std::os::unix::ffi::OsStringExt;
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join(OsString::from_vec(b"d\xe9j\xe0".to_vec()));
    fs::create_dir(&root).unwrap();
    let base = with_pooler(&bert(), &directory.path().join("base"));
    let model = root.join("model");
    fs::rename(&base, &model).unwrap();
    let run = |line: &str, paths: &[(&str, &Path)]| {
        let mut command = tamt_command();
        command.args(split(line)).arg("--json");
        for (flag, path) in paths {
            command.arg(flag).arg(path);
        }
        object(&command.assert().success())
    };
    let (ticket, task, text) = (root.join("ticket"), task(&directory), corpus());
    let of_model = |flag: &'static str, output: &'static str| [("--model", model.clone()), (flag, root.join(output))];
    let runs = [
        ("find --method magnitude --sparsity 0.5".to_owned(), of_model("--output-dir", "ticket")),
        (format!("tune {task} --max-steps 1"), of_model("--output-dir", "tuned")),
        (format!("tune {task} --max-steps 1 --seeds 1,2"), of_model("--output-dir", "seeds")),
        (
            format!("pretrain --corpus {text} --max-steps 1 --batch-size 2 --block-size 16"),
            of_model("--output-dir", "pretrained"),
        ),
        (format!("encode --input {text}"), of_model("--output", "vectors.safetensors")),
    ];
    for (line, paths) in runs {
        let [(model_flag, model), (flag, output)] = &paths;
        let result = run(&line, &[(*model_flag, model), (*flag, output)]);
        let key = if *flag == "--output" { "output" } else { "output_dir" };
        assert_eq!(result[key], json!(output.to_string_lossy()), "{line}");
        assert!(output.exists(), "{line}");
    }
    let line =
        format!("find --method tamt-kd --sparsity 0.5 --corpus {text} --max-steps 1 --batch-size 2 --block-size 16");
    let again = root.join("from-ticket");
    let result = run(&line, &[("--model", &model), ("--init", &ticket), ("--output-dir", &again)]);
    assert_eq!(result["output_dir"], json!(again.to_string_lossy()));
    let resumed =
        run(&format!("{line} --resume"), &[("--model", &model), ("--init", &ticket), ("--output-dir", &again)]);
    assert_eq!(resumed, result);
    let invented = root.join("invented");
    let result = run("demo", &[("--data-only", &invented)]);
    assert_eq!(result["output_dir"], json!(invented.to_string_lossy()));
    let applied = root.join("applied");
    let result = run("apply", &[("--model", &model), ("--ticket", &ticket), ("--output-dir", &applied)]);
    assert_eq!(result["output_dir"], json!(applied.to_string_lossy()));
}

#[test]
fn a_directory_that_is_no_model_says_what_it_holds() {
    let directory = tempfile::tempdir().unwrap();
    let model = at(&directory, "run");
    fs::create_dir(&model).unwrap();
    let output = at(&directory, "v.safetensors");
    let line = format!("encode --model {model} --input {} --output {output}", corpus());
    tamt(&line).code(1).stderr(contains("it has no config.json; it is empty"));
    fs::copy(Path::new(&bert()).join("vocab.txt"), format!("{model}/vocab.txt")).unwrap();
    fs::write(format!("{model}/trainer.log"), "").unwrap();
    tamt(&line).code(1).stderr(contains("it has no config.json, but trainer.log, vocab.txt"));
}
