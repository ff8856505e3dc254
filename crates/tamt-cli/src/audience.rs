//! The program that called a verb, in the place of a terminal.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value, json};
use tamt::run::{NewRun, Observer, StepReport, Stop};

/// A program that calls a verb, and hears from it on threads of the engine.
pub trait Listener: Send + Sync {
    /// Whether anyone hears the events.
    fn listens(&self) -> bool;

    /// An event of a run, an object: its key `event` says which of `note`, `stage`, `step`, `evaluating`, `evaluated` and
    /// `progress` it is.
    fn hear(&self, event: Value);
}

/// A call in progress, by its number. The audience of a call that has ended hears nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Audience(u64);

/// What a call in progress has.
#[derive(Clone)]
struct Hearing {
    listener: Arc<dyn Listener>,
    stop: Stop,
    /// Runs that began in the call, the outermost first.
    new_runs: Arc<Mutex<Vec<NewRun>>>,
    result: Arc<Mutex<Option<Value>>>,
}

/// All calls in progress, and the number of the next one.
static CALLS: Mutex<(u64, BTreeMap<u64, Hearing>)> = Mutex::new((0, BTreeMap::new()));

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A call in progress, until dropped.
pub(crate) struct Attending(Audience);

impl Attending {
    pub(crate) fn begin(listener: Arc<dyn Listener>, stop: Stop) -> Self {
        let mut calls = lock(&CALLS);
        let number = calls.0;
        calls.0 += 1;
        calls.1.insert(number, Hearing { listener, stop, new_runs: Arc::default(), result: Arc::default() });
        Self(Audience(number))
    }

    pub(crate) fn audience(&self) -> Audience {
        self.0
    }

    /// The result of the verb, if the verb has one.
    pub(crate) fn result(&self) -> Option<Value> {
        lock(&self.0.hearing()?.result).take()
    }

    /// Removes the traces of runs that ended ahead of their first step.
    pub(crate) fn discard_new_runs(&self) {
        lock(&self.0.new_runs()).iter().rev().for_each(NewRun::discard);
    }
}

impl Drop for Attending {
    fn drop(&mut self) {
        lock(&CALLS).1.remove(&self.0.0);
    }
}

impl Audience {
    fn hearing(self) -> Option<Hearing> {
        lock(&CALLS).1.get(&self.0).cloned()
    }

    /// Tells the program an event, which is made for a program that listens only.
    pub(crate) fn tell(self, event: impl FnOnce() -> Value) {
        if let Some(hearing) = self.hearing().filter(|hearing| hearing.listener.listens()) {
            hearing.listener.hear(event());
        }
    }

    /// The result of the verb.
    pub(crate) fn end_with(self, result: Value) {
        if let Some(hearing) = self.hearing() {
            *lock(&hearing.result) = Some(result);
        }
    }

    /// The request of the program to stop.
    pub(crate) fn stop(self) -> Stop {
        self.hearing().map(|hearing| hearing.stop).unwrap_or_default()
    }

    pub(crate) fn new_runs(self) -> Arc<Mutex<Vec<NewRun>>> {
        self.hearing().map(|hearing| hearing.new_runs).unwrap_or_default()
    }

    /// Whether the program asks for the end.
    ///
    /// # Errors
    /// [`tamt::Error::Stopped`] if it does.
    pub(crate) fn check(self) -> tamt::Result<()> {
        match self.stop().requested() {
            Some(signal) => Err(tamt::Error::Stopped { signal, step: 0, checkpoint: None }),
            None => Ok(()),
        }
    }

    /// Tells how far work without steps is.
    ///
    /// # Errors
    /// [`tamt::Error::Stopped`] if the program asks for the end.
    pub(crate) fn counted(self, work: &str, unit: &str, done: u64, total: Option<u64>) -> tamt::Result<()> {
        self.tell(|| json!({ "event": "progress", "work": work, "unit": unit, "done": done, "total": total }));
        self.check()
    }
}

/// Tells the audience how a run goes.
pub(crate) struct Told {
    audience: Audience,
    stage: String,
    total: u64,
}

impl Told {
    pub(crate) fn new(audience: Audience) -> Self {
        Self { audience, stage: String::new(), total: 0 }
    }
}

impl Observer for Told {
    fn plan(&mut self, stage: &str, total_steps: u64, start: u64) {
        stage.clone_into(&mut self.stage);
        self.total = total_steps;
        self.audience.tell(|| json!({ "event": "stage", "stage": stage, "total": total_steps, "start": start }));
    }

    fn step(&mut self, report: &StepReport<'_>) {
        self.audience.tell(|| {
            let mut event = Map::new();
            event.insert("event".into(), json!("step"));
            event.insert("stage".into(), json!(self.stage));
            event.insert("step".into(), json!(report.step));
            event.insert("total".into(), json!(self.total));
            event.insert("loss".into(), json!(report.loss));
            event.insert("learning_rate".into(), json!(report.learning_rate));
            event.insert("tokens".into(), json!(report.tokens));
            event.insert("seconds".into(), json!(report.seconds));
            event.extend(report.extras.iter().map(|(name, value)| ((*name).to_owned(), json!(value))));
            Value::Object(event)
        });
    }

    fn evaluating(&mut self, done: u64, total: u64) {
        let stage = &self.stage;
        self.audience.tell(|| json!({ "event": "evaluating", "stage": stage, "done": done, "total": total }));
    }

    fn evaluated(&mut self, step: u64, values: &[(&str, f64)]) {
        let stage = &self.stage;
        let values: Map<String, Value> = values.iter().map(|&(name, value)| (name.to_owned(), json!(value))).collect();
        self.audience.tell(|| json!({ "event": "evaluated", "stage": stage, "step": step, "values": values }));
    }

    fn note(&mut self, text: &str) {
        self.audience.tell(|| json!({ "event": "note", "text": text }));
    }
}
