//! The findings of a demonstration in sentences. Every claim is computed from the losses and the scores.

use crate::demo::report::{DemoReport, Loss, percent};
use crate::demo::scores::ScoreRow;
use crate::find::Method;
use crate::prune::Sparsity;

impl DemoReport {
    /// The findings, a sentence each.
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

    /// Whether trained masks have lower losses than magnitude, and magnitude lower ones than random, with exceptions.
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

    fn score_findings(&self) -> Vec<String> {
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
}

#[cfg(test)]
mod tests {
    use crate::demo::report::tests::ordered;
    use crate::demo::scores;

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
    fn findings_compare_the_average_scores_and_correlate_them_with_the_losses() {
        let findings = scores::tests::report().score_findings();
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
