//! Reading of text files, with a check of the encoding, and of JSON with broken characters.

use std::borrow::Cow;
use std::fs;
use std::path::Path;

use serde::de::DeserializeOwned;
use tamt_files::kind::is_lfs_pointer;

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
///
/// NUL bytes are valid UTF-8, but occur only in binary files and in UTF-16, so the function refuses them.
pub(crate) fn checked_text<'a>(bytes: &'a [u8], path: &Path) -> Result<&'a str> {
    checked_part(bytes, path, Place::START)
}

/// The place of a part of a text in its file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// The line of the first byte, from 1.
    pub(crate) line: usize,
    /// The offset of the first byte.
    pub(crate) offset: usize,
}

impl Place {
    pub(crate) const START: Self = Self { line: 1, offset: 0 };

    /// The place after these bytes.
    pub(crate) fn after(self, bytes: &[u8]) -> Self {
        let lines = bytes.iter().filter(|&&b| b == b'\n').count();
        Self { line: self.line + lines, offset: self.offset + bytes.len() }
    }
}

/// Refuses a Git LFS pointer: a text, but never the one that is wanted.
pub(crate) fn refuse_pointer(start: &[u8], path: &Path) -> Result<()> {
    if is_lfs_pointer(start) { Err(Error::LfsPointer { path: path.to_owned() }) } else { Ok(()) }
}

/// As [`checked_text`], for the part of a file at `place`. Only the first part can begin with a byte order mark.
pub(crate) fn checked_part<'a>(bytes: &'a [u8], path: &Path, place: Place) -> Result<&'a str> {
    if place.offset == 0 {
        refuse_pointer(bytes, path)?;
    }
    let text = std::str::from_utf8(bytes).map_err(|e| not_text(path, bytes, e.valid_up_to(), place))?;
    if let Some(offset) = bytes.iter().position(|&b| b == 0) {
        return Err(not_text(path, bytes, offset, place));
    }
    let unmarked = text.strip_prefix('\u{feff}').filter(|_| place.offset == 0);
    Ok(unmarked.unwrap_or(text))
}

/// The error about the byte `at` of the part of a file at `place`.
pub(crate) fn not_text(path: &Path, bytes: &[u8], at: usize, place: Place) -> Error {
    let Place { line, offset } = place.after(&bytes[..at]);
    let what = match bytes.get(at) {
        Some(0) => "a NUL byte".to_owned(),
        Some(byte) => format!("an invalid byte 0x{byte:02x}"),
        None => "an unfinished character".to_owned(),
    };
    Error::NotText { path: path.to_owned(), line, offset, what }
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
