//! A document as one page without any other file.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::document::{Block, Cell, Document, Figure, Number, Section, Table};
use crate::figure::theme::dark_rules;
use crate::write::latex::is_numeric;

const STYLE: &str = include_str!("../assets/page.css");
const SCRIPT: &str = include_str!("../assets/page.js");

const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:";

/// The page.
pub(super) fn page(document: &Document) -> String {
    let dark = format!("@media screen and (prefers-color-scheme: dark) {{{}}}", dark_rules("svg "));
    // A `<` inside of the data would end the script.
    let runs = serde_json::to_string(&document.runs).unwrap_or_default().replace('<', "\\u003c");
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                // The browser itself refuses every request to a network.
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                // Without an icon of its own a page makes browsers ask for one.
                link rel="icon" href="data:,";
                title { (document.title) }
                style { (PreEscaped(STYLE)) (PreEscaped(dark)) }
            }
            body {
                header { h1 { (document.title) } p.subtitle { (document.subtitle) } }
                nav aria-label="Contents" {
                    @for section in &document.sections { a href={ "#" (section.id) } { (section.short) } }
                }
                main {
                    @if !document.findings.is_empty() {
                        section #findings {
                            ul.findings { @for finding in &document.findings { li { (sentence(finding)) } } }
                        }
                    }
                    @for section in &document.sections { (self::section(section)) }
                }
                dialog #panel aria-labelledby="panel-title" {
                    div.head { h2 #panel-title { "Runs" } button #close type="button" { "Close" } }
                    div #panel-runs {}
                }
                div #tip role="tooltip" hidden {}
                script #runs type="application/json" { (PreEscaped(runs)) }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    markup.into_string()
}

fn section(section: &Section) -> Markup {
    html! {
        section id=(section.id) {
            h2 { (section.title) }
            @for block in &section.blocks { (self::block(block)) }
        }
    }
}

fn block(block: &Block) -> Markup {
    html! {
        @match block {
            Block::Finding(text) => p.finding { (sentence(text)) },
            Block::Text(text) => p { (text) },
            Block::Table(one) => (table(one)),
            Block::Figures(all, caption) => (figures(all, caption)),
            Block::Details(title, inner) => details { summary { (title) } @for one in inner { (self::block(one)) } },
        }
    }
}

/// A sentence in which names such as `tamt-mlm` stay on one line.
fn sentence(text: &str) -> Markup {
    html! {
        @for (i, word) in text.split(' ').enumerate() {
            @if i > 0 { " " }
            @if word.contains('-') { span.name { (word) } } @else { (word) }
        }
    }
}

fn figures(figures: &[Figure], caption: &str) -> Markup {
    html! {
        figure {
            div.panels {
                @for figure in figures {
                    div.panel.wide[figure.wide] id={ "figure-" (figure.id) } { (PreEscaped(&figure.svg)) }
                }
            }
            figcaption { (caption) }
        }
    }
}

fn table(table: &Table) -> Markup {
    let classes: Vec<&str> =
        (0..table.columns.len()).map(|column| if is_numeric(table, column) { "num" } else { "" }).collect();
    html! {
        p.caption id={ "caption-" (table.id) } { (table.caption) }
        div.box tabindex="0" role="region" aria-labelledby={ "caption-" (table.id) } {
            table id={ "table-" (table.id) } aria-describedby={ "caption-" (table.id) } {
                thead {
                    tr {
                        @for (i, column) in table.columns.iter().enumerate() {
                            th scope="col" class=(classes[i]) {
                                (column.title)
                                @if !column.note.is_empty() { span.note { (column.note) } }
                            }
                        }
                    }
                }
                tbody {
                    @for row in &table.rows {
                        tr { @for (i, cell) in row.iter().enumerate() { (self::cell(cell, i == 0, classes[i])) } }
                    }
                }
            }
        }
    }
}

fn cell(cell: &Cell, first: bool, class: &str) -> Markup {
    html! {
        @match cell {
            Cell::Text(text) if first => th scope="row" { (text) },
            Cell::Text(text) => td class=(class) { (text) },
            Cell::Code(text) => td { code { (text) } },
            Cell::Number(one) => (number(one)),
            Cell::Empty => td.num.empty { "–" },
        }
    }
}

fn number(number: &Number) -> Markup {
    let runs: Vec<String> = number.runs.iter().map(usize::to_string).collect();
    let tip = match (number.deviation, number.n) {
        (Some(_), n) => format!("{n} values, from {} runs", number.runs.len()),
        (None, _) if number.runs.len() == 1 => "1 run".to_owned(),
        (None, _) => format!("{} runs", number.runs.len()),
    };
    html! {
        td.num.hit.best[number.best] tabindex="0" data-runs=(runs.join(" ")) data-stat=(number.statistic.name())
            data-key=(number.key) data-value=(number.value) data-tip=(tip)
        {
            span.value { (number.shown()) }
            @if let Some(deviation) = number.deviation_shown() { span.sd { "±" (deviation) } }
            @if let Some(difference) = number.difference_shown() { span.diff { (difference) } }
        }
    }
}
