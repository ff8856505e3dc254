//! The scores on tasks as rows, and their correlation with the losses.

use tamt_data::metrics::spearman;

use crate::demo::report::{DemoReport, Loss, TaskScore, cell, percent};
use crate::find::Method;
use crate::prune::Sparsity;

/// A row of the table of scores: the dense model or a ticket.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreRow {
    /// The method of the ticket; `None` for the dense model.
    pub method: Option<Method>,
    /// The ticket's share of dropped weights.
    pub sparsity: Option<Sparsity>,
    /// The MLM loss and the KD loss.
    pub losses: [Option<f64>; 2],
    /// The mean score over seeds on each task, in the order of [`DemoReport::tasks`].
    pub scores: Vec<f64>,
}

impl ScoreRow {
    /// `dense`, or the method and its sparsity.
    pub fn name(&self) -> String {
        match (self.method, self.sparsity) {
            (Some(method), Some(sparsity)) => format!("{} {}", method.name(), percent(sparsity)),
            _ => "dense".to_owned(),
        }
    }

    /// The row of a table: the name, both losses, the scores and their average.
    pub fn cells(&self) -> Vec<String> {
        let scores = self.scores.iter().copied().chain([self.average()]).map(Some);
        [self.name()].into_iter().chain(self.losses.into_iter().chain(scores).map(cell)).collect()
    }

    /// The mean over tasks.
    pub fn average(&self) -> f64 {
        self.scores.iter().sum::<f64>() / self.scores.len().max(1) as f64
    }
}

impl DemoReport {
    /// The tasks with their metrics, in order.
    pub fn tasks(&self) -> Vec<(&str, &'static str)> {
        let mut tasks = Vec::new();
        for score in &self.scores {
            if !tasks.contains(&(score.task.as_str(), score.metric)) {
                tasks.push((score.task.as_str(), score.metric));
            }
        }
        tasks
    }

    /// A row for the dense model and for each fine-tuned ticket.
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
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::demo::report::TicketLosses;

    pub(in crate::demo) fn report() -> DemoReport {
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
            eval_tokens: 1000,
            eval_block_size: 32,
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
    }

    #[test]
    fn the_rank_correlation_is_over_tickets_only() {
        assert!((report().rank_correlation(Loss::Mlm).unwrap() + 1.0).abs() < 1e-12);
    }
}
