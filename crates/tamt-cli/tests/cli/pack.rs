//! Packed models: their sizes, what every verb makes of them, and the way back.

use std::fs;
use std::path::Path;

use predicates::prelude::PredicateBooleanExt;
use predicates::str::{contains, is_empty};
use serde_json::Value;

use crate::common::{Tensors, at, bert, bytes, corpus, magnitude, object, tamt};
use crate::task_files::{cola, sentence};

const WEIGHTS: &str = "model.packed.safetensors";

/// A ticket of the small BERT, and the model packed and applied in a precision.
struct Place {
    directory: tempfile::TempDir,
    ticket: String,
    packed: String,
    applied: String,
}

impl Place {
    fn new(sparsity: f32, precision: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let [ticket, packed, applied] = ["ticket", "packed", "applied"].map(|name| at(&directory, name));
        magnitude(&bert(), sparsity, &ticket);
        let of = format!("--model {} --ticket {ticket}", bert());
        tamt(&format!("pack {of} --precision {precision} --output-dir {packed} --quiet")).success();
        tamt(&format!("apply {of} --dtype {precision} --output-dir {applied} --quiet")).success();
        Self { directory, ticket, packed, applied }
    }

    fn at(&self, name: &str) -> String {
        at(&self.directory, name)
    }

    /// The file that a line writes for a model.
    fn written(&self, line: &str, model: &str) -> Vec<u8> {
        let output = self.at("written.safetensors");
        tamt(&format!("{line} --model {model} --output {output} --quiet")).success();
        bytes(output)
    }
}

#[test]
fn a_packed_model_encodes_bit_for_bit_as_base_and_ticket_do_with_either_kernel() {
    let (whole, halves) = (Place::new(0.7, "f32"), Place::new(0.7, "bf16"));
    for kernel in ["dense", "sparse", "auto"] {
        for precision in ["f32", "bf16"] {
            let line = format!("encode --pool none --input {} --kernel {kernel} --precision {precision}", corpus());
            let expected = whole.written(&line, &format!("{} --ticket {}", bert(), whole.ticket));
            assert!(whole.written(&line, &whole.packed) == expected, "{kernel} {precision}");
        }
        let line = format!("encode --pool none --input {} --kernel {kernel} --precision f32", corpus());
        assert!(halves.written(&line, &halves.packed) == halves.written(&line, &halves.applied), "{kernel}");
    }
}

#[test]
fn a_packed_model_takes_the_bytes_of_its_bits_and_its_survivors() {
    for (sparsity, most) in [(0.7, 0.75), (0.9, 0.35)] {
        let place = Place::new(sparsity, "bf16");
        let again = place.at("again");
        let line = format!("pack --model {} --ticket {} --output-dir {again}", bert(), place.ticket);
        let result = object(&tamt(&format!("{line} --json")).success());
        let number = |key: &str| result[key].as_f64().unwrap();
        assert!(number("bytes_per_prunable_weight") <= most, "{result:?}");
        assert!((number("sparsity") - f64::from(sparsity)).abs() < 0.01, "{result:?}");
        assert_eq!((&result["precision"], &result["output_dir"]), (&"bf16".into(), &again.clone().into()));
        // bf16 is what is written without a flag, and equal models are equal files.
        assert!(bytes(format!("{again}/{WEIGHTS}")) == bytes(format!("{}/{WEIGHTS}", place.packed)));
        let file = Tensors::read(format!("{again}/{WEIGHTS}"));
        let (mut weights, mut size) = (0, 0);
        for name in file.names() {
            let Some(matrix) = name.strip_suffix(".bitmask") else { continue };
            let bits = file.bytes(&name);
            let kept: usize = bits.iter().map(|byte| byte.count_ones() as usize).sum();
            assert_eq!(file.shape(&format!("{matrix}.values")), [kept]);
            // All matrices of the small BERT have whole bytes of columns.
            weights += 8 * bits.len();
            size += bits.len() + 2 * kept;
        }
        assert_eq!(number("prunable_weights"), weights as f64);
        assert_eq!(number("bytes_per_prunable_weight"), size as f64 / weights as f64);
        assert_eq!(number("file_bytes"), fs::metadata(format!("{again}/{WEIGHTS}")).unwrap().len() as f64);
        let metadata = &file.header["__metadata__"];
        assert_eq!((&metadata["format"], &metadata["version"]), (&"tamt-packed".into(), &"1".into()));
        assert_eq!(metadata["base_model"], bert());
        for key in ["base_sha256", "ticket_sha256"] {
            assert_eq!(metadata[key].as_str().unwrap().len(), 64, "{key}");
        }
    }
}

