//! The sum of word, position and type embeddings, and its gradients (`BertEmbeddings` of transformers).

pub(crate) mod by_row;
pub(crate) mod lookup;
pub(crate) mod row_grads;

pub use lookup::{backward, forward};
pub use row_grads::RowGrads;
