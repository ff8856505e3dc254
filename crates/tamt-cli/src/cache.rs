//! The tokens of texts that runs on this machine share.

use std::env;
use std::path::PathBuf;

use anyhow::Result;
use tamt_data::TokenCache;

use crate::exit::UsageError;

/// The environment variable with the size of the cache.
const SIZE: &str = "TAMT_CACHE_SIZE";

/// Bytes of all stored tokens by default.
const DEFAULT_SIZE: u64 = 4_000_000_000;

/// The folder of stored tokens in the cache directory.
const FOLDER: &str = "tokens";

/// The stored tokens; `None` if they are switched off, or the environment names no cache directory.
pub(crate) fn tokens() -> Result<Option<TokenCache>> {
    let size = match env::var(SIZE) {
        Ok(text) => size(&text).ok_or_else(|| {
            UsageError(format!("{SIZE}={text}: a size is a number of bytes, or a number with K, M, G or T; 0 is off"))
        })?,
        Err(_) => DEFAULT_SIZE,
    };
    Ok(directory().filter(|_| size > 0).map(|directory| TokenCache::new(directory.join(FOLDER), size)))
}

/// The directory of what runs on a machine share: `$TAMT_CACHE`, else `$XDG_CACHE_HOME/tamt`, else `~/.cache/tamt`;
/// `None` if none of the variables (and `HOME`) is an absolute path.
fn directory() -> Option<PathBuf> {
    let directory = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = || directory("XDG_CACHE_HOME").or_else(|| directory("HOME").map(|home| home.join(".cache")));
    directory("TAMT_CACHE").or_else(|| cache().map(|cache| cache.join("tamt")))
}

/// A number of bytes, with a unit of 1000, 1000^2, 1000^3 or 1000^4 bytes.
fn size(text: &str) -> Option<u64> {
    let text = text.trim();
    let unit = text.chars().last().and_then(|unit| "KMGT".find(unit.to_ascii_uppercase()));
    let (number, power) = match unit {
        Some(index) => (&text[..text.len() - 1], index as u32 + 1),
        None => (text, 0),
    };
    number.trim().parse::<u64>().ok()?.checked_mul(1000_u64.pow(power))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_number_of_bytes_or_has_a_decimal_unit() {
        let sizes = ["0", "1500", "3K", "250m", " 4 G ", "2T"].map(size);
        let expected = [0, 1500, 3000, 250_000_000, 4_000_000_000, 2_000_000_000_000];
        assert_eq!(sizes, expected.map(Some));
        for text in ["", "G", "-1", "1.5G", "1GB", "20000000T", "\u{130}"] {
            assert_eq!(size(text), None, "{text}");
        }
    }
}
