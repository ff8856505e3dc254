//! Which order of methods holds beyond noise.

use crate::aggregate::{Average, differences, rounded};
use crate::document::{Block, Cell, Column, Number, Statistic, Table, fixed, probability};
use crate::names::{Level, Method, Task, list};
use crate::sections::view::{View, mean_of_tasks};
use crate::stats::paired::{PairedT, holm, wilcoxon};
use crate::stats::summary::Summary;

/// Two methods at a sparsity, the one with the higher average first.
struct Comparison {
    better: Method,
    worse: Method,
    /// The mean over pairs; without a pair, that of the averages.
    difference: f64,
    /// Number of pairs of runs.
    pairs: usize,
    test: Option<PairedT>,
    wilcoxon: Option<f64>,
    /// The difference of the means on each task.
    by_task: Vec<f64>,
    runs: Vec<usize>,
}

/// What comparisons of methods show.
pub(super) struct Orders {
    /// A sentence on the order at each sparsity.
    pub(super) sentences: Vec<String>,
    /// The same in a few words.
    pub(super) short: Vec<String>,
    /// A table of all comparisons.
    pub(super) table: Option<Block>,
}

/// Compares all methods with each other, at each sparsity.
pub(super) fn compare(view: &View<'_>, tasks: &[&Task]) -> Orders {
    let (mut sentences, mut short, mut rows) = (Vec::new(), Vec::new(), Vec::new());
    for level in view.score_levels() {
        let mut averages: Vec<(Method, Average)> = view
            .rows(level)
            .into_iter()
            .filter_map(|(method, row)| Some((method, mean_of_tasks(&row, tasks)?)))
            .collect();
        if averages.len() < 2 {
            continue;
        }
        averages.sort_by(|a, b| b.1.summary.mean.total_cmp(&a.1.summary.mean));
        let comparisons = comparisons(&averages);
        let order = order(&averages, &comparisons);
        let note = match order.tested {
            0 => WITHOUT_TEST,
            _ if short.iter().any(|finding: &String| finding.ends_with(LEGEND)) => "",
            _ => LEGEND,
        };
        let others = order.others.iter().map(|other| format!("; {other}")).collect::<String>();
        short.push(format!("At {level}{}: {}{others}{note}", view.of_base(), order.text));
        sentences.push(sentence(view, level, &order, (averages.len(), tasks.len())));
        rows.extend(lines(level, &comparisons));
    }
    let (what, task_columns, by_task) =
        if tasks.len() > 1 { ("averages", &TASK_COLUMNS[..], BY_TASK) } else { ("scores", &[][..], "") };
    let table = Table {
        id: view.id("comparisons"),
        caption: format!(
            "Differences of {what} between methods{}, means over pairs, with the 95 % interval of the paired t test. A \
             pair is a ticket seed, with runs averaged over tuning seeds; where the methods have one common ticket \
             seed, it is a tuning seed; where one of them draws nothing, whichever gives the larger p. Holm's p is corrected for all pairs of methods at \
             a sparsity; Wilcoxon's signed-rank p is exact, and cannot be below 2/2ⁿ with n pairs.{by_task}",
            view.of_base()
        ),
        columns: COLUMNS.iter().chain(task_columns).copied().map(Column::new).collect(),
        rows,
    };
    let block = (!table.rows.is_empty())
        .then(|| Block::Details("All comparisons of methods".to_owned(), vec![Block::Table(table)]));
    Orders { sentences, short, table: block }
}

const COLUMNS: [&str; 9] =
    ["higher", "lower", "sparsity", "difference", "95 % interval", "pairs", "p (t)", "p (t, Holm)", "p (Wilcoxon)"];

const TASK_COLUMNS: [&str; 3] = ["higher on", "95 % interval (tasks)", "p (tasks)"];

const BY_TASK: &str = " The last three columns are about tasks instead of seeds: on how many the mean is higher, \
and, for these tickets, the interval of the t test and Wilcoxon's exact p of the differences of these means.";

const LEGEND: &str = " (\">\": more than noise by a paired t test over seeds, p < 0.05; \"≈\": not)";

const WITHOUT_TEST: &str = " (highest first; one pair of runs each, so that no test is possible)";

fn comparisons(averages: &[(Method, Average)]) -> Vec<Comparison> {
    let mut found = Vec::new();
    for (i, (better, a)) in averages.iter().enumerate() {
        for (worse, b) in &averages[i + 1..] {
            let pairs = differences(&a.by_seeds, &b.by_seeds);
            let by_task = a.by_task.iter().zip(&b.by_task).map(|(a, b)| rounded(a - b)).collect();
            found.push(Comparison {
                better: better.clone(),
                worse: worse.clone(),
                difference: Summary::of(&pairs).map_or(a.summary.mean - b.summary.mean, |pairs| pairs.mean),
                pairs: pairs.len(),
                test: PairedT::of(&pairs),
                wilcoxon: if pairs.len() > 1 { wilcoxon(&pairs) } else { None },
                by_task,
                runs: a.runs.iter().chain(&b.runs).copied().collect(),
            });
        }
    }
    found
}

