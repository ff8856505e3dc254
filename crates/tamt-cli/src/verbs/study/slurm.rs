//! `--slurm`: an array job whose tasks are workers.

use std::env;
use std::fmt::Write;
use std::io;
use std::path::{self, Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::json;
use tamt_study::files;

use crate::args::study::StudyArgs;
use crate::exit::UsageError;
use crate::printer::Printer;
use crate::verbs::study::opened::Study;

/// The script, in the study's directory.
const SCRIPT: &str = "slurm.sh";

/// The directory of the tasks' output, in the study's directory.
const LOGS: &str = "slurm";

/// Tasks of a job whose flags give no number.
const MOST_TASKS: usize = 8;

/// What follows the flags of the job and the settings of the worker.
const BODY: &str = r#"
# Slurm sends SIGUSR1 to this script alone, ahead of the time limit: the worker saves a checkpoint, and the task returns
# to the queue. SIGTERM (scancel, preemption, `scontrol requeue`) goes to the worker as well, which saves a checkpoint
# too; a second SIGTERM from here would end the worker without one.
limit=
again=
worker=
on_limit() {
    limit=reached
    again=yes
    if [ -n "$worker" ]; then kill -TERM "$worker" 2>/dev/null; fi
}
trap on_limit USR1
trap 'again=yes' TERM

start_worker &
worker=$!
if [ -n "$limit" ]; then kill -TERM "$worker" 2>/dev/null; fi
# A signal ends `wait`, not the worker; 127 says that the worker's code is known already.
code=1
while :; do
    again=
    wait "$worker"
    status=$?
    if [ "$status" -ne 127 ]; then code=$status; fi
    if [ -z "$again" ]; then break; fi
done
# 143: the worker has stopped as it was told, with runs left.
if [ -n "$limit" ] && [ "$code" -eq 143 ]; then
    echo "the time limit is near: task $SLURM_JOB_ID returns to the queue"
    scontrol requeue "$SLURM_JOB_ID" && exit 0
    echo "the task cannot return to the queue; submit this script again" >&2
fi
exit "$code"
"#;

/// Checks that there is an `sbatch`.
pub(super) fn require() -> Result<()> {
    match Command::new("sbatch").arg("--version").output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => bail!(
            "--slurm: there is no `sbatch` on this machine; call it where jobs are submitted, or start workers by \
             --worker or --jobs N (--dry-run shows the script)"
        ),
        Err(error) => Err(error).context("--slurm: cannot run `sbatch`"),
        Ok(_) => Ok(()),
    }
}

/// Writes the script and submits it. `open` runs are to be done.
pub(super) fn submit(study: &Study, args: &StudyArgs, flags: &str, open: usize, printer: Printer) -> Result<()> {
    let script = script(study, args, flags, open)?;
    let path = study.directory.join(SCRIPT);
    files::create_directory(&study.directory.join(LOGS))?;
    files::write_whole(&path, script.as_bytes())?;
    let output = Command::new("sbatch").arg("--parsable").arg(&path).output().context("cannot run `sbatch`")?;
    let told = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if !output.status.success() {
        bail!("sbatch refuses {}: {told}", path.display());
    }
    if !told.is_empty() {
        printer.info(&told)?;
    }
    // `JOB`, or `JOB;CLUSTER`.
    let answer = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let job = answer.split(';').next().unwrap_or(&answer);
    let text = format!(
        "submitted job {job} for {open} runs: {}\nits output: {}; progress: the same command with --status in place of --slurm\n",
        path.display(),
        study.directory.join(LOGS).display()
    );
    printer.result(
        &json!({ "job": job, "script": path, "logs": study.directory.join(LOGS), "runs": study.runs.len(),
            "open": open }),
        &text,
    )
}

/// The script of the job.
pub(super) fn script(study: &Study, args: &StudyArgs, flags: &str, open: usize) -> Result<String> {
    if flags.contains(char::is_control) {
        return Err(UsageError("--slurm: the flags of sbatch stand in one line".to_owned()).into());
    }
    let directory = absolute(&study.directory)?;
    let logs = text(&directory.join(LOGS))?.replace('%', "%%");
    let mut script = String::from("#!/usr/bin/env bash\n");
    let directives = [
        format!("--job-name=tamt-{}", word(&study.plan.name)),
        format!("--array=0-{}", open.clamp(1, MOST_TASKS) - 1),
        "--requeue --open-mode=append --signal=B:USR1@120".to_owned(),
        format!("--output=\"{}/%A_%a.log\"", logs.replace('\\', "\\\\").replace('"', "\\\"")),
        flags.to_owned(),
    ];
    for directive in directives.iter().filter(|directive| !directive.trim().is_empty()) {
        writeln!(script, "#SBATCH {}", directive.trim())?;
    }
    script.push_str("\n# Each task is a worker of the study. `sbatch` of this file adds workers.\n");
    writeln!(script, "start_worker() {{\n    exec {}\n}}", worker(study, args, &directory)?)?;
    script.push_str(BODY);
    Ok(script)
}

/// The command line of a worker. Slurm runs a copy of the script in another directory, so all paths are absolute.
fn worker(study: &Study, args: &StudyArgs, directory: &Path) -> Result<String> {
    let program = env::current_exe().context("cannot find this program")?;
    let threads = match args.common.threads {
        Some(threads) => threads.to_string(),
        // Without --cpus-per-task, Slurm sets the second variable alone.
        None => "\"${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}}\"".to_owned(),
    };
    let mut words = vec![quoted(&program)?, "study".to_owned(), quoted(&study.plan.path)?];
    words.extend(["--output-dir".to_owned(), quoted(directory)?]);
    if args.store.is_some() {
        words.extend(["--store".to_owned(), quoted(&absolute(study.store.root())?)?]);
    }
    words.extend(["--worker", "--threads"].map(str::to_owned));
    words.push(threads);
    Ok(words.join(" "))
}

fn absolute(path: &Path) -> Result<PathBuf> {
    path::absolute(path).with_context(|| format!("cannot find {}", path.display()))
}

/// A path as text without line breaks.
fn text(path: &Path) -> Result<&str> {
    let text = path.to_str().filter(|text| !text.contains(char::is_control));
    text.with_context(|| format!("--slurm: {} cannot stand in a script", path.display()))
}

/// A path as a word of the shell.
fn quoted(path: &Path) -> Result<String> {
    Ok(format!("'{}'", text(path)?.replace('\'', r"'\''")))
}

/// A name as a part of a job's name.
fn word(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }).collect()
}
