//! The progress of a run: a bar on a terminal, a line every few seconds elsewhere.

use std::cell::RefCell;
use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tamt::metrics::label;
use tamt::run::{Observer, StepReport};
use tamt_data::{ReadProgress, ReadStage};

use crate::present::{self, Present};
use crate::printer::{Printer, grouped, metric};

/// Time between two lines without a terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Time between two pictures of a spinner.
const SPINNER_INTERVAL: Duration = Duration::from_millis(100);

/// Weight of the latest step in the shown speed.
const SMOOTHING: f64 = 0.1;

/// Shows a run's progress on stderr, or nothing with `--quiet`.
pub(crate) struct Progress {
    printer: Printer,
    display: Display,
    stage: String,
    total: u64,
    speed: Speed,
    /// The text of the evaluations, as each line about one ends.
    evaluated_on: String,
    /// Until the first stage.
    preparing: Option<Heartbeat>,
}

enum Display {
    Hidden,
    Bar(ProgressBar),
    Lines { last: Option<Instant> },
}

impl Display {
    /// Whether a line is due, or `forced`; restarts the interval if so. False with a bar.
    fn line_is_due(&mut self, forced: bool) -> bool {
        let Self::Lines { last } = self else { return false };
        let is_due = forced || last.is_none_or(|last| last.elapsed() >= LINE_INTERVAL);
        if is_due {
            *last = Some(Instant::now());
        }
        is_due
    }

    fn new(printer: Printer) -> Self {
        if printer.is_quiet() {
            Self::Hidden
        } else if io::stderr().is_terminal() {
            let bar = ProgressBar::no_length();
            let bar = GROUP.get().map_or_else(|| bar.clone(), |group| group.add(bar.clone()));
            bar.set_style(style());
            Self::Bar(bar)
        } else {
            Self::Lines { last: None }
        }
    }
}

impl Progress {
    pub(crate) fn new(printer: Printer) -> Self {
        let (display, speed) = (Display::new(printer), Speed::default());
        let preparing = Some(Heartbeat::start(printer, "preparing"));
        Self { printer, display, stage: String::new(), total: 0, speed, evaluated_on: String::new(), preparing }
    }

    fn print(&self, text: &str) {
        match &self.display {
            Display::Hidden => {}
            Display::Bar(bar) => bar.suspend(|| self.printer.progress(text)),
            Display::Lines { .. } => self.printer.progress(text),
        }
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len}  {msg}")
        .expect("the template is a constant and parses")
}

fn style_without_total() -> ProgressStyle {
    ProgressStyle::with_template("{prefix} {pos} {msg}").expect("the template is a constant and parses")
}

impl Observer for Progress {
    fn plan(&mut self, stage: &str, total_steps: u64, start: u64) {
        self.preparing = None;
        stage.clone_into(&mut self.stage);
        self.total = total_steps;
        self.speed = Speed::default();
        let stage = stage.to_owned();
        present::set(Some(Present { stage: stage.clone(), step: start, total: total_steps, seconds_left: None }));
        match &mut self.display {
            Display::Hidden => {}
            Display::Bar(bar) => {
                bar.reset();
                bar.set_prefix(stage);
                bar.set_message("");
                bar.set_length(total_steps);
                bar.set_position(start);
            }
            Display::Lines { last } => *last = None,
        }
    }

    fn step(&mut self, report: &StepReport<'_>) {
        self.speed.update(report);
        present::at(report.step, self.speed.left(report.step, self.total));
        let summary = || summary(report, &self.speed, self.total);
        if let Display::Bar(bar) = &self.display {
            bar.set_message(summary());
            bar.set_position(report.step);
        } else if self.display.line_is_due(report.step == self.total) {
            let line = format!("{}: step {}/{}  {}", self.stage, report.step, self.total, summary());
            self.printer.progress(&line);
        }
    }

