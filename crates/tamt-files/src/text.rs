//! The check that the bytes of a file are UTF-8 text.

use crate::kind::is_lfs_pointer;

/// The byte order mark, which some programs write ahead of a text.
pub const BYTE_ORDER_MARK: char = '\u{feff}';

/// The place of a part of a text in its file.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The line of the first byte, from 1.
    pub line: usize,
    /// The offset of the first byte.
    pub offset: usize,
}

impl Place {
    /// The start of a file.
    pub const START: Self = Self { line: 1, offset: 0 };

    /// The place after these bytes.
    #[must_use]
    pub fn after(self, bytes: &[u8]) -> Self {
        let lines = bytes.iter().filter(|&&b| b == b'\n').count();
        Self { line: self.line + lines, offset: self.offset + bytes.len() }
    }
}

/// Why bytes are no text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The text that Git LFS has in the place of a large file.
    LfsPointer,
    /// A byte that UTF-8 text does not have.
    Byte {
        /// The line of the byte, from 1.
        line: usize,
        /// The offset of the byte in the file, from 0.
        offset: usize,
        /// A description of the byte.
        what: String,
    },
}

impl Fault {
    /// The fault of the byte `at` of the part of a file at `place`.
    #[must_use]
    pub fn of_byte(bytes: &[u8], at: usize, place: Place) -> Self {
        let Place { line, offset } = place.after(&bytes[..at]);
        let what = match bytes.get(at) {
            Some(0) => "a NUL byte".to_owned(),
            Some(byte) => format!("an invalid byte 0x{byte:02x}"),
            None => "an unfinished character".to_owned(),
        };
        Self::Byte { line, offset, what }
    }
}

/// Refuses a Git LFS pointer: a text, but never the one that is wanted.
///
/// # Errors
/// [`Fault::LfsPointer`].
pub fn refuse_pointer(start: &[u8]) -> Result<(), Fault> {
    if is_lfs_pointer(start) { Err(Fault::LfsPointer) } else { Ok(()) }
}

/// The part of a file at `place` as text. The first part may begin with a byte order mark, which is left out.
///
/// NUL bytes are valid UTF-8, but occur only in binary files and in UTF-16, so the function refuses them.
///
/// # Errors
/// [`Fault`].
pub fn checked(bytes: &[u8], place: Place) -> Result<&str, Fault> {
    if place.offset == 0 {
        refuse_pointer(bytes)?;
    }
    let text = std::str::from_utf8(bytes).map_err(|e| Fault::of_byte(bytes, e.valid_up_to(), place))?;
    if let Some(at) = bytes.iter().position(|&b| b == 0) {
        return Err(Fault::of_byte(bytes, at, place));
    }
    let unmarked = text.strip_prefix(BYTE_ORDER_MARK).filter(|_| place.offset == 0);
    Ok(unmarked.unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_no_byte_order_mark_and_what_is_no_text_is_said_with_its_place() {
        let whole = |bytes| checked(bytes, Place::START);
        assert_eq!(whole("\u{feff}{}\n".as_bytes()), Ok("{}\n"));
        assert_eq!(whole("{\u{feff}}".as_bytes()), Ok("{\u{feff}}"), "only the first character is a mark");
        assert_eq!(whole(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n"), Err(Fault::LfsPointer));
        let fault = |line, offset, what: &str| Err(Fault::Byte { line, offset, what: what.to_owned() });
        assert_eq!(whole(b"{\n\xe9}"), fault(2, 2, "an invalid byte 0xe9"));
        assert_eq!(whole(b"{\0}\0"), fault(1, 1, "a NUL byte"));
        assert_eq!(whole(b"{\xe2\x82"), fault(1, 1, "an invalid byte 0xe2"));
        let later = Place { line: 7, offset: 100 };
        assert_eq!(checked("\u{feff}a".as_bytes(), later), Ok("\u{feff}a"));
        assert_eq!(checked(b"a\n\xff", later), fault(8, 102, "an invalid byte 0xff"));
    }
}
