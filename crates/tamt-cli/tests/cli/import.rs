//! Masks that were made elsewhere as tickets, and tickets for other programs.

use std::fs;
use std::path::Path;

use predicates::str::contains;
use serde_json::Value;
use tamt_model::TensorFile;

use crate::common::{Tensors, at, bert, copy_of_bert, golden, magnitude, masks, object, tamt};
use crate::task_files::{cola, empty_pooler};

/// The shape and the elements of a tensor.
type Bytes = (Vec<usize>, Vec<u8>);

fn fixture(name: &str) -> String {
    format!("{}/tests/fixtures/masks/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn import(file: &str, output: &str) -> serde_json::Map<String, Value> {
    object(&tamt(&format!("import --model {} {file} --output-dir {output} --json", bert())).success())
}

/// The matrices of the small BERT in the order of the reference, with their shapes.
fn matrices() -> Vec<(String, [usize; 2])> {
    let mut all = vec![("embeddings.word_embeddings".to_owned(), [96, 16])];
    for layer in 0..2 {
        let names = ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"];
        let square = names.map(|name| (name, [16, 16]));
        let rest = [("intermediate.dense", [32, 16]), ("output.dense", [16, 32])];
        all.extend(
            square.into_iter().chain(rest).map(|(name, shape)| (format!("encoder.layer.{layer}.{name}"), shape)),
        );
    }
    all
}

/// The masks of `fixtures/masks/make.py`.
fn expected() -> Vec<(String, Vec<u8>)> {
    let mask = |(index, (name, [rows, cols])): (usize, (String, [usize; 2]))| {
        let mut bytes = vec![0; rows * cols / 8];
        for (row, col) in (0..rows).flat_map(|row| (0..cols).map(move |col| (row, col))) {
            if (31 * row + 17 * col + 7 * index) % 10 < 3 {
                bytes[row * cols / 8 + col / 8] |= 1 << (col % 8);
            }
        }
        (format!("{name}.weight.bitmask"), bytes)
    };
    let mut masks: Vec<_> = matrices().into_iter().enumerate().map(mask).collect();
    masks.sort();
    masks
}

/// The same masks from the zeros of a checkpoint: the embedding of the padding token is 0 in the dense model.
fn without_padding() -> Vec<(String, Vec<u8>)> {
    let mut masks = expected();
    masks[0].1[..2].fill(0);
    masks
}

fn sorted(mut masks: Vec<(String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
    masks.sort();
    masks
}

#[test]
fn masks_of_every_form_make_the_same_ticket() {
    let directory = tempfile::tempdir().unwrap();
    let forms = [
        ("reference.pt", "masks"),
        ("training.pt", "masks"),
        ("tickets.pt", "masks"),
        ("module.pt", "masks"),
        ("masks.npz", "masks"),
        ("prune.bin", "torch.nn.utils.prune"),
        ("bitmask.safetensors", "sparse-bitmask"),
    ];
    for (name, form) in forms {
        let output = at(&directory, name);
        let result = import(&fixture(name), &output);
        let expected = if form == "sparse-bitmask" { without_padding() } else { expected() };
        assert_eq!(sorted(masks(&output)), expected, "{name}");
        assert_eq!((&result["imported"]["form"], &result["imported"]["file"]), (&form.into(), &name.into()));
        assert_eq!(result["unmasked"], serde_json::json!([]));
        let shown = object(&tamt(&format!("inspect {output} --model {} --json", bert())).success());
        assert_eq!((&shown["metadata"]["method"], &shown["sparsity"]), (&"imported".into(), &result["sparsity"]));
        assert_eq!(shown["metadata"]["imported"]["sha256"].as_str().unwrap().len(), 64);
        tamt(&format!("inspect {output}")).success().stdout(contains(format!("imported    from {name}, {form}")));
    }
    // The ticket is one of the model: every verb takes it.
    let line = format!("apply --model {} --ticket {}", bert(), at(&directory, "masks.npz"));
    tamt(&format!("{line} --output-dir {}", at(&directory, "applied"))).success();
    let zeros = format!("--zeros-of {}", at(&directory, "applied"));
    let result = import(&zeros, &at(&directory, "zeros"));
    assert_eq!(sorted(masks(&at(&directory, "zeros"))), without_padding());
    assert_eq!(result["imported"]["form"], "zeros of a checkpoint");
}

#[test]
fn a_ticket_for_pytorch_is_imported_with_the_same_bits() {
    let directory = tempfile::tempdir().unwrap();
    for kind in ["bert", "roberta"] {
        let (model, run) = (golden(kind), at(&directory, kind));
        tamt(&format!("find --model {model} --method random --sparsity 0.6 --output-dir {run}")).success();
        for (format, file) in [("torch-mask", "mask.pt"), ("torch-prune", "pytorch_model.bin"), ("torch-prune", "")] {
            let (out, back) =
                (at(&directory, format!("{kind}-{format}{file}")), at(&directory, format!("{kind}-{file}-b")));
            let line = format!("export --model {model} --ticket {run} --format {format} --output-dir {out} --json");
            assert_eq!(object(&tamt(&line).success())["format"], format);
            tamt(&format!("import --model {model} {out}/{file} --output-dir {back}")).success();
            assert_eq!(masks(&back), masks(&run), "{kind} {format}");
            // Exported once more, the file is the same.
            let again = at(&directory, format!("{kind}-{file}-again"));
            tamt(&format!("export --model {model} --ticket {back} --format {format} --output-dir {again}")).success();
            let name = if file.is_empty() { "pytorch_model.bin" } else { file };
            assert_eq!(fs::read(format!("{out}/{name}")).unwrap(), fs::read(format!("{again}/{name}")).unwrap());
        }
    }
}

#[test]
fn a_pruned_checkpoint_is_the_base_model_under_its_ticket() {
    let directory = tempfile::tempdir().unwrap();
    let (pruned, text) = (at(&directory, "pruned"), golden("corpus.txt"));
    let run = magnitude(&bert(), 0.5, &at(&directory, "run"));
    let line = format!("export --model {} --ticket {run} --format torch-prune --output-dir {pruned}", bert());
    tamt(&line).success();
    let encode = |model: &str, out: &str| {
        let out = at(&directory, out);
        tamt(&format!("encode --model {model} --input {text} --output {out}")).success();
        fs::read(out).unwrap()
    };
    assert_eq!(encode(&pruned, "a"), encode(&format!("{} --ticket {run}", bert()), "b"));
}

#[test]
fn a_head_and_the_zeros_are_in_the_exported_model() {
    let directory = tempfile::tempdir().unwrap();
    let (tuned, run, out) = (at(&directory, "tuned"), at(&directory, "run"), at(&directory, "out"));
    let data = cola(&directory.path().join("CoLA"));
    let tune = format!("tune --model {} --task cola --data {data} --max-steps 1 --keep final", bert());
    tamt(&format!("{tune} --output-dir {tuned} --quiet")).success();
    magnitude(&tuned, 0.5, &run);
    let line = format!("export --model {tuned} --ticket {run} --format transformers");
    tamt(&format!("{line} --output-dir {out}")).success();
    tamt(&format!("apply --model {tuned} --ticket {run} --output-dir {out}-applied")).success();
    for name in ["model.safetensors", "config.json", "tokenizer.json"] {
        let read = |directory: &str| fs::read(Path::new(directory).join(name)).unwrap();
        assert_eq!(read(&out), read(&format!("{out}-applied")), "{name}");
    }
    let (before, after) =
        (Tensors::read(format!("{tuned}/model.safetensors")), Tensors::read(format!("{out}/model.safetensors")));
    assert_eq!(before.names(), after.names());
    assert_eq!(before.bytes("classifier.weight"), after.bytes("classifier.weight"));
    let query = "bert.encoder.layer.0.attention.self.query.weight";
    assert_eq!(after.floats(query).iter().filter(|&&w| w == 0.0).count(), 128);
}

#[test]
fn masks_that_make_no_ticket_are_refused_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let output = at(&directory, "out");
    let refused = |line: &str, reason: &str| {
        tamt(&format!("import --model {} {line} --output-dir {output}", bert())).code(1).stderr(contains(reason));
        assert!(!Path::new(&output).exists());
    };
    let query = "encoder.layer.0.attention.self.query.weight";
    refused(&fixture("half.pt"), &format!("`bert.{query}_mask` is no mask: it holds 0.5 at [3, 2]"));
    refused(&bert(), "a mask holds 0 and 1");
    refused(&bert(), "hint: `tamt import --zeros-of` reads the zeros of a checkpoint");
    refused(&format!("--zeros-of {}", bert()), "no matrix that a ticket masks has a zero");
    refused(&golden("corpus.txt"), "no PyTorch checkpoint");
    refused(&at(&directory, "none.pt"), "cannot read");

    let (run, source) = (at(&directory, "run"), at(&directory, "masks.safetensors"));
    import(&fixture("reference.pt"), &run);
    refused(&run, "it is a ticket already");
    let ones = |rows: usize, cols: usize| (vec![rows, cols], vec![1u8; rows * cols]);
    let write = |tensors: &[(&str, Bytes)]| {
        let mut file = Tensors { header: serde_json::Map::new(), data: Vec::new() };
        for (name, (shape, bytes)) in tensors {
            let start = file.data.len();
            file.data.extend(bytes);
            let info = serde_json::json!({"dtype": "U8", "shape": shape, "data_offsets": [start, file.data.len()]});
            file.header.insert((*name).to_owned(), info);
        }
        file.write(&source);
    };
    write(&[(query, ones(16, 15))]);
    refused(&source, "has shape [16, 15], expected [16, 16]");
    write(&[(query, ones(16, 16)), (&format!("module.bert.{query}"), ones(16, 16))]);
    refused(&source, &format!("it has the mask of {query} twice"));
    let mut dropping = ones(2, 16);
    dropping.1[5] = 0;
    write(&[(query, ones(16, 16)), ("classifier.weight", dropping)]);
    refused(&source, "1 (`classifier.weight`) belong to no matrix that a ticket of the model masks");
    write(&[(query, ones(16, 16)), ("classifier.bias", (vec![2], vec![1, 0]))]);
    refused(&source, "1 (`classifier.bias`) belong to no matrix that a ticket of the model masks");
    write(&[("classifier.weight", ones(2, 16))]);
    refused(&source, "it has no mask of a matrix of the model");

    // A mask that drops nothing loses nothing, and matrices without a mask are named.
    let bias = ("classifier.bias", (vec![2], vec![1; 2]));
    write(&[(query, ones(16, 16)), ("classifier.weight", ones(2, 16)), bias]);
    let line = format!("import --model {} {source} --output-dir {output}", bert());
    let done = tamt(&line)
        .success()
        .stdout(contains("2 (`classifier.weight`, `classifier.bias`) masks of other tensors keep everything"));
    done.stdout(contains(
        "without a mask, so dense: embeddings.word_embeddings.weight, encoder.layer.0.attention.self.key",
    ));
    tamt(&line).code(1).stderr(contains("already holds ticket.safetensors"));
    tamt(&format!("import --model {} --output-dir {output}", bert())).code(2);
}

#[test]
fn a_damaged_file_of_masks_is_an_error_and_never_a_panic() {
    let directory = tempfile::tempdir().unwrap();
    let (mut read, mut refused) = (0, 0);
    for name in ["reference.pt", "tickets.pt", "masks.npz", "bitmask.safetensors"] {
        let sound = fs::read(fixture(name)).unwrap();
        let path = directory.path().join(name);
        let mut check = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            let Ok(file) = TensorFile::open(&path) else { return refused += 1 };
            for tensor in file.names() {
                let &[rows, cols] = file.shape(tensor).unwrap() else { continue };
                // The shape of a damaged file is not to be trusted; the import compares it with the model's.
                let expected = [rows.min(96), cols.min(32)];
                let _ = (file.mask(tensor, expected), file.values(tensor, expected));
                let _ = file.packed_mask(tensor, [expected[0], 8 * expected[1]]);
            }
            read += 1;
        };
        check(&sound);
        for at in 0..200 {
            let at = at * sound.len() / 200;
            check(&sound[..at]);
            let mut flipped = sound.clone();
            flipped[at] ^= 1 << (at % 8);
            check(&flipped);
        }
    }
    assert!(read > 100 && refused > 800, "{read} read, {refused} refused");

    // The checksum of a member of a compressed archive.
    let path = at(&directory, "masks.npz");
    let mut bytes = fs::read(fixture("masks.npz")).unwrap();
    let central = bytes.windows(4).position(|window| window == b"PK\x01\x02").unwrap();
    bytes[central + 16] ^= 1;
    fs::write(&path, bytes).unwrap();
    let line = format!("import --model {} {path} --output-dir {}", bert(), at(&directory, "out"));
    tamt(&line).code(1).stderr(contains("masks.npz is malformed"));
}

