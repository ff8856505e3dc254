//! `/v1/embeddings` and `/v1/models`.

use serde_json::{Value, json};

use crate::common::{at, bert, copy_of_classifier, magnitude};
use crate::fixture::{Running, encoded, floats};

const TEXTS: [&str; 4] = ["taltul lordil basgen", "", "lis", "durbastan rolstir folsta lis taltul starkel"];

fn from_base64(text: &str) -> Vec<f32> {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::new();
    let (mut bits, mut held) = (0_u32, 0);
    for byte in text.bytes().filter(|&byte| byte != b'=') {
        bits = bits << 6 | alphabet.iter().position(|&own| own == byte).unwrap() as u32;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    bytes.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

#[test]
fn vectors_have_the_bits_of_encode_whatever_the_form_of_the_request() {
    let server = Running::start(&format!("--model {} --name small", bert()));
    let expected = encoded(&TEXTS, "");
    assert_eq!(server.vectors("small", &TEXTS), expected);
    let one = server.post("/v1/embeddings", &json!({ "model": "small", "input": TEXTS[0] })).result();
    assert_eq!(floats(&one["data"][0]["embedding"]), expected[0]);
    let body = json!({ "model": "small", "input": TEXTS, "encoding_format": "base64", "user": "x", "dimensions": 16 });
    let packed = server.post("/v1/embeddings", &body).result();
    let read = packed["data"].as_array().unwrap().iter().map(|entry| from_base64(entry["embedding"].as_str().unwrap()));
    assert_eq!(read.collect::<Vec<_>>(), expected);
}

#[test]
fn an_answer_counts_tokens_and_names_its_model() {
    let server = Running::start(&format!("--model {}", bert()));
    // A text of one token, and one of none, each with two special tokens.
    let answer = server.post("/v1/embeddings", &json!({ "input": ["lis", ""] }));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let result = answer.result();
    let tokens = result["usage"]["prompt_tokens"].as_u64().unwrap();
    assert_eq!(tokens, 5);
    assert_eq!(result["usage"]["total_tokens"], tokens);
    assert_eq!((&result["object"], &result["model"]), (&json!("list"), &json!("bert")));
    let entries = result["data"].as_array().unwrap();
    for (index, entry) in entries.iter().enumerate() {
        assert_eq!((&entry["object"], &entry["index"]), (&json!("embedding"), &json!(index)));
    }
    assert_eq!(entries.len(), 2);
}

#[test]
fn requests_choose_tickets_of_one_model_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let [half, most] = [0.5, 0.9].map(|sparsity| magnitude(&bert(), sparsity, &at(&directory, sparsity.to_string())));
    let flags = format!("--ticket half={half} --ticket most/90={most} --dense --name dense");
    let server = Running::start(&format!("--model {} {flags}", bert()));
    let expected = [format!("--ticket {half}"), format!("--ticket {most}"), String::new()].map(|f| encoded(&TEXTS, &f));
    for (model, expected) in ["half", "most/90", "dense"].into_iter().zip(&expected) {
        assert_eq!(&server.vectors(model, &TEXTS), expected, "{model}");
    }
    assert!(expected[0] != expected[1] && expected[1] != expected[2]);
    // The first ticket answers requests that name no model; the address may name one.
    let unnamed = server.post("/v1/embeddings", &json!({ "input": TEXTS[0] })).result();
    assert_eq!((&unnamed["model"], floats(&unnamed["data"][0]["embedding"])), (&json!("half"), expected[0][0].clone()));
    let by_address = server.post("/v1/embeddings?model=most%2F90", &json!({ "input": TEXTS[0] })).result();
    assert_eq!(floats(&by_address["data"][0]["embedding"]), expected[1][0]);

    let list = server.get("/v1/models").result();
    let names: Vec<&str> = list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!(names, ["half", "most/90", "dense"]);
    assert_eq!(server.get("/v1/models/most/90").result()["id"], "most/90");
    assert_eq!(server.get("/v1/models/other").status, 404);
}

#[test]
fn the_flags_of_encode_have_their_effect_on_vectors() {
    let long = TEXTS.join(" ");
    let texts = [long.as_str(), TEXTS[0]];
    for flags in ["--pool cls", "--normalize", "--max-length 5 --pool mean", "--kernel dense --precision f32"] {
        let server = Running::start(&format!("--model {} {flags}", bert()));
        assert_eq!(server.vectors("bert", &texts), encoded(&texts, flags), "{flags}");
    }
}

/// The error object of a refused request.
#[track_caller]
fn refused(server: &Running, body: &str, status: u16) -> Value {
    let answer = server.connect().ask("POST", "/v1/embeddings", "", body).unwrap();
    assert_eq!(answer.status, status, "{body}: {}", answer.body);
    let error = answer.json()["error"].clone();
    assert!(error["message"].is_string() && error["type"].is_string(), "{error}");
    error
}

#[test]
fn requests_with_mistakes_are_refused_with_openai_s_error_object() {
    let directory = tempfile::tempdir().unwrap();
    let model = copy_of_classifier("bert", &directory.path().join("classifier"));
    let server = Running::start(&format!("--model {} --head labels={model}", bert()));
    for (body, status, said) in [
        ("", 400, "EOF"),
        ("{", 400, "EOF"),
        ("{\"input\": \"a\"} x", 400, "trailing"),
        ("[]", 400, "expected struct"),
        ("{}", 400, "missing field `input`"),
        (r#"{"input": []}"#, 400, "there is no text"),
        (r#"{"input": 3}"#, 400, "a text or a list of texts"),
        (r#"{"input": [3, 4]}"#, 400, "token ids"),
        (r#"{"input": [[3, 4]]}"#, 400, "token ids"),
        (r#"{"input": [["a"]]}"#, 400, "lists of texts"),
        (r#"{"input": "a", "encoding_format": "int8"}"#, 400, "unknown variant"),
        (r#"{"input": "a", "dimensions": 8}"#, 400, "not 8"),
        (r#"{"input": "a", "dimensions": -1}"#, 400, "invalid value"),
        (r#"{"input": "a", "prompt_name": "query"}"#, 400, "prompts have no names"),
        (r#"{"input": "a", "truncation_direction": "left"}"#, 400, "cuts texts at the other side"),
        (r#"{"input": "a", "model": 7}"#, 400, "invalid type"),
        (r#"{"input": "a", "model": "gpt"}"#, 404, "there is no model gpt"),
        (r#"{"input": "a", "model": "labels"}"#, 400, "ask /predict"),
        ("{\"input\": \"\u{1}\"}", 400, "control character"),
        (r#"{"input": "\ud800"}"#, 400, "hex escape"),
    ] {
        let error = refused(&server, body, status);
        assert!(error["message"].as_str().unwrap().contains(said), "{body}: {error}");
    }
    let error = refused(&server, r#"{"input": "a", "model": "gpt"}"#, 404);
    assert_eq!((&error["code"], &error["param"]), (&json!("model_not_found"), &json!("model")));
    assert_eq!(refused(&server, r#"{"input": "a", "dimensions": 8}"#, 400)["param"], "dimensions");
    for (method, path, status) in [("GET", "/v1/embeddings", 405), ("POST", "/v1/models", 405), ("GET", "/v1/x", 404)] {
        let answer = server.connect().ask(method, path, "", "").unwrap();
        assert_eq!(answer.status, status, "{method} {path}");
        assert!(answer.json()["error"]["message"].is_string());
    }
    let nested = format!("{{\"input\": {}", "[".repeat(100_000));
    refused(&server, &nested, 400);
}
