//! The way of a request: its body, its texts, its tokens, a place in the queue, its outputs.

use std::sync::Arc;

use axum::extract::Request;
use tamt_data::Pair;

use crate::app::App;
use crate::budget::Reserved;
use crate::http::body::{busy, read};
use crate::http::inputs::Inputs;
use crate::http::refusal::{Refusal, RefusalKind};
use crate::job::{Item, Job};
use crate::memory::ANSWERED;

/// Numbers of an answer that are written at once; more are written on a thread where nothing else waits.
const WRITTEN_AT_ONCE: usize = 8192;

/// A text, or a pair of texts.
pub(crate) type Text = (String, Option<String>);

/// What a request asks for.
#[derive(Debug)]
pub(crate) struct Wanted<T> {
    /// The position of the model.
    pub(crate) model: usize,
    pub(crate) texts: Vec<Text>,
    /// Whether outputs get unit length.
    pub(crate) normalize: bool,
    /// Whether long texts are cut; otherwise they are refused.
    pub(crate) truncate: bool,
    /// How the answer is written.
    pub(crate) style: T,
}

/// The outputs of a request.
#[derive(Debug)]
pub(crate) struct Computed<T> {
    pub(crate) model: usize,
    /// `[texts, width]`.
    pub(crate) values: Vec<f32>,
    pub(crate) width: usize,
    /// Tokens of all texts, special tokens included.
    pub(crate) tokens: usize,
    pub(crate) style: T,
}

/// Reads a body. The last argument is the model that the address names.
pub(crate) type Parse<T> = fn(&App, &[u8], Option<&str>) -> Result<Wanted<T>, Refusal>;

/// Reads a request with `parse`, computes its texts, and writes the answer with `write`.
pub(crate) async fn compute<T: Send + 'static>(
    app: &Arc<App>,
    request: Request,
    parse: Parse<T>,
    write: fn(&App, &Computed<T>, &mut Vec<u8>),
) -> Result<(Vec<u8>, Reserved), Refusal> {
    let named = named_model(&request)?;
    let (body, reserved) = read(app, request).await?;
    let arrival = app.queue.arrive();
    let own = app.clone();
    // The work goes on where a client is gone, and its part of the memory with it.
    let tokenized = blocking(move || {
        let wanted = parse(&own, &body, named.as_deref())?;
        drop(body);
        let tokens = tokens(&own, &wanted)?;
        Ok((wanted.model, wanted.normalize, wanted.style, tokens, reserved))
    });
    let (model, normalize, style, sequences, mut reserved) = tokenized.await?;

    let tokens = sequences.iter().map(|sequence| sequence.ids.len()).sum();
    if tokens > app.tokens.limit() {
        let limit = app.tokens.limit();
        return Err(Refusal::too_large(format!("the texts have {tokens} tokens, more than the {limit} of the queue")));
    }
    let (texts, width) = (sequences.len(), app.models.all[model].width());
    if ANSWERED * texts * width > app.bytes.limit() {
        return Err(Refusal::too_large(format!("the answer to {texts} texts does not fit the memory for requests")));
    }
    let part = app.tokens.reserve(tokens).filter(|_| reserved.grow(ANSWERED * texts * width));
    let (job, outputs) = Job::new(texts, width, normalize, part.ok_or_else(|| busy(app))?);
    let sequences = sequences.into_iter().enumerate();
    app.queue.push(sequences.map(|(index, tokens)| Item { model, tokens, index, job: job.clone() }));
    drop((job, arrival));
    let failed = || Refusal::new(RefusalKind::Failed, "the engine could not compute the texts");
    let values = outputs.await.map_err(|_| failed())?.map_err(|_| failed())?;

    let computed = Computed { model, values, width, tokens, style };
    let own = app.clone();
    let written = move || {
        let mut answer = Vec::new();
        write(&own, &computed, &mut answer);
        (answer, reserved)
    };
    if texts * width > WRITTEN_AT_ONCE { blocking(move || Ok(written())).await } else { Ok(written()) }
}

/// Runs `work` on a thread for such work: one on which connections wait would keep them all waiting.
async fn blocking<R: Send + 'static>(work: impl FnOnce() -> Result<R, Refusal> + Send + 'static) -> Result<R, Refusal> {
    let failed = |_| Refusal::new(RefusalKind::Failed, "the request could not be processed");
    tokio::task::spawn_blocking(work).await.map_err(failed)?
}

/// The model that the query of the address names, for clients whose bodies have no field for it.
fn named_model(request: &Request) -> Result<Option<String>, Refusal> {
    #[derive(serde::Deserialize)]
    struct Query {
        model: Option<String>,
    }
    let query = axum::extract::Query::<Query>::try_from_uri(request.uri());
    query.map(|query| query.0.model).map_err(|error| Refusal::of("model", error.to_string()))
}

