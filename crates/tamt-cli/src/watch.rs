//! Who watches a run: the program that called the verb, or a person.

use tamt::run::Observer;

use crate::audience::Told;
use crate::printer::Printer;
use crate::progress::Progress;

/// The observer of a run: the audience, where a program has called the verb, else progress on stderr.
pub(crate) fn observer(printer: Printer) -> Box<dyn Observer> {
    match printer.audience() {
        Some(audience) => Box::new(Told::new(audience)),
        None => Box::new(Progress::new(printer)),
    }
}
