//! The losses and scores of a demonstration, and their rows and columns.

use std::path::PathBuf;

use serde::Serialize;

use crate::find::Method;
use crate::prune::Sparsity;
use crate::shown_path::shown_path;

/// The losses of every ticket on the held-out text, with losses to compare with, and scores on tasks.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DemoReport {
    /// The directory of the model, the tickets and the texts.
    #[serde(serialize_with = "shown_path")]
    pub output_dir: PathBuf,
    /// The seed of everything.
    pub seed: u64,
    /// Seconds of all runs together.
    pub seconds: f64,
    /// Tokens of the held-out text, special tokens included.
    pub eval_tokens: u64,
    /// Tokens in a sequence of it.
    pub eval_block_size: usize,
    /// The loss of a model that predicts the frequencies of the tokens, in nats.
    pub frequency_loss: f64,
    /// The MLM loss of the dense model, in nats.
    pub dense_mlm_loss: f64,
    /// Every ticket, method by method.
    pub tickets: Vec<TicketLosses>,
    /// Scores of the dense model and of some tickets, task by task.
    pub scores: Vec<TaskScore>,
}

/// A ticket with its losses under the base model's own head.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TicketLosses {
    /// The method.
    pub method: Method,
    /// The share of dropped weights.
    pub sparsity: Sparsity,
    /// The directory of the ticket.
    #[serde(serialize_with = "shown_path")]
    pub ticket: PathBuf,
    /// Optimiser steps of the method.
    pub steps: u64,
    /// Mean cross-entropy over masked tokens, in nats.
    pub mlm_loss: f64,
    /// `1 - cos` between the hidden states of the ticket and of the dense model, mean over tokens and layers.
    pub kd_cosine: f64,
}

/// The scores of the dense model, or of a method's ticket, on a task.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TaskScore {
    /// The task.
    pub task: String,
    /// The metric.
    pub metric: &'static str,
    /// The method of the ticket; `None` for the dense model.
    pub method: Option<Method>,
    /// The ticket's share of dropped weights; `None` for the dense model.
    pub sparsity: Option<Sparsity>,
    /// The best score on the development set, for each fine-tuning seed; a share, even where the benchmark prints
    /// percentages. NaN, the correlation of constant predictions, counts as 0.
    pub scores: Vec<f64>,
}

impl TaskScore {
    /// The mean over seeds.
    pub fn mean(&self) -> f64 {
        self.scores.iter().sum::<f64>() / self.scores.len().max(1) as f64
    }
}

/// A loss to compare tickets by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Masked language modelling.
    Mlm,
    /// Distillation: the distance from the dense model.
    Kd,
}

impl Loss {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Mlm, Self::Kd];

    /// The name, as a heading.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mlm => "MLM loss",
            Self::Kd => "KD loss",
        }
    }

    /// A short definition.
    pub fn explanation(self) -> &'static str {
        match self {
            Self::Mlm => "cross-entropy of masked tokens in nats",
            Self::Kd => "1 - cosine to the dense model's hidden states",
        }
    }

    pub(super) fn of(self, ticket: &TicketLosses) -> f64 {
        match self {
            Self::Mlm => ticket.mlm_loss,
            Self::Kd => ticket.kd_cosine,
        }
    }
}

impl DemoReport {
    /// The sparsities, in the order of the tickets.
    pub fn sparsities(&self) -> Vec<Sparsity> {
        let mut sparsities: Vec<Sparsity> = Vec::new();
        for ticket in &self.tickets {
            if !sparsities.contains(&ticket.sparsity) {
                sparsities.push(ticket.sparsity);
            }
        }
        sparsities
    }

    /// The loss of a method's ticket at a sparsity.
    pub fn loss(&self, loss: Loss, method: Method, sparsity: Sparsity) -> Option<f64> {
        self.ticket(method, sparsity).map(|ticket| loss.of(ticket))
    }

    /// The ticket of a method at a sparsity.
    pub fn ticket(&self, method: Method, sparsity: Sparsity) -> Option<&TicketLosses> {
        self.tickets.iter().find(|ticket| ticket.method == method && ticket.sparsity == sparsity)
    }

