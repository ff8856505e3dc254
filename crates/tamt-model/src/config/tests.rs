//! Unit tests of the configuration.

use std::fs;

use serde_json::json;

use super::*;

fn base() -> Value {
    json!({
        "model_type": "bert", "vocab_size": 100, "hidden_size": 12, "num_hidden_layers": 2,
        "num_attention_heads": 3, "intermediate_size": 24, "max_position_embeddings": 16, "type_vocab_size": 2,
    })
}

fn with(changes: &Value) -> Result<Config> {
    let mut config = base();
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    Config::from_json(&config.to_string())
}

/// The message about the only change.
fn refusal(key: &str, value: &Value) -> String {
    match with(&json!({ key: value })) {
        Err(error @ Error::ConfigValue { key: found, .. }) if found == key => error.to_string(),
        other => panic!("{key}: {value}: {other:?}"),
    }
}

#[test]
fn what_is_missing_takes_the_default_of_the_family() {
    let bert = with(&json!({})).unwrap();
    assert_eq!((bert.layer_norm_eps, bert.pad_token_id, bert.hidden_act), (1e-12, 0, Activation::Gelu));
    assert_eq!((bert.hidden_dropout_prob, bert.attention_probs_dropout_prob, bert.initializer_range), (0.1, 0.1, 0.02));
    let roberta = with(&json!({"model_type": "roberta", "pad_token_id": null})).unwrap();
    assert_eq!((roberta.layer_norm_eps, roberta.pad_token_id), (1e-12, 1));
}

#[test]
fn each_missing_size_is_named() {
    for key in base().as_object().unwrap().keys().filter(|key| *key != "model_type") {
        let mut config = base();
        config.as_object_mut().unwrap().remove(key);
        let error = Config::from_json(&config.to_string()).unwrap_err().to_string();
        assert_eq!(error, format!("`{key}` is missing"));
    }
}

#[test]
fn models_built_like_roberta_are_of_its_family() {
    for kind in ["roberta", "xlm-roberta", "camembert"] {
        let config = with(&json!({"model_type": kind})).unwrap();
        assert_eq!(config.family.prefix(), "roberta");
        assert_eq!(config.extra("model_type").unwrap(), kind);
        assert!(config.to_json().contains(&format!("\"model_type\": \"{kind}\"")));
    }
}

#[test]
fn a_configuration_without_a_model_type_goes_by_its_architecture() {
    let family =
        |architectures: Value| with(&json!({"model_type": null, "architectures": architectures})).unwrap().family;
    assert_eq!(family(json!(["RobertaForMaskedLM"])), Family::Roberta);
    assert_eq!(family(json!(["BertModel"])), Family::Bert);
    assert_eq!(family(json!(null)), Family::Bert);
}

#[test]
fn roberta_never_uses_the_positions_up_to_its_padding_id() {
    assert_eq!(with(&json!({})).unwrap().max_length(), 16);
    assert_eq!(with(&json!({"model_type": "roberta"})).unwrap().max_length(), 14);
    let error = with(&json!({"model_type": "roberta", "max_position_embeddings": 2})).unwrap_err();
    assert!(error.to_string().contains("position ids from 2"), "{error}");
}

#[test]
fn activations_go_by_all_of_their_names() {
    let cases = [
        ("gelu", Activation::Gelu),
        ("gelu_new", Activation::GeluTanh),
        ("gelu_pytorch_tanh", Activation::GeluTanh),
        ("relu", Activation::Relu),
    ];
    for (name, activation) in cases {
        let config = with(&json!({"hidden_act": name})).unwrap();
        assert_eq!(config.hidden_act, activation);
        assert!(config.to_json().contains(&format!("\"hidden_act\": \"{name}\"")), "the spelling is kept");
    }
    assert!(refusal("hidden_act", &json!("swish")).contains("swish"));
}

#[test]
fn too_many_weights_are_the_fault_of_the_size_that_brings_most_of_them() {
    for (key, size) in [
        ("vocab_size", 2_000_000_000),
        ("max_position_embeddings", 2_000_000_000),
        ("intermediate_size", 2_000_000_000),
        ("hidden_size", 3_000_000),
    ] {
        assert!(refusal(key, &json!(size)).contains("makes more than"), "{key}");
    }
}

