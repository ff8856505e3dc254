//! SIGINT (Ctrl-C) and SIGTERM (`kill`): the first signal asks the run to save and stop, the second ends the process.

use std::io::{self, IsTerminal};
use std::process;
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tamt::run::Stop;

use crate::exit;
use crate::printer::Printer;

/// Turns SIGINT and SIGTERM into a stop request, for a verb that saves checkpoints. Other verbs do not call it and
/// keep the default handling of signals.
pub(crate) fn stop_on_signals(printer: Printer) -> io::Result<Stop> {
    let stop = Stop::new();
    let request = stop.clone();
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let listen = move || {
        for signal in signals.forever() {
            if request.requested().is_some() {
                process::exit(exit::for_signal(signal).into());
            }
            request.request(signal);
            printer.progress(&notice());
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(listen)?;
    Ok(stop)
}

fn notice() -> String {
    // A terminal shows the progress bar, or `^C`, on the current line.
    let start = if io::stderr().is_terminal() { "\n" } else { "" };
    format!("{start}stopping after this step; once more to stop at once, without saving")
}
