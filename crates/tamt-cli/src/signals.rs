//! Ctrl-C and `kill`: the first asks the run to save and stop, the second ends the process at once.

use std::io::{self, IsTerminal};
use std::process;
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tamt::run::Stop;

use crate::exit;
use crate::printer::Printer;

/// Turns SIGINT and SIGTERM into a request to stop, for a verb that obeys it; verbs that have nothing to save leave
/// signals as they are.
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
    // A terminal shows the bar, or `^C`, on the line where the cursor is.
    let start = if io::stderr().is_terminal() { "\n" } else { "" };
    format!("{start}stopping after this step; once more to stop at once, without saving")
}
