//! Models of sentence-transformers: their pooling, length and normalisation, and the files that say so.

use std::fs;
use std::path::Path;

use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use serde_json::{Value, json};

use crate::common::{Tensors, at, copy_of_bert, corpus, json_file, magnitude, tamt};

const TEXTS: &str = "Rolstir rinir taltul!\nLordil vo vo nepe lis gerser vilgus starkel vo len folsta lis?\n";

fn write(path: impl AsRef<Path>, value: &Value) {
    let path = path.as_ref();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, value.to_string()).unwrap();
}

/// A copy of the small BERT with these modules after the encoder, and these settings of the encoder and the pooling.
fn model(directory: &tempfile::TempDir, name: &str, modules: &[&str], encoder: &Value, pooling: &Value) -> String {
    let model = copy_of_bert(&directory.path().join(name));
    let entry = |i: usize, path: &str, kind: &str| {
        let kind = format!("sentence_transformers.models.{kind}");
        json!({"idx": i, "name": i.to_string(), "path": path, "type": kind})
    };
    let mut entries = vec![entry(0, "", "Transformer")];
    entries.extend(modules.iter().enumerate().map(|(i, kind)| entry(i + 1, &format!("{}_{kind}", i + 1), kind)));
    write(format!("{model}/modules.json"), &entries.into());
    write(format!("{model}/sentence_bert_config.json"), encoder);
    write(format!("{model}/1_Pooling/config.json"), pooling);
    model
}

/// The vectors of the two texts, and what was printed.
fn encode(directory: &tempfile::TempDir, arguments: &str) -> (Vec<Vec<f32>>, String) {
    let (input, output) = (at(directory, "texts.txt"), at(directory, "vectors.safetensors"));
    fs::write(&input, TEXTS).unwrap();
    let run = tamt(&format!("encode --precision f32 --input {input} --output {output} --model {arguments}")).success();
    let vectors = Tensors::read(output).floats("embeddings").chunks(16).map(<[f32]>::to_vec).collect();
    (vectors, String::from_utf8(run.get_output().stdout.clone()).unwrap())
}

#[track_caller]
fn assert_start_with(vectors: &[Vec<f32>], expected: [[f32; 4]; 2]) {
    for (vector, expected) in vectors.iter().zip(expected) {
        let is_near = vector.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5);
        assert!(is_near, "{vector:?} is not {expected:?}");
    }
}

fn norm(vector: &[f32]) -> f32 {
    vector.iter().map(|v| v * v).sum::<f32>().sqrt()
}

/// The first values of the vectors of `TEXTS` by sentence-transformers 6.2.0, with these modules over `tests/golden/bert`:
///
/// ```python
/// e = Transformer("tests/golden/bert", max_seq_length=6)
/// SentenceTransformer(modules=[e, Pooling(16, pooling_mode="cls"), Normalize()], device="cpu").encode(texts)[:, :4]
/// SentenceTransformer(modules=[e, Pooling(16, pooling_mode="mean")], device="cpu").encode(texts)[:, :4]
/// ```
const CLS_OF_UNIT_LENGTH: [[f32; 4]; 2] = [
    [-0.369_194_66, 0.130_148_72, 0.267_404, -0.239_382_58],
    [-0.413_680_73, 0.041_461_915, 0.363_953_26, -0.236_637_73],
];
const MEAN: [[f32; 4]; 2] = [
    [-0.577_853_86, 0.244_407_2, 0.530_754_6, -0.251_375_44],
    [-0.897_177_2, -0.016_598_245, 0.393_701_1, -0.054_604_787],
];

