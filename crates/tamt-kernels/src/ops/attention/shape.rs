//! The shape of a packed batch, and the layout of one attention head within the batch.

use crate::base::{Precision, Shared, Values, Word};
use crate::gemm::{Operand, Order, OutputBlock, Panels, Side};
use crate::ops::dropout::{Dropout, apply_from};

/// The shape of a packed batch of `T` tokens. `q`, `k`, `v` and the context are `[T, heads * head_dim]`.
#[derive(Clone, Copy, Debug)]
pub struct AttentionShape<'a> {
    /// First token of each sequence, and `T` at the end: sequence `i` is tokens `bounds[i]..bounds[i + 1]`.
    pub bounds: &'a [usize],
    /// Attention heads.
    pub heads: usize,
    /// Size of a head.
    pub head_dim: usize,
    /// Number of the first sequence within the whole batch, of which the tokens can be a part. Selects the dropout
    /// factors.
    pub first_sequence: usize,
}

/// Queries, keys and values, `[T, heads * head_dim]` each. bf16 operands require arithmetic in bf16
/// ([`Precision::effective`]).
#[derive(Clone, Copy, Debug)]
pub struct Qkv<'a> {
    /// Queries.
    pub q: Values<'a>,
    /// Keys.
    pub k: Values<'a>,
    /// Values.
    pub v: Values<'a>,
}

impl<'a> Qkv<'a> {
    /// Queries, keys and values from slices or vectors of f32 or bf16.
    pub fn new(q: impl Into<Values<'a>>, k: impl Into<Values<'a>>, v: impl Into<Values<'a>>) -> Self {
        Self { q: q.into(), k: k.into(), v: v.into() }
    }
}

impl AttentionShape<'_> {
    pub(crate) fn tokens(&self) -> usize {
        self.bounds.last().copied().unwrap_or(0)
    }

    pub(crate) fn sequences(&self) -> usize {
        self.bounds.len().saturating_sub(1)
    }

    /// Columns of `q`, `k`, `v` and the context.
    pub(crate) fn width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// `1 / sqrt(head_dim)`
    pub(crate) fn scale(&self) -> f32 {
        (1.0 / (self.head_dim as f64).sqrt()) as f32
    }

    pub(crate) fn assert_valid(&self) {
        assert_eq!(self.bounds.first().copied().unwrap_or(0), 0, "bounds from 0");
        assert!(self.bounds.is_sorted(), "bounds in order");
    }

    pub(crate) fn assert_hidden<'a>(&self, buffers: impl IntoIterator<Item = Values<'a>>) {
        let len = self.tokens() * self.width();
        assert!(buffers.into_iter().all(|b| b.len() == len), "buffers of [tokens, heads * head_dim]");
    }

    pub(crate) fn assert_log_sum_exp(&self, lse: &[f32]) {
        assert_eq!(lse.len(), self.tokens() * self.heads, "a log-sum-exp per token and head");
    }

    /// Pairs of a sequence and a head.
    pub(crate) fn head_count(&self) -> usize {
        self.sequences() * self.heads
    }

    /// Head `index % heads` of sequence `index / heads`.
    pub(crate) fn head(&self, index: usize, precision: Precision) -> Head {
        let (sequence, head) = (index / self.heads, index % self.heads);
        let (first_token, end) = (self.bounds[sequence], self.bounds[sequence + 1]);
        Head {
            first_token,
            len: end - first_token,
            head,
            heads: self.heads,
            head_dim: self.head_dim,
            index: (self.first_sequence * self.heads + index) as u32,
            precision,
        }
    }
}

/// Queries that are processed together. With 512 keys, their scores take 256 KB. Miri, where sequences are short, still
/// divides them into blocks.
pub(crate) const QUERIES: usize = if cfg!(miri) { 8 } else { 128 };

/// One head of one sequence.
#[derive(Clone, Copy)]
pub(crate) struct Head {
    /// The sequence's first token in the batch.
    pub(crate) first_token: usize,
    /// Tokens of the sequence.
    pub(crate) len: usize,
    head: usize,
    heads: usize,
    pub(crate) head_dim: usize,
    /// Number of the pair (sequence, head) in the whole batch. Forks the dropout stream.
    pub(crate) index: u32,
    /// Precision of the operands of products.
    pub(crate) precision: Precision,
}

/// Consecutive tokens of a sequence, counted from the sequence's first token.
#[derive(Clone, Copy)]
pub(crate) struct TokenBlock {
    pub(crate) first: usize,
    pub(crate) count: usize,
}

/// Positions within `[T, heads * head_dim]` and `[T, heads]` buffers.
impl Head {
    /// The same sequence's head `i` heads after this one.
    pub(crate) fn following(self, i: usize) -> Self {
        Self { head: self.head + i, index: self.index + i as u32, ..self }
    }

    /// The head's first column.
    pub(crate) fn column(&self) -> usize {
        self.head * self.head_dim
    }

    fn width(&self) -> usize {
        self.heads * self.head_dim
    }

    fn offset(&self, token: usize) -> usize {
        (self.first_token + token) * self.width() + self.column()
    }

    /// Index of a token's value in `[T, heads]`.
    pub(crate) fn lse_index(&self, token: usize) -> usize {
        (self.first_token + token) * self.heads + self.head
    }

