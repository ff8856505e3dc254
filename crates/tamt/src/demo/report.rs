//! What a demonstration found, as tables and sentences. Every number and every claim is computed from the losses.

use std::path::PathBuf;

use serde::Serialize;

use super::transfer::TaskScore;
use crate::find::Method;
use crate::prune::Sparsity;

/// Losses of every ticket on the held-out text, and what to compare them with.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DemoReport {
    /// Where the model, the tickets and the texts are.
    pub output_dir: PathBuf,
    /// The seed of everything.
    pub seed: u64,
    /// Seconds of all runs together.
    pub seconds: f64,
    /// What a model loses that knows how common each token is and nothing else, in nats.
    pub frequency_loss: f64,
    /// The MLM loss of the whole model, in nats.
    pub dense_mlm_loss: f64,
    /// Every ticket, method by method.
    pub tickets: Vec<TicketLosses>,
    /// Scores of the dense model and of some tickets, task by task.
    pub scores: Vec<TaskScore>,
}

/// A ticket with its losses under the base model's own head.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TicketLosses {
    /// How it was found.
    pub method: Method,
    /// The share of weights it drops.
    pub sparsity: Sparsity,
    /// The directory that holds it.
    pub ticket: PathBuf,
    /// Optimiser steps that went into it.
    pub steps: u64,
    /// Mean cross-entropy over masked tokens, in nats.
    pub mlm_loss: f64,
    /// `1 - cos` between its hidden states and the dense model's, mean over tokens and layers.
    pub kd_cosine: f64,
}

/// A loss that tickets are compared by.
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
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mlm => "MLM loss",
            Self::Kd => "KD loss",
        }
    }

    /// What it is, in a few words.
    #[must_use]
    pub fn explanation(self) -> &'static str {
        match self {
            Self::Mlm => "cross-entropy of masked tokens in nats",
            Self::Kd => "1 - cosine to the dense model's hidden states",
        }
    }

    fn of(self, ticket: &TicketLosses) -> f64 {
        match self {
            Self::Mlm => ticket.mlm_loss,
            Self::Kd => ticket.kd_cosine,
        }
    }
}

impl DemoReport {
    /// The sparsities, in the order of the tickets.
    #[must_use]
    pub fn sparsities(&self) -> Vec<Sparsity> {
        let mut sparsities: Vec<Sparsity> = Vec::new();
        for ticket in &self.tickets {
            if !sparsities.contains(&ticket.sparsity) {
                sparsities.push(ticket.sparsity);
            }
        }
        sparsities
    }

    /// The loss of a method at a sparsity, where both were asked for.
    #[must_use]
    pub fn loss(&self, loss: Loss, method: Method, sparsity: Sparsity) -> Option<f64> {
        self.ticket(method, sparsity).map(|ticket| loss.of(ticket))
    }

    /// The ticket of a method at a sparsity, where both were asked for.
    #[must_use]
    pub fn ticket(&self, method: Method, sparsity: Sparsity) -> Option<&TicketLosses> {
        self.tickets.iter().find(|ticket| ticket.method == method && ticket.sparsity == sparsity)
    }

    /// A row for the dense model and one for each method, with a loss for each sparsity.
    #[must_use]
    pub fn rows(&self, loss: Loss) -> Vec<(&'static str, Vec<Option<f64>>)> {
        let sparsities = self.sparsities();
        let dense = match loss {
            Loss::Mlm => self.dense_mlm_loss,
            Loss::Kd => 0.0,
        };
        let mut rows = vec![("dense", vec![Some(dense); sparsities.len()])];
        for method in Method::ALL {
            let losses: Vec<_> = sparsities.iter().map(|&s| self.loss(loss, method, s)).collect();
            if losses.iter().any(Option::is_some) {
                rows.push((method.name(), losses));
            }
        }
        rows
    }

    /// The sparsity to look at first: the paper's 70 %, or else the middle one.
    #[must_use]
    pub fn usual_sparsity(&self) -> Option<Sparsity> {
        let sparsities = self.sparsities();
        let paper = sparsities.iter().copied().find(|s| (s.share() - 0.7).abs() < 1e-9);
        paper.or_else(|| sparsities.get(sparsities.len() / 2).copied())
    }

    /// What the losses say, in a few sentences.
    #[must_use]
    pub fn findings(&self) -> Vec<String> {
        let Some(at) = self.usual_sparsity() else { return Vec::new() };
        let sparsities = self.sparsities();
        let mut findings: Vec<String> = Loss::ALL.iter().filter_map(|&loss| self.comparison(loss, at)).collect();
        findings.push(format!(
            "For scale: the dense model has an MLM loss of {:.3}, and knowing only how common each token is gives {:.3}.",
            self.dense_mlm_loss, self.frequency_loss
        ));
        findings.extend(Loss::ALL.iter().filter_map(|&loss| self.order(loss, &sparsities)));
        findings.extend(self.score_findings());
        findings
    }

    /// The trained mask with the lowest loss at a sparsity.
    #[must_use]
    pub fn best_trained(&self, loss: Loss, at: Sparsity) -> Option<&TicketLosses> {
        let trained = self.tickets.iter().filter(|ticket| ticket.method.trains_masks() && ticket.sparsity == at);
        trained.min_by(|a, b| loss.of(a).total_cmp(&loss.of(b)))
    }