#[test]
fn texts_are_encoded_as_the_modules_say() {
    let directory = tempfile::tempdir().unwrap();
    let length = json!({"max_seq_length": 6, "do_lower_case": false});
    let new = json!({"embedding_dimension": 16, "pooling_mode": "cls", "include_prompt": true});
    let old =
        json!({"word_embedding_dimension": 16, "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false});
    for (name, pooling) in [("new", new), ("old", old)] {
        let model = model(&directory, name, &["Pooling", "Normalize"], &length, &pooling);
        let (vectors, said) = encode(&directory, &model);
        assert_start_with(&vectors, CLS_OF_UNIT_LENGTH);
        let note = "modules.json says: pooling cls, vectors of unit length, at most 6 tokens";
        assert!(said.contains(note), "{said}");
    }
    let model = model(&directory, "mean", &["Pooling", "Dropout"], &length, &json!({"pooling_mode": ["mean"]}));
    assert_start_with(&encode(&directory, &model).0, MEAN);

    // Without a length of the encoder's own, the tokenizer's holds, up to the positions of the model.
    for (length, said) in [(6.0, "at most 6 tokens"), (1e30, "pooling mean\n")] {
        write(format!("{model}/sentence_bert_config.json"), &json!({}));
        write(format!("{model}/tokenizer_config.json"), &json!({"do_lower_case": true, "model_max_length": length}));
        let (vectors, text) = encode(&directory, &model);
        assert!(text.contains(said), "{text}");
        if length < 40.0 {
            assert_start_with(&vectors, MEAN);
        }
    }
}

#[test]
fn flags_win_over_the_modules() {
    let directory = tempfile::tempdir().unwrap();
    let (length, pooling) = (json!({"max_seq_length": 6}), json!({"pooling_mode": "cls"}));
    let model = model(&directory, "model", &["Pooling", "Normalize"], &length, &pooling);
    let plain = copy_of_bert(&directory.path().join("plain"));
    let vectors = |arguments: &str| encode(&directory, arguments).0;
    assert_start_with(&vectors(&format!("{model} --pool mean --no-normalize")), MEAN);
    let long = vectors(&format!("{model} --max-length 40 --no-normalize"));
    assert_eq!(long, vectors(&format!("{plain} --pool cls")));
    assert_ne!(long, vectors(&format!("{model} --no-normalize")));
    let unit = vectors(&format!("{plain} --pool cls --max-length 6 --normalize"));
    assert_start_with(&unit, CLS_OF_UNIT_LENGTH);
    assert!((norm(&unit[0]) - 1.0).abs() < 1e-6 && norm(&long[0]) > 1.5, "{}", norm(&long[0]));
    tamt(&format!("encode --model {model} --input - --output x --normalize --no-normalize"))
        .code(2)
        .stderr(contains("--no-normalize"));
}

#[test]
fn what_is_not_supported_is_refused_unless_a_pooling_is_chosen() {
    let directory = tempfile::tempdir().unwrap();
    let (length, cls) = (json!({"max_seq_length": 6}), json!({"pooling_mode": "cls"}));
    let two = json!({"pooling_mode_cls_token": true, "pooling_mode_max_tokens": true});
    let images = json!({"transformer_task": "image"});
    let cases = [
        (&["Pooling", "Dense"][..], &length, &cls, "a module Dense, which is not supported"),
        (&["Pooling"], &length, &two, "the pooling cls + max_tokens"),
        (&["Pooling"], &length, &json!({"pooling_mode": "lasttoken"}), "the pooling lasttoken"),
        (&["Pooling"], &images, &cls, "an encoder whose transformer_task is \"image\""),
    ];
    for (i, (modules, encoder, pooling, reason)) in cases.into_iter().enumerate() {
        let model = model(&directory, &i.to_string(), modules, encoder, pooling);
        let (input, output) = (at(&directory, "texts.txt"), at(&directory, "v.safetensors"));
        fs::write(&input, TEXTS).unwrap();
        let line = format!("encode --model {model} --input {input} --output {output}");
        tamt(&line).code(2).stderr(contains("--pool: ").and(contains(reason)));
        tamt(&format!("{line} --pool mean")).success().stdout(contains(format!("modules.json: {reason}")));
    }
    let damaged = model(&directory, "damaged", &["Pooling"], &length, &cls);
    fs::write(format!("{damaged}/1_Pooling/config.json"), "[]").unwrap();
    let output = at(&directory, "v.safetensors");
    tamt(&format!("encode --model {damaged} --input {} --output {output}", at(&directory, "texts.txt")))
        .code(1)
        .stderr(contains("1_Pooling/config.json is damaged"));
}

#[test]
fn a_prompt_and_lower_case_are_followed() {
    let directory = tempfile::tempdir().unwrap();
    let pooling = json!({"pooling_mode": "mean"});
    let model = model(&directory, "model", &["Pooling"], &json!({"do_lower_case": true}), &pooling);
    let config = json!({"default_prompt_name": "q", "prompts": {"q": "Vo lis ", "d": "Len "}});
    write(format!("{model}/config_sentence_transformers.json"), &config);
    let (vectors, said) = encode(&directory, &model);
    assert!(said.contains("lower case, the prompt \"Vo lis \" before each text"), "{said}");

    let plain = copy_of_bert(&directory.path().join("plain"));
    let (input, output) = (at(&directory, "prompted.txt"), at(&directory, "prompted.safetensors"));
    let prompted: String = TEXTS.lines().map(|text| format!("vo lis {}\n", text.to_lowercase())).collect();
    fs::write(&input, prompted).unwrap();
    tamt(&format!("encode --precision f32 --model {plain} --input {input} --output {output}")).success();
    assert_eq!(vectors.concat(), Tensors::read(&output).floats("embeddings"));

    write(format!("{model}/1_Pooling/config.json"), &json!({"pooling_mode": "mean", "include_prompt": false}));
    tamt(&format!("encode --model {model} --input {input} --output {output}"))
        .code(2)
        .stderr(contains("a pooling without the prompt's tokens"));
}

#[test]
fn an_applied_ticket_keeps_the_modules() {
    let directory = tempfile::tempdir().unwrap();
    let (length, pooling) = (json!({"max_seq_length": 6}), json!({"pooling_mode": "cls"}));
    let new = model(&directory, "new", &["Pooling", "Normalize"], &length, &pooling);
    write(format!("{new}/config_sentence_transformers.json"), &json!({"similarity_fn_name": "dot"}));
    // Old models have the encoder in a directory of its own.
    let old = at(&directory, "old");
    fs::create_dir(&old).unwrap();
    fs::rename(model(&directory, "encoder", &[], &length, &pooling), format!("{old}/0_Transformer")).unwrap();
    fs::rename(format!("{old}/0_Transformer/1_Pooling"), format!("{old}/1_Pooling")).unwrap();
    fs::remove_file(format!("{old}/0_Transformer/modules.json")).unwrap();
    let text = fs::read_to_string(format!("{new}/modules.json")).unwrap();
    let text = text.replace(r#""path":"""#, r#""path":"0_Transformer""#);
    fs::write(format!("{old}/modules.json"), text).unwrap();
    fs::copy(format!("{new}/config_sentence_transformers.json"), format!("{old}/config_sentence_transformers.json"))
        .unwrap();

    for model in [new, old] {
        let (ticket, applied) = (magnitude(&model, 0.5, &format!("{model}-ticket")), format!("{model}-applied"));
        tamt(&format!("apply --model {model} --ticket {ticket} --output-dir {applied} --quiet")).success();
        let packed = format!("{model}-packed");
        tamt(&format!("pack --model {model} --ticket {ticket} --precision f32 --output-dir {packed} --quiet"))
            .success();
        assert_eq!(encode(&directory, &packed).0, encode(&directory, &applied).0);
        let read = |name: &str| json_file(format!("{applied}/{name}"));
        assert_eq!(read("modules.json")[0]["path"], "");
        assert_eq!(read("modules.json")[2]["path"], "2_Normalize");
        assert_eq!(read("1_Pooling/config.json"), pooling);
        assert_eq!(read("sentence_bert_config.json"), length);
        assert_eq!(read("config_sentence_transformers.json"), json!({"similarity_fn_name": "dot"}));
        assert!(Path::new(&applied).join("2_Normalize").is_dir());
        let (dense, _) = encode(&directory, &model);
        assert_start_with(&dense, CLS_OF_UNIT_LENGTH);
        let (sparse, _) = encode(&directory, &format!("{model} --ticket {ticket}"));
        for (a, b) in sparse.concat().iter().zip(encode(&directory, &applied).0.concat()) {
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
    }
}

#[test]
fn a_model_that_is_trained_on_keeps_the_modules() {
    let directory = tempfile::tempdir().unwrap();
    let new = model(&directory, "new", &["Pooling", "Normalize"], &json!({}), &json!({"pooling_mode": "cls"}));
    let trained = at(&directory, "trained");
    let line = format!("pretrain --model {new} --train head --corpus {} --output-dir {trained} --quiet", corpus());
    tamt(&format!("{line} --max-steps 2 --batch-size 2 --block-size 12")).success();
    // The head alone was trained: the vectors are those of the model.
    assert_eq!(encode(&directory, &trained).0, encode(&directory, &new).0);
}
