//! Reading of text files, with a check of the encoding, and of JSON with broken characters.

use std::borrow::Cow;
use std::fs;
use std::path::Path;

use serde::de::DeserializeOwned;
use tamt_files::text::{self, Fault, Place};

use crate::error::{Error, Result, io_error};

/// The bytes of a file.
pub(crate) fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(io_error("read", path))
}

/// The text of a UTF-8 file without its byte order mark.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    let bytes = read_bytes(path)?;
    Ok(checked_text(&bytes, path)?.to_owned())
}

/// `bytes` as UTF-8 text, without a leading byte order mark.
pub(crate) fn checked_text<'a>(bytes: &'a [u8], path: &Path) -> Result<&'a str> {
    checked_part(bytes, path, Place::START)
}

/// As [`checked_text`], for the part of a file at `place`. Only the first part can begin with a byte order mark.
pub(crate) fn checked_part<'a>(bytes: &'a [u8], path: &Path, place: Place) -> Result<&'a str> {
    text::checked(bytes, place).map_err(|fault| fault_of(path, fault))
}

/// The error of a file that is no text.
pub(crate) fn fault_of(path: &Path, fault: Fault) -> Error {
    let path = path.to_owned();
    match fault {
        Fault::LfsPointer => Error::LfsPointer { path },
        Fault::Byte { line, offset, what } => Error::NotText { path, line, offset, what },
    }
}

/// Parses JSON. A lone surrogate, half of a character that was cut in two, is read as U+FFFD.
pub(crate) fn from_json<T: DeserializeOwned>(text: &str) -> serde_json::Result<T> {
    serde_json::from_str(text).or_else(|error| match without_lone_surrogates(text) {
        Cow::Borrowed(_) => Err(error),
        Cow::Owned(text) => serde_json::from_str(&text),
    })
}

/// JSON with the escape `\ufffd` in place of each escape of a lone surrogate. The length stays the same, so that errors
/// keep their columns.
fn without_lone_surrogates(text: &str) -> Cow<'_, str> {
    // The code unit of an escape `\uXXXX` at the start of a text.
    let unit = |text: &str| {
        let digits = text.strip_prefix("\\u")?.get(..4)?;
        u16::from_str_radix(digits, 16).ok()
    };
    let (mut repaired, mut copied, mut at) = (String::new(), 0, 0);
    while let Some(escape) = text[at..].find('\\') {
        at += escape;
        let is_low = |unit: u16| (0xDC00..0xE000).contains(&unit);
        match unit(&text[at..]) {
            Some(0xD800..0xDC00) if text.get(at + 6..).and_then(unit).is_some_and(is_low) => at += 12,
            Some(0xD800..0xE000) => {
                repaired.push_str(&text[copied..at]);
                repaired.push_str("\\ufffd");
                at += 6;
                copied = at;
            }
            _ => {
                let escaped = text[at + 1..].chars().next().map_or(0, char::len_utf8);
                at += 1 + escaped;
            }
        }
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    repaired.push_str(&text[copied..]);
    Cow::Owned(repaired)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::line_blocks::LineBlocks;
    use crate::lines::Lines;

    #[test]
    fn a_lone_surrogate_is_read_as_the_replacement_character() {
        for (json, expected) in [
            (r#""a\ud83d""#, "a\u{fffd}"),
            (r#""\uDE00b""#, "\u{fffd}b"),
            (r#""\ud83d\ud83d\ude00\ude00""#, "\u{fffd}\u{1f600}\u{fffd}"),
            (r#""\\ud83d\ud83d\n""#, "\\ud83d\u{fffd}\n"),
            (r#""\ud83dé""#, "\u{fffd}é"),
            (r#""\ud83d\ude00 \u00e9""#, "\u{1f600} é"),
        ] {
            assert_eq!(from_json::<String>(json).unwrap(), expected, "{json}");
        }
    }

    #[test]
    fn a_git_lfs_pointer_is_no_text() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("train.txt");
        fs::write(&path, "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n").unwrap();
        let read = [
            read_text(&path).map(drop),
            Lines::open(&path).and_then(|mut lines| lines.next(|_| ()).map(drop)),
            LineBlocks::open(&path).and_then(|mut blocks| blocks.next().map(drop)),
        ];
        for outcome in read {
            assert!(matches!(outcome, Err(Error::LfsPointer { .. })), "{outcome:?}");
        }
    }

    #[test]
    fn other_faults_stay_errors() {
        for json in [r#""\ud83d"#, r#""\"#, r#""\u12"#, r#""\ud8é""#, r#""\x\ud83d""#, "\"\\é\""] {
            assert!(from_json::<String>(json).is_err(), "{json}");
        }
    }
}