/// The model of a request: the named one, or else the first one of its kind.
pub(crate) fn model(app: &App, names: [Option<&str>; 2], encoder: bool) -> Result<usize, Refusal> {
    let Some(name) = names.into_iter().flatten().next() else {
        let (wanted, path) = if encoder { ("encoder", "/predict") } else { ("classifier", "/embed") };
        let missing = || Refusal::new(RefusalKind::UnknownModel, format!("there is no {wanted} here; ask {path}"));
        return app.models.first(encoder).ok_or_else(missing);
    };
    let unknown = || {
        let all: Vec<&str> = app.models.all.iter().map(|model| model.name.as_str()).collect();
        Refusal::new(RefusalKind::UnknownModel, format!("there is no model {name}; there are {}", all.join(", ")))
    };
    let found = app.models.find(name).ok_or_else(unknown)?;
    match (app.models.all[found].is_encoder(), encoder) {
        (true, false) => Err(Refusal::of("model", format!("{name} gives vectors; ask /embed or /v1/embeddings"))),
        (false, true) => Err(Refusal::of("model", format!("{name} gives predictions; ask /predict"))),
        _ => Ok(found),
    }
}

/// Refuses another number of dimensions than the vectors of the model have.
pub(crate) fn check_dimensions(app: &App, model: usize, dimensions: Option<u64>) -> Result<(), Refusal> {
    let served = &app.models.all[model];
    match dimensions.filter(|&dimensions| dimensions != served.width() as u64) {
        None => Ok(()),
        Some(dimensions) => {
            let reason = format!("{} has vectors of {} numbers, not {dimensions}", served.name, served.width());
            Err(Refusal::of("dimensions", reason))
        }
    }
}

/// Refuses to cut texts at another side than the tokenizer of a model does.
pub(crate) fn check_direction(app: &App, model: usize, direction: Option<&str>) -> Result<(), Refusal> {
    let side = app.models.all[model].cut_side();
    match direction {
        Some(other) if !other.eq_ignore_ascii_case(side) => {
            let reason = format!("the model's tokenizer cuts texts at the other side, \"{side}\"");
            Err(Refusal::of("truncation_direction", reason))
        }
        _ => Ok(()),
    }
}

/// Refuses the name of a prompt.
pub(crate) fn check_prompt(name: Option<&str>) -> Result<(), Refusal> {
    match name {
        None => Ok(()),
        Some(_) => Err(Refusal::of("prompt_name", "prompts have no names here; put the prompt before each text")),
    }
}

/// The texts of a request without pairs.
pub(crate) fn single_texts(inputs: Inputs, field: &'static str) -> Result<Vec<Text>, Refusal> {
    match inputs {
        Inputs::One(text) => Ok(vec![(text, None)]),
        Inputs::Flat(texts) => Ok(texts.into_iter().map(|text| (text, None)).collect()),
        Inputs::Nested(_) => Err(Refusal::of(field, "lists of texts in a list")),
    }
}

/// The tokens of all texts, within the limits.
fn tokens<T>(app: &App, wanted: &Wanted<T>) -> Result<Vec<Pair>, Refusal> {
    let settings = &app.settings;
    let Wanted { model, texts, truncate, .. } = wanted;
    if texts.is_empty() {
        return Err(Refusal::of("input", "there is no text"));
    }
    if texts.len() > settings.max_inputs {
        let (count, most) = (texts.len(), settings.max_inputs);
        return Err(Refusal::too_large(format!("{count} texts in a request; at most {most} are taken")));
    }
    let model = &app.models.all[*model];
    let failed = |error: tamt::Error| Refusal::of("input", error.to_string());
    let all = texts.iter().enumerate().map(|(i, (first, second))| {
        let bytes = first.len() + second.as_ref().map_or(0, String::len);
        if bytes > settings.max_text_bytes {
            let most = settings.max_text_bytes;
            return Err(Refusal::too_large(format!("text {i} has {bytes} bytes; at most {most} are taken")));
        }
        let second = second.as_deref();
        let tokens = model.tokens(first, second).map_err(failed)?;
        if !truncate && tokens.ids.len() == model.max_length() {
            let (length, most) = (model.full_length(first, second).map_err(failed)?, model.max_length());
            if length > most {
                let message = format!("text {i} has {length} tokens; the model takes {most}, and `truncate` is false");
                return Err(Refusal::too_large(message));
            }
        }
        Ok(tokens)
    });
    all.collect()
}
