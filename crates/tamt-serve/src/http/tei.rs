//! `/embed`, `/predict` and `/info`, in the form of text-embeddings-inference.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;
use serde::Deserialize;
use serde_json::{Value, json};
use tamt::encode::Pool;
use tamt_kernels::Precision;

use crate::app::App;
use crate::http::body::{answer, json};
use crate::http::compute::{
    Computed, Text, Wanted, check_dimensions, check_direction, check_prompt, compute, model, single_texts,
};
use crate::http::inputs::Inputs;
use crate::http::openai::push_json;
use crate::http::refusal::{Form, Refusal};
use crate::models::{Kind, Served};

#[derive(Deserialize)]
struct EmbedBody {
    inputs: Inputs,
    model: Option<String>,
    normalize: Option<bool>,
    truncate: Option<bool>,
    truncation_direction: Option<String>,
    prompt_name: Option<String>,
    dimensions: Option<u64>,
}

fn parse_embed(app: &App, body: &[u8], named: Option<&str>) -> Result<Wanted<()>, Refusal> {
    let EmbedBody { inputs, model: own, normalize, truncate, truncation_direction, prompt_name, dimensions } =
        serde_json::from_slice(body)?;
    let model = model(app, [own.as_deref(), named], true)?;
    check_direction(app, model, truncation_direction.as_deref())?;
    check_prompt(prompt_name.as_deref())?;
    check_dimensions(app, model, dimensions)?;
    let texts = single_texts(inputs, "inputs")?;
    // The form's own default is vectors of unit length.
    Ok(Wanted { model, texts, normalize: normalize.unwrap_or(true), truncate: truncate.unwrap_or(true), style: () })
}

fn write_embed(_: &App, computed: &Computed<()>, out: &mut Vec<u8>) {
    out.push(b'[');
    for (index, vector) in computed.values.chunks_exact(computed.width).enumerate() {
        out.extend_from_slice(if index == 0 { b"" } else { b"," });
        push_json(out, vector);
    }
    out.push(b']');
}

/// `POST /embed`.
pub(crate) async fn embed(State(app): State<Arc<App>>, request: Request) -> Response<Body> {
    match compute(&app, request, parse_embed, write_embed).await {
        Ok((bytes, reserved)) => answer(bytes, reserved),
        Err(refusal) => refusal.into_response(Form::Tei),
    }
}

#[derive(Deserialize)]
struct PredictBody {
    inputs: Inputs,
    model: Option<String>,
    raw_scores: Option<bool>,
    truncate: Option<bool>,
    truncation_direction: Option<String>,
    prompt_name: Option<String>,
}

/// How predictions are written.
#[derive(Clone, Copy, Debug)]
struct Predictions {
    /// The outputs of the head in place of probabilities.
    raw: bool,
    /// A list for each input, in a list; otherwise the list of the one input.
    batch: bool,
}

fn parse_predict(app: &App, body: &[u8], named: Option<&str>) -> Result<Wanted<Predictions>, Refusal> {
    let PredictBody { inputs, model: own, raw_scores, truncate, truncation_direction, prompt_name } =
        serde_json::from_slice(body)?;
    let model = model(app, [own.as_deref(), named], false)?;
    check_direction(app, model, truncation_direction.as_deref())?;
    check_prompt(prompt_name.as_deref())?;
    let shape = "a text, a pair [a, b], or a list of [a] and [a, b]";
    let pair = |texts: Vec<String>| -> Result<Text, Refusal> {
        let mut texts = texts.into_iter();
        match (texts.next(), texts.next(), texts.next()) {
            (Some(first), second, None) => Ok((first, second)),
            _ => Err(Refusal::of("inputs", format!("it is {shape}"))),
        }
    };
    let (texts, batch) = match inputs {
        Inputs::One(text) => (vec![(text, None)], false),
        Inputs::Flat(texts) if texts.len() == 2 => (vec![pair(texts)?], false),
        Inputs::Flat(_) => return Err(Refusal::of("inputs", format!("it is {shape}"))),
        Inputs::Nested(all) => (all.into_iter().map(pair).collect::<Result<_, _>>()?, true),
    };
    let style = Predictions { raw: raw_scores.unwrap_or(false), batch };
    Ok(Wanted { model, texts, normalize: false, truncate: truncate.unwrap_or(true), style })
}