#[test]
fn masks_may_become_a_ticket_beside_them() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().to_str().unwrap();
    fs::copy(fixture("reference.pt"), directory.path().join("mask.pt")).unwrap();
    import(place, place);
    assert_eq!(sorted(masks(place)), expected());
}

#[test]
fn the_pooler_of_a_mask_stays_in_the_ticket_of_a_model_without_one() {
    let directory = tempfile::tempdir().unwrap();
    let (source, run) = (at(&directory, "pooler.safetensors"), at(&directory, "run"));
    empty_pooler(&source);
    import(&source, &run);
    assert_eq!(masks(&run), [("pooler.dense.weight.bitmask".to_owned(), vec![0; 32])]);
    tamt(&format!(
        "encode --model {} --ticket {run} --input {} --output {}",
        bert(),
        golden("corpus.txt"),
        at(&directory, "v")
    ))
    .success();
}

#[test]
fn weights_of_a_pruned_checkpoint_that_differ_from_the_models_are_said() {
    let directory = tempfile::tempdir().unwrap();
    let (other, run) = (copy_of_bert(&directory.path().join("other")), at(&directory, "run"));
    let mut file = Tensors::read(format!("{other}/model.safetensors"));
    let query = "bert.encoder.layer.1.attention.self.query.weight";
    file.bytes_mut(query)[..4].copy_from_slice(&0f32.to_le_bytes());
    file.bytes_mut(query)[4..8].copy_from_slice(&9f32.to_le_bytes());
    file.write(format!("{other}/model.safetensors"));
    tamt(&format!("import --model {} --zeros-of {other}/model.safetensors --output-dir {run}", bert()))
        .success()
        .stdout(contains("the weights of 1 matrices differ from the model's"));
    let [(name, mask)] = masks(&run).try_into().unwrap();
    assert_eq!(name, format!("{}.bitmask", query.strip_prefix("bert.").unwrap()));
    assert_eq!((mask[0], &mask[1..]), (0xfe, &[0xff; 31][..]));
}

#[test]
fn flags_of_another_format_and_a_missing_ticket_are_wrong_usage() {
    let directory = tempfile::tempdir().unwrap();
    let line = |rest: &str| format!("export --model {} --output-dir {} {rest}", bert(), at(&directory, "out"));
    tamt(&line("--format torch-mask")).code(2).stderr(contains("give a --ticket"));
    tamt(&line("--format torch-prune --ticket x --dtype f16")).code(2).stderr(contains("--dtype has no effect"));
    tamt(&line("--format torch")).code(2).stderr(contains("torch-mask"));
    assert!(!directory.path().join("out").exists());
}