/// The order of methods: `>` where neighbours differ by more than noise, `≈` where they do not, a comma where no test is
/// possible.
struct Order {
    text: String,
    /// Number of neighbours that a test compares.
    tested: usize,
    /// Number of neighbours that differ by more than noise.
    clear: usize,
    /// Number of other pairs of methods that a test compares.
    tested_others: usize,
    /// The methods that are above others than their neighbour by more than noise, where a step between neighbours is
    /// not: `imp > random`.
    others: Vec<String>,
}

fn order(averages: &[(Method, Average)], comparisons: &[Comparison]) -> Order {
    let text = averages[0].0.to_string();
    let mut order = Order { text, tested: 0, clear: 0, tested_others: 0, others: Vec::new() };
    // The order is that of the means over all runs; those of the pairs alone may have another.
    let is_clear = |comparison: &Comparison| comparison.test.is_some_and(|test| test.is_clear() && test.mean > 0.0);
    for pair in averages.windows(2) {
        let comparison = comparisons.iter().find(|c| c.better == pair[0].0 && c.worse == pair[1].0);
        let is_clear = comparison.is_some_and(is_clear);
        // Equal scores in all pairs have no test statistic, and differ by no more than noise.
        let is_tested = comparison.is_some_and(|comparison| comparison.pairs > 1);
        order.tested += usize::from(is_tested);
        order.clear += usize::from(is_clear);
        let sign = match (is_clear, is_tested) {
            (true, _) => " >",
            (false, true) => " ≈",
            (false, false) => ",",
        };
        order.text.push_str(&format!("{sign} {}", pair[1].0));
    }
    if order.clear < averages.len() - 1 {
        for (i, (better, _)) in averages.iter().enumerate() {
            let next = averages.get(i + 1).map(|(method, _)| method);
            let others = comparisons.iter().filter(|c| c.better == *better && Some(&c.worse) != next);
            order.tested_others += others.clone().filter(|comparison| comparison.pairs > 1).count();
            let below: Vec<&Method> = others.filter(|c| is_clear(c)).map(|comparison| &comparison.worse).collect();
            order.others.extend((!below.is_empty()).then(|| format!("{better} > {}", list(&below))));
        }
    }
    order
}

fn sentence(view: &View<'_>, level: Level, order: &Order, (methods, tasks): (usize, usize)) -> String {
    let Order { text, others, .. } = order;
    let (tested, clear) = (order.tested, order.clear);
    let what = if tasks > 1 { format!("by the average over {tasks} tasks") } else { "by score".to_owned() };
    let neighbours = methods - 1;
    let verdict = if tested == 0 {
        "No two neighbours have two pairs of runs: no test is possible, and this order is an observation only"
            .to_owned()
    } else if clear == neighbours {
        "Every step is more than noise (paired t test over seeds, p < 0.05)".to_owned()
    } else if clear == 0 {
        "No step between neighbours is more than noise (paired t test over seeds)".to_owned()
    } else {
        format!("{clear} of {neighbours} steps are more than noise (\">\": paired t test over seeds, p < 0.05)")
    };
    let others = match others.as_slice() {
        [] if tested > 0 && order.tested_others > 0 => "; of the other pairs, none is".to_owned(),
        [] => String::new(),
        others => format!("; of the other pairs, these are: {}", others.join("; ")),
    };
    format!("At {level}{}, {what}: {text}. {verdict}{others}.", view.of_base())
}

/// A test of differences that vary. Others come from scores on a coarse grid, and have neither a p nor an interval.
fn varying(test: Option<PairedT>) -> Option<PairedT> {
    test.filter(|test| test.t.is_finite())
}

fn lines(level: Level, comparisons: &[Comparison]) -> Vec<Vec<Cell>> {
    let tested: Vec<f64> = comparisons.iter().filter_map(|comparison| Some(varying(comparison.test)?.p)).collect();
    let mut corrected = holm(&tested).into_iter();
    let line = |comparison: &Comparison| {
        let number =
            |value: f64, decimals| Number::new(value, decimals, Statistic::Derived, "score", comparison.runs.clone());
        let p = |p: Option<f64>| {
            p.map_or(Cell::Empty, |p| Cell::Number(Number { text: Some(probability(p)), ..number(p, 3) }))
        };
        let difference = Number { signed: true, ..number(comparison.difference, 1) };
        let interval = |test: Option<PairedT>| {
            let text = |PairedT { interval: (low, high), .. }| format!("{} to {}", fixed(low, 1), fixed(high, 1));
            Cell::text(test.map_or_else(String::new, text))
        };
        let pairs = comparison.pairs.to_string();
        let test = varying(comparison.test);
        let corrected = test.and_then(|_| corrected.next());
        let mut line = vec![
            Cell::text(comparison.better.to_string()),
            Cell::text(comparison.worse.to_string()),
            Cell::text(level.to_string()),
            Cell::Number(difference),
            interval(test),
            Cell::text(pairs),
            p(test.map(|test| test.p)),
            p(corrected),
            p(comparison.wilcoxon),
        ];
        let tasks = &comparison.by_task;
        if tasks.len() > 1 {
            let higher = tasks.iter().filter(|difference| **difference > 0.0).count();
            let higher = Cell::text(format!("{higher} of {}", tasks.len()));
            line.extend([higher, interval(varying(PairedT::of(tasks))), p(wilcoxon(tasks))]);
        }
        line
    };
    comparisons.iter().map(line).collect()
}