fn write_predict(app: &App, computed: &Computed<Predictions>, out: &mut Vec<u8>) {
    let Computed { model, values, width, style, .. } = computed;
    let Kind::Classifier(classifier) = &app.models.all[*model].kind else { return };
    let all = values.chunks_exact(*width).map(|logits| {
        let scores = if style.raw { logits.iter().map(|&v| f64::from(v)).collect() } else { classifier.scores(logits) };
        let name = |i: usize| classifier.labels().map_or_else(|| format!("LABEL_{i}"), |labels| labels[i].clone());
        let mut scored: Vec<(String, f64)> = scores.into_iter().enumerate().map(|(i, v)| (name(i), v)).collect();
        // The best label comes first; of equal ones the first stays first.
        scored.sort_by(|a, b| b.1.total_cmp(&a.1));
        scored.into_iter().map(|(label, score)| json!({ "score": score, "label": label })).collect::<Value>()
    });
    let mut all: Vec<Value> = all.collect();
    push_json(out, &if style.batch { Value::Array(all) } else { all.pop().unwrap_or_default() });
}

/// `POST /predict`.
pub(crate) async fn predict(State(app): State<Arc<App>>, request: Request) -> Response<Body> {
    match compute(&app, request, parse_predict, write_predict).await {
        Ok((bytes, reserved)) => answer(bytes, reserved),
        Err(refusal) => refusal.into_response(Form::Tei),
    }
}

/// The kind of a model, as clients of the form read it.
fn model_type(served: &Served) -> Value {
    match &served.kind {
        Kind::Encoder { settings, .. } => {
            let pooling = if settings.pool == Pool::Cls { "cls" } else { "mean" };
            json!({ "embedding": { "pooling": pooling } })
        }
        Kind::Classifier(classifier) => {
            let outputs = 0..classifier.outputs();
            let name = |i: usize| classifier.labels().map_or_else(|| format!("LABEL_{i}"), |labels| labels[i].clone());
            let names: Vec<String> = outputs.map(name).collect();
            let id2label: serde_json::Map<_, _> =
                names.iter().enumerate().map(|(i, name)| (i.to_string(), json!(name))).collect();
            let label2id: serde_json::Map<_, _> =
                names.iter().enumerate().map(|(i, name)| (name.clone(), json!(i))).collect();
            json!({ "classifier": { "id2label": id2label, "label2id": label2id } })
        }
    }
}

/// `GET /info`: the first model under the keys of the form, and all models and limits.
pub(crate) async fn info(State(app): State<Arc<App>>) -> Response<Body> {
    let (settings, models) = (&app.settings, &app.models.all);
    let all: Vec<Value> = models
        .iter()
        .map(|model| {
            json!({
                "name": model.name, "model_type": model_type(model), "sha256": model.sha256, "ticket": model.ticket,
                "max_input_length": model.max_length(), "outputs": model.width(),
            })
        })
        .collect();
    let first = app.models.first(true).unwrap_or(0);
    let info = json!({
        "model_id": models[first].name,
        "model_sha": models[first].sha256,
        "model_dtype": if app.models.compute.precision == Precision::Bf16 { "bfloat16" } else { "float32" },
        "model_type": model_type(&models[first]),
        "max_concurrent_requests": settings.max_connections,
        "max_input_length": models[first].max_length(),
        "max_batch_tokens": settings.max_batch_tokens,
        "max_batch_requests": null,
        "max_client_batch_size": settings.max_inputs,
        "auto_truncate": true,
        "tokenization_workers": settings.threads,
        "version": env!("CARGO_PKG_VERSION"),
        "models": all,
        "max_queue_tokens": settings.max_queue_tokens,
        "max_queue_bytes": settings.max_queue_bytes,
        "max_body_bytes": settings.max_body_bytes,
        "max_text_bytes": settings.max_text_bytes,
        "memory_bound_bytes": app.memory_bound.get(),
    });
    json(info.to_string().into())
}
