//! Words for a shell.

use std::ffi::OsStr;
use std::fmt::Write;

use tamt_study::record::quoted;

/// An argument as a word that a shell takes to the same bytes, in quotes if needed. What is not UTF-8, and what a terminal
/// takes as control characters, stands in `$'...'`, as in bash and POSIX.1-2024.
pub(crate) fn word(argument: &OsStr) -> String {
    match argument.to_str() {
        Some(text) if !text.chars().any(char::is_control) => quoted(text),
        _ => escaped(argument.as_encoded_bytes()),
    }
}

fn escaped(bytes: &[u8]) -> String {
    let mut word = "$'".to_owned();
    let hex = |word: &mut String, bytes: &[u8]| {
        for byte in bytes {
            // A `String` takes every text.
            let _ = write!(word, "\\x{byte:02x}");
        }
    };
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\'' | '\\' => word.extend(['\\', c]),
                c if c.is_control() => hex(&mut word, c.encode_utf8(&mut [0; 4]).as_bytes()),
                c => word.push(c),
            }
        }
        hex(&mut word, chunk.invalid());
    }
    word + "'"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(unix)]
    fn a_word_has_quotes_or_escapes_where_a_shell_needs_them() {
        use std::os::unix::ffi::OsStrExt;
        for (bytes, shown) in [
            (&b"a/b.txt"[..], "a/b.txt"),
            (b"a b", "'a b'"),
            (b"it's", r"'it'\''s'"),
            (b"c\xff1.txt", r"$'c\xff1.txt'"),
            (b"\xffit's \\ \xc3\xa4", r"$'\xffit\'s \\ ä'"),
            (b"a\nb\x1b", r"$'a\x0ab\x1b'"),
        ] {
            assert_eq!(word(OsStr::from_bytes(bytes)), shown);
        }
    }
}
