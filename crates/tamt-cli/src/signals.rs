//! SIGINT (Ctrl-C), SIGTERM (`kill`) and SIGHUP (a closed terminal). Between a run's first step and its result the first
//! signal asks the run to save and stop, and the second ends the process. In any other phase (reading text, digesting
//! weights), and in verbs without a run, the first one ends the process, which then has nothing to save.

use std::fs;
use std::io::{self, IsTerminal};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals as Arriving;
use tamt::run::{NewRun, RunDir, Stop};
use tamt_files::remove_unfinished;

use crate::exit;
use crate::printer::Printer;

/// What a verb with a run says at a signal outside of training.
const OUTSIDE_OF_TRAINING: &str = " outside of training: nothing is lost";

/// Ends the process at the first signal: for verbs that have nothing to save.
pub(crate) fn end_at_once(printer: Printer) -> io::Result<()> {
    Signals::answer(printer, "").map(|_| ())
}

/// The signals that a verb with a run directory answers.
#[derive(Clone)]
pub(crate) struct Signals {
    stop: Stop,
    /// Runs that began in this process, the outermost first.
    new_runs: Arc<Mutex<Vec<NewRun>>>,
    /// What happens ahead of the end of the process by a signal.
    at_exit: Arc<Mutex<Vec<AtExit>>>,
    /// What the first signal does to a verb that holds the request, beside making it.
    at_stop: Arc<Mutex<AtStop>>,
}

type AtExit = Box<dyn Fn() + Send>;

/// What is said at the first signal, and what happens then.
struct AtStop {
    said: &'static str,
    act: Option<Box<dyn FnOnce() + Send>>,
}

impl Default for AtStop {
    fn default() -> Self {
        Self { said: "stopping after this step; once more to stop at once, without saving", act: None }
    }
}

/// Whether a signal ends the process.
static IS_ENDING: AtomicBool = AtomicBool::new(false);

/// Waits for the end of the process, where a signal ends it: an error that a verb meets meanwhile is none of its own.
pub(crate) fn wait_if_ending() {
    while IS_ENDING.load(Ordering::SeqCst) {
        thread::park();
    }
}

/// The process listens once: the runs of a study share its signals.
static LISTENING: Mutex<Option<Signals>> = Mutex::new(None);

impl Signals {
    /// Listens from here on. A later call begins another run of the same process.
    pub(crate) fn listen(printer: Printer) -> io::Result<Self> {
        Self::answer(printer, OUTSIDE_OF_TRAINING)
    }

    /// Listens from here on, for a verb without a run that ends by a signal.
    pub(crate) fn listen_without_run(printer: Printer) -> io::Result<Self> {
        Self::answer(printer, "")
    }

    /// Lets the first signal do `act` and say `said`, where the verb holds the request.
    pub(crate) fn at_stop(&self, said: &'static str, act: impl FnOnce() + Send + 'static) {
        *self.at_stop.lock().unwrap_or_else(PoisonError::into_inner) = AtStop { said, act: Some(Box::new(act)) };
    }

    /// Listens from here on. A signal that ends the process is reported with `what`.
    fn answer(printer: Printer, what: &'static str) -> io::Result<Self> {
        if let Some(audience) = printer.audience() {
            // The signals of the process belong to the program that called the verb.
            let (stop, new_runs) = (audience.stop(), audience.new_runs());
            return Ok(Self { stop, new_runs, at_exit: Arc::default(), at_stop: Arc::default() });
        }
        let mut listening = LISTENING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(signals) = &*listening {
            signals.new_runs.lock().unwrap_or_else(PoisonError::into_inner).clear();
            return Ok(signals.clone());
        }
        let signals = Self::start(printer, what)?;
        *listening = Some(signals.clone());
        Ok(signals)
    }

    fn start(printer: Printer, what: &'static str) -> io::Result<Self> {
        let signals =
            Self { stop: Stop::new(), new_runs: Arc::default(), at_exit: Arc::default(), at_stop: Arc::default() };
        let Self { stop, new_runs, at_exit, at_stop } = signals.clone();
        let hangup = (!is_ignored(SIGHUP)).then_some(SIGHUP);
        let mut arriving = Arriving::new([SIGINT, SIGTERM].into_iter().chain(hangup))?;
        let listen = move || {
            for signal in arriving.forever() {
                let is_first = stop.requested().is_none();
                stop.request(signal);
                if is_first && stop.is_held() {
                    let mut at_stop = at_stop.lock().unwrap_or_else(PoisonError::into_inner);
                    // Whoever reads the line may rely on what it says.
                    at_stop.act.take().into_iter().for_each(|act| act());
                    printer.progress(&format!("{}{}", line_start(), at_stop.said));
                    continue;
                }
                // What a run finds in its directory from here on is the work of this thread, which ends the process.
                IS_ENDING.store(true, Ordering::SeqCst);
                if is_first {
                    let new_runs = new_runs.lock().unwrap_or_else(PoisonError::into_inner);
                    new_runs.iter().rev().for_each(NewRun::discard);
                    let start = line_start();
                    printer.failure(&format!("{start}error: stopped by signal {signal}{what}"));
                }
                at_exit.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|last| last());
                remove_unfinished();
                process::exit(exit::for_signal(signal).into());
            }
        };
        thread::Builder::new().name("signals".to_owned()).spawn(listen)?;
        Ok(signals)
    }

    /// Runs `last` ahead of the end of the process by a signal.
    pub(crate) fn at_exit(&self, last: impl Fn() + Send + 'static) {
        self.at_exit.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(last));
    }

    /// The request that the signals make.
    pub(crate) fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Opens the directory of a run, whose traces a signal ahead of the first step removes. A signal during the opening
    /// waits.
    pub(crate) fn watch<E>(&self, open: impl FnOnce() -> Result<RunDir, E>) -> Result<RunDir, E> {
        let mut new_runs = self.new_runs.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = open()?;
        new_runs.extend(directory.new_run().cloned());
        Ok(directory)
    }

    /// Lets a signal wait for the end of `work`, which leaves no traces once it has ended.
    pub(crate) fn quietly<T>(&self, work: impl FnOnce() -> T) -> T {
        let _waiting = self.new_runs.lock().unwrap_or_else(PoisonError::into_inner);
        work()
    }
}

/// Whether the process began with `signal` ignored, as `nohup` asks for SIGHUP.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// A terminal shows the progress bar, or `^C`, on the current line.
fn line_start() -> &'static str {
    if io::stderr().is_terminal() { "\n" } else { "" }
}