    fn evaluates_on(&mut self, tokens: u64, block_size: usize) {
        self.evaluated_on = format!("  {}", text_of(tokens, block_size as u64));
    }

    fn evaluating(&mut self, done: u64, total: u64) {
        self.preparing = None;
        let share = 100 * done / total.max(1);
        if let Display::Bar(bar) = &self.display {
            bar.set_message(format!("evaluating: {share} %"));
        } else if self.display.line_is_due(false) {
            self.printer.progress(&format!("{}: evaluating, {share} %", self.stage));
        }
    }

    fn evaluated(&mut self, step: u64, values: &[(&str, f64)]) {
        let values: Vec<_> = values.iter().map(|(name, value)| format!("{} {}", label(name), metric(*value))).collect();
        let text = format!("{}: evaluated at step {step}: {}{}", self.stage, values.join("  "), self.evaluated_on);
        self.print(&text);
    }

    fn note(&mut self, text: &str) {
        self.preparing = None;
        self.print(text);
    }

    fn finish(&mut self) {
        self.preparing = None;
        if let Display::Bar(bar) = &self.display {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    /// Removes the bar of a failed run ahead of its error.
    fn drop(&mut self) {
        self.finish();
    }
}

/// The bars of a study and of its present run, which stand together.
static GROUP: OnceLock<MultiProgress> = OnceLock::new();

/// The bar of a whole study, above the one of its present run.
pub(crate) struct StudyProgress {
    printer: Printer,
    bar: Option<ProgressBar>,
}

impl StudyProgress {
    /// A study of `total` runs.
    pub(crate) fn new(printer: Printer, total: u64) -> Self {
        let is_shown = !printer.is_quiet() && io::stderr().is_terminal();
        let bar = is_shown.then(|| {
            let bar = GROUP.get_or_init(MultiProgress::new).add(ProgressBar::new(total));
            bar.set_style(style());
            bar.set_prefix("study");
            bar
        });
        Self { printer, bar }
    }

    /// Whether a bar is shown, which each call replaces.
    pub(crate) fn is_bar(&self) -> bool {
        self.bar.is_some()
    }

    /// `done` runs have ended; `text` says what is next.
    pub(crate) fn at(&self, done: u64, total: u64, text: &str) {
        match &self.bar {
            Some(bar) => {
                bar.set_position(done);
                bar.set_message(text.to_owned());
                bar.tick();
            }
            None => self.printer.progress(&format!("study: {done} of {total} runs have ended; {text}")),
        }
    }

    /// Prints a line that stays.
    pub(crate) fn note(&self, text: &str) {
        match GROUP.get() {
            Some(group) => group.suspend(|| self.printer.progress(text)),
            None => self.printer.progress(text),
        }
    }
}

impl Drop for StudyProgress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Shows the progress of work without losses: evaluating, encoding.
pub(crate) struct Counter {
    printer: Printer,
    display: Display,
    label: &'static str,
    unit: &'static str,
    /// `None` for an unknown number.
    total: Option<u64>,
}

impl Counter {
    /// Work called `label`, on `total` items called `unit`.
    pub(crate) fn new(printer: Printer, label: &'static str, unit: &'static str, total: u64) -> Self {
        Self::of(printer, label, unit, Some(total))
    }

    /// As [`Counter::new`], on a number of items that may be unknown.
    pub(crate) fn of(printer: Printer, label: &'static str, unit: &'static str, total: Option<u64>) -> Self {
        let mut display = Display::new(printer);
        match &mut display {
            Display::Hidden => {}
            Display::Bar(bar) => {
                bar.set_prefix(label);
                bar.set_message(unit);
                if let Some(total) = total {
                    bar.set_length(total);
                } else {
                    bar.set_style(style_without_total());
                }
            }
            // Work shorter than the interval prints no line.
            Display::Lines { last } => *last = Some(Instant::now()),
        }
        Self { printer, display, label, unit, total }
    }

    /// `done` of the items are done.
    ///
    /// # Errors
    /// [`tamt::Error::Stopped`] if the program that called the verb asks for the end.
    pub(crate) fn at(&mut self, done: u64) -> tamt::Result<()> {
        if let Some(audience) = self.printer.audience() {
            return audience.counted(self.label, self.unit, done, self.total);
        }
        if let Display::Bar(bar) = &self.display {
            bar.set_position(done);
        } else if self.display.line_is_due(false) {
            self.printer.progress(&match self.total {
                Some(total) => format!("{}: {done}/{total}", self.label),
                None => format!("{}: {done} {}", self.label, self.unit),
            });
        }
        Ok(())
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        if let Display::Bar(bar) = &self.display {
            bar.finish_and_clear();
        }
    }
}

/// Shows the progress of reading text.
pub(crate) struct Reading {
    printer: Printer,
    display: RefCell<Display>,
}

impl Reading {
    pub(crate) fn new(printer: Printer) -> Self {
        let mut display = Display::new(printer);
        match &mut display {
            Display::Hidden => {}
            Display::Bar(bar) => bar.set_style(bytes_style()),
            Display::Lines { last } => *last = Some(Instant::now()),
        }
        Self { printer, display: RefCell::new(display) }
    }

    pub(crate) fn at(&self, read: ReadProgress) {
        let (label, message) = match read.stage {
            ReadStage::Digest => ("digest of the text", String::new()),
            ReadStage::Tokenize => ("reading text", format!("{} tokens", grouped(read.tokens))),
        };
        let mut display = self.display.borrow_mut();
        if let Display::Bar(bar) = &*display {
            bar.set_prefix(label);
            bar.set_message(message);
            if let Some(total) = read.total {
                bar.set_length(total);
            }
            bar.set_position(read.bytes);
        } else if display.line_is_due(false) {
            let megabytes = |bytes: u64| bytes / 1_000_000;
            let of = read.total.map_or_else(String::new, |total| format!(" of {}", megabytes(total)));
            let message = if message.is_empty() { message } else { format!(", {message}") };
            self.printer.progress(&format!("{label}: {}{of} MB{message}", megabytes(read.bytes)));
        }
    }

    /// A notice for a person.
    pub(crate) fn note(&self, text: &str) {
        match &*self.display.borrow() {
            Display::Bar(bar) => bar.suspend(|| self.printer.progress(text)),
            Display::Hidden | Display::Lines { .. } => self.printer.progress(text),
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if let Display::Bar(bar) = &*self.display.borrow() {
            bar.finish_and_clear();
        }
    }
}

fn spinner_style() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {msg}  {elapsed}").expect("the template is a constant and parses")
}

fn bytes_style() -> ProgressStyle {
    ProgressStyle::with_template("{prefix} {wide_bar} {bytes}/{total_bytes}  {msg}")
        .expect("the template is a constant and parses")
}

/// Shows that work without countable items goes on: a spinner on a terminal, elsewhere a line with the seconds so far every
/// few seconds, until dropped.
pub(crate) struct Heartbeat {
    spinner: Option<ProgressBar>,
    thread: Option<(Arc<AtomicBool>, JoinHandle<()>)>,
}

impl Heartbeat {
    /// Work called `label`: "reading the model".
    pub(crate) fn start(printer: Printer, label: &'static str) -> Self {
        match Display::new(printer) {
            Display::Hidden => Self { spinner: None, thread: None },
            Display::Bar(bar) => {
                bar.set_style(spinner_style());
                bar.set_message(label);
                bar.enable_steady_tick(SPINNER_INTERVAL);
                Self { spinner: Some(bar), thread: None }
            }
            Display::Lines { .. } => Self { spinner: None, thread: Self::lines(printer, label) },
        }
    }

    /// The thread that prints lines; none if it cannot start, and the work goes on unseen.
    fn lines(printer: Printer, label: &'static str) -> Option<(Arc<AtomicBool>, JoinHandle<()>)> {
        let (done, started) = (Arc::new(AtomicBool::new(false)), Instant::now());
        let is_done = done.clone();
        let beat = move || {
            let mut lines = 0;
            while !is_done.load(Ordering::SeqCst) {
                let next = LINE_INTERVAL * (lines + 1);
                thread::park_timeout(next.saturating_sub(started.elapsed()));
                if started.elapsed() >= next && !is_done.load(Ordering::SeqCst) {
                    lines += 1;
                    printer.progress(&format!("{label}: {}", duration(started.elapsed().as_secs_f64())));
                }
            }
        };
        let thread = thread::Builder::new().name("progress".to_owned()).spawn(beat).ok();
        thread.map(|thread| (done, thread))
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        if let Some(spinner) = self.spinner.take() {
            spinner.finish_and_clear();
        }
        let Some((done, thread)) = self.thread.take() else { return };
        done.store(true, Ordering::SeqCst);
        thread.thread().unpark();
        // The thread does not panic, and its end has no result.
        let _ = thread.join();
    }
}

/// Exponential means over the steps of this process.
#[derive(Debug, Default)]
struct Speed {
    seconds: Option<f64>,
    tokens: Option<f64>,
}

impl Speed {
    fn update(&mut self, report: &StepReport<'_>) {
        let smooth = |mean: &mut Option<f64>, value: f64| {
            *mean = Some(mean.map_or(value, |mean| mean + SMOOTHING * (value - mean)));
        };
        smooth(&mut self.seconds, report.seconds);
        smooth(&mut self.tokens, report.tokens as f64);
    }

    /// Seconds until step `total`.
    fn left(&self, step: u64, total: u64) -> Option<f64> {
        Some(self.seconds? * total.saturating_sub(step) as f64)
    }
}

fn summary(report: &StepReport<'_>, speed: &Speed, total: u64) -> String {
    let mut text = format!("loss {:.4}", report.loss);
    for (name, value) in report.extras {
        text.push_str(&format!("  {} {value:.4}", label(name)));
    }
    if let (Some(seconds), Some(tokens)) = (speed.seconds, speed.tokens)
        && seconds > 0.0
    {
        let left = speed.left(report.step, total).unwrap_or(0.0);
        text.push_str(&format!("  {:.0} tokens/s  {} left", tokens / seconds, duration(left)));
    }
    text
}

/// What a loss was measured on, in parentheses.
pub(crate) fn text_of(tokens: u64, block_size: u64) -> String {
    format!("({} tokens in blocks of {block_size})", grouped(tokens))
}

/// Seconds in their two largest units: 42s, 3m05s, 2h07m, 3d04h.
pub(crate) fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0).round() as u64;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    if days > 0 {
        format!("{days}d{:02}h", hours % 24)
    } else if hours > 0 {
        format!("{hours}h{:02}m", minutes % 60)
    } else if minutes > 0 {
        format!("{minutes}m{:02}s", seconds % 60)
    } else {
        format!("{seconds}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_show_their_two_largest_units() {
        let shown: Vec<_> = [0.2, 59.4, 59.6, 3599.0, 7620.0, 273_600.0].into_iter().map(duration).collect();
        assert_eq!(shown, ["0s", "59s", "1m00s", "59m59s", "2h07m", "3d04h"]);
    }

    #[test]
    fn the_summary_extrapolates_from_the_smoothed_speed() {
        let mut speed = Speed::default();
        let mut report =
            StepReport { step: 1, loss: 2.0, learning_rate: 1e-5, tokens: 100, seconds: 1.0, extras: &[("kd", 0.25)] };
        speed.update(&report);
        report.seconds = 2.0;
        speed.update(&report);
        // 1 + 0.1 * (2 - 1) = 1.1 seconds a step, 60 steps left.
        assert_eq!(summary(&report, &speed, 61), "loss 2.0000  kd 0.2500  91 tokens/s  1m06s left");
    }
}
