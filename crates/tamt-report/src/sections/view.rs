//! What all sections look at: the main scores and losses of one base model.

use std::collections::{BTreeMap, BTreeSet};

use crate::aggregate::{Average, Cell, Row, Seeds, average, common_tasks, row};
use crate::document::{Number, Statistic};
use crate::figure::chart::{Point, Series};
use crate::figure::theme::{Look, look};
use crate::names::{Level, Method, Task};
use crate::stats::summary::Summary;
use crate::study::{Loss, Score, Study, TicketKey};

/// The measurements of one base model.
pub(super) struct View<'a> {
    pub(super) study: &'a Study,
    pub(super) base: &'a str,
    /// All methods of the study, for looks.
    methods: Vec<Method>,
    /// Whether the study has other base models.
    several: bool,
}

/// A loss: MLM or KD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LossKind {
    Mlm,
    Kd,
}

impl LossKind {
    pub(super) const ALL: [Self; 2] = [Self::Mlm, Self::Kd];

    pub(super) fn of(self, loss: &Loss) -> Option<f64> {
        match self {
            Self::Mlm => loss.mlm,
            Self::Kd => loss.kd,
        }
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Mlm => "MLM loss",
            Self::Kd => "KD loss",
        }
    }

    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Mlm => "mlm_loss",
            Self::Kd => "kd_cosine",
        }
    }

    pub(super) fn slug(self) -> &'static str {
        match self {
            Self::Mlm => "mlm-loss",
            Self::Kd => "kd-loss",
        }
    }

    pub(super) fn unit(self) -> &'static str {
        match self {
            Self::Mlm => "nats a token",
            Self::Kd => "1 − cosine",
        }
    }

    pub(super) fn decimals(self) -> usize {
        match self {
            Self::Mlm => 2,
            Self::Kd => 3,
        }
    }
}

impl<'a> View<'a> {
    pub(super) fn new(study: &'a Study, base: &'a str, several: bool) -> Self {
        Self { study, base, methods: study.methods(), several }
    }

    /// The name of a table or figure, with the base model where there are several.
    pub(super) fn id(&self, name: &str) -> String {
        if self.several { format!("{name}-{}", slug(self.base)) } else { name.to_owned() }
    }

    /// The base model as the end of a caption, where there are several.
    pub(super) fn of_base(&self) -> String {
        if self.several { format!(", {}", self.base) } else { String::new() }
    }

    pub(super) fn look(&self, method: &Method) -> Look {
        look(method, &self.methods)
    }

