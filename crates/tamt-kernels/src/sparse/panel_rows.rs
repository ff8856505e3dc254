use crate::base::simd::{Portable, Simd};
use crate::sparse::block_rows::load;

/// Survivors whose sums are formed together.
pub(crate) const GROUP: usize = 4;

pub(crate) struct PanelRows<'a, 'b> {
    /// Output gradients, `[rows][panel tokens]`.
    pub(crate) gradients: &'a [f32],
    /// The panel, from the block's first column on.
    pub(super) activations: &'a [f32],
    pub(crate) starts: &'a [u32],
    pub(crate) offsets: &'a [u16],
    /// The sums of each row's entries, in the places that [`places_of`] gives them.
    pub(crate) sums: &'b mut [f32],
}

impl PanelRows<'_, '_> {
    /// # Safety
    /// The instruction set of `S`; `NV` vectors are a panel's tokens, and every entry's offset must lie in the activations with
    /// as many after it.
    #[inline(always)]
    #[allow(unsafe_code)]
    pub(crate) unsafe fn add_floats<S: SumLanes, const NV: usize>(self) {
        let activations = self.activations.as_ptr();
        // SAFETY: the caller's.
        unsafe {
            self.add(
                NV * S::LANES,
                |gradient| load::<S, NV>(gradient),
                |gradient, offset| {
                    let column = activations.add(offset);
                    let mut sum = S::zero();
                    for (v, gradient) in gradient.iter().enumerate() {
                        sum = S::load(column.add(v * S::LANES)).mul_add(*gradient, sum);
                    }
                    sum
                },
            );
        }
    }

    /// Adds to the sums of all entries: `load_row` has a row of output gradients, `width` tokens, in registers, and `dot` gives the lanes
    /// of its products with what lies at an offset.
    ///
    /// # Safety
    /// The instruction set of `S`.
    #[inline(always)]
    #[allow(unsafe_code)]
    pub(super) unsafe fn add<S: SumLanes, G>(
        self,
        width: usize,
        load_row: impl Fn(*const f32) -> G,
        dot: impl Fn(&G, usize) -> S,
    ) {
        let rows = self.starts.len() - 1;
        let (first, end) = (self.starts[0] as usize, self.starts[rows] as usize);
        let places = end - first + rows * (GROUP - 1);
        assert!(self.gradients.len() >= rows * width, "gradients of every row");
        assert!(end <= self.offsets.len() && self.sums.len() >= places, "entries of every row");
        let sums = self.sums.as_mut_ptr();
        // SAFETY: rows and entries are in bounds as asserted.
        unsafe {
            for row in 0..rows {
                let (mut entry, to) = (self.starts[row] as usize, self.starts[row + 1] as usize);
                let gradient = load_row(self.gradients.as_ptr().add(row * width));
                let dot = |entry: usize| dot(&gradient, usize::from(*self.offsets.get_unchecked(entry)));
                let mut out = sums.add(entry - first + row * (GROUP - 1));
                while entry + GROUP <= to {
                    S::add_sums([dot(entry), dot(entry + 1), dot(entry + 2), dot(entry + 3)], out);
                    entry += GROUP;
                    out = out.add(GROUP);
                }
                let zero = S::zero();
                match to - entry {
                    1 => S::add_sums([dot(entry), zero, zero, zero], out),
                    2 => S::add_sums([dot(entry), dot(entry + 1), zero, zero], out),
                    3 => S::add_sums([dot(entry), dot(entry + 1), dot(entry + 2), zero], out),
                    _ => {}
                }
            }
        }
    }
}

/// Horizontal sums, several at a time.
#[allow(unsafe_code)]
pub(super) trait SumLanes: Simd {
    /// `to[i] += ` the sum of the lanes of vector i.
    ///
    /// # Safety
    /// The instruction set of the type; `to` must be valid for four floats.
    unsafe fn add_sums(vectors: [Self; GROUP], to: *mut f32);
}

#[allow(unsafe_code)]
impl SumLanes for Portable {
    #[inline(always)]
    unsafe fn add_sums(vectors: [Self; GROUP], to: *mut f32) {
        let mut lanes = [[0.0; 4]; GROUP];
        for (i, vector) in vectors.into_iter().enumerate() {
            // SAFETY: an array of four floats.
            unsafe { vector.store(lanes[i].as_mut_ptr()) };
        }
        for (i, [a, b, c, d]) in lanes.into_iter().enumerate() {
            // SAFETY: the caller's.
            unsafe { *to.add(i) += (a + b) + (c + d) };
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256, __m512, _mm_add_ps, _mm_loadu_ps, _mm_storeu_ps, _mm256_add_ps, _mm256_castps256_ps128,
        _mm256_extractf128_ps, _mm256_shuffle_ps, _mm256_unpackhi_ps, _mm256_unpacklo_ps, _mm512_castps512_ps256,
        _mm512_extractf32x8_ps,
    };

    use super::{GROUP, SumLanes};

    // SAFETY of both: the trait's contract gives the instruction set and the pointer.
    #[allow(unsafe_code)]
    impl SumLanes for __m256 {
        #[inline(always)]
        unsafe fn add_sums([a, b, c, d]: [Self; GROUP], to: *mut f32) {
            unsafe {
                // half the sums' summands side by side: a b a b, c d c d, then a b c d
                let ab = _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
                let cd = _mm256_add_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
                let halves = _mm256_add_ps(_mm256_shuffle_ps::<0x44>(ab, cd), _mm256_shuffle_ps::<0xee>(ab, cd));
                let sums = _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps::<1>(halves));
                _mm_storeu_ps(to, _mm_add_ps(_mm_loadu_ps(to), sums));
            }
        }
    }

    #[allow(unsafe_code)]
    impl SumLanes for __m512 {
        #[inline(always)]
        unsafe fn add_sums([a, b, c, d]: [Self; GROUP], to: *mut f32) {
            unsafe { __m256::add_sums([halves(a), halves(b), halves(c), halves(d)], to) };
        }
    }

    /// The sum of both halves. No closure: one that `map` takes would not be compiled for the instruction set, and each
    /// instruction be a call.
    #[inline(always)]
    #[allow(unsafe_code)]
    unsafe fn halves(v: __m512) -> __m256 {
        unsafe { _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v)) }
    }
}
