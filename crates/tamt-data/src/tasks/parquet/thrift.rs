//! Thrift's compact protocol (`thrift/doc/specs/thrift-compact-protocol.md`), as far as the checks of a parquet file need.
//!
//! The structures are those of `parquet.thrift`.

// Types of values.
pub(super) const I32: u8 = 5;
pub(super) const LIST: u8 = 9;
pub(super) const STRUCT: u8 = 12;

/// Most levels of a value that is skipped.
const DEEPEST: usize = 30;

/// A reader of the compact protocol. Its methods return `None` where the bytes end or have another form.
pub(super) struct Compact<'a> {
    /// The bytes that are still to be read.
    pub(super) rest: &'a [u8],
}

impl Compact<'_> {
    /// Calls `visit` with the id and the type of each field of a structure, and with the reader at the field's value.
    pub(super) fn fields(&mut self, mut visit: impl FnMut(&mut Self, i16, u8) -> Option<()>) -> Option<()> {
        let mut id = 0i16;
        loop {
            let header = self.byte()?;
            if header == 0 {
                return Some(());
            }
            id = match header >> 4 {
                0 => self.signed()? as i16,
                step => id.checked_add(step.into())?,
            };
            visit(self, id, header & 0xf)?;
        }
    }

    /// Skips a field's value of a type.
    pub(super) fn skip(&mut self, kind: u8) -> Option<()> {
        self.skip_levels(kind, DEEPEST)
    }

    /// Skips a field's value, in which less than `depth` levels are nested.
    fn skip_levels(&mut self, kind: u8, depth: usize) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        match kind {
            // Booleans, whose value is the type.
            1 | 2 => Some(()),
            3 => self.take(1),
            4..=6 => self.varint().map(|_| ()),
            7 => self.take(8),
            8 => {
                let len = self.varint()?;
                self.take(usize::try_from(len).ok()?)
            }
            LIST | 10 => {
                let (len, kind) = self.list()?;
                (0..len).try_for_each(|_| self.skip_element(kind, depth))
            }
            11 => {
                let len = self.varint()?;
                let kinds = if len > 0 { self.byte()? } else { 0 };
                (0..len).try_for_each(|_| {
                    self.skip_element(kinds >> 4, depth)?;
                    self.skip_element(kinds & 0xf, depth)
                })
            }
            STRUCT => self.fields(|value, _, kind| value.skip_levels(kind, depth)),
            13 => self.take(16),
            _ => None,
        }
    }

    /// Skips an element of a container, where a boolean takes a byte.
    fn skip_element(&mut self, kind: u8, depth: usize) -> Option<()> {
        if matches!(kind, 1 | 2) { self.take(1) } else { self.skip_levels(kind, depth) }
    }

    /// Length and type of the elements of a list or a set.
    pub(super) fn list(&mut self) -> Option<(u64, u8)> {
        let header = self.byte()?;
        let len = if header >> 4 == 15 { self.varint()? } else { (header >> 4).into() };
        Some((len, header & 0xf))
    }

    /// A number in zigzag form, which counts 0, -1, 1, -2, ..
    pub(super) fn signed(&mut self) -> Option<i64> {
        let number = self.varint()?;
        Some((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut at = 0;
        let value = varint(self.rest, &mut at)?;
        self.rest = &self.rest[at..];
        Some(value)
    }

    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(byte)
    }

    fn take(&mut self, len: usize) -> Option<()> {
        self.rest = self.rest.get(len..)?;
        Some(())
    }
}

/// Reads an unsigned LEB128 integer at `at`.
pub(super) fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
