//! Texts to vectors, with a model that stays in memory.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use numpy::{PyArray1, PyArrayMethods};
use pyo3::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use serde_json::json;
use tamt::base::Base;
use tamt::encode::{EncodeSettings, Encoder as Engine, Pool};
use tamt::import::of_masks;
use tamt::run::Stop;
use tamt::sentence::{EncodeChoices, encode_settings};
use tamt::{Compute, Error, Kernel};
use tamt_cli::call::{Failure, FailureKind, MOST_THREADS, failure_of};
use tamt_kernels::{Precision, check_cap};

use crate::errors::raised;
use crate::ticket::{GivenMasks, Ticket, packed};
use crate::work::wait;

/// A ticket: loaded, or the path of one.
#[derive(FromPyObject)]
pub(crate) enum TicketSource {
    Loaded(Py<Ticket>),
    Path(PathBuf),
}

/// A model in memory, its matrices prepared.
#[pyclass(frozen, module = "tamt._native")]
pub(crate) struct Encoder {
    engine: Engine,
    settings: EncodeSettings,
    /// What a user should know, a sentence each.
    #[pyo3(get)]
    notes: Vec<String>,
    /// Threads of its own; `None` uses those that all work of the process shares.
    threads: Option<ThreadPool>,
}

/// One of a few names.
fn choice<T: Copy>(setting: &str, given: &str, choices: &[(&str, T)]) -> Result<T, Failure> {
    if let Some((_, meaning)) = choices.iter().find(|(name, _)| *name == given) {
        return Ok(*meaning);
    }
    let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
    let message = format!("invalid value '{given}' for '{setting}'\n  [possible values: {}]", names.join(", "));
    Err(Failure { kind: FailureKind::Setting, message })
}

fn compute(precision: &str, kernel: &str) -> Result<Compute, Failure> {
    let precisions = [("auto", Precision::native()), ("f32", Precision::F32), ("bf16", Precision::Bf16)];
    let kernels = [("auto", Kernel::Auto), ("dense", Kernel::Dense), ("sparse", Kernel::Sparse)];
    Ok(Compute { precision: choice("precision", precision, &precisions)?, kernel: choice("kernel", kernel, &kernels)? })
}

fn pooling(pool: Option<&str>) -> Result<Option<Pool>, Failure> {
    let pools = [("none", Pool::None), ("cls", Pool::Cls), ("mean", Pool::Mean)];
    pool.map(|pool| choice("pool", pool, &pools)).transpose()
}

/// The failure of a number that is not above 0.
fn positive(setting: &str, number: Option<i64>) -> Result<Option<NonZeroUsize>, Failure> {
    let Some(number) = number else { return Ok(None) };
    let message = format!("invalid value '{number}' for '{setting}': it must be above 0");
    let positive = usize::try_from(number).ok().and_then(NonZeroUsize::new);
    positive.map(Some).ok_or(Failure { kind: FailureKind::Setting, message })
}

/// The threads of an encoder of its own; `None` without a number.
fn own_threads(number: Option<i64>) -> Result<Option<ThreadPool>, Failure> {
    if let Some(many) = number.filter(|number| *number > MOST_THREADS) {
        let message = format!("invalid value '{many}' for 'threads': it is a whole number from 1 to {MOST_THREADS}");
        return Err(Failure { kind: FailureKind::Setting, message });
    }
    let Some(threads) = positive("threads", number)? else { return Ok(None) };
    let pool = ThreadPoolBuilder::new().num_threads(threads.get()).build();
    pool.map(Some).map_err(|error| Failure { kind: FailureKind::Other, message: error.to_string() })
}

