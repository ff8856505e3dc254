//! The declarations of GLUE (Wang et al. 2018) and `SQuAD` (Rajpurkar et al. 2016, 2018).
//!
//! Columns of the benchmark's TSV files, label orders, metrics and defaults follow Hugging Face's GLUE processors of
//! 2020, which the reference uses; columns and integer labels of parquet files are those of `nyu-mll/glue` on the hub.

use std::sync::LazyLock;

use super::{Column, Columns, Defaults, Format, Head, Layout, Source, Split, Task};
use crate::metrics::Metric;

pub(super) static TASKS: LazyLock<Vec<Task>> = LazyLock::new(|| {
    vec![
        cola(),
        Glue {
            folder: "SST-2",
            hub: "sst2",
            tsv: texts(["sentence"]),
            parquet: texts(["sentence"]),
            ..Glue::binary("sst2")
        }
        .declare(),
        Glue {
            folder: "MRPC",
            hub: "mrpc",
            tsv: texts(["#1 String", "#2 String"]),
            label: "Quality",
            parquet: texts(["sentence1", "sentence2"]),
            metrics: &[Metric::Accuracy, Metric::F1, Metric::AccuracyAndF1],
            primary: Metric::AccuracyAndF1,
            ..Glue::binary("mrpc")
        }
        .declare(),
        Glue {
            folder: "STS-B",
            hub: "stsb",
            labels: &[],
            tsv: texts(["sentence1", "sentence2"]),
            label: "score",
            parquet: texts(["sentence1", "sentence2"]),
            metrics: &[Metric::Pearson, Metric::Spearman, Metric::Correlation],
            primary: Metric::Pearson,
            ..Glue::binary("stsb")
        }
        .declare(),
        Glue {
            folder: "QQP",
            hub: "qqp",
            tsv: texts(["question1", "question2"]),
            label: "is_duplicate",
            id: "id",
            parquet: texts(["question1", "question2"]),
            metrics: &[Metric::Accuracy, Metric::F1, Metric::AccuracyAndF1],
            primary: Metric::AccuracyAndF1,
            eval_every: 500,
            ..Glue::binary("qqp")
        }
        .declare(),
        Glue {
            folder: "MNLI",
            hub: "mnli",
            labels: &["contradiction", "entailment", "neutral"],
            hub_labels: &["entailment", "neutral", "contradiction"],
            tsv: texts(["sentence1", "sentence2"]),
            label: "gold_label",
            parquet: texts(["premise", "hypothesis"]),
            splits: &[
                (Split::Train, "train", "train"),
                (Split::Dev, "dev_matched", "validation_matched"),
                (Split::DevMismatched, "dev_mismatched", "validation_mismatched"),
                (Split::Test, "test_matched", "test_matched"),
                (Split::TestMismatched, "test_mismatched", "test_mismatched"),
            ],
            eval_every: 500,
            submissions: &[(Split::Test, "MNLI-m.tsv"), (Split::TestMismatched, "MNLI-mm.tsv")],
            ..Glue::binary("mnli")
        }
        .declare(),
        Glue {
            folder: "QNLI",
            hub: "qnli",
            labels: ENTAILMENT,
            hub_labels: ENTAILMENT,
            tsv: texts(["question", "sentence"]),
            parquet: texts(["question", "sentence"]),
            eval_every: 500,
            ..Glue::binary("qnli")
        }
        .declare(),
        Glue {
            folder: "RTE",
            hub: "rte",
            labels: ENTAILMENT,
            hub_labels: ENTAILMENT,
            tsv: texts(["sentence1", "sentence2"]),
            parquet: texts(["sentence1", "sentence2"]),
            ..Glue::binary("rte")
        }
        .declare(),
        Glue {
            folder: "WNLI",
            hub: "wnli",
            tsv: texts(["sentence1", "sentence2"]),
            parquet: texts(["sentence1", "sentence2"]),
            ..Glue::binary("wnli")
        }
        .declare(),
        squad("squad", ["train-v1.1.json", "dev-v1.1.json"], false),
        squad("squad2", ["train-v2.0.json", "dev-v2.0.json"], true),
    ]
});

/// STS-B, GLUE's only regression, grades similarity from 0 to 5.
const SIMILARITY: (f32, f32) = (0.0, 5.0);

const ENTAILMENT: &[&str] = &["entailment", "not_entailment"];

