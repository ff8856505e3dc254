//! Names of the quantities that logs, evaluations and result files report.

/// The loss that is minimised.
pub const LOSS: &str = "loss";
/// The norm of all gradients before clipping.
pub const GRAD_NORM: &str = "grad_norm";
/// The learning rate of a step, the schedule's factor included.
pub const LEARNING_RATE: &str = "learning_rate";
/// The loss against a task's labels.
pub const TASK_LOSS: &str = "task_loss";
/// The distillation loss, before its weight.
pub const KD_LOSS: &str = "kd_loss";
/// Mean cross-entropy over masked tokens, in nats.
pub const MLM_LOSS: &str = "mlm_loss";
/// `exp(mlm_loss)`.
pub const PERPLEXITY: &str = "perplexity";
/// Share of masked tokens whose most probable token is the original one.
pub const MLM_ACCURACY: &str = "mlm_accuracy";
/// The MLM loss with the head that was trained beside the masks.
pub const MLM_LOSS_TRAINED_HEAD: &str = "mlm_loss_trained_head";
/// `1 - cos` between hidden states and the dense model's, mean over tokens and layers.
pub const KD_COSINE: &str = "kd_cosine";
/// Squared difference between hidden states and the dense model's, mean over tokens, features and layers.
pub const KD_MSE: &str = "kd_mse";

/// The values of an evaluation on text, in the order in which results show them.
pub const EVALUATION: [&str; 6] = [MLM_LOSS, PERPLEXITY, MLM_ACCURACY, MLM_LOSS_TRAINED_HEAD, KD_COSINE, KD_MSE];

/// The name of a quantity for people, who should see that a distance is no score; other names stay as they are.
#[must_use]
pub fn label(name: &str) -> &str {
    match name {
        MLM_LOSS => "MLM loss",
        MLM_ACCURACY => "MLM accuracy",
        MLM_LOSS_TRAINED_HEAD => "MLM loss (trained head)",
        KD_LOSS => "KD loss",
        KD_COSINE => "KD loss (1 - cos)",
        KD_MSE => "KD loss (mean squared error)",
        other => other,
    }
}
