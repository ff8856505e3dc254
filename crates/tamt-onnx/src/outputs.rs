//! What a graph computes of the last hidden states: the states themselves, an encoding of the text, or the scores of a task.

use tamt_model::TaskHead;

use crate::encoder::{Builder, TOKENS};
use crate::graph::Axis;
use crate::proto::Attribute;

/// How an encoding of a text is made of the hidden states of its tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The state of the first token.
    Cls,
    /// The mean over the tokens that the attention mask has.
    Mean,
}

/// The outputs of a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outputs {
    /// `last_hidden_state` `[batch, sequence, hidden]`, and with a pooling `sentence_embedding` `[batch, hidden]`, divided
    /// by its length if `normalize` says so.
    Encoder {
        /// The pooling of `sentence_embedding`.
        pooling: Option<Pooling>,
        /// Whether `sentence_embedding` has unit length.
        normalize: bool,
    },
    /// The scores of the model's task head: `logits` `[batch, outputs]`, or for spans `start_logits` and `end_logits`
    /// `[batch, sequence]`.
    Task,
}

/// Least sum of an attention mask and least length of a vector, which divide.
const LEAST: f32 = 1e-9;

impl Builder<'_> {
    /// Adds the outputs. `states` are the last hidden states and `mask` is the attention mask.
    ///
    /// # Panics
    /// For [`Outputs::Task`], if the model has no task head.
    pub(crate) fn outputs(&mut self, outputs: Outputs, states: &str, mask: &str) {
        let hidden = Axis::Fixed(self.model.config.hidden_size);
        match outputs {
            Outputs::Encoder { pooling, normalize } => {
                let axes = [TOKENS[0], TOKENS[1], hidden];
                let pooled = pooling.map(|pooling| match pooling {
                    Pooling::Cls => self.first(states),
                    Pooling::Mean => self.mean(states, mask),
                });
                self.graph.output("last_hidden_state", states, &axes);
                let Some(pooled) = pooled else { return };
                let pooled = if normalize { self.normalized(&pooled) } else { pooled };
                self.graph.output("sentence_embedding", &pooled, &[TOKENS[0], hidden]);
            }
            Outputs::Task => self.task(states),
        }
    }

    fn task(&mut self, states: &str) {
        let head = self.model.task_head.expect("the model has a task head");
        let (first, last) = match head {
            TaskHead::Pooled { pooler, classifier } => (pooler, classifier),
            TaskHead::TwoLayer { dense, out_proj } => (dense, out_proj),
            TaskHead::Span { qa_outputs } => {
                let scores = self.linear(qa_outputs, states);
                for (index, name) in [(0, "start_logits"), (1, "end_logits")] {
                    let index = self.graph.integer(index);
                    let score = self.op("Gather", &[&scores, &index], &[Attribute::int("axis", 2)]);
                    self.graph.output(name, &score, &TOKENS);
                }
                return;
            }
        };
        let first_states = self.first(states);
        let dense = self.linear(first, &first_states);
        let activated = self.op("Tanh", &[&dense], &[]);
        let logits = self.linear(last, &activated);
        let labels = self.model.params.matrix_shape(last.weight)[0];
        self.graph.output("logits", &logits, &[TOKENS[0], Axis::Fixed(labels)]);
    }

    /// The states of the first token, `[batch, hidden]`.
    fn first(&mut self, states: &str) -> String {
        let index = self.graph.integer(0);
        self.op("Gather", &[states, &index], &[Attribute::int("axis", 1)])
    }

    /// The mean of the states over the tokens of the mask, `[batch, hidden]`.
    fn mean(&mut self, states: &str, mask: &str) -> String {
        let (tokens, last) = (self.graph.integers(&[1]), self.graph.integers(&[2]));
        let column = self.op("Unsqueeze", &[mask, &last], &[]);
        let masked = self.op("Mul", &[states, &column], &[]);
        let keep = [Attribute::int("keepdims", 0)];
        let sum = self.op("ReduceSum", &[&masked, &tokens], &keep);
        let count = self.op("ReduceSum", &[&column, &tokens], &keep);
        let count = self.with_number("Max", &count, LEAST);
        self.op("Div", &[&sum, &count], &[])
    }

    /// Vectors `[batch, hidden]` divided by their lengths.
    fn normalized(&mut self, vectors: &str) -> String {
        let attributes = [Attribute::ints("axes", &[1]), Attribute::int("keepdims", 1)];
        let length = self.op("ReduceL2", &[vectors], &attributes);
        let length = self.with_number("Max", &length, LEAST);
        self.op("Div", &[vectors, &length], &[])
    }
}