#[test]
fn an_unpacked_model_is_the_applied_one_file_by_file() {
    for precision in ["f32", "bf16"] {
        let place = Place::new(0.7, precision);
        let dense = place.at("dense");
        let result = object(&tamt(&format!("unpack --model {} --output-dir {dense} --json", place.packed)).success());
        assert_eq!(result["output_dir"], dense);
        let names = |at: &str| {
            let mut names: Vec<_> = fs::read_dir(at).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names(&dense), names(&place.applied));
        for name in names(&dense) {
            let [found, expected] = [&dense, &place.applied].map(|at| bytes(Path::new(at).join(&name)));
            assert!(found == expected, "{precision}: {}", name.display());
        }
    }
}

#[test]
fn without_a_ticket_the_zeros_of_the_model_are_what_is_pruned() {
    let place = Place::new(0.7, "f32");
    let of_zeros = place.at("of-zeros");
    let line = format!("pack --model {} --precision f32 --output-dir {of_zeros}", place.applied);
    let result = object(&tamt(&format!("{line} --json")).success());
    assert!(result["sparsity"].as_f64().unwrap() > 0.69);
    let line = format!("encode --pool none --input {}", corpus());
    assert!(place.written(&line, &of_zeros) == place.written(&line, &place.packed));
    let metadata = Tensors::read(format!("{of_zeros}/{WEIGHTS}")).header["__metadata__"].clone();
    assert_eq!(metadata.get("ticket_sha256"), None);
    // A dense model has nothing to leave out, and that is said.
    let dense = place.at("dense");
    tamt(&format!("pack --model {} --output-dir {dense}", bert()))
        .success()
        .stdout(contains("no matrix of the model has zeros to leave out"));
    let result = object(&tamt(&format!("pack --model {} --output-dir {dense}-2 --json", bert())).success());
    assert_eq!((&result["sparsity"], &result["bytes_per_prunable_weight"]), (&0.0.into(), &2.0.into()));
}

