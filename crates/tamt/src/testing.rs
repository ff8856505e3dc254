//! Small models for the tests of this crate.

use tamt_model::{Config, Model, Parts};

/// A random two-layer BERT of width 16 with a pooler and an MLM head.
pub(crate) fn tiny_model() -> Model {
    let config = Config::from_json(
        r#"{"model_type": "bert", "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2,
            "num_attention_heads": 2, "intermediate_size": 24, "max_position_embeddings": 32, "type_vocab_size": 2}"#,
    )
    .expect("the configuration is valid");
    Model::random(config, Parts { pooler: true, mlm_head: true, task: None }, 7)
}