    /// The head's columns of `x` `[T, width]` from a token on. In [`Order::LaneRows`] tokens are lanes, in
    /// [`Order::DepthRows`] they are steps of the depth.
    pub(crate) fn operand<'a>(&self, x: Values<'a>, token: usize, order: Order) -> Operand<'a> {
        let x = x.part(self.offset(token)..x.len());
        Operand { precision: self.precision, ..Operand::new(x, self.width(), order) }
    }

    /// `rows` tokens of the head's columns of an output `[T, width]`.
    pub(crate) fn output_block(&self, out: &Shared<'_, f32>, token: usize, rows: usize) -> OutputBlock {
        OutputBlock { start: out.pointer(self.offset(token)), stride: self.width(), rows, cols: self.head_dim }
    }

    pub(crate) fn all_tokens(&self) -> TokenBlock {
        TokenBlock { first: 0, count: self.len }
    }

    pub(crate) fn query_blocks(self) -> impl Iterator<Item = TokenBlock> {
        (0..self.len).step_by(QUERIES).map(move |first| TokenBlock { first, count: QUERIES.min(self.len - first) })
    }
}

/// Blocks of scores `[queries, keys]`.
impl Head {
    /// Elements from the scores of one query to those of the next query. A stride that is a multiple of 512 bytes would
    /// map a column of the block to a few sets of the L1 cache.
    pub(crate) fn score_stride(&self) -> usize {
        if self.len >= 128 && self.len.is_multiple_of(64) { self.len + 16 } else { self.len }
    }

    /// Floats of a block of scores.
    pub(crate) fn scores_len(&self) -> usize {
        QUERIES.min(self.len) * self.score_stride()
    }

    /// A block of scores as an operand: queries are lanes or steps of the depth.
    pub(crate) fn scores_operand<'a>(&self, scores: &'a [f32], order: Order) -> Operand<'a> {
        Operand { precision: self.precision, ..Operand::new(scores, self.score_stride(), order) }
    }

    /// A block of scores as an output.
    pub(crate) fn scores_output(&self, out: &mut [f32], queries: usize) -> OutputBlock {
        assert!(out.len() >= queries * self.score_stride(), "a block of scores");
        OutputBlock { start: out.as_mut_ptr(), stride: self.score_stride(), rows: queries, cols: self.len }
    }

    /// The scores of each query of a block, without the padding between queries.
    pub(crate) fn score_rows<'x>(
        &self,
        x: &'x mut [f32],
        queries: TokenBlock,
    ) -> impl Iterator<Item = &'x mut [f32]> + use<'x> {
        let len = self.len;
        x.chunks_exact_mut(self.score_stride()).take(queries.count).map(move |row| &mut row[..len])
    }

    /// `x = x ∘ m` for a block `[queries, keys]`, with the dropout factors `m` of the head.
    pub(crate) fn drop(&self, x: &mut [f32], queries: TokenBlock, dropout: Option<Dropout>) {
        let Some(d) = dropout else { return };
        let d = Dropout { stream: d.stream.fork(self.index), ..d };
        let first = queries.first * self.len;
        if self.score_stride() == self.len {
            return apply_from(&mut x[..queries.count * self.len], first as u64, d);
        }
        for (i, row) in self.score_rows(x, queries).enumerate() {
            apply_from(row, (first + i * self.len) as u64, d);
        }
    }
}

/// Packed operands. All heads of a sequence have the same lengths.
impl Head {
    fn len_of(&self, side: Side, lanes: usize, depth: usize) -> usize {
        Panels::len_in(self.precision, side, lanes, depth)
    }

    /// Words that hold the right operand of `tokens` tokens, transposed or not.
    pub(crate) fn right_len(&self, tokens: usize) -> usize {
        self.len_of(Side::Right, tokens, self.head_dim).max(self.len_of(Side::Right, self.head_dim, tokens))
    }

    /// Words that hold any left operand: queries by keys, queries by `head_dim`, or keys by queries.
    pub(crate) fn left_len(&self) -> usize {
        let queries = QUERIES.min(self.len);
        let of_queries = self.len_of(Side::Left, queries, self.len.max(self.head_dim));
        of_queries.max(self.len_of(Side::Left, self.len, queries))
    }

    /// Packs the head's columns of `x` `[T, width]` for all tokens as the right operand `xᵀ` `[head_dim, tokens]`.
    pub(crate) fn pack_transposed(&self, x: Values<'_>, out: &mut [Word]) {
        let out = &mut out[..self.len_of(Side::Right, self.len, self.head_dim)];
        Panels::pack(Side::Right, &self.operand(x, 0, Order::LaneRows), 0..self.len, 0..self.head_dim, out);
    }

    /// Packs the head's columns of `x` `[T, width]` for some tokens as the right operand `[tokens, head_dim]`.
    pub(crate) fn pack_tokens(&self, x: Values<'_>, tokens: TokenBlock, out: &mut [Word]) {
        let out = &mut out[..self.len_of(Side::Right, self.head_dim, tokens.count)];
        let operand = self.operand(x, tokens.first, Order::DepthRows);
        Panels::pack(Side::Right, &operand, 0..self.head_dim, 0..tokens.count, out);
    }

    /// A packed operand at the beginning of a buffer.
    pub(crate) fn panels<'a>(&self, side: Side, lanes: usize, depth: usize, packed: &'a [Word]) -> Panels<'a> {
        Panels::of(self.precision, side, lanes, depth, packed)
    }
}
