//! Whether methods are in the paper's order: trained masks above magnitude, and magnitude above random masks.

use std::collections::BTreeMap;

use crate::aggregate::{Seeds, differences};
use crate::document::{fixed, signed};
use crate::names::{Level, Method, count};
use crate::sections::view::{LossKind, View, mean_of_tasks};
use crate::stats::paired::PairedT;
use crate::stats::summary::Summary;
use crate::study::Study;

/// What a step compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// The score, averaged over tasks, in percent points.
    Score,
    /// The MLM loss on held-out text, in nats a token.
    MlmLoss,
    /// The KD loss on held-out text.
    KdLoss,
}

impl Measure {
    const ALL: [Self; 3] = [Self::Score, Self::MlmLoss, Self::KdLoss];

    /// The name in results.
    #[must_use]
    pub fn key(self) -> &'static str {
        self.loss().map_or("score", LossKind::key)
    }

    fn loss(self) -> Option<LossKind> {
        match self {
            Self::Score => None,
            Self::MlmLoss => Some(LossKind::Mlm),
            Self::KdLoss => Some(LossKind::Kd),
        }
    }

    fn is_loss(self) -> bool {
        self.loss().is_some()
    }

    fn decimals(self) -> usize {
        self.loss().map_or(1, LossKind::decimals)
    }

    /// Whether a method trains masks on what is measured. Scores are what all of them are for.
    fn is_trained_for(self, method: &Method) -> bool {
        let objective = match self {
            Self::Score => "tamt",
            Self::MlmLoss => "mlm",
            Self::KdLoss => "kd",
        };
        method.name.starts_with("tamt") && method.name.contains(objective)
    }
}

/// A step of the order: two methods that the paper ranks.
#[derive(Clone, Debug)]
pub struct Step {
    /// What is compared.
    pub measure: Measure,
    /// The sparsity.
    pub level: Level,
    /// The method that the paper ranks higher.
    pub higher: Method,
    /// The method that the paper ranks lower.
    pub lower: Method,
    /// By how much `higher` is better: a larger score or a smaller loss. The mean over pairs.
    pub gain: f64,
    /// The standard error of `gain`; `None` with a single pair.
    pub error: Option<f64>,
    /// Number of pairs of runs.
    pub pairs: usize,
    /// Whether `gain` is more than noise by the paired t test, p < 0.05.
    pub is_clear: bool,
}

/// What a step shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The paper's order, by more than noise.
    Shown,
    /// The opposite order, by more than noise.
    Reversed,
    /// A difference that may be noise, or a single pair.
    Open,
}

impl Step {
    /// What the step shows.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self.is_clear {
            true if self.gain > 0.0 => Outcome::Shown,
            true => Outcome::Reversed,
            false => Outcome::Open,
        }
    }

    fn text(&self) -> String {
        let decimals = self.measure.decimals();
        let error = self.error.map_or_else(String::new, |error| format!(" ± {}", fixed(error, decimals)));
        let difference = if self.measure.is_loss() { -self.gain } else { self.gain };
        format!("{} − {} {}{error}", self.higher, self.lower, signed(difference, decimals))
    }
}

/// All steps of a study: of each base model and measure, at the sparsities of scores.
#[must_use]
pub fn steps(study: &Study) -> Vec<Step> {
    let bases = study.bases();
    let views: Vec<View<'_>> = bases.iter().map(|base| View::new(study, base, bases.len() > 1)).collect();
    let mut steps = Vec::new();
    for view in &views {
        for measure in Measure::ALL {
            view.summary_levels().into_iter().for_each(|level| steps.extend(at(view, measure, level)));
        }
    }
    steps
}

fn at(view: &View<'_>, measure: Measure, level: Level) -> Vec<Step> {
    let values = match measure.loss() {
        None => scores(view, level),
        Some(kind) => losses(view, kind, level),
    };
    let of = |name: &str| values.iter().find(|(method, _)| method.name == name && method.variant.is_empty());
    let Some(magnitude) = of("magnitude") else { return Vec::new() };
    let trained = values.iter().filter(|(method, _)| measure.is_trained_for(method)).map(|value| (value, magnitude));
    trained
        .chain(of("random").map(|random| (magnitude, random)))
        .filter_map(|((higher, a), (lower, b))| {
            let pairs = match measure {
                Measure::Score => differences(a, b),
                Measure::MlmLoss | Measure::KdLoss => without_seed(b, a),
            };
            let Summary { n, mean, deviation } = Summary::of(&pairs)?;
            let (higher, lower, error) = (higher.clone(), lower.clone(), deviation.map(|d| d / (n as f64).sqrt()));
            let is_clear = PairedT::of(&pairs).is_some_and(|test| test.is_clear());
            Some(Step { measure, level, higher, lower, gain: mean, error, pairs: n, is_clear })
        })
        .collect()
}

