//! The declarations of GLUE (Wang et al. 2018) and `SQuAD` (Rajpurkar et al. 2016, 2018).
//!
//! The columns of TSV files, the order of labels, the metrics and the default settings follow Hugging Face's GLUE
//! processors of 2020, which the reference implementation uses. The columns and integer labels of parquet files follow
//! `nyu-mll/glue` on the Hugging Face hub.

use std::sync::LazyLock;

use crate::head::Head;
use crate::metrics::Metric;
use crate::tasks::source::{Column, Columns, Format, Layout, Source, Split};
use crate::tasks::task::{Defaults, Task};

static TASKS: LazyLock<Vec<Task>> = LazyLock::new(|| {
    let spans = [
        squad("squad", ["train-v1.1.json", "dev-v1.1.json"], false),
        squad("squad2", ["train-v2.0.json", "dev-v2.0.json"], true),
    ];
    std::iter::once(cola()).chain(glue().map(Glue::declare)).chain(spans).collect()
});

impl Task {
    /// The tasks that need no task file: GLUE's nine, `squad` and `squad2`.
    pub fn all() -> &'static [Self] {
        &TASKS
    }

    /// The task with this name. Case and hyphens are ignored: `SST-2` is `sst2`.
    pub fn by_name(name: &str) -> Option<&'static Self> {
        let name = name.to_lowercase().replace('-', "");
        Self::all().iter().find(|task| task.name == name)
    }
}

/// The range of STS-B's similarity, GLUE's only regression.
const SIMILARITY: (f32, f32) = (0.0, 5.0);

const ENTAILMENT: &[&str] = &["entailment", "not_entailment"];

/// The properties of a GLUE task.
struct Glue {
    /// The task's name, and the name of its directory in `nyu-mll/glue`.
    name: &'static str,
    /// The name of its directory in GLUE's own download.
    folder: &'static str,
    /// Empty for a regression.
    labels: &'static [&'static str],
    /// The labels of integers, in the order of `nyu-mll/glue`, if not `labels`. GLUE's own TSV files spell labels, so
    /// that integers in a TSV file come from the hub, too.
    integer_labels: Option<&'static [&'static str]>,
    /// The text columns of TSV files: one, or two for pairs.
    texts: &'static [&'static str],
    /// The text columns of parquet files, if not `texts`.
    parquet_texts: Option<&'static [&'static str]>,
    /// The label column of TSV files.
    label: &'static str,
    /// The id column of TSV files.
    id: &'static str,
    /// A split, the stem of its TSV file, and the stem of its parquet files.
    splits: &'static [(Split, &'static str, &'static str)],
    metrics: &'static [Metric],
    primary: Metric,
    eval_every: u64,
    /// The submission files, if not one named like `folder`.
    submissions: &'static [(Split, &'static str)],
}

