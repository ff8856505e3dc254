//! The flags of `tamt export`.

use std::path::PathBuf;

use tamt::encode::Pool;
use tamt_model::Dtype;
use tamt_onnx::Weights;

use crate::args::choices::{self, ExportFormat};
use crate::args::common::{Common, SubjectArgs};

const EXAMPLES: &str = "\
Examples:
  tamt export --model bert-base-uncased --ticket magnitude70 --format onnx --pool mean --output-dir onnx
  tamt export --model runs/cola --format onnx --weights int8 --output-dir cola-onnx
  tamt export --model bert-base-uncased --ticket magnitude70 --format torch-mask --output-dir masks
  tamt export --model bert-base-uncased --ticket magnitude70 --format torch-prune --output-dir pruned

  In Python then:
    masks = torch.load(\"masks/mask.pt\", weights_only=True)
    for module in modules: torch.nn.utils.prune.identity(module, \"weight\")
    model.load_state_dict(torch.load(\"pruned/pytorch_model.bin\", weights_only=True))";

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    pub(crate) subject: SubjectArgs,

    /// What to write
    #[arg(long, value_parser = choices::EXPORT_FORMAT)]
    pub(crate) format: ExportFormat,

    /// Directory of the files
    #[arg(long, value_name = "DIR")]
    pub(crate) output_dir: PathBuf,

    /// With --format transformers: what weights are rounded to [default: what each tensor of the model is]
    #[arg(long, value_parser = choices::DTYPE)]
    pub(crate) dtype: Option<Dtype>,

    /// With --format onnx: how token vectors are combined into the text's encoding, an output beside the hidden states
    /// [default: none, but the scores of the task head; without a head as the sentence-transformers files say, else mean]
    #[arg(long, value_parser = choices::POOL)]
    pub(crate) pool: Option<Pool>,

    /// With --format onnx: how the matrices of the layers and the word embeddings are stored [default: f32]
    #[arg(long, value_parser = choices::ONNX_WEIGHTS)]
    pub(crate) weights: Option<Weights>,

    #[command(flatten)]
    pub(crate) common: Common,
}
