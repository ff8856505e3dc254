/// Words of the next right panel that a square of a strip fetches for each block of the depth.
pub(crate) const FETCHED: usize = 64;

/// A square's operands, as [`step`] takes them.
pub(crate) struct Operands {
    pub(crate) left: *const f32,
    pub(crate) lower: usize,
    pub(crate) right: *const f32,
    pub(crate) aside: usize,
    /// Words of a row of the right panel.
    pub(crate) width: usize,
    /// What is fetched meanwhile: [`FETCHED`] words for each block of the depth.
    pub(crate) next: *const f32,
}
