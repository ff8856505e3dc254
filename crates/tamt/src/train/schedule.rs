//! Learning-rate schedules: a factor on the learning rate for each update.

use serde::{Deserialize, Serialize};

/// The shape of a schedule after its warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// Stays at 1.
    Constant,
    /// Falls linearly to 0.
    #[default]
    Linear,
    /// Falls to 0 as half a period of a cosine.
    Cosine,
}

/// A schedule: linear warm-up from 0, then a shape that ends at the horizon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Schedule {
    /// The shape after the warm-up.
    pub shape: Shape,
    /// Updates over which the factor rises from 0 to 1.
    pub warmup_steps: u64,
    /// The update at which the factor would reach 0; a run may stop earlier.
    pub horizon: u64,
}

impl Schedule {
    /// Whether more than `steps` steps have the learning rates that a longer run has: the horizon is no consequence of
    /// the number of steps.
    #[must_use]
    pub fn goes_on_after(&self, steps: u64) -> bool {
        self.shape == Shape::Constant || self.horizon != steps
    }

    /// The factor of update `t`, counted from 0 (`get_*_schedule_with_warmup` of `transformers`). With `w` warm-up
    /// steps, horizon `h` and progress `p = (t - w) / (h - w)`:
    ///
    /// ```text
    /// t < w      t / w
    /// constant   1
    /// linear     max(1 - p, 0)
    /// cosine     (1 + cos(π p)) / 2, and 0 from p = 1 on
    /// ```
    pub fn factor(&self, t: u64) -> f64 {
        if t < self.warmup_steps {
            return t as f64 / self.warmup_steps.max(1) as f64;
        }
        let span = self.horizon.saturating_sub(self.warmup_steps).max(1) as f64;
        let progress = (t - self.warmup_steps) as f64 / span;
        match self.shape {
            Shape::Constant => 1.0,
            Shape::Linear => (1.0 - progress).max(0.0),
            Shape::Cosine => {
                if progress >= 1.0 {
                    0.0
                } else {
                    0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
                }
            }
        }
    }
}
