//! Tables as CSV, with all digits.

use crate::document::{Cell, Number, Table};

type Beside = fn(&Number) -> Option<String>;

/// What stands beside a number, in columns of their own where a column has any.
const BESIDE: [(&str, Beside); 4] = [
    ("deviation", |number| number.deviation.map(|value| value.to_string())),
    ("n", |number| number.deviation.map(|_| number.n.to_string())),
    ("difference to dense", |number| number.difference.map(|(value, _)| value.to_string())),
    ("more than noise", |number| number.difference.and_then(|(_, clear)| Some(clear?.to_string()))),
];

/// The table as CSV.
pub(super) fn table(table: &Table) -> String {
    let used: Vec<Vec<bool>> = (0..table.columns.len())
        .map(|column| BESIDE.iter().map(|(_, beside)| numbers(table, column).any(|n| beside(n).is_some())).collect())
        .collect();
    let mut writer = csv::Writer::from_writer(Vec::new());
    let mut heading = Vec::new();
    for (column, used) in table.columns.iter().zip(&used) {
        let title =
            if column.note.is_empty() { column.title.clone() } else { format!("{} ({})", column.title, column.note) };
        heading.push(title.clone());
        let beside = BESIDE.iter().zip(used).filter(|(_, used)| **used);
        heading.extend(beside.map(|((name, _), _)| format!("{title} {name}")));
    }
    // Writing to memory does not fail.
    let _ = writer.write_record(&heading);
    for row in &table.rows {
        let mut record = Vec::new();
        for (cell, used) in row.iter().zip(&used) {
            record.push(text(cell));
            for ((_, beside), _) in BESIDE.iter().zip(used).filter(|(_, used)| **used) {
                record.push(match cell {
                    Cell::Number(number) => beside(number).unwrap_or_default(),
                    _ => String::new(),
                });
            }
        }
        let _ = writer.write_record(&record);
    }
    writer.into_inner().ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
}

fn numbers(table: &Table, column: usize) -> impl Iterator<Item = &Number> {
    table.rows.iter().filter_map(move |row| match row.get(column) {
        Some(Cell::Number(number)) => Some(number),
        _ => None,
    })
}

fn text(cell: &Cell) -> String {
    match cell {
        Cell::Text(text) | Cell::Code(text) => text.clone(),
        Cell::Number(number) => number.value.to_string(),
        Cell::Empty => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{Column, Statistic};

    #[test]
    fn numbers_keep_their_digits_and_have_deviations_beside_them() {
        let number = Number::new(75.123_456, 1, Statistic::Mean, "score", vec![0, 1]);
        let number = Number { deviation: Some(0.25), difference: Some((-7.5, Some(true))), ..number };
        let one = Table {
            columns: vec![Column::new("method"), Column::with_note("CoLA", "Matthews")],
            rows: vec![vec![Cell::text("imp, \"b\""), Cell::Number(number)], vec![Cell::text("random"), Cell::Empty]],
            ..Table::default()
        };
        let expected = "method,CoLA (Matthews),CoLA (Matthews) deviation,CoLA (Matthews) n,\
            CoLA (Matthews) difference to dense,CoLA (Matthews) more than noise\n\
            \"imp, \"\"b\"\"\",75.123456,0.25,2,-7.5,true\nrandom,,,,,\n";
        assert_eq!(table(&one), expected);
    }
}
