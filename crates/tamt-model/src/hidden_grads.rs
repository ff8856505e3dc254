//! Where an objective leaves the gradients that the backward pass starts from.

use crate::activations::Activations;

/// Gradients of an objective with respect to hidden states, and to Q and K of each layer for attention objectives:
/// `[T, hidden]` each, all optional.
#[derive(Clone, Debug, Default)]
pub struct HiddenGrads {
    hidden: Vec<Vec<f32>>,
    active: Vec<bool>,
    query_key: Vec<(Vec<f32>, Vec<f32>)>,
    query_key_active: bool,
}

impl HiddenGrads {
    /// Starts a step: no hidden state has a gradient.
    pub fn begin(&mut self, activations: &Activations) {
        let count = activations.hidden_count();
        self.hidden.resize_with(count, Vec::new);
        self.active.clear();
        self.active.resize(count, false);
        self.query_key_active = false;
    }

    /// The gradient buffer of a hidden state (`len = T * hidden`), zeroed by the first call of a step.
    pub fn hidden_mut(&mut self, index: usize, len: usize) -> &mut [f32] {
        let buffer = &mut self.hidden[index];
        if !std::mem::replace(&mut self.active[index], true) {
            buffer.clear();
            buffer.resize(len, 0.0);
        }
        buffer
    }

    /// The gradient buffers of Q and K of a layer (`len = T * hidden`), zeroed by the first call of a step.
    pub fn query_key_mut(&mut self, layer: usize, len: usize) -> (&mut [f32], &mut [f32]) {
        let layers = self.hidden.len() - 1;
        if !std::mem::replace(&mut self.query_key_active, true) {
            self.query_key.resize_with(layers, Default::default);
            for (q, k) in &mut self.query_key {
                for buffer in [q, k] {
                    buffer.clear();
                    buffer.resize(len, 0.0);
                }
            }
        }
        let (q, k) = &mut self.query_key[layer];
        (q, k)
    }

    pub(crate) fn hidden(&self, index: usize) -> Option<&[f32]> {
        self.active[index].then(|| self.hidden[index].as_slice())
    }

    pub(crate) fn query_key(&self, layer: usize) -> Option<(&[f32], &[f32])> {
        let (q, k) = self.query_key.get(layer)?;
        self.query_key_active.then_some((q, k))
    }
}
