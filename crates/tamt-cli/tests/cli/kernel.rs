//! Kernels and precisions: the kernel of masked matrices changes the last bits of a result at the most, the precision
//! changes a result a little.

use predicates::str::{contains, is_empty};

use crate::common::{at, bert, bytes, corpus, magnitude, object, tamt};
use crate::task_files::cola;

const KERNELS: [&str; 3] = ["dense", "sparse", "auto"];

#[test]
fn mask_training_finds_the_same_ticket_with_either_kernel() {
    let directory = tempfile::tempdir().unwrap();
    let tickets = KERNELS.map(|kernel| {
        let run = at(&directory, kernel);
        tamt(&format!(
            "find --model {} --method tamt-mlm-kd --sparsity 0.7 --corpus {} --output-dir {run} --max-steps 12 --batch-size 4 \
             --block-size 16 --learning-rate 2e-3 --rethreshold-every 5 --kernel {kernel} --precision f32 --quiet",
            bert(),
            corpus()
        ))
        .success();
        bytes(format!("{run}/ticket.safetensors"))
    });
    assert!(tickets[0] == tickets[1] && tickets[0] == tickets[2], "the tickets differ");
}

#[test]
fn a_ticket_and_its_checkpoint_with_zeros_give_the_same_numbers_with_either_kernel() {
    let directory = tempfile::tempdir().unwrap();
    let (half, applied) = (at(&directory, "ticket"), at(&directory, "applied"));
    magnitude(&bert(), 0.7, &half);
    tamt(&format!("apply --model {} --ticket {half} --output-dir {applied}", bert())).success();
    let mut results = Vec::new();
    for kernel in KERNELS {
        for model in [format!("{} --ticket {half}", bert()), applied.clone()] {
            let vectors = at(&directory, "vectors.safetensors");
            tamt(&format!(
                "encode --model {model} --input {} --output {vectors} --kernel {kernel} --precision f32",
                corpus()
            ))
            .success();
            results.push(bytes(vectors));
        }
    }
    assert!(results.iter().all(|vectors| *vectors == results[0]), "the vectors differ");

    let evaluate = |kernel| {
        let line = format!("eval --model {} --ticket {half} --corpus {} --block-size 16", bert(), corpus());
        object(&tamt(&format!("{line} --kernel {kernel} --precision f32 --json")).success())
    };
    assert_eq!(evaluate("dense"), evaluate("sparse"));
}

#[test]
fn fine_tuning_by_the_sparse_kernel_learns_the_same_and_depends_on_no_thread() {
    let directory = tempfile::tempdir().unwrap();
    let (half, data) = (at(&directory, "ticket"), cola(&directory.path().join("CoLA")));
    magnitude(&bert(), 0.7, &half);
    let tune = |name: &str, flags: &str| {
        let run = at(&directory, name);
        let line = format!(
            "tune --model {} --ticket {half} --task cola --data {data} --learning-rate 5e-3 --batch-size 8 --max-steps 30 \
             --dropout 0 --keep final --output-dir {run} {flags} --json --quiet",
            bert()
        );
        let loss = object(&tamt(&line).success())["loss"].as_f64().unwrap();
        (loss, bytes(format!("{run}/model.safetensors")))
    };
    let (dense, _) = tune("dense", "--kernel dense --precision f32");
    for (precision, tolerance) in [("f32", 1e-5), ("bf16", 1e-2)] {
        let [(one, weights), (two, same_weights)] = ["1", "2"].map(|threads| {
            let flags = format!("--kernel sparse --precision {precision} --threads {threads}");
            tune(&format!("{precision}-{threads}"), &flags)
        });
        assert!((one - dense).abs() <= tolerance * dense, "{precision}: {one} and {dense}");
        assert_eq!(one, two);
        assert!(weights == same_weights, "the weights differ");
    }
}

#[test]
fn bf16_is_recorded_near_f32_and_the_same_for_any_number_of_threads() {
    let directory = tempfile::tempdir().unwrap();
    let find = |name: &str, flags: &str| {
        let run = at(&directory, name);
        let line = format!(
            "find --model {} --method tamt-mlm-kd --sparsity 0.7 --corpus {1} --eval-corpus {1} --output-dir {run} --max-steps 12 \
             --batch-size 4 --block-size 16 --learning-rate 2e-3 --rethreshold-every 5 {flags} --json --quiet",
            bert(),
            corpus()
        );
        let loss = object(&tamt(&line).success())["mlm_loss"].as_f64().unwrap();
        (loss, bytes(format!("{run}/ticket.safetensors")))
    };
    let (exact, _) = find("f32", "--precision f32");
    let (one, ticket) = find("one", "--precision bf16 --threads 1");
    let (two, same_ticket) = find("two", "--precision bf16 --threads 2");
    assert!(exact != one && (exact - one).abs() < 1e-2 * exact, "{one} and {exact}");
    assert_eq!(one, two);
    assert!(ticket == same_ticket, "the tickets differ");
    let recorded = String::from_utf8(bytes(at(&directory, "one/config.toml"))).unwrap();
    assert!(recorded.contains("precision = \"bf16\"\n"), "{recorded}");
}

#[test]
fn flags_for_text_beside_a_task_and_the_other_way_round_are_refused() {
    let model = bert();
    for line in [
        "--task cola --data DIR --objective kd",
        "--task cola --data DIR --mlm-head pretrained",
        "--task cola --data DIR --block-size 16",
        "--corpus FILE --max-length 16",
        "--corpus FILE --kernel csr",
    ] {
        let flag = line.split(' ').rev().nth(1).unwrap();
        tamt(&format!("eval --model {model} {line}")).code(2).stdout(is_empty()).stderr(contains(flag));
    }
}