#[test]
fn every_verb_makes_the_same_of_a_packed_model_as_of_the_applied_one() {
    let place = Place::new(0.7, "f32");
    let data = cola(&place.directory.path().join("cola"));
    let text = corpus();
    // Results, without what names the model.
    let result = |line: &str, model: &str| {
        let output = place.at(&format!("out-{}", model.rsplit('/').next().unwrap()));
        let line = line.replace("MODEL", model).replace("OUT", &output);
        let mut result = object(&tamt(&format!("{line} --json --quiet")).success());
        // Settings and digests name the model.
        result.retain(|key, value| value.is_number() && key != "seconds");
        let tensors = ["ticket.safetensors", "model.safetensors", "model.onnx", "pytorch_model.bin"];
        let file = tensors.iter().map(|name| format!("{output}/{name}")).find(|path| Path::new(path).is_file());
        let contents =
            file.map(|path| if path.ends_with("safetensors") { Tensors::read(path).data } else { bytes(path) });
        fs::remove_dir_all(&output).ok();
        (Value::Object(result), contents)
    };
    let train = "--max-steps 2 --batch-size 4 --precision f32";
    for line in [
        format!("eval --model MODEL --corpus {text} --block-size 16"),
        "find --model MODEL --method magnitude --sparsity 0.8 --output-dir OUT".to_owned(),
        format!(
            "find --model MODEL --method tamt-kd --sparsity 0.8 --corpus {text} --block-size 16 {train} --output-dir OUT"
        ),
        format!("tune --model MODEL --task cola --data {data} {train} --output-dir OUT"),
        format!("pretrain --model MODEL --corpus {text} --block-size 16 {train} --output-dir OUT"),
        "export --model MODEL --format onnx --output-dir OUT".to_owned(),
        "export --model MODEL --format transformers --output-dir OUT".to_owned(),
    ] {
        let (packed, applied) = (result(&line, &place.packed), result(&line, &place.applied));
        assert_eq!(packed.0, applied.0, "{line}");
        assert!(packed.1 == applied.1, "{line}: the files differ");
    }
    // The bits of a packed model are a ticket of its base, and so are its zeros.
    let imported = |source: &str, name: &str| {
        let output = place.at(name);
        tamt(&format!("import --model {} {source} --output-dir {output} --quiet", bert())).success();
        Tensors::read(format!("{output}/ticket.safetensors")).data
    };
    let ticket = Tensors::read(format!("{}/ticket.safetensors", place.ticket)).data;
    assert!(imported(&place.packed, "of-bits") == ticket);
    let zeros = |model: &str, name: &str| imported(&format!("--zeros-of {model}"), name);
    assert!(zeros(&place.packed, "of-zeros") == zeros(&place.applied, "of-applied-zeros"));
    // Tickets of a packed model itself fit it.
    let model = &place.packed;
    let own = magnitude(model, 0.9, &place.at("own"));
    tamt(&format!("inspect {own} --model {model}")).success();
    tamt(&format!("apply --model {model} --ticket {own} --output-dir {own}-applied")).success();
    tamt(&format!("pack --model {model} --ticket {own} --precision f32 --output-dir {own}-packed")).success();
    let line = format!("encode --pool none --input {text} --precision f32");
    let expected = place.written(&line, &format!("{own}-applied"));
    assert!(place.written(&line, &format!("{model} --ticket {own}")) == expected);
    assert!(place.written(&line, &format!("{own}-packed")) == expected);
    let shape = "--batch-size 2 --length 8 --steps 1 --work inference --sparsity 0.7 --kernel sparse";
    tamt(&format!("bench --model {model} {shape} --quiet")).success();
}

#[test]
fn a_tuned_model_is_packed_with_its_head_and_predicts_what_it_predicted() {
    let place = Place::new(0.5, "f32");
    let data = cola(&place.directory.path().join("cola"));
    let [tuned, packed, unpacked] = ["tuned", "tuned-packed", "tuned-unpacked"].map(|name| place.at(name));
    let train = "--max-steps 3 --batch-size 4 --learning-rate 1e-3 --precision f32 --quiet";
    let of = format!("--model {} --ticket {}", bert(), place.ticket);
    tamt(&format!("tune {of} --task cola --data {data} {train} --output-dir {tuned}")).success();
    let result = object(&tamt(&format!("pack --model {tuned} --precision f32 --output-dir {packed} --json")).success());
    assert!((result["sparsity"].as_f64().unwrap() - 0.5).abs() < 0.05, "{result:?}");
    let texts = place.at("texts.txt");
    fs::write(&texts, (0..20).map(|i| sentence(i) + "\n").collect::<String>()).unwrap();
    for kernel in ["dense", "sparse"] {
        let line = format!("predict --input {texts} --precision f32 --kernel {kernel}");
        assert!(place.written(&line, &packed) == place.written(&line, &tuned), "{kernel}");
        let score = |model: &str| {
            let line = format!("eval --model {model} --task cola --data {data} --precision f32 --kernel {kernel}");
            object(&tamt(&format!("{line} --json --quiet")).success())
        };
        assert_eq!(score(&packed), score(&tuned));
    }
    // A further fine-tuning trains all weights of the packed model, as it does of the dense one.
    tamt(&format!("unpack --model {packed} --output-dir {unpacked} --quiet")).success();
    let again = |model: &str| {
        let output = format!("{model}-again");
        tamt(&format!("tune --model {model} --task cola --data {data} {train} --output-dir {output}")).success();
        Tensors::read(format!("{output}/model.safetensors")).data
    };
    assert!(again(&packed) == again(&tuned));
    assert!(
        Tensors::read(format!("{unpacked}/model.safetensors")).data
            == Tensors::read(format!("{tuned}/model.safetensors")).data
    );
}

