//! What the verbs do, one file each.

use anyhow::Result;

use crate::args::Verb;
use crate::printer::Printer;

/// Carries out a verb.
pub(crate) fn run(verb: &Verb, printer: Printer) -> Result<()> {
    let _ = printer;
    match verb {
        Verb::Demo(_) => anyhow::bail!("`demo` is not wired yet"),
        Verb::Pretrain(_) => anyhow::bail!("`pretrain` is not wired yet"),
        Verb::Find(_) => anyhow::bail!("`find` is not wired yet"),
        Verb::Inspect(_) => anyhow::bail!("`inspect` is not wired yet"),
        Verb::Eval(_) => anyhow::bail!("`eval` is not wired yet"),
        Verb::Encode(_) => anyhow::bail!("`encode` is not wired yet"),
        Verb::Apply(_) => anyhow::bail!("`apply` is not wired yet"),
    }
}
