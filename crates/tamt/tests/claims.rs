//! The main claim of the methods: masks trained on a pre-training objective have lower losses than magnitude pruning, and
//! magnitude pruning has lower losses than random masks. Each of several seeds has its own language, model and texts.

// The test prints the losses.
#![allow(clippy::print_stdout)]

use std::path::Path;

use tamt::base::Base;
use tamt::demo::{DemoSettings, MODEL_DIR, TRAIN_FILE, VALID_FILE, pretrain_base, write_data};
use tamt::find::{FindSettings, Method, Texts, find, imp_rounds};
use tamt::prune::Sparsity;
use tamt::run::{RunDir, Silent, Stop, VerbSettings};
use tamt::train::Session;

const SEEDS: [u64; 3] = [1, 2, 3];

/// The least margin of trained masks below magnitude, as a share of the loss that magnitude adds to the dense model. A
/// smaller margin may be luck.
const MARGIN: f64 = 0.2;

/// Losses on held-out text.
#[derive(Clone, Copy, Debug)]
struct Losses {
    mlm: f64,
    kd: f64,
}

fn small(seed: u64) -> DemoSettings {
    DemoSettings {
        seed,
        train_tokens: 200_000,
        valid_tokens: 8_000,
        layers: 2,
        heads: 2,
        batch_size: 32,
        pretrain_steps: 600,
        pretrain_learning_rate: 1e-3,
        task_train: 1,
        task_dev: 1,
        ..DemoSettings::default()
    }
}

fn search(base: &Base, texts: &Texts, demo: &DemoSettings, method: Method, root: &Path) -> Losses {
    let sparsity = Sparsity::new(0.7).expect("a share");
    let (steps, learning_rate) = match method {
        Method::Random | Method::Magnitude => (0, 0.0),
        Method::Imp => (20 * imp_rounds(sparsity), 5e-4),
        Method::TamtKd => (100, 2e-3),
        Method::TamtMlm | Method::TamtMlmKd => (100, 4e-4),
    };
    let mut settings = FindSettings::new(method, sparsity, steps);
    settings.seed = demo.seed;
    settings.batch_size = demo.batch_size;
    settings.block_size = demo.block_size;
    settings.rethreshold_every = 20;
    settings.train.optimizer.learning_rate = learning_rate;
    if method == Method::Imp {
        settings.train.schedule.horizon = 20;
    }
    let run =
        RunDir::create(&root.join(method.name()), &VerbSettings::new("find", &settings), false).expect("a new run");
    let session = Session { directory: run, observer: &mut Silent, stop: Stop::new() };
    let found = find(base.clone(), texts, &settings, session).expect("the search runs");
    let losses = found.evaluation.expect("there is held-out text");
    Losses { mlm: losses.mlm_loss.expect("tokens are masked"), kd: losses.kd_cosine.expect("there is a teacher") }
}

/// Cross-entropy of held-out text under the frequencies of the training text with add-one smoothing:
/// `-mean log((n_t + 1) / (N + V))`.
fn frequency_loss(texts: &Texts, vocab_size: u32) -> f64 {
    let (train, held_out) = (texts.train.as_ref().expect("read"), texts.eval.as_ref().expect("read"));
    let mut counts = vec![1_u64; vocab_size as usize];
    train.tokens.iter().for_each(|&token| counts[token as usize] += 1);
    let total = train.tokens.len() as f64 + f64::from(vocab_size);
    let sum: f64 = held_out.tokens.iter().map(|&token| (counts[token as usize] as f64 / total).ln()).sum();
    -sum / held_out.tokens.len() as f64
}

#[test]
fn trained_masks_keep_lower_losses_than_magnitude_and_magnitude_than_chance() {
    for seed in SEEDS {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (root, demo) = (directory.path(), small(seed));
        write_data(&demo, root).expect("the language is written");
        let dense = pretrain_base(&demo, root, &mut Silent, &Stop::new()).expect("the pre-training runs").mlm_loss;
        let base = Base::load(root.join(MODEL_DIR)).expect("a model");
        let texts = Texts::read(&base, &[root.join(TRAIN_FILE)], &[root.join(VALID_FILE)]).expect("texts");
        let [random, magnitude, imp, mlm, kd] =
            [Method::Random, Method::Magnitude, Method::Imp, Method::TamtMlm, Method::TamtKd]
                .map(|method| search(&base, &texts, &demo, method, root));
        println!(
            "seed {seed}: dense {dense:.3}, tamt-mlm {mlm:.3?}, tamt-kd {kd:.3?}, imp {imp:.3?}, \
             magnitude {magnitude:.3?}, random {random:.3?}"
        );
        for (loss, trained, magnitude, random, dense) in
            [("MLM loss", mlm.mlm, magnitude.mlm, random.mlm, dense), ("KD loss", kd.kd, magnitude.kd, random.kd, 0.0)]
        {
            let margin = MARGIN * (magnitude - dense);
            assert!(trained < magnitude - margin, "{loss}: {trained} is not clearly below {magnitude}");
            assert!(magnitude < random, "{loss}: {magnitude} is not below {random}");
        }
        assert!(imp.mlm < magnitude.mlm, "the MLM loss of imp, {}, is not below {}", imp.mlm, magnitude.mlm);
        let frequencies = frequency_loss(&texts, base.tokenizer.vocab_size());
        assert!(dense < frequencies - 0.2, "the model learned too little to lose any: {dense}, {frequencies}");
    }
}
