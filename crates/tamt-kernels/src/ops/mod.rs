//! The operations of an encoder other than its linear layers, each with its forward and backward pass in one module.
//!
//! | module | operation | counterpart |
//! |---|---|---|
//! | [`attention`] | scaled dot-product attention; distance of attention scores | `scaled_dot_product_attention` |
//! | [`layer_norm`] | `LayerNorm(residual + dropout(x))` | `BertSelfOutput`, `BertOutput` of transformers |
//! | [`embedding`] | sum of word, position and type embeddings | `BertEmbeddings` of transformers |
//! | [`activation`] | GELU, its tanh approximation, `relu`, tanh | `ACT2FN` of transformers |
//! | [`dropout`] | dropout with reproducible factors | `torch.nn.Dropout` |
//! | [`cross_entropy`] | softmax cross-entropy over a vocabulary | `torch.nn.CrossEntropyLoss` |
//! | [`task_loss`] | losses of task heads, hard and distilled | `MSELoss`, `CrossEntropyLoss`, `KLDivLoss` |
//! | [`distance`] | cosine and squared distance of hidden states | `CosineEmbeddingLoss`, `MSELoss` |
//! | [`relation`] | distance of Gram matrices of hidden states | |
//! | [`optim`] | optimisers | `transformers.AdamW`, `BertAdam` |
//! | [`reduce`] | sums, scaling, gather and scatter of rows | `index_select`, `index_add_` |
//!
//! A backward pass takes the gradient of the output and the tensors that the forward pass saved. A function says
//! whether its results overwrite the outputs or are added to them.

pub mod activation;
pub mod attention;
pub mod cross_entropy;
pub mod distance;
pub mod dropout;
pub mod embedding;
pub mod layer_norm;
pub mod optim;
pub mod reduce;
pub mod relation;
pub mod task_loss;
