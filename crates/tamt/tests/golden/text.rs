//! The text of masked language modelling.

use std::sync::Arc;

use tamt::text::{TextBatches, TextSource};
use tamt_data::{Corpus, Corruption, Tokenizer};
use tamt_model::{Model, Parts};

use crate::files::folders;

/// As `DataCollatorForLanguageModeling` of transformers, which draws below `len(tokenizer)`. Many checkpoints pad their
/// embedding table to a multiple of 8 or 64 rows.
#[test]
fn random_replacement_draws_among_the_tokens_of_the_tokenizer_not_the_rows_of_the_table() {
    let directory = folders()[0].join("bert");
    let tokenizer = Tokenizer::from_dir(&directory).unwrap();
    let mut config = Model::load(&directory).unwrap().config.clone();
    assert_eq!((tokenizer.vocab_size(), config.vocab_size), (96, 96));
    config.vocab_size = 128;
    let model = Model::random(config, Parts { pooler: false, mlm_head: true, task: None }, 1);
    let corpus = Arc::new(Corpus { tokens: vec![7; 6000], digest: String::new(), lines: 1, cut_lines: 0 });
    let all = Corruption { probability: 1.0, mask: 0.0, random: 1.0 };
    let mut text = TextBatches::new(corpus, &tokenizer, 32, 100, Some(all), 3).unwrap();
    let batch = text.corrupted(&model, 0);
    let mut count = [0; 128];
    batch.masked.positions.iter().for_each(|&at| count[batch.tokens.ids[at as usize] as usize] += 1);
    assert_eq!(batch.masked.positions.len(), 3000);
    assert!(count[..96].iter().all(|&n| n > 0), "every token is drawn: {count:?}");
    assert_eq!(count[96..], [0; 32], "no other row is drawn");
}
