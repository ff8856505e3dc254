//! Cutting a buffer into the parts of groups of tokens.

/// The rest of a row-major buffer `[T, width]` whose first rows were taken.
pub(crate) struct RowCursor<'a, T = f32> {
    rest: &'a mut [T],
    width: usize,
}

impl<'a, T> RowCursor<'a, T> {
    pub(crate) fn new(buffer: &'a mut [T], width: usize) -> Self {
        Self { rest: buffer, width }
    }

    /// The next `rows` rows; empty if the buffer is.
    pub(crate) fn take(&mut self, rows: usize) -> &'a mut [T] {
        let rest = std::mem::take(&mut self.rest);
        let (taken, rest) = rest.split_at_mut(rest.len().min(rows * self.width));
        self.rest = rest;
        taken
    }
}
