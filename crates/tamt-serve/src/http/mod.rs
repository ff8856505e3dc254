//! The paths of a server, who may use them, and what is counted.

mod body;
mod compute;
mod inputs;
mod openai;
mod refusal;
mod tei;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, Response};
use axum::middleware::{Next, from_fn_with_state};
use axum::routing::{get, post};
use subtle::ConstantTimeEq;

use crate::app::App;
use crate::http::refusal::{Form, Refusal, RefusalKind};
use crate::memory::resident;

const EMBEDDINGS: &str = "/v1/embeddings";
const MODELS: &str = "/v1/models";
const EMBED: &str = "/embed";
const PREDICT: &str = "/predict";
const INFO: &str = "/info";
const HEALTH: &str = "/health";
const METRICS: &str = "/metrics";

/// The paths by which requests are counted.
const PATHS: [&str; 7] = [EMBEDDINGS, MODELS, EMBED, PREDICT, INFO, HEALTH, METRICS];

/// The service of a server.
pub(crate) fn router(app: &Arc<App>) -> Router {
    let routes = Router::new()
        .route(EMBEDDINGS, post(openai::embeddings))
        .route(MODELS, get(openai::models))
        .route("/v1/models/{*model}", get(openai::model_by_name))
        // Clients of the form may post to the root.
        .route("/", post(tei::embed))
        .route(EMBED, post(tei::embed))
        .route(PREDICT, post(tei::predict))
        .route(INFO, get(tei::info))
        .route(HEALTH, get(health))
        .route(METRICS, get(metrics))
        .fallback(no_path)
        .method_not_allowed_fallback(no_method);
    routes.layer(from_fn_with_state(app.clone(), admit)).with_state(app.clone())
}

/// The form of a path's errors.
fn form(path: &str) -> Form {
    if path.starts_with("/v1/") { Form::OpenAi } else { Form::Tei }
}

async fn no_path(request: Request) -> Response<Body> {
    let path = request.uri().path();
    Refusal::new(RefusalKind::NoPath, format!("there is no {path} here")).into_response(form(path))
}

async fn no_method(request: Request) -> Response<Body> {
    let (path, method) = (request.uri().path(), request.method());
    Refusal::new(RefusalKind::Method, format!("{path} has no method {method}")).into_response(form(path))
}

/// Checks the key, counts the request, and ends the connection with the answer where the server is about to end.
async fn admit(State(app): State<Arc<App>>, request: Request, next: Next) -> Response<Body> {
    let started = Instant::now();
    let path = request.uri().path();
    let counted = PATHS.into_iter().find(|known| *known == path).unwrap_or("other");
    let mut response = if path == HEALTH || has_key(&app, request.headers()) {
        next.run(request).await
    } else {
        Refusal::new(RefusalKind::Key, "the key is missing or wrong").into_response(form(path))
    };
    if app.is_ending() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    app.metrics.answered(counted, response.status().as_u16(), started.elapsed());
    response
}

/// Whether the request presents the server's key. The time of the comparison does not tell how much of a key is right.
fn has_key(app: &App, headers: &HeaderMap) -> bool {
    let Some(key) = &app.settings.api_key else { return true };
    let Some(presented) = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes) else { return false };
    match presented.split_at_checked("Bearer ".len()) {
        Some((scheme, presented)) if scheme.eq_ignore_ascii_case(b"bearer ") => presented.ct_eq(key.as_bytes()).into(),
        _ => false,
    }
}

async fn health() {}

async fn metrics(State(app): State<Arc<App>>) -> Response<Body> {
    let gauges = [
        ("tamt_connections", "Open connections.", app.metrics.connections.load(Ordering::Relaxed)),
        ("tamt_queue_tokens", "Tokens that wait or are computed.", app.tokens.used() as u64),
        ("tamt_queue_tokens_limit", "The most tokens that wait or are computed.", app.tokens.limit() as u64),
        ("tamt_queue_bytes", "Bytes reserved for bodies and answers.", app.bytes.used() as u64),
        ("tamt_queue_bytes_limit", "The most bytes of bodies and answers.", app.bytes.limit() as u64),
        ("tamt_memory_bound_bytes", "The most resident memory.", app.memory_bound.get().copied().unwrap_or(0)),
        ("process_resident_memory_bytes", "Resident memory.", resident().unwrap_or(0)),
    ];
    let mut response = Response::new(Body::from(app.metrics.render(&gauges)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4"));
    response
}
