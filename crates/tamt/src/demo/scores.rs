//! What the scores on tasks say, beside the losses.

use tamt_data::metrics::spearman;

use super::report::{DemoReport, Loss, percent};
use super::transfer::TaskScore;
use crate::find::Method;
use crate::prune::Sparsity;

/// A row of the table of scores: the dense model or a ticket.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreRow {
    /// How the ticket was found; `None` for the dense model.
    pub method: Option<Method>,
    /// The share of weights it drops.
    pub sparsity: Option<Sparsity>,
    /// Its MLM loss and its KD loss.
    pub losses: [Option<f64>; 2],
    /// The mean score over seeds on each task, in the order of [`DemoReport::tasks`].
    pub scores: Vec<f64>,
}

impl ScoreRow {
    /// `dense`, or the method and its sparsity.
    #[must_use]
    pub fn name(&self) -> String {
        match (self.method, self.sparsity) {
            (Some(method), Some(sparsity)) => format!("{} {}", method.name(), percent(sparsity)),
            _ => "dense".to_owned(),
        }
    }

    /// The mean over tasks.
    #[must_use]
    pub fn average(&self) -> f64 {
        self.scores.iter().sum::<f64>() / self.scores.len().max(1) as f64
    }
}

impl DemoReport {
    /// The tasks with their metrics, in order.
    #[must_use]
    pub fn tasks(&self) -> Vec<(&str, &'static str)> {
        let mut tasks = Vec::new();
        for score in &self.scores {
            if !tasks.contains(&(score.task.as_str(), score.metric)) {
                tasks.push((score.task.as_str(), score.metric));
            }
        }
        tasks
    }

    /// A row for the dense model and for each ticket that was fine-tuned.
    #[must_use]
    pub fn score_rows(&self) -> Vec<ScoreRow> {
        let mut rows: Vec<ScoreRow> = Vec::new();
        for &TaskScore { method, sparsity, .. } in &self.scores {
            if rows.iter().any(|row| row.method == method && row.sparsity == sparsity) {
                continue;
            }
            let own = self.scores.iter().filter(|score| score.method == method && score.sparsity == sparsity);
            let losses = match method.zip(sparsity) {
                Some((method, sparsity)) => Loss::ALL.map(|loss| self.loss(loss, method, sparsity)),
                None => [Some(self.dense_mlm_loss), Some(0.0)],
            };
            rows.push(ScoreRow { method, sparsity, losses, scores: own.map(TaskScore::mean).collect() });
        }
        rows
    }

    /// Spearman's rank correlation, over the tickets, of a loss with the average score; `None` for fewer than three.
    #[must_use]
    pub fn rank_correlation(&self, loss: Loss) -> Option<f64> {
        let index = Loss::ALL.iter().position(|&l| l == loss)?;
        let rows = self.score_rows();
        let pairs: Vec<(f64, f64)> = rows
            .iter()
            .filter(|row| row.method.is_some())
            .filter_map(|row| Some((row.losses[index]?, row.average())))
            .collect();
        let (losses, scores): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
        (losses.len() > 2).then(|| spearman(&losses, &scores)).filter(|rho| rho.is_finite())
    }

    /// What the scores say, in a few sentences.
    pub(super) fn score_findings(&self) -> Vec<String> {
        let rows = self.score_rows();
        let mut findings = Vec::new();
        let Some(dense) = rows.iter().find(|row| row.method.is_none()) else { return findings };
        let mut sparsities: Vec<Sparsity> = rows.iter().filter_map(|row| row.sparsity).collect();
        sparsities.sort_by(|a, b| a.share().total_cmp(&b.share()));
        sparsities.dedup();
        for at in sparsities {
            let here = rows.iter().filter(|row| row.sparsity == Some(at));
            let (trained, others): (Vec<&ScoreRow>, Vec<&ScoreRow>) =
                here.partition(|row| row.method.is_some_and(Method::trains_masks));
            let Some(best) = trained.into_iter().max_by(|a, b| a.average().total_cmp(&b.average())) else { continue };
            let name = best.method.map_or("dense", Method::name);
            let mut text = format!("Average score at {}: {:.3} with {name}", percent(at), best.average());
            for row in others.iter().rev() {
                text.push_str(&format!(", {:.3} with {}", row.average(), row.method.map_or("dense", Method::name)));
            }
            findings.push(format!("{text}; {:.3} for the dense model.", dense.average()));
        }
        let correlations: Vec<String> = Loss::ALL
            .iter()
            .filter_map(|&loss| Some(format!("{:.2} with the {}", self.rank_correlation(loss)?, loss.name())))
            .collect();
        if !correlations.is_empty() {
            let joined = correlations.join(", ");
            findings.push(format!("Rank correlation of the average score over all tickets: {joined}."));
        }
        findings
    }