    /// Rows of a table: the dense model and each method by name, with a loss for each sparsity.
    pub fn rows(&self, loss: Loss) -> Vec<Vec<String>> {
        let sparsities = self.sparsities();
        let dense = match loss {
            Loss::Mlm => self.dense_mlm_loss,
            Loss::Kd => 0.0,
        };
        let row = |name: &str, losses: Vec<Option<f64>>| {
            [name.to_owned()].into_iter().chain(losses.into_iter().map(cell)).collect()
        };
        let mut rows = vec![row("dense", vec![Some(dense); sparsities.len()])];
        for method in Method::ALL {
            let losses: Vec<_> = sparsities.iter().map(|&s| self.loss(loss, method, s)).collect();
            if losses.iter().any(Option::is_some) {
                rows.push(row(method.name(), losses));
            }
        }
        rows
    }

    /// The sparsity to compare at: the paper's 70 %, or else the middle one.
    pub fn usual_sparsity(&self) -> Option<Sparsity> {
        let sparsities = self.sparsities();
        let paper = sparsities.iter().copied().find(|s| (s.share() - 0.7).abs() < 1e-9);
        paper.or_else(|| sparsities.get(sparsities.len() / 2).copied())
    }

    /// The ticket with the lowest loss among the trained masks at a sparsity.
    pub fn best_trained(&self, loss: Loss, at: Sparsity) -> Option<&TicketLosses> {
        let trained = self.tickets.iter().filter(|ticket| ticket.method.trains_masks() && ticket.sparsity == at);
        trained.min_by(|a, b| loss.of(a).total_cmp(&loss.of(b)))
    }

    /// A line for the dense model and for each ticket, with all digits.
    pub fn to_csv(&self) -> String {
        let mut text = format!("method,sparsity,steps,mlm_loss,kd_cosine\ndense,0,0,{},0\n", self.dense_mlm_loss);
        for TicketLosses { method, sparsity, steps, mlm_loss, kd_cosine, .. } in &self.tickets {
            text.push_str(&format!("{},{},{steps},{mlm_loss},{kd_cosine}\n", method.name(), sparsity.share()));
        }
        text
    }
}

/// A sparsity as a heading: 70 %.
pub fn percent(sparsity: Sparsity) -> String {
    // Rounding to a ten-thousandth of a percent removes the error of products such as 0.7 * 100.
    format!("{} %", (sparsity.share() * 1e6).round() / 1e4)
}

/// A loss or a score in a table.
pub(super) fn cell(loss: Option<f64>) -> String {
    loss.map_or_else(|| "-".to_owned(), |loss| format!("{loss:.3}"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn report(losses: &[(Method, f64, f64, f64)]) -> DemoReport {
        let ticket = |&(method, share, mlm_loss, kd_cosine): &(Method, f64, f64, f64)| TicketLosses {
            method,
            sparsity: Sparsity::new(share).unwrap(),
            ticket: "t".into(),
            steps: 0,
            mlm_loss,
            kd_cosine,
        };
        DemoReport {
            output_dir: "demo".into(),
            seed: 42,
            seconds: 1.0,
            eval_tokens: 1000,
            eval_block_size: 32,
            frequency_loss: 5.5,
            dense_mlm_loss: 2.0,
            tickets: losses.iter().map(ticket).collect(),
            scores: Vec::new(),
        }
    }

    /// Losses in the expected order: trained, magnitude, random.
    pub(in crate::demo) fn ordered() -> DemoReport {
        report(&[
            (Method::Random, 0.7, 5.0, 0.5),
            (Method::Random, 0.9, 5.25, 0.6),
            (Method::Magnitude, 0.7, 4.0, 0.25),
            (Method::Magnitude, 0.9, 5.0, 0.5),
            (Method::TamtMlm, 0.7, 2.5, 0.2),
            (Method::TamtMlm, 0.9, 3.5, 0.3),
            (Method::TamtKd, 0.7, 3.0, 0.125),
            (Method::TamtKd, 0.9, 4.5, 0.25),
        ])
    }

    #[test]
    fn the_csv_has_a_line_for_the_dense_model_and_each_ticket() {
        let csv = ordered().to_csv();
        let lines: Vec<&str> = csv.lines().collect();
        assert_eq!(lines.len(), 1 + 1 + 8);
        assert_eq!(lines[..3], ["method,sparsity,steps,mlm_loss,kd_cosine", "dense,0,0,2,0", "random,0.7,0,5,0.5"]);
    }
}
