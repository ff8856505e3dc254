//! The flags of `tamt cache`.

use clap::ValueEnum;

use crate::args::common::Common;

const EXAMPLES: &str = "\
The tokens of each text of 64 KB or more that `find`, `eval` and `pretrain` read are kept, so that the next run on the
same text and tokenizer starts at once. They are in the folder tokens of the cache directory: $TAMT_CACHE, else
$XDG_CACHE_HOME/tamt, else ~/.cache/tamt. Beyond 4 GB ($TAMT_CACHE_SIZE, such as 500M or 20G; 0 switches it off), the
longest unused ones are removed.

Examples:
  tamt cache
  tamt cache clear
  TAMT_CACHE_SIZE=0 tamt find ...";

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CacheArgs {
    /// What to do [default: list the stored tokens]
    #[arg(value_name = "ACTION", value_enum)]
    pub(crate) action: Option<CacheAction>,

    #[command(flatten)]
    pub(crate) common: Common,
}

/// What `tamt cache` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CacheAction {
    /// Remove all stored tokens
    Clear,
}