/// The GLUE tasks except `CoLA`.
fn glue() -> impl Iterator<Item = Glue> {
    const SENTENCES: &[&str] = &["sentence1", "sentence2"];
    const PARAPHRASE: &[Metric] = &[Metric::Accuracy, Metric::F1, Metric::AccuracyAndF1];
    [
        Glue::binary("sst2", "SST-2", &["sentence"]),
        Glue {
            label: "Quality",
            parquet_texts: Some(SENTENCES),
            metrics: PARAPHRASE,
            primary: Metric::AccuracyAndF1,
            ..Glue::binary("mrpc", "MRPC", &["#1 String", "#2 String"])
        },
        Glue {
            labels: &[],
            label: "score",
            metrics: &[Metric::Pearson, Metric::Spearman, Metric::Correlation],
            primary: Metric::Pearson,
            ..Glue::binary("stsb", "STS-B", SENTENCES)
        },
        Glue {
            label: "is_duplicate",
            id: "id",
            metrics: PARAPHRASE,
            primary: Metric::AccuracyAndF1,
            eval_every: 500,
            ..Glue::binary("qqp", "QQP", &["question1", "question2"])
        },
        Glue {
            labels: &["contradiction", "entailment", "neutral"],
            integer_labels: Some(&["entailment", "neutral", "contradiction"]),
            label: "gold_label",
            parquet_texts: Some(&["premise", "hypothesis"]),
            splits: &[
                (Split::Train, "train", "train"),
                (Split::Dev, "dev_matched", "validation_matched"),
                (Split::DevMismatched, "dev_mismatched", "validation_mismatched"),
                (Split::Test, "test_matched", "test_matched"),
                (Split::TestMismatched, "test_mismatched", "test_mismatched"),
            ],
            eval_every: 500,
            submissions: &[(Split::Test, "MNLI-m.tsv"), (Split::TestMismatched, "MNLI-mm.tsv")],
            ..Glue::binary("mnli", "MNLI", SENTENCES)
        },
        Glue { labels: ENTAILMENT, eval_every: 500, ..Glue::binary("qnli", "QNLI", &["question", "sentence"]) },
        Glue { labels: ENTAILMENT, ..Glue::binary("rte", "RTE", SENTENCES) },
        Glue::binary("wnli", "WNLI", SENTENCES),
    ]
    .into_iter()
}

impl Glue {
    /// A task with the labels 0 and 1 and the metric accuracy.
    fn binary(name: &'static str, folder: &'static str, texts: &'static [&'static str]) -> Self {
        Self {
            name,
            folder,
            labels: &["0", "1"],
            integer_labels: None,
            texts,
            parquet_texts: None,
            label: "label",
            id: "index",
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
        let submissions = match self.submissions {
            [] => vec![(Split::Test, format!("{}.tsv", self.folder))],
            named => named.iter().map(|&(split, file)| (split, file.to_owned())).collect(),
        };
        Task {
            name: self.name.to_owned(),
            folders: vec![self.folder.to_owned(), self.name.to_owned()],
            head: match self.labels {
                [] => Head::Regression { range: Some(SIMILARITY) },
                labels => Head::Classification { labels: owned(labels) },
            },
            sources: self.sources(),
            metrics: self.metrics.to_vec(),
            primary: self.primary,
            defaults: Defaults { eval_every: self.eval_every, ..Defaults::default() },
            submissions,
        }
    }

    /// The TSV files of all splits, then the parquet files. Parquet files lie in the task's directory in `nyu-mll/glue`, or
    /// in the directory `data` of a repository of one task.
    fn sources(&self) -> Vec<Source> {
        let tsv = self.splits.iter().map(|&(split, stem, _)| self.source(split, format!("{stem}.tsv"), Format::Tsv));
        let parquet = self.splits.iter().flat_map(|&(split, _, stem)| {
            ["", "data/"].map(|folder| self.source(split, format!("{folder}{stem}-*.parquet"), Format::Parquet))
        });
        tsv.chain(parquet).collect()
    }

    fn source(&self, split: Split, file: String, format: Format) -> Source {
        let (texts, id, label) = match format {
            Format::Parquet => (self.parquet_texts.unwrap_or(self.texts), "idx", "label"),
            _ => (self.texts, self.id, self.label),
        };
        let integer_labels = owned(self.integer_labels.unwrap_or(self.labels));
        let columns = Columns {
            // Submissions need the ids of test files; some of the other files have none.
            id: (!split.is_labelled()).then(|| id.into()),
            first: texts[0].into(),
            second: texts.get(1).map(|&name| name.into()),
            label: Some(label.into()),
        };
        Source { split, file, layout: Layout::Table { format, header: true, columns, integer_labels } }
    }
}

fn owned(labels: &[&str]) -> Vec<String> {
    labels.iter().map(ToString::to_string).collect()
}

/// `CoLA`, whose train and dev files have no header, unlike its test file.
fn cola() -> Task {
    let mut task =
        Glue { metrics: &[Metric::Matthews], primary: Metric::Matthews, ..Glue::binary("cola", "CoLA", &["sentence"]) }
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
