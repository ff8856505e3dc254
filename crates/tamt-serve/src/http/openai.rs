//! `/v1/embeddings` and `/v1/models`, in the form of `OpenAI`'s API.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::http::body::{answer, json};
use crate::http::compute::{
    Computed, Wanted, check_dimensions, check_direction, check_prompt, compute, model, single_texts,
};
use crate::http::inputs::Inputs;
use crate::http::refusal::{Form, Refusal, RefusalKind};
use crate::models::Kind;

/// How vectors are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    #[default]
    Float,
    /// Little-endian f32.
    Base64,
}

#[derive(Deserialize)]
struct EmbeddingsBody {
    input: Inputs,
    model: Option<String>,
    encoding_format: Option<Encoding>,
    dimensions: Option<u64>,
    // The form has no such fields, but its clients send fields of other forms, and an ignored `truncate` cuts texts.
    truncate: Option<bool>,
    truncation_direction: Option<String>,
    prompt_name: Option<String>,
}

fn parse(app: &App, body: &[u8], named: Option<&str>) -> Result<Wanted<Encoding>, Refusal> {
    let EmbeddingsBody { input, model: own, encoding_format, dimensions, truncate, truncation_direction, prompt_name } =
        serde_json::from_slice(body)?;
    let model = model(app, [own.as_deref(), named], true)?;
    check_dimensions(app, model, dimensions)?;
    check_direction(app, model, truncation_direction.as_deref())?;
    check_prompt(prompt_name.as_deref())?;
    let Kind::Encoder { settings, .. } = &app.models.all[model].kind else {
        return Err(Refusal::of("model", "it gives no vectors"));
    };
    let texts = single_texts(input, "input")?;
    Ok(Wanted {
        model,
        texts,
        normalize: settings.normalize,
        truncate: truncate.unwrap_or(true),
        style: encoding_format.unwrap_or_default(),
    })
}

fn write(app: &App, computed: &Computed<Encoding>, out: &mut Vec<u8>) {
    let Computed { model, values, width, tokens, style } = computed;
    out.extend_from_slice(b"{\"object\":\"list\",\"data\":[");
    for (index, vector) in values.chunks_exact(*width).enumerate() {
        let comma = if index == 0 { "" } else { "," };
        out.extend_from_slice(format!("{comma}{{\"object\":\"embedding\",\"index\":{index},\"embedding\":").as_bytes());
        match style {
            Encoding::Float => push_json(out, vector),
            Encoding::Base64 => {
                let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
                push_json(out, &STANDARD.encode(bytes));
            }
        }
        out.push(b'}');
    }
    let rest = json!({ "prompt_tokens": tokens, "total_tokens": tokens });
    let name = Value::from(app.models.all[*model].name.as_str());
    out.extend_from_slice(format!("],\"model\":{name},\"usage\":{rest}}}").as_bytes());
}

/// Appends a value. Numbers in f32 have the fewest digits that read back as the same number.
pub(crate) fn push_json(out: &mut Vec<u8>, value: &(impl serde::Serialize + ?Sized)) {
    // A vector takes all bytes, and the values are strings and finite numbers.
    let _ = serde_json::to_writer(out, value);
}

/// `POST /v1/embeddings`.
pub(crate) async fn embeddings(State(app): State<Arc<App>>, request: Request) -> Response<Body> {
    match compute(&app, request, parse, write).await {
        Ok((bytes, reserved)) => answer(bytes, reserved),
        Err(refusal) => refusal.into_response(Form::OpenAi),
    }
}

fn description(app: &App, name: &str) -> Value {
    let created = app.started.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    json!({ "id": name, "object": "model", "created": created, "owned_by": "tamt" })
}

/// `GET /v1/models`.
pub(crate) async fn models(State(app): State<Arc<App>>) -> Response<Body> {
    let all: Vec<Value> = app.models.all.iter().map(|model| description(&app, &model.name)).collect();
    json(json!({ "object": "list", "data": all }).to_string().into())
}

/// `GET /v1/models/{model}`; a name may have slashes.
pub(crate) async fn model_by_name(State(app): State<Arc<App>>, Path(name): Path<String>) -> Response<Body> {
    match app.models.find(&name) {
        Some(_) => json(description(&app, &name).to_string().into()),
        None => {
            let message = format!("there is no model {name}");
            Refusal::new(RefusalKind::UnknownModel, message).into_response(Form::OpenAi)
        }
    }
}