/// What the GLUE tasks have in common, and where they differ.
struct Glue {
    name: &'static str,
    folder: &'static str,
    hub: &'static str,
    /// Empty for a regression.
    labels: &'static [&'static str],
    /// What the integer labels of the hub's files mean.
    hub_labels: &'static [&'static str],
    tsv: (Column, Option<Column>),
    label: &'static str,
    id: &'static str,
    parquet: (Column, Option<Column>),
    /// A split, its TSV file without the ending, its parquet files without directory, shard and ending.
    splits: &'static [(Split, &'static str, &'static str)],
    metrics: &'static [Metric],
    primary: Metric,
    eval_every: u64,
    /// Where it is not the folder's name.
    submissions: &'static [(Split, &'static str)],
}

impl Glue {
    /// Two classes, 0 and 1, judged by accuracy.
    fn binary(name: &'static str) -> Self {
        Self {
            name,
            folder: "",
            hub: "",
            labels: &["0", "1"],
            hub_labels: &["0", "1"],
            tsv: texts(["sentence"]),
            label: "label",
            id: "index",
            parquet: texts(["sentence"]),
            splits: &[
                (Split::Train, "train", "train"),
                (Split::Dev, "dev", "validation"),
                (Split::Test, "test", "test"),
            ],
            metrics: &[Metric::Accuracy],
            primary: Metric::Accuracy,
            eval_every: 50,
            submissions: &[],
        }
    }

    fn declare(self) -> Task {
        let owned = |labels: &[&str]| labels.iter().map(ToString::to_string).collect::<Vec<_>>();
        let source =
            |split: Split, file: String, format, texts: &(Column, Option<Column>), id: &str, label: &str| Source {
                split,
                file,
                layout: Layout::Table {
                    format,
                    header: true,
                    columns: Columns {
                        // Only test files have ids that matter, and not all other files have any.
                        id: (!split.is_labelled()).then(|| id.into()),
                        first: texts.0.clone(),
                        second: texts.1.clone(),
                        label: Some(label.into()),
                    },
                    integer_labels: if format == Format::Parquet { owned(self.hub_labels) } else { Vec::new() },
                },
            };
        let tsv = self
            .splits
            .iter()
            .map(|&(split, file, _)| source(split, format!("{file}.tsv"), Format::Tsv, &self.tsv, self.id, self.label));
        // In the directory of the task's configuration on the hub, or in that of a repository of one task.
        let parquet = self.splits.iter().flat_map(|&(split, _, file)| {
            ["", "data/"].map(|folder| {
                let file = format!("{folder}{file}-*.parquet");
                source(split, file, Format::Parquet, &self.parquet, "idx", "label")
            })
        });
        let submissions = match self.submissions {
            [] => vec![(Split::Test, format!("{}.tsv", self.folder))],
            named => named.iter().map(|&(split, file)| (split, file.to_owned())).collect(),
        };
        Task {
            name: self.name.to_owned(),
            folders: vec![self.folder.to_owned(), self.hub.to_owned()],
            head: match self.labels {
                [] => Head::Regression { range: Some(SIMILARITY) },
                labels => Head::Classification { labels: owned(labels) },
            },
            sources: tsv.chain(parquet).collect(),
            metrics: self.metrics.to_vec(),
            primary: self.primary,
            defaults: Defaults { eval_every: self.eval_every, ..Defaults::default() },
            submissions,
        }
    }
}

/// `CoLA`'s train and dev files have no header, its test file has one.
fn cola() -> Task {
    let mut task = Glue {
        folder: "CoLA",
        hub: "cola",
        metrics: &[Metric::Matthews],
        primary: Metric::Matthews,
        ..Glue::binary("cola")
    }
    .declare();
    for source in &mut task.sources {
        if let Layout::Table { format: Format::Tsv, header, columns, .. } = &mut source.layout
            && source.split.is_labelled()
        {
            *header = false;
            columns.first = Column::Index(3);
            columns.label = Some(Column::Index(1));
        }
    }
    task
}

fn squad(name: &str, [train, dev]: [&str; 2], unanswerable: bool) -> Task {
    let source = |split, file: &str| Source { split, file: file.to_owned(), layout: Layout::Squad };
    Task {
        name: name.to_owned(),
        folders: vec![name.to_owned(), "SQuAD".to_owned()],
        head: Head::Span { unanswerable },
        sources: vec![source(Split::Train, train), source(Split::Dev, dev)],
        metrics: vec![Metric::ExactMatch, Metric::F1],
        primary: Metric::F1,
        defaults: Defaults { batch_size: 16, learning_rate: 3e-5, epochs: 2, max_length: 384, eval_every: 1000 },
        submissions: Vec::new(),
    }
}

/// The columns of one text, or of a pair.
fn texts<const N: usize>(names: [&str; N]) -> (Column, Option<Column>) {
    let mut names = names.into_iter().map(Column::from);
    (names.next().unwrap_or(Column::Index(0)), names.next())
}