    /// The table of scores in Markdown; empty where nothing was fine-tuned.
    pub(super) fn scores_markdown(&self) -> String {
        let (tasks, rows) = (self.tasks(), self.score_rows());
        if rows.is_empty() {
            return String::new();
        }
        let mut text = "\n## Scores on tasks\n\nBest on the development set, mean over seeds.\n\n".to_owned();
        let headings: Vec<String> = tasks.iter().map(|(task, metric)| format!("{task} ({metric})")).collect();
        text.push_str(&format!("| ticket | MLM loss | KD loss | {} | average |\n", headings.join(" | ")));
        text.push_str(&format!("|---|{}\n", "---:|".repeat(tasks.len() + 3)));
        for row in rows {
            let cells = row.losses.into_iter().chain(row.scores.iter().copied().map(Some)).map(super::cell);
            let cells: Vec<String> = cells.chain([super::cell(Some(row.average()))]).collect();
            text.push_str(&format!("| {} | {} |\n", row.name(), cells.join(" | ")));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::TicketLosses;

    fn report() -> DemoReport {
        let share = Sparsity::new(0.7).unwrap();
        let methods = [(Method::Random, 5.0, 0.1), (Method::Magnitude, 4.0, 0.3), (Method::TamtMlm, 2.0, 0.6)];
        let ticket = |&(method, mlm_loss, _): &(Method, f64, f64)| TicketLosses {
            method,
            sparsity: share,
            ticket: "t".into(),
            steps: 0,
            mlm_loss,
            kd_cosine: mlm_loss / 10.0,
        };
        let score = |task: &str, method, score: f64| TaskScore {
            task: task.to_owned(),
            metric: "accuracy",
            method,
            sparsity: method.map(|_| share),
            scores: vec![score - 0.1, score + 0.1],
        };
        let mut scores = Vec::new();
        for (task, more) in [("rte", 0.0), ("sst2", 0.2)] {
            scores.push(score(task, None, 0.7 + more));
            scores.extend(methods.map(|(method, _, value)| score(task, Some(method), value + more)));
        }
        DemoReport {
            output_dir: "demo".into(),
            seed: 42,
            seconds: 1.0,
            frequency_loss: 5.5,
            dense_mlm_loss: 2.0,
            tickets: methods.iter().map(ticket).collect(),
            scores,
        }
    }

    #[test]
    fn scores_stand_beside_losses_and_are_averaged_over_seeds_and_tasks() {
        let report = report();
        assert_eq!(report.tasks(), [("rte", "accuracy"), ("sst2", "accuracy")]);
        let rows = report.score_rows();
        assert_eq!(rows.iter().map(ScoreRow::name).collect::<Vec<_>>()[..2], ["dense", "random 70 %"]);
        assert!((rows[3].average() - 0.7).abs() < 1e-12);
        assert_eq!(rows[3].losses, [Some(2.0), Some(0.2)]);
        assert!(report.scores_markdown().contains("| tamt-mlm 70 % | 2.000 | 0.200 | 0.600 | 0.800 | 0.700 |"));
    }

    #[test]
    fn the_rank_correlation_is_over_tickets_only() {
        assert!((report().rank_correlation(Loss::Mlm).unwrap() + 1.0).abs() < 1e-12);
        let findings = report().score_findings();
        assert_eq!(
            findings,
            [
                "Average score at 70 %: 0.700 with tamt-mlm, 0.400 with magnitude, 0.200 with random; 0.800 for the \
                 dense model.",
                "Rank correlation of the average score over all tickets: -1.00 with the MLM loss, -1.00 with the KD loss."
            ]
        );
    }
}
