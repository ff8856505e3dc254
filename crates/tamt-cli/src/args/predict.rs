//! The flags of `tamt predict`.

use std::path::PathBuf;

use tamt::predict::OutputFormat;

use crate::args::choices;
use crate::args::common::{Common, SubjectArgs};
use crate::args::task::InputArgs;
use crate::args::values::{InputFormat, LineTarget, TextSource};

const EXAMPLES: &str = "\
Examples:
  A label for each line of a file:
    tamt predict --model runs/sst2 --input texts.txt --output labels.tsv

  Pairs from a table, as JSON lines:
    tamt predict --model runs/mrpc --input pairs.csv --columns left,right --output labels.jsonl

  In a pipe:
    echo 'a fine film' | tamt predict --model runs/sst2 --input - --output -

  Answers to the questions of a SQuAD file:
    tamt predict --model runs/squad --input dev-v1.1.json --output answers.jsonl

  A fine-tuned model from the hub, whose outputs have no names:
    tamt predict --model textattack/bert-base-uncased-SST-2 --labels negative,positive \\
      --input texts.txt --output labels.tsv";

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PredictArgs {
    #[command(flatten)]
    pub(crate) subject: SubjectArgs,

    /// Texts to predict; - is stdin
    #[arg(long, value_name = "FILE|-")]
    pub(crate) input: TextSource,

    /// File for the predictions, a line for each record: JSON for a name in .jsonl, else TSV; - is stdout
    #[arg(long, value_name = "FILE|-")]
    pub(crate) output: LineTarget,

    /// Form of the input [default: by the file's ending, .tsv, .csv, .jsonl or .json (squad); else text]
    #[arg(long, value_parser = choices::INPUT_FORMAT)]
    pub(crate) format: Option<InputFormat>,

    /// Form of the output [default: by the file's ending]
    #[arg(long, value_parser = choices::OUTPUT_FORMAT)]
    pub(crate) output_format: Option<OutputFormat>,

    /// Columns of the text, of the two texts of a pair, or of question and context
    /// [default: as in the files of the model's task; for spans question,context]
    #[arg(long, value_name = "A[,B]", value_delimiter = ',')]
    pub(crate) columns: Vec<String>,

    /// Column of the ids [default: as in the files of the task; with --columns: id, if there is one]
    #[arg(long, value_name = "NAME")]
    pub(crate) id_column: Option<String>,

    /// The first line of a TSV or CSV file is a record; columns are numbers from 0
    #[arg(long, requires = "columns")]
    pub(crate) no_header: bool,

    /// The model's task, if its directory does not say it: cola, sst2, mrpc, stsb, qqp, mnli, qnli, rte, wnli, squad or
    /// squad2
    #[arg(long, value_name = "TASK", conflicts_with = "task_file", help_heading = "Task")]
    pub(crate) task: Option<String>,

    /// The model's task, declared in a TOML file
    #[arg(long, value_name = "FILE.toml", help_heading = "Task")]
    pub(crate) task_file: Option<PathBuf>,

    /// Labels in the order of the classifier's outputs [default: as the model names them]
    #[arg(long, value_name = "A,B,..", value_delimiter = ',', help_heading = "Task")]
    pub(crate) labels: Vec<String>,

    #[command(flatten)]
    pub(crate) inputs: InputArgs,

    #[command(flatten)]
    pub(crate) common: Common,
}
