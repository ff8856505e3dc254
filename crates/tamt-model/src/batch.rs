//! Packed batches: the tokens of all sequences lie end to end, without padding.

use std::ops::Range;

use crate::config::{Config, Family};

/// A batch of sequences without padding.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Token ids of all sequences, end to end: `[T]`.
    pub ids: Vec<u32>,
    /// Segment ids: `[T]`.
    pub type_ids: Vec<u32>,
    /// Rows of the position table: `[T]`, filled by [`Batch::locate`].
    pub position_ids: Vec<u32>,
    /// First token of each sequence and, at the end, `T`: `[sequences + 1]`.
    pub bounds: Vec<usize>,
}

/// Consecutive sequences of a batch, which one job takes through a layer.
#[derive(Clone, Debug)]
pub(crate) struct SequenceGroup {
    /// Index of the first sequence in the batch.
    pub(crate) first_sequence: usize,
    /// The group's tokens in the batch.
    pub(crate) tokens: Range<usize>,
    /// First token of each sequence and, at the end, the number of tokens; counted from the group's first token.
    pub(crate) bounds: Vec<usize>,
}

impl Batch {
    /// Empties the batch; its memory stays allocated.
    pub fn clear(&mut self) {
        self.ids.clear();
        self.type_ids.clear();
        self.position_ids.clear();
        self.bounds.clear();
    }

    /// Appends a sequence of one segment.
    pub fn push(&mut self, ids: &[u32]) {
        self.ids.extend_from_slice(ids);
        self.close_sequence(0);
    }

    /// Ends the sequence whose ids were appended to [`Batch::ids`]. Tokens without a segment id get `type_id`.
    pub fn close_sequence(&mut self, type_id: u32) {
        if self.bounds.is_empty() {
            self.bounds.push(0);
        }
        self.type_ids.resize(self.ids.len(), type_id);
        self.bounds.push(self.ids.len());
    }

    /// Fills the position ids as the model family counts. Call this method once the ids are final.
    ///
    /// BERT counts from 0. RoBERTa counts from `pad + 1`; a padding token, which corruption can insert anywhere in a
    /// text, has position `pad` and does not advance the count.
    pub fn locate(&mut self, config: &Config) {
        self.position_ids.clear();
        for sequence in self.bounds.windows(2) {
            let ids = &self.ids[sequence[0]..sequence[1]];
            match config.family {
                Family::Bert => self.position_ids.extend(0..ids.len() as u32),
                Family::Roberta => {
                    let pad = config.pad_token_id;
                    let mut last = pad;
                    self.position_ids.extend(ids.iter().map(|&id| {
                        last += u32::from(id != pad);
                        if id == pad { pad } else { last }
                    }));
                }
            }
        }
    }

    /// Cuts the batch into groups of whole sequences with at most `tokens` tokens, or of one longer sequence.
    pub(crate) fn groups(&self, tokens: usize) -> Vec<SequenceGroup> {
        let mut groups = Vec::new();
        let mut first = 0;
        for sequence in 0..self.sequences() {
            if sequence > first && self.bounds[sequence + 1] - self.bounds[first] > tokens {
                groups.push(self.group(first..sequence));
                first = sequence;
            }
        }
        if first < self.sequences() {
            groups.push(self.group(first..self.sequences()));
        }
        groups
    }

    fn group(&self, sequences: Range<usize>) -> SequenceGroup {
        let first = self.bounds[sequences.start];
        let bounds: Vec<usize> =
            self.bounds[sequences.start..=sequences.end].iter().map(|bound| bound - first).collect();
        SequenceGroup { first_sequence: sequences.start, tokens: first..self.bounds[sequences.end], bounds }
    }

    /// Number of tokens `T`.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// Number of sequences.
    pub fn sequences(&self) -> usize {
        self.bounds.len().saturating_sub(1)
    }
}

/// Cuts a row-major buffer `[T, width]` into the rows of each group, which are empty if the buffer is.
pub(crate) fn group_rows<'a, T>(
    groups: &[SequenceGroup],
    buffer: &'a mut [T],
    width: usize,
) -> impl Iterator<Item = &'a mut [T]> {
    cut(buffer, groups.iter().map(move |group| group.tokens.len() * width))
}

/// Cuts a buffer into parts of these lengths, which are empty if the buffer is.
pub(crate) fn cut<T>(mut rest: &mut [T], lens: impl Iterator<Item = usize>) -> impl Iterator<Item = &mut [T]> {
    lens.map(move |len| rest.split_off_mut(..len.min(rest.len())).unwrap_or_default())
}
