//! Flags that say how texts become vectors.

use std::num::NonZeroUsize;

use tamt::encode::Pool;
use tamt::sentence::EncodeChoices;

use crate::args::values;

/// The length of texts and of vectors, in `tamt encode` and `tamt serve`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct VectorArgs {
    /// Divide each vector by its length [default: as the model's sentence-transformers files say, else not]
    #[arg(long, conflicts_with = "no_normalize")]
    pub(crate) normalize: bool,

    /// Leave vectors as long as they are, whatever the model's files say
    #[arg(long)]
    pub(crate) no_normalize: bool,

    /// Cut texts to this many tokens, specials included
    /// [default: as the model's sentence-transformers files say, else what the model holds]
    #[arg(long, value_name = "N", value_parser = values::count)]
    pub(crate) max_length: Option<NonZeroUsize>,
}

impl VectorArgs {
    /// What the flags choose, beside the pooling.
    pub(crate) fn choices(&self, pool: Option<Pool>) -> EncodeChoices {
        let normalize = (self.normalize || self.no_normalize).then_some(self.normalize);
        EncodeChoices { pool, max_length: self.max_length.map(usize::from), normalize }
    }
}
