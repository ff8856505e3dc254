//! The engine's side: batches of the queue through their models.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use tamt::buffers::PassBuffers;
use tamt_data::Pair;

use crate::app::App;
use crate::job::Item;
use crate::models::{Kind, Models};

/// Computes until the queue is closed and empty.
pub(crate) fn run(app: &App, mut buffers: PassBuffers) {
    while let Some(batch) = app.queue.next(app.settings.max_batch_tokens, app.settings.max_wait) {
        let started = Instant::now();
        // A panic of the engine must not end the server. The buffers may be in any state after one.
        if catch_unwind(AssertUnwindSafe(|| pass(&app.models, &batch, &mut buffers))).is_err() {
            batch.iter().for_each(|item| item.job.fail());
            buffers = PassBuffers::new(app.models.compute);
        }
        if let Some(first) = batch.first() {
            let tokens = batch.iter().map(|item| item.tokens.ids.len()).sum();
            app.metrics.computed(&app.models.all[first.model].name, batch.len(), tokens, started.elapsed());
        }
    }
}

/// Computes a batch of one model, and gives each request its outputs.
fn pass(models: &Models, batch: &[Item], buffers: &mut PassBuffers) {
    let Some(first) = batch.first() else { return };
    match &models.all[first.model].kind {
        Kind::Encoder { encoder, settings } => {
            let sequences = batch.iter().map(|item| item.tokens.ids.as_slice());
            // Requests choose whether their vectors are normalised.
            let encoded = encoder.encode_tokens(sequences, settings.pool, false, buffers);
            batch.iter().zip(encoded.vectors()).for_each(|(item, vector)| item.job.put(item.index, vector));
        }
        Kind::Classifier(classifier) => {
            let logits = classifier.logits(batch.iter().map(|item| &item.tokens), buffers);
            let outputs = logits.chunks_exact(classifier.outputs());
            batch.iter().zip(outputs).for_each(|(item, logits)| item.job.put(item.index, logits));
        }
    }
}

/// Runs the largest batches, so that all buffers have their final size: one of short texts and one of the longest, for
/// each model.
pub(crate) fn warm_up(app: &App) -> PassBuffers {
    let mut buffers = PassBuffers::new(app.models.compute);
    for served in &app.models.all {
        let longest = served.max_length();
        for length in [3, longest] {
            let tokens = Pair { ids: vec![served.some_token(); length], type_ids: vec![0; length] };
            let texts = (app.settings.max_batch_tokens / length).max(1);
            let sequences = std::iter::repeat_n(&tokens, texts);
            match &served.kind {
                Kind::Encoder { encoder, settings } => {
                    let sequences = sequences.map(|tokens| tokens.ids.as_slice());
                    encoder.encode_tokens(sequences, settings.pool, false, &mut buffers);
                }
                Kind::Classifier(classifier) => {
                    classifier.logits(sequences, &mut buffers);
                }
            }
        }
    }
    buffers
}
