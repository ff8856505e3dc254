//! The main claim of the methods: masks trained on a pre-training objective have lower losses than magnitude pruning, and
//! magnitude pruning has lower losses than random masks. Each of several seeds has its own language, model and texts.

// The test prints the losses.
#![allow(clippy::print_stdout)]

use tamt::demo::{DemoReport, DemoSettings, Loss, run};
use tamt::find::Method;
use tamt::prune::Sparsity;
use tamt::run::{Silent, Stop};

const SEEDS: [u64; 3] = [1, 2, 3];

/// The least margin of trained masks below magnitude, as a share of the loss that magnitude adds to the dense model. A
/// smaller margin may be luck.
const MARGIN: f64 = 0.2;

fn demonstration(seed: u64) -> DemoReport {
    let settings = DemoSettings {
        seed,
        train_tokens: 200_000,
        valid_tokens: 8_000,
        hidden_size: 64,
        layers: 2,
        heads: 2,
        pretrain_steps: 600,
        mask_steps: 100,
        imp_steps_per_round: 20,
        methods: vec![Method::Random, Method::Magnitude, Method::Imp, Method::TamtMlm, Method::TamtKd],
        sparsities: vec![Sparsity::new(0.7).expect("a share")],
        task_sparsities: Vec::new(),
        ..DemoSettings::default()
    };
    let directory = tempfile::tempdir().expect("a temporary directory");
    run(&settings, directory.path(), false, &mut Silent, &Stop::new()).expect("the demonstration runs")
}

#[test]
fn trained_masks_keep_lower_losses_than_magnitude_and_magnitude_than_chance() {
    for seed in SEEDS {
        let report = demonstration(seed);
        let at = report.sparsities()[0];
        let of = |loss, method| report.loss(loss, method, at).expect("the method was asked for");
        for (loss, trained, dense) in
            [(Loss::Mlm, Method::TamtMlm, report.dense_mlm_loss), (Loss::Kd, Method::TamtKd, 0.0)]
        {
            let [random, magnitude, imp, trained] =
                [Method::Random, Method::Magnitude, Method::Imp, trained].map(|method| of(loss, method));
            println!(
                "seed {seed}, {}: dense {dense:.3}, trained {trained:.3}, imp {imp:.3}, magnitude {magnitude:.3}, \
                 random {random:.3}",
                loss.name()
            );
            let margin = MARGIN * (magnitude - dense);
            assert!(trained < magnitude - margin, "{}: {trained} is not clearly below {magnitude}", loss.name());
            assert!(magnitude < random, "{}: {magnitude} is not below {random}", loss.name());
        }
        let (dense, frequencies) = (report.dense_mlm_loss, report.frequency_loss);
        assert!(dense < frequencies - 0.2, "the model learned too little to lose any: {dense}, {frequencies}");
    }
}
