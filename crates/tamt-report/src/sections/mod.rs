//! The sections of a report, a file each, in the order of the page.

mod correlation;
mod cost;
mod curves;
mod masks;
mod order;
pub mod overview;
pub mod paper_order;
mod rates;
mod scarcity;
mod scores;
mod steps;
mod transfer;
mod view;
mod winning;
mod work;

use crate::document::{Block, Cell, Column, Document, RunCard, Section, Table, fixed};
use crate::error::Result;
use crate::names::{count, list};
use crate::run::{Kind, Run};
use crate::sections::view::View;
use crate::sections::work::Works;
use crate::study::Study;
use crate::ticket::TicketReader;

/// The report of a study. A section appears where its data exist.
///
/// # Errors
/// [`Error::Figure`](crate::error::Error::Figure) if a figure cannot be drawn.
pub fn document(study: &Study, reader: &dyn TicketReader) -> Result<Document> {
    let bases = study.bases();
    let views: Vec<View<'_>> = bases.iter().map(|base| View::new(study, base, bases.len() > 1)).collect();
    let works = Works::new(study, reader);
    let (mut sections, mut findings) = (Vec::new(), Vec::new());
    let mut add = |found: Option<(Section, Vec<String>)>| {
        if let Some((section, sentences)) = found {
            sections.push(section);
            findings.extend(sentences);
        }
    };
    let silent = |section: Option<Section>| section.map(|section| (section, Vec::new()));
    add(scores::section(&views));
    add(winning::section(&views));
    add(silent(curves::section(&views)?));
    add(correlation::section(&views)?);
    add(silent(steps::section(&views, &works)?));
    add(silent(scarcity::section(&views)?));
    add(silent(masks::section(&views, reader)?));
    add(silent(rates::section(&views, reader)?));
    add(silent(transfer::section(&views)?));
    add(silent(Some(cost::section(study, &works))));
    add(silent(left_out(study)));
    if !study.left_out.is_empty() {
        let (are, n) = if study.left_out.len() == 1 { ("is", 1) } else { ("are", study.left_out.len()) };
        findings.push(format!("{} {are} left out of all tables; the last section has the reasons.", count(n, "run")));
    }
    let runs = study.runs.iter().map(card).collect();
    Ok(Document { title: study.name.clone(), subtitle: subtitle(study, &bases), findings, sections, runs })
}

fn subtitle(study: &Study, bases: &[String]) -> String {
    let tasks: std::collections::BTreeSet<_> = study.scores.iter().map(|score| &score.task).collect();
    let methods = study.methods().into_iter().filter(|method| !method.is_dense()).count();
    let mut parts = vec![count(study.runs.len(), "run")];
    if !bases.is_empty() {
        parts.push(format!("base {}", list(bases)));
    }
    if methods > 0 {
        parts.push(count(methods, "method"));
    }
    if !tasks.is_empty() {
        parts.push(count(tasks.len(), "task"));
    }
    parts.join(" · ")
}

fn card(run: &Run) -> RunCard {
    let result = match run.kind {
        Kind::Tune => match (run.score(), run.metric()) {
            (Some(score), Some(metric)) => {
                let last = run.final_score().map_or(String::new(), |last| format!(", {} at the end", fixed(last, 2)));
                format!("{} {} at best{last}", crate::names::metric(metric), fixed(score, 2))
            }
            _ => String::new(),
        },
        _ => {
            let mlm = run.number("mlm_loss").map(|loss| format!("MLM loss {}", fixed(loss, 4)));
            let kd = run.number("kd_cosine").map(|loss| format!("KD loss {}", fixed(loss, 4)));
            mlm.into_iter().chain(kd).collect::<Vec<_>>().join(", ")
        }
    };
    RunCard {
        name: run.name.clone(),
        kind: run.kind.name().to_owned(),
        result,
        command: run.command_line(),
        id: run.id.clone().unwrap_or_default(),
        directory: run.directory.as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
    }
}

/// The runs that no table has.
fn left_out(study: &Study) -> Option<Section> {
    if study.left_out.is_empty() {
        return None;
    }
    let table = Table {
        id: "left-out".to_owned(),
        caption: "Runs without a whole result. No mean includes them.".to_owned(),
        columns: ["run", "reason"].map(Column::new).into(),
        rows: study
            .left_out
            .iter()
            .map(|run| vec![Cell::text(run.name.clone()), Cell::text(run.reason.clone())])
            .collect(),
    };
    let title = "Runs left out".to_owned();
    Some(Section { id: "left-out", short: title.clone(), title, blocks: vec![Block::Table(table)] })
}
