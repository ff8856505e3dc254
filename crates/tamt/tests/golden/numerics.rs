//! Schedules and optimisers against trajectories made in f64.

use std::path::Path;

use tamt::train::{Schedule, Shape};
use tamt_kernels::ops::optim::{AdamW, BertAdam};

use crate::files::{Tensors, assert_close, folders};

const LEARNING_RATE: f64 = 2e-3;

#[test]
fn schedules_are_those_of_transformers() {
    #[derive(serde::Deserialize)]
    struct Row {
        schedule: Shape,
        warmup_steps: u64,
        training_steps: u64,
        factors: Vec<f64>,
    }
    let text = std::fs::read_to_string(folders()[0].join("schedules.json")).unwrap();
    let rows: Vec<Row> = serde_json::from_str(&text).unwrap();
    assert!(rows.len() >= 6);
    for row in rows {
        let schedule = Schedule { shape: row.schedule, warmup_steps: row.warmup_steps, horizon: row.training_steps };
        for (t, expected) in row.factors.iter().enumerate() {
            let factor = schedule.factor(t as u64);
            assert!((factor - expected).abs() < 1e-12, "{schedule:?} at {t}: {factor} and {expected}");
        }
    }
}

#[test]
fn optimizers_follow_their_trajectories() {
    let path: &Path = &folders()[0].join("optim.safetensors");
    let file = Tensors::read(path);
    let gradients: Vec<Vec<f32>> =
        file.floats("gradients").chunks(40).map(|row| row.iter().map(|&g| g as f32).collect()).collect();
    let start: Vec<f32> = file.floats("start").iter().map(|&p| p as f32).collect();
    for (name, decay) in [("adamw", 0.0), ("adamw_decay", 0.01), ("bert_adam", 0.01)] {
        let golden = file.floats(name);
        let (mut p, mut m, mut v) = (start.clone(), vec![0.0; 40], vec![0.0; 40]);
        for (step, (g, expected)) in gradients.iter().zip(golden.chunks(40)).enumerate() {
            let (beta1, beta2, lr) = (0.9, 0.999, LEARNING_RATE * (1.0 - step as f64 / 20.0));
            let norm = g.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
            let clip = (1.0 / (norm + 1e-6)).min(1.0);
            if name == "bert_adam" {
                BertAdam { beta1, beta2, eps: 1e-6, weight_decay: decay }.step(&mut p, g, &mut m, &mut v, lr, clip);
            } else {
                let adam = AdamW { beta1, beta2, eps: 1e-8, weight_decay: decay };
                adam.step(&mut p, g, &mut m, &mut v, lr, step as u64 + 1, clip);
            }
            assert_close(&format!("{name} {step}"), &p, expected, 5e-7);
        }
    }
}
