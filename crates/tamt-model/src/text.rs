//! Reading of text files, with a check of the encoding.

use std::path::Path;
use std::{fs, io};

use tamt_files::text::{Fault, Place, checked};

use crate::error::{Error, Result, read_error};

/// The text of a UTF-8 file without its byte order mark.
///
/// # Errors
/// [`Error::Read`], also for a file that is no text, or [`Error::LfsPointer`].
pub(crate) fn read_text(path: &Path) -> Result<String> {
    let bytes = fs::read(path).map_err(read_error(path))?;
    match checked(&bytes, Place::START) {
        Ok(text) => Ok(text.to_owned()),
        Err(Fault::LfsPointer) => Err(Error::LfsPointer { path: path.to_owned() }),
        Err(Fault::Byte { line, offset, what }) => {
            let problem = format!("not UTF-8 text: {what} in line {line}, at offset {offset}");
            Err(read_error(path)(io::Error::new(io::ErrorKind::InvalidData, problem)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_is_said_with_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        fs::write(&path, b"{\n\xe9}").unwrap();
        match read_text(&path) {
            Err(Error::Read { source, .. }) => {
                assert_eq!(source.to_string(), "not UTF-8 text: an invalid byte 0xe9 in line 2, at offset 2");
            }
            other => panic!("{other:?}"),
        }
    }
}