    fn comparison(&self, loss: Loss, at: Sparsity) -> Option<String> {
        let best = self.best_trained(loss, at)?;
        let (best, name) = (loss.of(best), best.method.name());
        let mut text = format!("{} at {}: {best:.3} with the best trained mask ({name})", loss.name(), percent(at));
        for method in [Method::Imp, Method::Magnitude, Method::Random] {
            if let Some(value) = self.loss(loss, method, at) {
                text.push_str(&format!(", {value:.3} with {}", method.name()));
            }
        }
        text.push('.');
        Some(text)
    }

    /// Whether training beats magnitude and magnitude beats chance, and at which sparsities not.
    fn order(&self, loss: Loss, sparsities: &[Sparsity]) -> Option<String> {
        let mut exceptions = Vec::new();
        for &at in sparsities {
            let trained = loss.of(self.best_trained(loss, at)?);
            let magnitude = self.loss(loss, Method::Magnitude, at)?;
            let random = self.loss(loss, Method::Random, at)?;
            if !(trained < magnitude && magnitude < random) {
                exceptions.push(percent(at));
            }
        }
        let name = loss.name();
        Some(if exceptions.is_empty() {
            format!("{name}: a trained mask is below magnitude, and magnitude below random, at every sparsity.")
        } else {
            format!("{name}: the order trained, magnitude, random does not hold at {}.", exceptions.join(", "))
        })
    }

    /// The tables and findings in Markdown.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let mut text = format!("# Tickets of an invented language\n\nSeed {}.\n", self.seed);
        let sparsities = self.sparsities();
        for loss in Loss::ALL {
            text.push_str(&format!("\n## {}\n\n{}.\n\n", loss.name(), capitalised(loss.explanation())));
            let headings: Vec<String> = sparsities.iter().map(|&s| percent(s)).collect();
            text.push_str(&format!("| method | {} |\n", headings.join(" | ")));
            text.push_str(&format!("|---|{}\n", "---:|".repeat(sparsities.len())));
            for (name, losses) in self.rows(loss) {
                let cells: Vec<String> = losses.into_iter().map(cell).collect();
                text.push_str(&format!("| {name} | {} |\n", cells.join(" | ")));
            }
        }
        text.push_str(&self.scores_markdown());
        text.push_str("\n## Findings\n\n");
        for finding in self.findings() {
            text.push_str(&format!("* {finding}\n"));
        }
        text
    }

    /// A line for the dense model and for each ticket, all digits kept.
    #[must_use]
    pub fn to_csv(&self) -> String {
        let mut text = format!("method,sparsity,steps,mlm_loss,kd_cosine\ndense,0,0,{},0\n", self.dense_mlm_loss);
        for TicketLosses { method, sparsity, steps, mlm_loss, kd_cosine, .. } in &self.tickets {
            text.push_str(&format!("{},{},{steps},{mlm_loss},{kd_cosine}\n", method.name(), sparsity.share()));
        }
        text
    }
}

/// A sparsity as a heading: 70 %.
#[must_use]
pub fn percent(sparsity: Sparsity) -> String {
    // 0.7 * 100 is 70.00000000000001 or so; a ten-thousandth of a percent is finer than anyone's sparsity.
    format!("{} %", (sparsity.share() * 1e6).round() / 1e4)
}

/// A loss in a table.
#[must_use]
pub fn cell(loss: Option<f64>) -> String {
    loss.map_or_else(|| "-".to_owned(), |loss| format!("{loss:.3}"))
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
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
            frequency_loss: 5.5,
            dense_mlm_loss: 2.0,
            tickets: losses.iter().map(ticket).collect(),
            scores: Vec::new(),
        }
    }

    fn ordered() -> DemoReport {
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
    fn findings_name_the_best_trained_mask_for_each_loss() {
        let findings = ordered().findings();
        assert_eq!(
            findings[..2],
            [
                "MLM loss at 70 %: 2.500 with the best trained mask (tamt-mlm), 4.000 with magnitude, 5.000 with random.",
                "KD loss at 70 %: 0.125 with the best trained mask (tamt-kd), 0.250 with magnitude, 0.500 with random.",
            ]
        );
        assert!(findings[3].contains("at every sparsity"), "{findings:?}");
    }

    #[test]
    fn findings_admit_where_the_expected_order_does_not_hold() {
        let mut report = ordered();
        for ticket in report.tickets.iter_mut().filter(|t| t.method.trains_masks() && t.sparsity.share() == 0.9) {
            ticket.mlm_loss = 5.5;
        }
        let findings = report.findings();
        assert!(findings.contains(&"MLM loss: the order trained, magnitude, random does not hold at 90 %.".to_owned()));
        assert!(findings[4].starts_with("KD loss") && findings[4].contains("at every sparsity"), "{findings:?}");
    }

    #[test]
    fn the_csv_has_a_line_for_the_dense_model_and_each_ticket() {
        let csv = ordered().to_csv();
        let lines: Vec<&str> = csv.lines().collect();
        assert_eq!(lines.len(), 1 + 1 + 8);
        assert_eq!(lines[..3], ["method,sparsity,steps,mlm_loss,kd_cosine", "dense,0,0,2,0", "random,0.7,0,5,0.5"]);
    }

    #[test]
    fn tables_have_the_dense_model_first_and_a_dash_where_there_is_no_ticket() {
        let mut report = ordered();
        report.tickets.retain(|t| t.method != Method::TamtKd || t.sparsity.share() < 0.9);
        let markdown = report.to_markdown();
        assert!(markdown.contains("| method | 70 % | 90 % |\n|---|---:|---:|\n| dense | 2.000 | 2.000 |\n| random |"));
        assert!(markdown.contains("| tamt-kd | 0.125 | - |"), "{markdown}");
    }
}
