//! Reading of text files, with a check of the encoding.

use std::path::Path;
use std::{fs, io};

use tamt_files::kind::is_lfs_pointer;

use crate::error::{Error, Result, read_error};

/// The text of a UTF-8 file without its byte order mark.
///
/// NUL bytes are valid UTF-8, but occur only in binary files and in UTF-16, so the function refuses them.
///
/// # Errors
/// [`Error::Read`], also for a file that is no text, or [`Error::LfsPointer`].
pub(crate) fn read_text(path: &Path) -> Result<String> {
    let bytes = fs::read(path).map_err(read_error(path))?;
    // A text, but never the one that is wanted.
    if is_lfs_pointer(&bytes) {
        return Err(Error::LfsPointer { path: path.to_owned() });
    }
    let not_text = |at: usize| {
        let what = match bytes[at] {
            0 => "a NUL byte".to_owned(),
            byte => format!("an invalid byte 0x{byte:02x}"),
        };
        let line = 1 + bytes[..at].iter().filter(|&&b| b == b'\n').count();
        let problem = format!("not UTF-8 text: {what} in line {line}, at offset {at}");
        read_error(path)(io::Error::new(io::ErrorKind::InvalidData, problem))
    };
    let text = std::str::from_utf8(&bytes).map_err(|error| not_text(error.valid_up_to()))?;
    match text.find('\0') {
        Some(at) => Err(not_text(at)),
        None => Ok(text.strip_prefix('\u{feff}').unwrap_or(text).to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_no_byte_order_mark_and_what_is_no_text_is_said_with_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        let read = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            read_text(&path)
        };
        assert_eq!(read("\u{feff}{}\n".as_bytes()).unwrap(), "{}\n");
        assert_eq!(read("{\u{feff}}".as_bytes()).unwrap(), "{\u{feff}}", "only the first character is a mark");
        for (bytes, problem) in [
            (b"{\n\xe9}".as_slice(), "an invalid byte 0xe9 in line 2, at offset 2"),
            (b"{\0}\0".as_slice(), "a NUL byte in line 1, at offset 1"),
            (b"{\xe2\x82".as_slice(), "an invalid byte 0xe2 in line 1, at offset 1"),
        ] {
            match read(bytes) {
                Err(Error::Read { source, .. }) => assert_eq!(source.to_string(), format!("not UTF-8 text: {problem}")),
                other => panic!("{other:?}"),
            }
        }
    }
}
