//! `tamt completions` and `tamt man`: scripts and pages made from the definition of the command line.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use clap::{Command, CommandFactory};
use clap_mangen::Man;
use serde_json::json;
use tamt_files::atomic_write;

use crate::args::Cli;
use crate::args::generate::{CompletionsArgs, ManArgs};
use crate::printer::Printer;

pub(super) fn completions(args: &CompletionsArgs, printer: Printer) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "tamt", &mut script);
    let script = String::from_utf8(script).context("the script is not UTF-8")?;
    printer.result(&json!({ "shell": args.shell.to_string(), "script": script }), &script)
}

/// Writes `tamt.1` and a page per verb, `tamt-VERB.1`.
pub(super) fn man(args: &ManArgs, printer: Printer) -> Result<()> {
    let directory = &args.directory;
    fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let mut command = Cli::command();
    command.build();
    let mut files = vec![write_page(command.clone(), directory)?];
    for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
        files.push(write_page(verb.clone(), directory)?);
    }
    printer.result(&json!({ "files": files }), &format!("{} pages in {}", files.len(), directory.display()))
}

/// Writes the page of `command` and returns its file name.
fn write_page(command: Command, directory: &Path) -> Result<String> {
    let page = Man::new(command);
    let file = page.get_filename();
    let path = directory.join(&file);
    atomic_write(&path, |file| page.render(file)).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(file)
}
