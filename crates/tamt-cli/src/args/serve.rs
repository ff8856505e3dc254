//! The flags of `tamt serve`.

use std::ffi::OsString;
use std::num::NonZeroUsize;

use tamt::encode::Pool;

use crate::args::choices;
use crate::args::common::Common;
use crate::args::values::{Named, address, count, named, not_negative, positive};
use crate::args::vectors::VectorArgs;

const EXAMPLES: &str = "\
Examples:
  The dense model:
    tamt serve --model bert-base-uncased

  Two tickets of one resident model and a fine-tuned one, chosen by the requests' `model`:
    tamt serve --model bert-base-uncased --ticket mag70=mag70 --ticket mag90=mag90 --head sst2=runs/sst2

  Requests in OpenAI's form and in that of text-embeddings-inference:
    curl localhost:8080/v1/embeddings -d '{\"model\": \"mag70\", \"input\": [\"a text\", \"another\"]}'
    curl localhost:8080/embed -d '{\"inputs\": \"a text\"}'
    curl localhost:8080/predict -d '{\"inputs\": \"a fine film\", \"model\": \"sst2\"}'

  Behind a key that the list of processes does not show:
    TAMT_API_KEY=$(cat key) tamt serve --model bert-base-uncased --address 0.0.0.0:8080";

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ServeArgs {
    /// Directory in Hugging Face layout, or a hub id
    #[arg(long, value_name = "MODEL", required_unless_present = "head")]
    pub(crate) model: Option<OsString>,

    /// Serve the model under this ticket by this name; repeatable [default: the dense model]
    #[arg(long, value_name = "NAME=TICKET", value_parser = named, requires = "model")]
    pub(crate) ticket: Vec<Named>,

    /// Serve the dense model as well
    #[arg(long, requires = "ticket")]
    pub(crate) dense: bool,

    /// Name of the dense model [default: the last part of MODEL]
    #[arg(long, value_name = "NAME", requires = "model")]
    pub(crate) name: Option<String>,

    /// Serve the labels or numbers of a fine-tuned model by this name; repeatable
    #[arg(long, value_name = "NAME=DIR", value_parser = named)]
    pub(crate) head: Vec<Named>,

    /// Accept tickets that were found in other weights
    #[arg(long, requires = "ticket")]
    pub(crate) allow_other_base: bool,

    /// Where to listen
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8080", value_parser = address)]
    pub(crate) address: String,

    /// Answer only requests with `Authorization: Bearer KEY` [default: the variable `TAMT_API_KEY`, else everyone]
    #[arg(long, value_name = "KEY")]
    pub(crate) api_key: Option<String>,

    /// How token vectors are combined into the text's vector
    /// [default: as the model's sentence-transformers files say, else mean]
    #[arg(long, value_parser = choices::POOL_OF_TEXT, help_heading = "Vectors")]
    pub(crate) pool: Option<Pool>,

    #[command(flatten, next_help_heading = "Vectors")]
    pub(crate) vectors: VectorArgs,

    #[command(flatten)]
    pub(crate) limits: LimitArgs,

    #[command(flatten)]
    pub(crate) common: Common,
}

/// What a server takes.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct LimitArgs {
    /// Tokens of a batch, which takes texts of several requests [default: 4096]
    #[arg(long, value_name = "N", value_parser = count)]
    pub(crate) max_batch_tokens: Option<NonZeroUsize>,

    /// Milliseconds that a batch waits for texts that are being tokenized [default: 2]
    #[arg(long, value_name = "MS", value_parser = not_negative)]
    pub(crate) max_wait: Option<f64>,

    /// Tokens of all requests that wait or are computed; beyond, 429 with Retry-After [default: 131072]
    #[arg(long, value_name = "N", value_parser = count)]
    pub(crate) max_queue_tokens: Option<NonZeroUsize>,

    /// Bytes that the bodies and the answers of all requests take in memory; beyond, 429 [default: 134217728]
    #[arg(long, value_name = "BYTES", value_parser = count)]
    pub(crate) max_queue_bytes: Option<NonZeroUsize>,

    /// Bytes of the body of a request; beyond, 413 [default: 2097152]
    #[arg(long, value_name = "BYTES", value_parser = count)]
    pub(crate) max_body_bytes: Option<NonZeroUsize>,

    /// Bytes of a text; beyond, 413 [default: 65536]
    #[arg(long, value_name = "BYTES", value_parser = count)]
    pub(crate) max_text_bytes: Option<NonZeroUsize>,

    /// Texts of a request; beyond, 413 [default: 2048]
    #[arg(long, value_name = "N", value_parser = count)]
    pub(crate) max_inputs: Option<NonZeroUsize>,

    /// Open connections; further ones wait [default: 512]
    #[arg(long, value_name = "N", value_parser = count)]
    pub(crate) max_connections: Option<NonZeroUsize>,

    /// Seconds in which a client sends the head of a request, and again its body; idle connections end as late
    /// [default: 10]
    #[arg(long, value_name = "SECONDS", value_parser = positive)]
    pub(crate) read_timeout: Option<f64>,

    /// Seconds in which a client takes a part of an answer [default: 30]
    #[arg(long, value_name = "SECONDS", value_parser = positive)]
    pub(crate) write_timeout: Option<f64>,
}
