//! Work without the interpreter's lock, on a thread of its own, while the caller's thread answers signals and events.

use std::any::Any;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use serde_json::Value;
use tamt::run::Stop;
use tamt_cli::call::{Failure, FailureKind};

use crate::errors::raised;
use crate::values::to_python;

/// Time between two looks for other work of the engine.
const YIELD: Duration = Duration::from_millis(1);

/// Time between two looks for a signal.
const POLL: Duration = Duration::from_millis(50);

/// The number of the signal that Ctrl-C sends.
const SIGINT: i32 = 2;

/// An event, and what lives until the caller has heard it.
type Told = (Value, Sender<()>);

/// Tells the caller's thread events, and waits until each has been heard: a stop at an event comes ahead of further work.
pub(crate) struct Teller(Mutex<Sender<Told>>);

impl Teller {
    pub(crate) fn tell(&self, event: Value) {
        let (unheard, heard) = channel();
        let sent = self.0.lock().unwrap_or_else(PoisonError::into_inner).send((event, unheard));
        // Without a receiver the call has ended.
        if sent.is_err() {
            return;
        }
        loop {
            // The caller may use the engine while it hears, on this thread if there is no other.
            let is_busy = rayon::yield_now() == Some(rayon::Yield::Executed);
            if !is_busy && heard.recv_timeout(YIELD) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    }
}

/// Does `work`, which tells its events to `hear`. A signal whose handler raises an exception (Ctrl-C: `KeyboardInterrupt`),
/// or an exception of `hear`, requests `stop`, and is raised once the work has ended.
pub(crate) fn wait<T: Send>(
    py: Python<'_>,
    stop: &Stop,
    hear: Option<&Bound<'_, PyAny>>,
    work: impl FnOnce(Teller) -> Result<T, Failure> + Send,
) -> PyResult<T> {
    let (sender, receiver) = channel();
    // A reference to a receiver crosses no thread; one to a mutex does.
    let receiver = Mutex::new(receiver);
    let mut raise = None;
    let outcome = thread::scope(|scope| {
        let worker = thread::Builder::new()
            .name("tamt".to_owned())
            .spawn_scoped(scope, move || work(Teller(Mutex::new(sender))))?;
        while let Some(event) = next(py, &receiver) {
            if raise.is_none()
                && let Err(error) = answer(py, event.as_ref().map(|(event, _)| event), hear)
            {
                stop.request(SIGINT);
                raise = Some(error);
            }
        }
        Ok::<_, PyErr>(py.detach(|| worker.join()))
    })?;
    let outcome = outcome.map_err(|panic| PyRuntimeError::new_err(format!("a defect: {}", panic_text(&*panic))))?;
    match (outcome, raise) {
        (Ok(value), None) => Ok(value),
        (Err(failure), None) => Err(raised(py, failure)),
        // What a checkpoint holds is for the one who pressed Ctrl-C to know.
        (Err(failure @ Failure { kind: FailureKind::Stopped { .. }, .. }), Some(error))
            if error.is_instance_of::<pyo3::exceptions::PyKeyboardInterrupt>(py) =>
        {
            Err(raised(py, failure))
        }
        (_, Some(error)) => Err(error),
    }
}

/// The next event of the work; `Some(None)` after a while without one, `None` at the end.
fn next(py: Python<'_>, receiver: &Mutex<Receiver<Told>>) -> Option<Option<Told>> {
    let received = py.detach(|| receiver.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(POLL));
    match received {
        Ok(event) => Some(Some(event)),
        Err(RecvTimeoutError::Timeout) => Some(None),
        Err(RecvTimeoutError::Disconnected) => None,
    }
}

fn answer(py: Python<'_>, event: Option<&Value>, hear: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    if let Some((event, hear)) = event.zip(hear) {
        hear.call1((to_python(py, event)?,))?;
    }
    py.check_signals()
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}