#[test]
fn what_cannot_be_packed_or_unpacked_is_told() {
    let place = Place::new(0.7, "bf16");
    let out = place.at("out");
    let refused = |line: &str, code: i32, expected: &str| {
        tamt(&format!("{line} --output-dir {out}"))
            .code(code)
            .stdout(is_empty())
            .stderr(contains(expected.to_owned()).and(contains("panicked").not()));
        assert!(!Path::new(&out).exists(), "{line}");
    };
    refused(&format!("unpack --model {}", bert()), 1, "model.safetensors is not packed, so there is nothing to unpack");
    refused(&format!("unpack --model {} --ticket {}", place.packed, place.ticket), 2, "--ticket");
    refused(&format!("pack --model {} --precision f16", bert()), 2, "[possible values: bf16, f32]");
    refused(&format!("pack --model {} --precision auto", bert()), 2, "[possible values: bf16, f32]");
    refused(&format!("pack --model {} --allow-other-base", bert()), 2, "--ticket <TICKET>");
    refused("pack --model ./nosuch", 1, "no such directory: ./nosuch");
    refused(&format!("pack --model {} --ticket {}", bert(), place.packed), 1, "is no ticket");
    refused(
        &format!("pack --model {} --ticket {}/{WEIGHTS}", bert(), place.packed),
        1,
        "is no ticket but a packed model",
    );
    // The zeros are in the packed model already.
    let with_ticket = format!("--model {} --ticket {}", place.packed, place.ticket);
    let told = "is packed, with the zeros of the ticket it was made of; the given ticket is of";
    refused(&format!("pack {with_ticket}"), 1, told);
    refused(&format!("apply {with_ticket}"), 1, "hint: give the model that the ticket belongs to");
    tamt(&format!("encode {with_ticket} --input {} --output {out}", corpus())).code(1).stderr(contains(told));
    tamt(&format!("pack --model {} --output-dir {}", bert(), place.packed))
        .code(1)
        .stderr(contains("already holds config.json"));

    let weights = format!("{}/{WEIGHTS}", place.packed);
    let whole = bytes(&weights);
    for (spoiled, expected) in [
        (whole[..whole.len() - 1].to_vec(), "is malformed"),
        (replaced(&whole, r#""version":"1""#, r#""version":"2""#), "is not supported: it is a packed model of version"),
        (replaced(&whole, "query.weight.values", "query.weight.value2"), "it lacks the tensor"),
    ] {
        fs::write(&weights, spoiled).unwrap();
        refused(&format!("unpack --model {}", place.packed), 1, expected);
        refused(&format!("find --method magnitude --sparsity 0.5 --model {}", place.packed), 1, expected);
        tamt(&format!("encode --model {} --input {} --output {out}", place.packed, corpus()))
            .code(1)
            .stderr(contains(expected));
    }
}

fn replaced(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
    [&bytes[..at], to.as_bytes(), &bytes[at + from.len()..]].concat()
}

#[test]
fn masks_for_pytorch_of_a_part_of_the_matrices_say_what_they_leave_out() {
    let place = Place::new(0.7, "f32");
    let [ticket, out] = ["partial", "masks"].map(|name| place.at(name));
    let mut file = Tensors::read(format!("{}/ticket.safetensors", place.ticket));
    let query = "encoder.layer.0.attention.self.query.weight.bitmask";
    // The words come first in the file of all matrices' bits, and a range may not be left out: the query takes all.
    let info = file.header[query].clone();
    let bits = file.bytes(query).to_vec();
    file.header.retain(|name, _| name == query || name == "__metadata__");
    file.header[query] = info;
    file.header[query]["data_offsets"] = serde_json::json!([0, bits.len()]);
    file.data = bits;
    fs::create_dir(&ticket).unwrap();
    file.write(format!("{ticket}/ticket.safetensors"));
    let line = format!("export --model {} --allow-other-base --format torch-mask", bert());
    tamt(&format!("{line} --ticket {ticket} --output-dir {out}"))
        .success()
        .stdout(contains("does not mask 12 of the matrices").and(contains("embeddings.word_embeddings.weight")));
    tamt(&format!("{line} --ticket {} --output-dir {out}-all", place.ticket))
        .success()
        .stdout(contains("does not mask").not());
}
