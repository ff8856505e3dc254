//! Reading of text files, with a check of the encoding.

use std::fs;
use std::path::Path;

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
    let text = std::str::from_utf8(bytes).map_err(|e| not_text(path, bytes, e.valid_up_to()))?;
    if let Some(offset) = bytes.iter().position(|&b| b == 0) {
        return Err(not_text(path, bytes, offset));
    }
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

fn not_text(path: &Path, bytes: &[u8], offset: usize) -> Error {
    let line = 1 + bytes[..offset].iter().filter(|&&b| b == b'\n').count();
    let what = match bytes.get(offset) {
        Some(0) => "a NUL byte".to_owned(),
        Some(byte) => format!("an invalid byte 0x{byte:02x}"),
        None => "an unfinished character".to_owned(),
    };
    Error::NotText { path: path.to_owned(), line, offset, what }
}
