//! Tables as LaTeX, with the rules of the package `booktabs`.

use std::fmt::Write as _;

use crate::document::{Cell, Number, Table};

/// The table as LaTeX.
pub(super) fn table(table: &Table) -> String {
    let columns: String =
        (0..table.columns.len()).map(|column| if is_numeric(table, column) { 'r' } else { 'l' }).collect();
    let mut text = format!(
        "% needs \\usepackage{{booktabs}}\n\\begin{{table}}\n  \\centering\n  \\caption{{{}}}\n",
        escape(&table.caption)
    );
    let _ = writeln!(text, "  \\label{{tab:{}}}\n  \\begin{{tabular}}{{{columns}}}\n    \\toprule", table.id);
    let titles: Vec<String> = table.columns.iter().map(|column| escape(&column.title)).collect();
    let _ = writeln!(text, "    {} \\\\", titles.join(" & "));
    if table.columns.iter().any(|column| !column.note.is_empty()) {
        let notes: Vec<String> = table
            .columns
            .iter()
            .map(|c| if c.note.is_empty() { String::new() } else { format!("{{\\scriptsize {}}}", escape(&c.note)) })
            .collect();
        let _ = writeln!(text, "    {} \\\\", notes.join(" & "));
    }
    text.push_str("    \\midrule\n");
    for row in &table.rows {
        let cells: Vec<String> = row.iter().map(cell).collect();
        let _ = writeln!(text, "    {} \\\\", cells.join(" & "));
    }
    text.push_str("    \\bottomrule\n  \\end{tabular}\n\\end{table}\n");
    text
}

/// Whether a column has numbers, and no commands or digests.
pub(super) fn is_numeric(table: &Table, column: usize) -> bool {
    let mut cells = table.rows.iter().filter_map(|row| row.get(column));
    column > 0
        && cells.clone().any(|cell| matches!(cell, Cell::Number(_)))
        && cells.all(|cell| !matches!(cell, Cell::Code(_)))
}

fn cell(cell: &Cell) -> String {
    match cell {
        Cell::Text(text) => escape(text),
        Cell::Code(text) => format!("\\texttt{{{}}}", escape(text)),
        Cell::Number(number) => self::number(number),
        Cell::Empty => "--".to_owned(),
    }
}

fn number(number: &Number) -> String {
    let shown = escape(&number.shown());
    let mut text = if number.best { format!("\\textbf{{{shown}}}") } else { shown };
    if let Some(deviation) = number.deviation_shown() {
        let _ = write!(text, " {{\\scriptsize $\\pm$ {}}}", escape(&deviation));
    }
    if let Some(difference) = number.difference_shown() {
        let _ = write!(text, " {{\\scriptsize ({})}}", escape(&difference));
    }
    text
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => escaped.push_str("\\textbackslash{}"),
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => {
                escaped.push('\\');
                escaped.push(c);
            }
            '~' => escaped.push_str("\\textasciitilde{}"),
            '^' => escaped.push_str("\\textasciicircum{}"),
            '<' => escaped.push_str("$<$"),
            '>' => escaped.push_str("$>$"),
            '\u{2212}' => escaped.push_str("$-$"),
            '±' => escaped.push_str("$\\pm$"),
            '×' => escaped.push_str("$\\times$"),
            '≈' => escaped.push_str("$\\approx$"),
            '…' => escaped.push_str("\\dots{}"),
            'ⁿ' => escaped.push_str("$^n$"),
            '⁻' => escaped.push_str("$^-$"),
            '⁰' | '¹' | '²' | '³' | '⁴'..='⁹' => {
                let digit = "⁰¹²³⁴⁵⁶⁷⁸⁹".chars().position(|other| other == c).unwrap_or(0);
                let _ = write!(escaped, "$^{digit}$");
            }
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{Column, Statistic};

    #[test]
    fn a_table_has_rules_bold_numbers_and_no_character_that_latex_refuses() {
        let number = Number::new(-1.25, 1, Statistic::Mean, "score", vec![0]);
        let number = Number { best: true, deviation: Some(0.5), ..number };
        let one = Table {
            id: "t".to_owned(),
            caption: "50 % & more".to_owned(),
            columns: vec![Column::new("my_method"), Column::new("3 × 10¹⁵")],
            rows: vec![vec![Cell::text("a_b"), Cell::Number(number)]],
        };
        let text = table(&one);
        assert!(text.contains("\\caption{50 \\% \\& more}"), "{text}");
        assert!(text.contains("my\\_method & 3 $\\times$ 10$^1$$^5$ \\\\\n    \\midrule"), "{text}");
        assert!(text.contains("a\\_b & \\textbf{$-$1.2} {\\scriptsize $\\pm$ 0.5} \\\\\n    \\bottomrule"), "{text}");
        assert!(text.is_ascii(), "{text}");
    }
}
