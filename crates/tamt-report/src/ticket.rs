//! Tickets as a report needs them, and their similarity.

use std::path::Path;

use tamt_study::labels::Labels;

/// The masks of a ticket and what its header says.
#[derive(Clone, Debug, Default)]
pub struct Ticket {
    /// Base model, method, sparsity, scope, seed and steps.
    pub labels: Labels,
    /// The masks by tensor name.
    pub matrices: Vec<Matrix>,
}

/// The mask of a matrix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matrix {
    /// The tensor's name.
    pub name: String,
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub cols: usize,
    /// The bits of all rows, 1 = kept; padding bits are 0.
    pub bits: Vec<u8>,
}

impl Matrix {
    /// The share of kept weights.
    #[must_use]
    pub fn density(&self) -> f64 {
        let kept: u64 = words(&self.bits).map(|word| u64::from(word.count_ones())).sum();
        kept as f64 / (self.rows * self.cols).max(1) as f64
    }

    /// Weights that both keep over weights that either keeps; 1 where neither keeps any.
    fn jaccard(&self, other: &Self) -> f64 {
        let counts = words(&self.bits).zip(words(&other.bits)).fold((0_u64, 0_u64), |(both, either), (a, b)| {
            (both + u64::from((a & b).count_ones()), either + u64::from((a | b).count_ones()))
        });
        if counts.1 == 0 { 1.0 } else { counts.0 as f64 / counts.1 as f64 }
    }
}

/// The bits, 64 at a time; the last word is filled up with zeros.
fn words(bits: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bits.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    })
}

impl Ticket {
    /// The Jaccard index of two tickets, the unweighted mean over matrices, as `tamt inspect --against` defines it;
    /// `None` where names or shapes differ.
    #[must_use]
    pub fn jaccard(&self, other: &Self) -> Option<f64> {
        if self.matrices.is_empty() || self.matrices.len() != other.matrices.len() {
            return None;
        }
        let mut sum = 0.0;
        for mine in &self.matrices {
            let theirs = other.matrices.iter().find(|matrix| matrix.name == mine.name)?;
            if (mine.rows, mine.cols, mine.bits.len()) != (theirs.rows, theirs.cols, theirs.bits.len()) {
                return None;
            }
            sum += mine.jaccard(theirs);
        }
        Some(sum / self.matrices.len() as f64)
    }
}

/// A reader of ticket files. The report knows no format of tickets.
pub trait TicketReader {
    /// Reads the ticket of a file.
    ///
    /// # Errors
    /// The reason why the file cannot be read.
    fn read(&self, path: &Path) -> Result<Ticket, String>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(bits: &[&[u8]]) -> Ticket {
        let matrix = |(i, bits): (usize, &&[u8])| Matrix {
            name: format!("m{i}"),
            rows: bits.len(),
            cols: 8,
            bits: bits.to_vec(),
        };
        Ticket { matrices: bits.iter().enumerate().map(matrix).collect(), ..Ticket::default() }
    }

    #[test]
    fn similarity_is_the_mean_over_matrices_of_shared_over_kept_weights() {
        let (a, b) = (ticket(&[&[0b1111], &[0b0011]]), ticket(&[&[0b0011], &[0b0110]]));
        assert_eq!(a.jaccard(&b), Some((2.0 / 4.0 + 1.0 / 3.0) / 2.0));
        assert_eq!(a.jaccard(&a), Some(1.0));
        assert_eq!(a.jaccard(&ticket(&[&[0b1111]])), None);
    }

    #[test]
    fn density_counts_bits_beyond_the_first_word() {
        let wide = Matrix { name: String::new(), rows: 10, cols: 8, bits: vec![1; 10] };
        assert_eq!(wide.density(), 10.0 / 80.0);
    }
}
