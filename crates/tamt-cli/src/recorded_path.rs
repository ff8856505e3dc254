//! Paths in the records of runs: absolute, so that a record holds in every directory, and exact, also where they are not
//! UTF-8.
//!
//! A path that is not UTF-8 is recorded as a URL of a file, `file:///tmp/c%FF.txt` (RFC 8089). No other recorded path
//! looks so: an absolute path begins with a slash.

use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::path::{Path, PathBuf};

use toml::Value;

/// The beginning of an escaped path.
const URL: &str = "file://";

/// Flags with paths, and those with models.
const OF_PATHS: [&str; 11] = [
    "corpus",
    "data",
    "eval-corpus",
    "init",
    "mlm-head",
    "model",
    "new",
    "task-file",
    "teacher",
    "ticket",
    "tokenizer",
];

/// The path of a file or a directory, in a record.
pub(crate) fn path(path: &Path) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match path.to_str() {
        Some(text) => text.to_owned(),
        None => url(path.as_os_str()),
    }
}

/// Several paths, in a record.
pub(crate) fn paths(several: &[PathBuf]) -> Value {
    several.iter().map(|file| path(file)).collect::<Vec<_>>().into()
}

/// The name of a model, in a record: the path of a directory, or a hub id as it is.
pub(crate) fn model(name: &OsStr) -> String {
    match name.to_str() {
        Some(id) if !Path::new(name).is_dir() => id.to_owned(),
        _ => path(Path::new(name)),
    }
}

fn url(path: &OsStr) -> String {
    let mut url = URL.to_owned();
    for &byte in path.as_encoded_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            url.push(char::from(byte));
        } else {
            // A `String` takes every text.
            let _ = write!(url, "%{byte:02X}");
        }
    }
    url
}

/// The value of a flag from a record: the bytes of an escaped path, else `text` itself.
pub(crate) fn value(flag: &str, text: &str) -> OsString {
    let escaped = text.strip_prefix(URL).filter(|path| path.starts_with('/') && OF_PATHS.contains(&flag));
    escaped.and_then(unescaped).unwrap_or_else(|| text.into())
}

#[cfg(unix)]
fn unescaped(path: &str) -> Option<OsString> {
    use std::os::unix::ffi::OsStringExt;
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((plain, escape)) = rest.split_once('%') {
        bytes.extend_from_slice(plain.as_bytes());
        let digits = escape.get(..2).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &escape[2..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    Some(OsString::from_vec(bytes))
}

/// Paths of other systems are text.
#[cfg(not(unix))]
fn unescaped(_: &str) -> Option<OsString> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(unix)]
    fn a_recorded_path_comes_back_with_all_of_its_bytes() {
        use std::os::unix::ffi::OsStringExt;
        for (bytes, recorded) in [
            (&b"/tmp/c\xff%\xff0.txt"[..], "file:///tmp/c%FF%25%FF0.txt"),
            (b"/tmp/\xc3\xa4\xff b", "file:///tmp/%C3%A4%FF%20b"),
            (b"/tmp/\xc3\xa4 b", "/tmp/\u{e4} b"),
            (b"/file:/%41", "/file:/%41"),
        ] {
            let given = OsString::from_vec(bytes.to_vec());
            assert_eq!(path(Path::new(&given)), recorded);
            assert_eq!(value("corpus", recorded), given);
        }
        assert_eq!(value("corpus", "file:///a%4"), "file:///a%4");
        assert_eq!(value("labels", "file:///a%41"), "file:///a%41");
    }

    #[test]
    fn paths_are_absolute_and_hub_ids_are_not() {
        // Unit tests run in the directory of the crate, which has a directory `src`.
        let here = std::env::current_dir().unwrap();
        assert_eq!(path(Path::new("./a/../b")), here.join("a/../b").to_str().unwrap());
        assert_eq!(model("src".as_ref()), here.join("src").to_str().unwrap());
        assert_eq!(model("org/name@main".as_ref()), "org/name@main");
    }
}
