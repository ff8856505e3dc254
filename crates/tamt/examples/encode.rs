//! Turns texts into vectors with a dense model and with a ticket of it, and compares the vectors.
//!
//! The model has random weights and the tokenizer is that of an invented language, so the example runs offline. For
//! your own model, pass its directory in Hugging Face layout, or its hub id, to [`Base::load`].

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::Path;

use tamt::Compute;
use tamt::base::Base;
use tamt::demo::DemoSettings;
use tamt::encode::{EncodeSettings, Pool, encode};
use tamt::magnitude::magnitude;
use tamt::prune::{Scope, Sparsity, pruned_matrices};
use tamt_data::Tokenizer;
use tamt_data::invented::World;
use tamt_model::{Model, Parts};

/// Writes a tokenizer and a random model of two layers into `directory`.
fn write_model(directory: &Path) -> Result<(), Box<dyn Error>> {
    World::new(42).write_tokenizer(directory)?;
    let tokenizer = Tokenizer::from_dir(directory)?;
    let settings = DemoSettings { hidden_size: 32, layers: 2, heads: 2, ..DemoSettings::default() };
    let parts = Parts { pooler: false, mlm_head: false, task: None };
    Model::random(settings.config(tokenizer.vocab_size())?, parts, 42).save(directory)?;
    Ok(())
}

/// `cos(a, b) = a b / (|a| |b|)`.
fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    write_model(directory.path())?;
    let base = Base::load(directory.path())?;

    // The ticket drops half of the weights of each matrix: those of the smallest magnitude. A ticket on disk is read by
    // `Ticket::read(path)`, and `base.masks_of(&ticket, false)` are its masks.
    let matrices = pruned_matrices(&base.model, None)?;
    let masks = magnitude(&base.model, &matrices, Sparsity::new(0.5)?, Scope::Local);

    // A mean vector for each text, from its first 64 tokens at the most.
    let texts = ["a text", "another text, somewhat longer"];
    let settings = EncodeSettings { pool: Pool::Mean, max_length: 64, ..EncodeSettings::default() };
    let vectors = |masks| encode(&base, masks, Compute::default(), &texts, &settings, |_| Ok(()));
    let (dense, sparse) = (vectors(None)?, vectors(Some(&masks))?);
    for (text, (dense, sparse)) in texts.iter().zip(dense.vectors().zip(sparse.vectors())) {
        println!("{text:?}: cosine {:.3} between the dense model and its ticket", cosine(dense, sparse));
    }

    // The same tensors as a file for other programs.
    dense.write(&directory.path().join("vectors.safetensors"))?;
    Ok(())
}