type Values = Vec<(Method, BTreeMap<Seeds, f64>)>;

fn scores(view: &View<'_>, level: Level) -> Values {
    let tasks = view.average_tasks();
    let rows = view.rows(level).into_iter();
    rows.filter_map(|(method, row)| Some((method, mean_of_tasks(&row, &tasks)?.by_seeds))).collect()
}

fn losses(view: &View<'_>, kind: LossKind, level: Level) -> Values {
    let mut values: BTreeMap<Method, BTreeMap<Seeds, f64>> = BTreeMap::new();
    for loss in view.losses().filter(|loss| loss.ticket.level == level && !loss.ticket.method.is_dense()) {
        if let Some(value) = kind.of(loss) {
            values.entry(loss.ticket.method.clone()).or_default().insert((loss.ticket.seed, None), value);
        }
    }
    values.into_iter().collect()
}

/// The differences `a - b` of losses with equal seeds. A ticket without a seed has one loss, and nothing in that loss is
/// drawn: it pairs with every seed of the other side.
fn without_seed(a: &BTreeMap<Seeds, f64>, b: &BTreeMap<Seeds, f64>) -> Vec<f64> {
    match (a.get(&(None, None)), b.get(&(None, None))) {
        (Some(a), _) => b.values().map(|b| a - b).collect(),
        (None, Some(b)) => a.values().map(|a| a - b).collect(),
        (None, None) => differences(a, b),
    }
}

/// A sentence for each measure and sparsity.
#[must_use]
pub fn sentences(steps: &[Step]) -> Vec<String> {
    let mut groups: Vec<Vec<&Step>> = Vec::new();
    for step in steps {
        match groups.last_mut().filter(|group| group[0].measure == step.measure && group[0].level == step.level) {
            Some(group) => group.push(step),
            None => groups.push(vec![step]),
        }
    }
    groups.iter().map(|group| sentence(group)).collect()
}

fn sentence(steps: &[&Step]) -> String {
    let first = steps[0];
    let what = match first.measure {
        Measure::Score => "scores",
        Measure::MlmLoss => "MLM losses",
        Measure::KdLoss => "KD losses",
    };
    let of = |outcome: Outcome| -> Vec<String> {
        let such = steps.iter().filter(|step| step.outcome() == outcome);
        such.map(|step| format!("{} and {}", step.higher, step.lower)).collect()
    };
    let (reversed, open) = (of(Outcome::Reversed), of(Outcome::Open));
    let verdict = if reversed.is_empty() && open.is_empty() {
        let trained = steps.iter().any(|step| step.lower.name == "magnitude").then_some("trained");
        let random = steps.iter().any(|step| step.lower.name == "random").then_some("random");
        let order: Vec<&str> = trained.into_iter().chain(["magnitude"]).chain(random).collect();
        let relation = if first.measure.is_loss() { " < " } else { " > " };
        format!("are in the order {}", order.join(relation))
    } else {
        let mut parts = Vec::new();
        if !open.is_empty() {
            parts.push(format!("do not tell apart {}", open.join("; ")));
        }
        if !reversed.is_empty() {
            parts.push(format!("have the opposite order of {}", reversed.join("; ")));
        }
        parts.join(", and ")
    };
    let pairs: Vec<usize> = steps.iter().map(|step| step.pairs).collect();
    let (least, most) = (pairs.iter().min().copied().unwrap_or(0), pairs.iter().max().copied().unwrap_or(0));
    let pairs = if least == most { count(least, "pair") } else { format!("{least} to {most} pairs") };
    let texts: Vec<String> = steps.iter().map(|step| step.text()).collect();
    format!("At {} the {what} {verdict}: {} ({pairs})", first.level, texts.join(", "))
}