    /// The scores of the main tables.
    pub(super) fn scores(&self) -> impl Iterator<Item = &'a Score> + use<'_, 'a> {
        self.study.main_scores().filter(|score| score.ticket.base == self.base)
    }

    /// All scores, of other steps and numbers of examples too.
    pub(super) fn all_scores(&self) -> impl Iterator<Item = &'a Score> + use<'_, 'a> {
        self.study.scores.iter().filter(|score| score.ticket.base == self.base)
    }

    /// All losses.
    pub(super) fn all_losses(&self) -> impl Iterator<Item = &'a Loss> + use<'_, 'a> {
        self.study.losses.iter().filter(|loss| loss.ticket.base == self.base)
    }

    /// The losses of the tickets in the main tables.
    pub(super) fn losses(&self) -> impl Iterator<Item = &'a Loss> + use<'_, 'a> {
        self.all_losses().filter(|loss| self.study.is_main(&loss.ticket))
    }

    /// The sparsities of tickets with scores.
    pub(super) fn score_levels(&self) -> Vec<Level> {
        levels(self.scores().map(|score| &score.ticket))
    }

    /// The sparsities of tickets with losses.
    pub(super) fn loss_levels(&self) -> Vec<Level> {
        levels(self.losses().map(|loss| &loss.ticket))
    }

    /// The sparsities of a summary: those of tickets with scores, else those with losses.
    pub(super) fn summary_levels(&self) -> Vec<Level> {
        let levels = self.score_levels();
        if levels.is_empty() { self.loss_levels() } else { levels }
    }

    /// The row of the dense model.
    pub(super) fn dense(&self) -> Row<'a> {
        row(self.scores().filter(|score| score.ticket.method.is_dense()))
    }

    /// The rows of all methods at a sparsity, without the dense model.
    pub(super) fn rows(&self, level: Level) -> Vec<(Method, Row<'a>)> {
        let mut scores: BTreeMap<Method, Vec<&'a Score>> = BTreeMap::new();
        for score in self.scores().filter(|score| score.ticket.level == level && !score.ticket.method.is_dense()) {
            scores.entry(score.ticket.method.clone()).or_default().push(score);
        }
        scores.into_iter().map(|(method, scores)| (method, row(scores))).collect()
    }

    /// The tasks over which the rows of all sparsities, and the dense model, are averaged.
    pub(super) fn average_tasks(&self) -> Vec<&'a Task> {
        let mut rows = vec![self.dense()];
        rows.extend(self.score_levels().into_iter().flat_map(|level| self.rows(level)).map(|(_, row)| row));
        let rows: Vec<&Row<'a>> = rows.iter().filter(|row| !row.is_empty()).collect();
        self.one_recipe(common_tasks(&rows))
    }

    /// One recipe of each task, in the order of tables. Several recipes of a task are one task: the one with most runs
    /// stands for it, the first one of equals.
    pub(super) fn one_recipe(&self, tasks: impl IntoIterator<Item = &'a Task>) -> Vec<&'a Task> {
        let runs = |task: &Task| self.scores().filter(|score| score.task == *task).count();
        let mut recipes: BTreeMap<&str, &'a Task> = BTreeMap::new();
        for task in tasks {
            let kept = recipes.entry(&task.name).or_insert(task);
            if runs(task) > runs(kept) {
                *kept = task;
            }
        }
        recipes.into_values().collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The dense model's average over tasks and these seeds of fine-tuning, or over all seeds where it lacks these.
    pub(super) fn dense_average(&self, tasks: &[&Task], seeds: &BTreeSet<Option<u64>>) -> Option<f64> {
        let dense = self.dense();
        let average = mean_of_tasks(&row_of_seeds(&dense, seeds), tasks).or_else(|| mean_of_tasks(&dense, tasks))?;
        Some(average.summary.mean)
    }

    /// The loss of the dense model, with its runs.
    pub(super) fn dense_loss(&self, kind: LossKind) -> Option<(f64, Vec<usize>)> {
        let dense = self.losses().filter(|loss| loss.ticket.method.is_dense());
        let found: Vec<(f64, usize)> = dense.filter_map(|loss| Some((kind.of(loss)?, loss.run))).collect();
        Some((found.first()?.0, found.iter().map(|(_, run)| *run).collect()))
    }

    /// The losses of a method at each sparsity, over seeds.
    pub(super) fn losses_of(&self, method: &Method, kind: LossKind) -> BTreeMap<Level, (Summary, Vec<usize>)> {
        let mut found: BTreeMap<Level, Vec<(f64, usize)>> = BTreeMap::new();
        for loss in self.losses().filter(|loss| loss.ticket.method == *method) {
            let value = kind.of(loss).map(|value| (value, loss.run));
            found.entry(loss.ticket.level).or_default().extend(value);
        }
        summaries(found)
    }

    /// The methods with losses, without the dense model.
    pub(super) fn loss_methods(&self) -> Vec<Method> {
        let methods: BTreeSet<Method> = self.losses().map(|loss| loss.ticket.method.clone()).collect();
        methods.into_iter().filter(|method| !method.is_dense()).collect()
    }

    /// A curve of summaries over the horizontal values.
    pub(super) fn curve(&self, method: &Method, points: Vec<Point>) -> Series {
        Series { label: method.to_string(), look: self.look(method), joined: true, points }
    }
}

/// Summaries of values with their runs, by key; keys without values are left out.
pub(super) fn summaries<K: Ord>(found: BTreeMap<K, Vec<(f64, usize)>>) -> BTreeMap<K, (Summary, Vec<usize>)> {
    let summary = |(key, values): (K, Vec<(f64, usize)>)| {
        let summary = Summary::of(&values.iter().map(|(value, _)| *value).collect::<Vec<_>>())?;
        Some((key, (summary, values.iter().map(|(_, run)| *run).collect())))
    };
    found.into_iter().filter_map(summary).collect()
}

fn levels<'t>(tickets: impl Iterator<Item = &'t TicketKey>) -> Vec<Level> {
    let levels: BTreeSet<Level> =
        tickets.filter(|ticket| !ticket.method.is_dense()).map(|ticket| ticket.level).collect();
    levels.into_iter().collect()
}