#[test]
fn values_that_no_encoder_has_are_refused_with_the_value() {
    for (key, value) in [
        ("model_type", json!("t5")),
        ("model_type", json!(3)),
        ("vocab_size", json!(0)),
        ("vocab_size", json!(-1)),
        ("vocab_size", json!("100")),
        ("hidden_size", json!(13)),
        ("hidden_size", json!(1.5)),
        ("hidden_size", json!(2_147_483_646u64)),
        ("intermediate_size", json!(u64::MAX)),
        ("num_hidden_layers", json!(1_000_000)),
        ("num_attention_heads", json!(0)),
        ("type_vocab_size", json!(0)),
        ("pad_token_id", json!(100)),
        ("pad_token_id", json!(-1)),
        ("layer_norm_eps", json!(-1e-5)),
        ("layer_norm_eps", json!(1e60)),
        ("layer_norm_eps", json!("NaN")),
        ("initializer_range", json!(0)),
        ("hidden_dropout_prob", json!(1.0)),
        ("hidden_dropout_prob", json!(-0.1)),
        ("attention_probs_dropout_prob", json!(true)),
        ("classifier_dropout", json!(1.0)),
        ("classifier_dropout", json!("0.1")),
        ("position_embedding_type", json!("relative_key")),
        ("is_decoder", json!(true)),
        ("add_cross_attention", json!(true)),
    ] {
        let message = refusal(key, &value);
        // Large floats are printed in full.
        let number = value.as_f64().map(|v| (v as f32).to_string());
        assert!(message.contains(&value.to_string()) || number.is_some_and(|n| message.contains(&n)), "{message}");
    }
}

#[test]
fn fields_changed_by_hand_are_validated_too() {
    let mut config = with(&json!({})).unwrap();
    config.layer_norm_eps = f32::NAN;
    assert!(matches!(config.validate(), Err(Error::ConfigValue { key: "layer_norm_eps", .. })));
    config.layer_norm_eps = 1e-12;
    config.hidden_dropout_prob = f32::NAN;
    assert!(matches!(config.validate(), Err(Error::ConfigValue { key: "hidden_dropout_prob", .. })));
}

#[test]
fn what_is_no_json_object_is_refused() {
    for text in ["", "[]", "{\"vocab_size\": }", "3", "{\"a\": 1e400}", &"[".repeat(100_000)] {
        assert!(matches!(Config::from_json(text), Err(Error::ConfigSyntax(_))), "{text}");
    }
}

#[test]
fn writing_keeps_unknown_keys_and_reads_back_equal() {
    let mut config =
        with(&json!({"id2label": {"0": "no"}, "layer_norm_eps": 1e-12, "hidden_act": "gelu_new"})).unwrap();
    config.set_extra("architectures", json!(["BertForSequenceClassification"]));
    config.hidden_dropout_prob = 0.3;
    let text = config.to_json();
    let written: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(written["id2label"], json!({"0": "no"}));
    assert_eq!(written["architectures"], json!(["BertForSequenceClassification"]));
    assert_eq!(written["hidden_dropout_prob"], json!(0.3));
    assert_eq!(written["layer_norm_eps"], json!(1e-12));
    let read = Config::from_json(&text).unwrap();
    assert_eq!(read.to_json(), text);
    assert_eq!(read.hidden_dropout_prob, 0.3);
}

#[test]
fn a_file_that_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    assert!(matches!(Config::read(&path), Err(Error::Read { .. })));
    fs::write(&path, "{}").unwrap();
    assert!(matches!(Config::read(&path), Err(Error::ConfigFile { path: p, .. }) if p == path));
    fs::write(&path, b"\xff\xfe").unwrap();
    assert!(matches!(Config::read(&path), Err(Error::Read { .. })));
    fs::write(&path, "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n").unwrap();
    assert!(matches!(Config::read(&path), Err(Error::LfsPointer { path: p }) if p == path));
}

#[test]
fn a_byte_order_mark_is_no_part_of_a_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    fs::write(&path, format!("\u{feff}{}", base())).unwrap();
    assert_eq!(Config::read(&path).unwrap(), with(&json!({})).unwrap());
}
