//! Which layers and matrices keep most, in tickets of global scope.

use std::collections::BTreeSet;

use crate::document::{Block, Figure, Section, fixed};
use crate::error::Result;
use crate::figure::heat::{Field, Heat};
use crate::sections::view::{View, slug};
use crate::study::TicketFile;
use crate::ticket::{Ticket, TicketReader};

/// The parts of a layer by the end of a tensor's name, and their titles.
const PARTS: [(&str, &str); 6] = [
    ("attention.self.query", "query"),
    ("attention.self.key", "key"),
    ("attention.self.value", "value"),
    ("attention.output.dense", "attention out"),
    ("intermediate.dense", "FFN in"),
    ("output.dense", "FFN out"),
];

/// Most tickets that are shown.
const MOST: usize = 24;

/// The section; `None` without tickets of global scope.
pub(super) fn section(views: &[View<'_>], reader: &dyn TicketReader) -> Result<Option<Section>> {
    let mut blocks = Vec::new();
    for view in views {
        let of_scope = |file: &&TicketFile| {
            let scope = view.study.runs[file.run].labels.scope.as_deref();
            file.ticket.base == view.base && scope == Some("global") && view.study.is_main(&file.ticket)
        };
        let mut figures = Vec::new();
        let files: Vec<&TicketFile> = view.study.tickets.iter().filter(of_scope).collect();
        for file in files.iter().take(MOST) {
            // The section of masks says why a ticket cannot be read.
            let Some(Ok(ticket)) = file.path.as_ref().map(|path| reader.read(path)) else { continue };
            figures.push(map(view, file, &ticket)?);
        }
        if !figures.is_empty() {
            let caption = format!(
                "Share of weights that tickets of global scope drop, in percent, by layer and matrix{}. Word \
                 embeddings and the pooler are ranked with the layers and named above the maps.{}",
                view.of_base(),
                if files.len() > MOST {
                    format!(" The first {MOST} of {} tickets are shown.", files.len())
                } else {
                    String::new()
                }
            );
            blocks.push(Block::Figures(figures, caption));
        }
    }
    let title = "Rates under global scope".to_owned();
    Ok((!blocks.is_empty()).then(|| Section { id: "rates", title, short: "Rates".to_owned(), blocks }))
}

/// The layer and the part of a tensor.
fn place(name: &str) -> Option<(usize, usize)> {
    let (_, rest) = name.split_once("encoder.layer.")?;
    let (layer, part) = rest.split_once('.')?;
    let part = part.strip_suffix(".weight").unwrap_or(part);
    Some((layer.parse().ok()?, PARTS.iter().position(|(end, _)| part == *end)?))
}

fn map(view: &View<'_>, file: &TicketFile, ticket: &Ticket) -> Result<Figure> {
    let layers: BTreeSet<usize> = ticket.matrices.iter().filter_map(|matrix| Some(place(&matrix.name)?.0)).collect();
    let dropped = |density: f64| 100.0 * (1.0 - density);
    let mut fields = vec![vec![None; PARTS.len()]; layers.len()];
    let mut outside = Vec::new();
    for matrix in &ticket.matrices {
        let value = dropped(matrix.density());
        match place(&matrix.name) {
            Some((layer, part)) => {
                let row = layers.iter().position(|other| *other == layer).unwrap_or(0);
                let tip = format!("{}: {} % dropped", matrix.name, fixed(value, 1));
                fields[row][part] = Some(Field { value, tip, runs: vec![file.run] });
            }
            None => {
                let short = if matrix.name.contains("embeddings") { "embeddings" } else { "pooler" };
                outside.push(format!("{short} {}", fixed(value, 0)));
            }
        }
    }
    let seed = file.ticket.seed.map_or(String::new(), |seed| format!(", seed {seed}"));
    let name = format!("{} {}{seed}", file.ticket.method.name, file.ticket.level);
    let heat = Heat {
        title: if outside.is_empty() { name.clone() } else { format!("{name} ({})", outside.join(", ")) },
        rows: layers.iter().map(|layer| format!("layer {layer}")).collect(),
        columns: PARTS.iter().map(|(_, title)| (*title).to_owned()).collect(),
        fields,
        range: (0.0, 100.0),
        decimals: 0,
    };
    let id = view.id(&format!("rates-{}", slug(&format!("{} {}{seed}", file.ticket.method, file.ticket.level))));
    Ok(Figure { id, title: heat.title.clone(), svg: heat.draw()?, wide: heat.is_wide() })
}
