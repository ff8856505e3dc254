//! Why a request is refused, in the words of each form.

use axum::body::Body;
use axum::http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

/// The form of requests, answers and errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// That of `OpenAI`'s API.
    OpenAi,
    /// That of text-embeddings-inference.
    Tei,
}

/// Why a request has no result.
#[derive(Debug)]
pub(crate) struct Refusal {
    kind: RefusalKind,
    message: String,
    /// The field that is wrong, if it is one.
    field: Option<&'static str>,
}

/// What a program tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefusalKind {
    /// The body is not JSON.
    Syntax,
    /// A field has a wrong value.
    Invalid,
    /// The key is missing or wrong.
    Key,
    /// There is no such model.
    UnknownModel,
    /// There is no such path.
    NoPath,
    /// The path has other methods.
    Method,
    /// The body did not arrive in time.
    Slow,
    /// The request, or a text of it, is too large.
    Large,
    /// There is no room in the queue for so many seconds, by an estimate.
    Busy(u64),
    /// The engine has failed.
    Failed,
}

impl Refusal {
    pub(crate) fn new(kind: RefusalKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), field: None }
    }

    pub(crate) fn of(field: &'static str, message: impl Into<String>) -> Self {
        Self { field: Some(field), ..Self::new(RefusalKind::Invalid, message) }
    }

    pub(crate) fn too_large(message: impl Into<String>) -> Self {
        Self::new(RefusalKind::Large, message)
    }

    fn status(&self, form: Form) -> StatusCode {
        match self.kind {
            RefusalKind::Invalid if form == Form::Tei => StatusCode::UNPROCESSABLE_ENTITY,
            RefusalKind::Syntax | RefusalKind::Invalid => StatusCode::BAD_REQUEST,
            RefusalKind::Key => StatusCode::UNAUTHORIZED,
            RefusalKind::UnknownModel | RefusalKind::NoPath => StatusCode::NOT_FOUND,
            RefusalKind::Method => StatusCode::METHOD_NOT_ALLOWED,
            RefusalKind::Slow => StatusCode::REQUEST_TIMEOUT,
            RefusalKind::Large => StatusCode::PAYLOAD_TOO_LARGE,
            RefusalKind::Busy(_) => StatusCode::TOO_MANY_REQUESTS,
            RefusalKind::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The error object that clients of the form read.
    fn object(&self, form: Form) -> Value {
        match form {
            Form::OpenAi => {
                let (kind, code) = match self.kind {
                    RefusalKind::Busy(_) => ("rate_limit_error", Some("rate_limit_exceeded")),
                    RefusalKind::Failed => ("server_error", None),
                    RefusalKind::Key => ("invalid_request_error", Some("invalid_api_key")),
                    RefusalKind::UnknownModel => ("invalid_request_error", Some("model_not_found")),
                    _ => ("invalid_request_error", None),
                };
                let field = self.field.or((self.kind == RefusalKind::UnknownModel).then_some("model"));
                json!({ "error": { "message": self.message, "type": kind, "param": field, "code": code } })
            }
            Form::Tei => {
                let kind = match self.kind {
                    RefusalKind::Busy(_) => "overloaded",
                    RefusalKind::Failed => "backend",
                    _ => "validation",
                };
                json!({ "error": self.message, "error_type": kind })
            }
        }
    }

    pub(crate) fn into_response(self, form: Form) -> Response<Body> {
        let mut response = Response::new(Body::from(self.object(form).to_string()));
        *response.status_mut() = self.status(form);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match self.kind {
            RefusalKind::Busy(seconds) => {
                headers.insert(RETRY_AFTER, seconds.into());
            }
            RefusalKind::Key => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            // The rest of the body is not read.
            RefusalKind::Slow | RefusalKind::Large => {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        response
    }
}

impl From<serde_json::Error> for Refusal {
    fn from(error: serde_json::Error) -> Self {
        let kind = if error.is_data() { RefusalKind::Invalid } else { RefusalKind::Syntax };
        Self::new(kind, format!("the body is not the JSON object of a request: {error}"))
    }
}