/// The number in a cell of scores over seeds.
pub(super) fn score_number(summary: Summary, runs: Vec<usize>) -> Number {
    Number {
        deviation: summary.deviation,
        n: summary.n,
        ..Number::new(summary.mean, 1, Statistic::Mean, "score", runs)
    }
}

/// The number in a cell of an average over tasks.
pub(super) fn average_number(average: &Average) -> Number {
    Number {
        deviation: average.summary.deviation,
        n: average.summary.n,
        ..Number::new(average.summary.mean, 1, Statistic::MeanOfTasks, "score", average.runs.clone())
    }
}

/// The average of a row; a short name for sections.
pub(super) fn mean_of_tasks(row: &Row<'_>, tasks: &[&Task]) -> Option<Average> {
    if tasks.is_empty() { None } else { average(row, tasks) }
}

/// What all sets have; `None` where they have nothing in common.
pub(super) fn common<T: Ord + Clone>(sets: impl IntoIterator<Item = BTreeSet<T>>) -> Option<BTreeSet<T>> {
    sets.into_iter().reduce(|common, set| &common & &set).filter(|common| !common.is_empty())
}

/// The seeds of a score: of the ticket's search, and of fine-tuning.
pub(super) fn seeds_of(score: &Score) -> Seeds {
    (score.ticket.seed, score.seed)
}

/// The pairs of seeds of a cell.
pub(super) fn pairs_of(cell: &Cell<'_>) -> BTreeSet<Seeds> {
    cell.scores.iter().map(|score| seeds_of(score)).collect()
}

/// The seeds of fine-tuning of a cell.
pub(super) fn tuning_seeds(cell: &Cell<'_>) -> BTreeSet<Option<u64>> {
    cell.scores.iter().map(|score| score.seed).collect()
}

/// The scores of a cell with these seeds of fine-tuning.
pub(super) fn of_seeds<'a>(cell: &Cell<'a>, seeds: &BTreeSet<Option<u64>>) -> Cell<'a> {
    Cell { scores: cell.scores.iter().copied().filter(|score| seeds.contains(&score.seed)).collect() }
}

/// As [`of_seeds`]; the whole cell where it has none of these seeds.
pub(super) fn of_seeds_or_all<'a>(cell: &Cell<'a>, seeds: &BTreeSet<Option<u64>>) -> Cell<'a> {
    let same = of_seeds(cell, seeds);
    if same.scores.is_empty() { cell.clone() } else { same }
}

/// The scores of a row with these seeds of fine-tuning.
pub(super) fn row_of_seeds<'a>(scores: &Row<'a>, seeds: &BTreeSet<Option<u64>>) -> Row<'a> {
    row(scores.values().flat_map(|cell| of_seeds(cell, seeds).scores))
}

/// A name as part of a file name.
pub(super) fn slug(name: &str) -> String {
    let mut slug: String =
        name.chars().map(|c| if c.is_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    while slug.contains("--") {
        slug = slug.replace("--", "-");
    }
    slug.trim_matches('-').to_owned()
}

/// A number over seeds as a sentence of a tip.
pub(super) fn with_deviation(summary: &Summary, decimals: usize) -> String {
    let mean = crate::document::fixed(summary.mean, decimals);
    match summary.deviation {
        Some(deviation) => format!("{mean} ± {} (n = {})", crate::document::fixed(deviation, decimals), summary.n),
        None => mean,
    }
}
