//! What the `tokenizers` crate takes on trust in a `tokenizer.json`.

use std::path::Path;

use serde_json::Value;

use crate::error::Result;
use crate::tokenizer::json::bad;
use crate::tokenizer::vocabulary::merges_of;

/// Most bytes of a normalised text for a byte of the text.
const MOST_GROWTH: usize = 64;

/// Refuses a `tokenizer.json` with which the crate would read outside of a buffer or claim memory without a bound.
///
/// # Errors
///
/// [`Error::BadTokenizer`](crate::Error::BadTokenizer) with the reason.
pub(super) fn check(description: &Value, path: &Path) -> Result<()> {
    check_merges(description, path)?;
    let growth = growth(&description["normalizer"]).map_err(|reason| bad(path, reason))?;
    if growth > MOST_GROWTH {
        let reason = format!("its normalizer can make a text {growth} times as long, more than {MOST_GROWTH} times");
        return Err(bad(path, reason));
    }
    Ok(())
}

/// The crate cuts the length of `continuing_subword_prefix` off the second piece of a merge, whatever the piece begins
/// with.
fn check_merges(description: &Value, path: &Path) -> Result<()> {
    let prefix = description["model"]["continuing_subword_prefix"].as_str().unwrap_or_default();
    if prefix.is_empty() || !description["model"]["merges"].is_array() {
        return Ok(());
    }
    for merge in merges_of(description, path)? {
        if !merge[1].as_str().is_some_and(|piece| piece.starts_with(prefix)) {
            let reason = format!("the second piece of the merge {merge} does not begin with {prefix:?}");
            return Err(bad(path, reason));
        }
    }
    Ok(())
}

/// How many times as long a normalizer can make a text.
///
/// # Errors
///
/// The reason why it is no normalizer.
fn growth(normalizer: &Value) -> Result<usize, String> {
    match normalizer["type"].as_str() {
        Some("Sequence") => {
            let steps = normalizer["normalizers"].as_array().map_or(&[][..], Vec::as_slice);
            steps.iter().try_fold(1usize, |product, step| Ok(product.saturating_mul(growth(step)?)))
        }
        Some("Replace") => {
            let content = normalizer["content"].as_str().map_or(0, str::len);
            let pattern = match normalizer["pattern"]["String"].as_str() {
                Some(pattern) if !pattern.is_empty() => pattern.len(),
                // An expression matches a character, or the places before and after each one.
                _ => return Ok(content.saturating_add(1)),
            };
            Ok(content.div_ceil(pattern).max(1))
        }
        Some("Precompiled") => {
            check_charsmap(normalizer["precompiled_charsmap"].as_str().unwrap_or_default())?;
            Ok(1)
        }
        _ => Ok(1),
    }
}

/// Checks the length at the start of a map of characters in base 64. The crate allocates that length.
fn check_charsmap(map: &str) -> Result<(), String> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    // Six digits of six bits begin with the four bytes of a little-endian number.
    let bits = map.bytes().take(6).try_fold(0u64, |bits, byte| Some(bits << 6 | u64::from(digit(byte)?)));
    let len = bits.map(|bits| ((bits >> 4) as u32).swap_bytes());
    match len {
        Some(len) if map.len() >= 6 && len as usize <= map.len() / 4 * 3 => Ok(()),
        _ => Err("its precompiled_charsmap is shorter than it says".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn checked(description: &Value) -> Result<()> {
        check(description, Path::new("tokenizer.json"))
    }

    #[test]
    fn merges_have_the_prefix_that_the_crate_cuts() {
        let model = |prefix: &str, second: &str| json!({"model": {"continuing_subword_prefix": prefix, "merges": [["a", second]]}});
        for (prefix, second) in [("", "b"), ("##", "##b"), ("##", "##")] {
            assert!(checked(&model(prefix, second)).is_ok(), "{prefix} {second}");
        }
        // The last one would be cut inside a character.
        for (prefix, second) in [("##", "b"), ("##########", "##b"), ("#", "\u{e9}")] {
            assert!(checked(&model(prefix, second)).is_err(), "{prefix} {second}");
        }
    }

    #[test]
    fn a_normalizer_that_multiplies_a_text_is_refused() {
        let replace =
            |pattern: Value, content: &str| json!({"type": "Replace", "pattern": pattern, "content": content});
        let string = |pattern: &str, content| replace(json!({"String": pattern}), content);
        let regex = |pattern: &str, content| replace(json!({"Regex": pattern}), content);
        let sequence = |steps: Vec<Value>| json!({"normalizer": {"type": "Sequence", "normalizers": steps}});
        let quotes = [string("``", "\""), string("''", "\""), regex(" {2,}", "\u{2581}"), json!({"type": "NFKC"})];
        assert!(checked(&sequence(quotes.to_vec())).is_ok());
        let tenfold = string("a", "aaaaaaaaaa");
        assert!(checked(&sequence(vec![tenfold.clone()])).is_ok());
        assert!(
            checked(&sequence(vec![tenfold.clone(), json!({"type": "Sequence", "normalizers": [tenfold]})])).is_err()
        );
        assert!(checked(&json!({"normalizer": regex("", &"a".repeat(100))})).is_err());
    }

    #[test]
    fn a_map_of_characters_is_as_long_as_it_says() {
        // base64.b64encode(struct.pack("<I", n) + bytes(8)) for n = 4, 12, 13 and 2**32 - 1
        for (map, fits) in [
            ("BAAAAAAAAAAAAAAA", true),
            ("DAAAAAAAAAAAAAAA", true),
            ("DQAAAAAAAAAAAAAA", false),
            ("/////wAAAAAAAAAA", false),
            ("BAAA", false),
            ("B A=AAAA", false),
        ] {
            let description = json!({"normalizer": {"type": "Precompiled", "precompiled_charsmap": map}});
            assert_eq!(checked(&description).is_ok(), fits, "{map}");
        }
    }
}
