//! The report of a demonstration in Markdown.

use crate::demo::report::{DemoReport, Loss, percent};
use crate::demo::scores::ScoreRow;

impl DemoReport {
    /// The tables and findings in Markdown.
    pub fn to_markdown(&self) -> String {
        let mut text = format!(
            "# Tickets of an invented language\n\nSeed {}. Losses on {} tokens of held-out text in blocks of {}.\n",
            self.seed, self.eval_tokens, self.eval_block_size
        );
        let headings: Vec<String> =
            ["method".to_owned()].into_iter().chain(self.sparsities().into_iter().map(percent)).collect();
        for loss in Loss::ALL {
            text.push_str(&format!("\n## {}\n\n{}.\n\n", loss.name(), capitalised(loss.explanation())));
            text.push_str(&table(&headings, &self.rows(loss)));
        }
        text.push_str(&self.scores_markdown());
        text.push_str("\n## Findings\n\n");
        for finding in self.findings() {
            text.push_str(&format!("* {finding}\n"));
        }
        text
    }

    /// The table of scores; empty if no ticket was fine-tuned.
    fn scores_markdown(&self) -> String {
        let rows: Vec<_> = self.score_rows().iter().map(ScoreRow::cells).collect();
        if rows.is_empty() {
            return String::new();
        }
        let tasks = self.tasks().into_iter().map(|(task, metric)| format!("{task} ({metric})"));
        let headings: Vec<String> =
            ["ticket", "MLM loss", "KD loss"].map(str::to_owned).into_iter().chain(tasks).collect();
        let headings = [headings, vec!["average".to_owned()]].concat();
        format!("\n## Scores on tasks\n\nBest on the development set, mean over seeds.\n\n{}", table(&headings, &rows))
    }
}

/// A table with a left-aligned first column.
fn table(headings: &[String], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let rule = format!("|---|{}\n", "---:|".repeat(headings.len() - 1));
    [line(headings), rule].into_iter().chain(rows.iter().map(|row| line(row))).collect()
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use crate::demo::report::tests::ordered;
    use crate::demo::scores;
    use crate::find::Method;

    #[test]
    fn tables_have_the_dense_model_first_and_a_dash_where_there_is_no_ticket() {
        let mut report = ordered();
        report.tickets.retain(|t| t.method != Method::TamtKd || t.sparsity.share() < 0.9);
        let markdown = report.to_markdown();
        assert!(markdown.contains("| method | 70 % | 90 % |\n|---|---:|---:|\n| dense | 2.000 | 2.000 |\n| random |"));
        assert!(markdown.contains("| tamt-kd | 0.125 | - |"), "{markdown}");
    }

    #[test]
    fn the_table_of_scores_has_the_losses_the_scores_and_their_average() {
        let report = scores::tests::report();
        assert!(report.scores_markdown().contains("| tamt-mlm 70 % | 2.000 | 0.200 | 0.600 | 0.800 | 0.700 |"));
    }
}
