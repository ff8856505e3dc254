//! `tamt demo`: a study of all methods on an invented language, from pre-training to a report.

mod plan;
mod show;

use std::path::Path;

use anyhow::Result;
use tamt::demo::{DemoSettings, PretrainedBase, TASKS_DIR, TRAIN_FILE, VALID_FILE, pretrain_base, write_data};
use tamt::run::{RunDir, SETTINGS_FILE, VerbSettings};

use crate::args::demo::DemoArgs;
use crate::args::study::StudyArgs;
use crate::exit::Interrupted;
use crate::printer::Printer;
use crate::progress::{Heartbeat, Progress, duration};
use crate::resolve;
use crate::signals::Signals;
use crate::verbs::demo::plan::{PLAN_FILE, REPORT_DIR, STUDY_DIR};
use crate::verbs::{report, study};

pub(super) fn run(args: &DemoArgs, printer: Printer) -> Result<()> {
    let signals = Signals::listen(printer)?;
    let mut settings = if args.tiny { plan::tiny_settings() } else { DemoSettings::default() };
    settings.seed = args.seed.unwrap_or(settings.seed);
    settings.compute = resolve::compute(&args.common);
    if let Some(directory) = &args.data_only {
        return data_only(&settings, directory, printer);
    }
    let root = &args.output_dir;
    let shown = root.display();
    printer.info(&format!("a demonstration with seed {}, minutes on two cores; output: {shown}", settings.seed))?;
    // The same command goes on: a plan runs only what is not done.
    let goes_on = args.resume || root.join(SETTINGS_FILE).is_file();
    let directory = RunDir::create(root, &VerbSettings::new("demo", &settings), goes_on)?;
    let base = prepare(args, &settings, root, &signals, printer)?;
    directory.check_held()?;
    compare(args, root, printer)?;
    let report = report::write(&[root.join(STUDY_DIR)], &root.join(REPORT_DIR))?;
    show::Outcome { root, seed: settings.seed, base, report: &report }.print(printer)
}

fn data_only(settings: &DemoSettings, directory: &Path, printer: Printer) -> Result<()> {
    write_data(settings, directory)?;
    let json = serde_json::json!({ "output_dir": directory.to_string_lossy(), "seed": settings.seed });
    let shown = directory.display();
    let text = format!("tokenizer/, {TRAIN_FILE}, {VALID_FILE} and {TASKS_DIR}/ of the language are in {shown}");
    printer.result(&json, &text)
}

/// Writes the language, the pre-trained model and, last, the plan. A plan that is there stays as it is: its reader may
/// have extended it.
fn prepare(
    args: &DemoArgs,
    settings: &DemoSettings,
    root: &Path,
    signals: &Signals,
    printer: Printer,
) -> Result<PretrainedBase> {
    let plan = root.join(PLAN_FILE);
    let is_new = !plan.is_file();
    if is_new {
        let _heartbeat = Heartbeat::start(printer, "inventing a language");
        write_data(settings, root)?;
    }
    let mut progress = Progress::new(printer);
    let base = pretrain_base(settings, root, &mut progress, &signals.stop())?;
    drop(progress);
    if is_new {
        plan::write(&plan, args)?;
    }
    printer.info(&format!(
        "pre-trained a model for {}: MLM loss {:.2}, {:.0} % of the hidden words are predicted",
        duration(base.seconds),
        base.mlm_loss,
        100.0 * base.mlm_accuracy
    ))?;
    Ok(base)
}

/// Runs the plan, with a worker for each thread: products of so small a model leave a second thread idle.
fn compare(args: &DemoArgs, root: &Path, printer: Printer) -> Result<()> {
    let study = StudyArgs {
        plan: root.join(PLAN_FILE),
        output_dir: root.join(STUDY_DIR),
        store: None,
        dry_run: false,
        status: false,
        prune: false,
        worker: false,
        jobs: rayon::current_num_threads().try_into().ok(),
        slurm: None,
        // A failure may be that of a full disk: the same command tries again.
        retry_failed: true,
        tied: false,
        common: args.common.clone(),
    };
    study::run(&study, printer.nested()).map_err(|error| {
        if error.is::<Interrupted>() { error } else { error.context("a run of the demonstration's plan failed") }
    })
}
