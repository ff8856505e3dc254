//! Bodies of requests and of answers, within the limits of the server.

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderValue, Response};
use bytes::Bytes;
use http_body_util::BodyExt;

use crate::app::App;
use crate::budget::Reserved;
use crate::http::refusal::{Refusal, RefusalKind};
use crate::memory::BODY;

/// Bytes of a body for which there is room before they arrive: a client that declares more and sends nothing must not
/// keep others out.
const AHEAD: usize = 64 << 10;

/// The longest wait that a refused client is told.
const LONGEST_WAIT: f64 = 60.0;

/// The refusal of a request for which there is no room.
pub(crate) fn busy(app: &App) -> Refusal {
    let seconds = app.metrics.seconds_for(app.tokens.used()).ceil().clamp(1.0, LONGEST_WAIT);
    Refusal::new(RefusalKind::Busy(seconds as u64), "the queue is full; try again later")
}

/// The body of a request, and its part of the bytes that all requests may take.
pub(crate) async fn read(app: &App, request: Request) -> Result<(Vec<u8>, Reserved), Refusal> {
    let most = app.settings.max_body_bytes;
    let too_large = || Refusal::too_large(format!("the body has more than {most} bytes"));
    let declared = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if declared.is_some_and(|declared: usize| declared > most) {
        return Err(too_large());
    }
    let mut covered = declared.unwrap_or(0).min(AHEAD);
    let mut reserved = app.bytes.reserve(BODY * covered).ok_or_else(|| busy(app))?;
    let mut body = request.into_body();
    let reading = async {
        let mut bytes = Vec::with_capacity(covered);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Refusal::new(RefusalKind::Syntax, "the body is not complete"))?;
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > most {
                return Err(too_large());
            }
            let more = (bytes.len() + data.len()).saturating_sub(covered);
            if more > 0 && !reserved.grow(BODY * more) {
                return Err(busy(app));
            }
            covered += more;
            bytes.extend_from_slice(&data);
        }
        Ok(bytes)
    };
    let slow = |_| Refusal::new(RefusalKind::Slow, "the body did not arrive in time");
    let bytes = tokio::time::timeout(app.settings.read_timeout, reading).await.map_err(slow)??;
    Ok((bytes, reserved))
}

/// An answer whose bytes count until the operating system has taken them all.
struct Answer {
    bytes: Vec<u8>,
    _reserved: Reserved,
}

impl AsRef<[u8]> for Answer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A JSON answer.
pub(crate) fn answer(bytes: Vec<u8>, reserved: Reserved) -> Response<Body> {
    json(Bytes::from_owner(Answer { bytes, _reserved: reserved }).into())
}

/// A JSON answer of a few bytes.
pub(crate) fn json(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