#[pymethods]
impl Encoder {
    #[new]
    #[pyo3(signature = (model, ticket, allow_other_base, precision, kernel, pool, max_length, threads))]
    fn new(
        py: Python<'_>,
        model: PathBuf,
        ticket: Option<TicketSource>,
        allow_other_base: bool,
        precision: &str,
        kernel: &str,
        pool: Option<&str>,
        max_length: Option<i64>,
        threads: Option<i64>,
    ) -> PyResult<Self> {
        let stop = Stop::new();
        wait(py, &stop, None, |_| {
            check_cap().map_err(|message| Failure { kind: FailureKind::Setting, message })?;
            let compute = compute(precision, kernel)?;
            let max_length = positive("max_length", max_length)?.map(usize::from);
            let choices = EncodeChoices { pool: pooling(pool)?, max_length, normalize: None };
            let threads = own_threads(threads)?;
            let load = || -> Result<_, Error> {
                let base = Base::load(&model)?;
                let (settings, mut notes) = encode_settings(&base, choices)?;
                notes.splice(0..0, base.model.notes.iter().cloned());
                let read = |path: &PathBuf| tamt::ticket::Ticket::read(path);
                let masks = match &ticket {
                    None => None,
                    Some(TicketSource::Path(path)) => Some(base.masks_of(&read(path)?, allow_other_base)?),
                    Some(TicketSource::Loaded(ticket)) => Some(base.masks_of(&ticket.get().ticket, allow_other_base)?),
                };
                Ok((Engine::new(base, masks, compute), settings, notes))
            };
            let loaded = match &threads {
                Some(pool) => pool.scope(|_| load()),
                None => rayon::scope(|_| load()),
            };
            let (engine, settings, notes) = loaded.map_err(failure_of)?;
            Ok(Self { engine, settings, notes, threads })
        })
    }

    /// The vectors of `texts`, `[texts, width]`; without pooling a list of `[tokens, width]`.
    #[pyo3(signature = (texts, batch_size, normalize, prompt, hear))]
    fn encode<'py>(
        &self,
        py: Python<'py>,
        texts: Vec<String>,
        batch_size: Option<i64>,
        normalize: Option<bool>,
        prompt: Option<String>,
        hear: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let batch_size = positive("batch_size", batch_size).map_err(|failure| raised(py, failure))?;
        let mut settings = EncodeSettings { batch_size, ..self.settings.clone() };
        settings.normalize = normalize.unwrap_or(settings.normalize);
        settings.prompt = prompt.unwrap_or(settings.prompt);
        if settings.without_prompt && !settings.prompt.is_empty() {
            let message = "prompt: the model's pooling leaves out the tokens of a prompt, which is not supported";
            return Err(raised(py, Failure { kind: FailureKind::Setting, message: message.to_owned() }));
        }
        let (stop, listens, total) = (Stop::new(), hear.is_some(), texts.len());
        let encoded = wait(py, &stop, hear.as_ref(), |teller| {
            let progress = |done| {
                if listens {
                    teller.tell(json!({
                        "event": "progress", "work": "encode", "unit": "texts", "done": done, "total": total,
                    }));
                }
                match stop.requested() {
                    Some(signal) => Err(Error::Stopped { signal, step: 0, checkpoint: None }),
                    None => Ok(()),
                }
            };
            let run = || self.engine.encode(&texts, &settings, progress);
            let encoded = match &self.threads {
                Some(pool) => pool.scope(|_| run()),
                None => rayon::scope(|_| run()),
            };
            encoded.map_err(failure_of)
        })?;
        let width = encoded.width();
        if settings.pool == Pool::None {
            let arrays = encoded.vectors().map(|states| {
                let array = PyArray1::from_slice(py, states);
                array.reshape([states.len() / width, width])
            });
            return Ok(arrays.collect::<PyResult<Vec<_>>>()?.into_pyobject(py)?.into_any());
        }
        let rows = encoded.texts();
        Ok(PyArray1::from_vec(py, encoded.into_values()).reshape([rows, width])?.into_any())
    }

    /// A ticket of the model, of these masks.
    fn ticket_of(&self, py: Python<'_>, masks: GivenMasks<'_>) -> PyResult<Ticket> {
        let packed = packed(masks)?;
        let made = py.detach(|| of_masks(self.engine.base(), packed));
        made.map(|ticket| Ticket { ticket }).map_err(|error| raised(py, failure_of(error)))
    }

    /// Values of a vector.
    #[getter]
    fn dimension(&self) -> usize {
        self.engine.base().model.config.hidden_size
    }

    /// Most tokens of a text.
    #[getter]
    fn max_length(&self) -> usize {
        self.settings.max_length
    }
}
