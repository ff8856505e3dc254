//! A check of the schema in the footer of a file.
//!
//! The `parquet` crate builds the tree of columns by recursion, and a deep tree would overflow the stack, which ends the
//! process. The footer is a `FileMetaData`.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use crate::tasks::parquet::thrift::{Compact, I32, LIST, STRUCT};

/// Most levels of a schema. A column of a task is at the first one.
const DEEPEST: usize = 100;

/// Checks the depth of a file's schema. A file without a footer passes, because the crate reports such files.
///
/// # Errors
///
/// The reason why the schema is refused.
pub(super) fn check(file: &mut File) -> io::Result<Result<(), String>> {
    let Some(footer) = footer(file)? else { return Ok(Ok(())) };
    let mut deepest = 0;
    let is_read = Compact { rest: &footer }.fields(|footer, id, kind| match (id, kind) {
        (2, LIST) => {
            deepest = deepest.max(depth(footer)?);
            Some(())
        }
        // The crate knows a field by its id, and reads a field of another type as one of its own type.
        (2, _) => None,
        _ => footer.skip(kind),
    });
    Ok(if deepest > DEEPEST {
        Err(format!("its columns are nested {deepest} levels deep"))
    } else {
        is_read.ok_or_else(|| "its footer is damaged".to_owned())
    })
}

/// The footer of a file that has one.
fn footer(file: &mut File) -> io::Result<Option<Vec<u8>>> {
    let bytes = file.metadata()?.len();
    let Some(end) = bytes.checked_sub(8) else { return Ok(None) };
    file.seek(SeekFrom::Start(end))?;
    let mut tail = [0; 8];
    file.read_exact(&mut tail)?;
    let [a, b, c, d, magic @ ..] = tail;
    let len = u32::from_le_bytes([a, b, c, d]);
    let Some(start) = end.checked_sub(len.into()).filter(|_| magic == *b"PAR1") else { return Ok(None) };
    file.seek(SeekFrom::Start(start))?;
    let mut footer = Vec::new();
    file.take(len.into()).read_to_end(&mut footer)?;
    Ok(Some(footer))
}

/// Reads the list of schema elements, which is the tree of columns in depth-first order, and returns its depth. The depth
/// counts up to the first level that is too deep.
fn depth(footer: &mut Compact<'_>) -> Option<usize> {
    let (len, kind) = footer.list()?;
    // The numbers of children that are still to come, of each open group.
    let mut open: Vec<u64> = Vec::new();
    let mut deepest = 0;
    for _ in 0..len {
        if kind != STRUCT {
            return None;
        }
        let mut children = 0;
        footer.fields(|element, id, kind| match (id, kind) {
            (5, I32) => {
                // The crate keeps 32 bits.
                children = u64::try_from(element.signed()? as i32).unwrap_or(0);
                Some(())
            }
            (5, _) => None,
            _ => element.skip(kind),
        })?;
        if let Some(left) = open.last_mut() {
            *left -= 1;
        }
        open.push(children);
        deepest = deepest.max(open.len());
        if deepest > DEEPEST {
            return Some(deepest);
        }
        while open.pop_if(|left| *left == 0).is_some() {}
    }
    Some(deepest)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// A file without rows, whose only column is nested in `depth` groups.
    fn nested(depth: usize) -> Vec<u8> {
        // Version 1, and the length of the list of schema elements.
        let mut footer = vec![0x15, 2, 0x19, 0xfc];
        let (mut len, mut more) = (depth + 2, true);
        while more {
            more = len >= 0x80;
            footer.push((len & 0x7f) as u8 | if more { 0x80 } else { 0 });
            len >>= 7;
        }
        // The root: a name and one child. A group: required, a name and one child. The leaf: an INT32.
        footer.extend(b"\x48\x01r\x15\x02\x00");
        footer.extend(b"\x35\x00\x18\x01g\x15\x02\x00".repeat(depth));
        footer.extend(b"\x15\x02\x25\x00\x18\x01x\x00");
        // No rows, no row groups.
        footer.extend(b"\x16\x00\x19\x0c\x00");
        let len = (footer.len() as u32).to_le_bytes();
        [b"PAR1", footer.as_slice(), &len, b"PAR1"].concat()
    }

    fn checked(bytes: &[u8]) -> Result<(), String> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        check(&mut file).unwrap()
    }

    #[test]
    fn a_schema_is_refused_where_the_crate_would_overflow_the_stack() {
        assert_eq!(checked(&nested(DEEPEST - 2)), Ok(()));
        for depth in [DEEPEST - 1, 200_000] {
            assert!(checked(&nested(depth)).unwrap_err().contains("101 levels"), "{depth}");
        }
    }

    #[test]
    fn a_damaged_footer_is_refused_and_a_missing_one_is_not() {
        let whole = nested(3);
        for end in 0..whole.len() {
            assert_eq!(checked(&whole[..end]), Ok(()), "a file of {end} bytes has no footer");
        }
        for at in 4..whole.len() - 8 {
            let mut bytes = whole.clone();
            bytes[at] = 0xff;
            // Any outcome but a panic.
            let _ = checked(&bytes);
        }
        let mut bytes = whole;
        bytes[4] = 0x1f;
        assert_eq!(checked(&bytes), Err("its footer is damaged".to_owned()));
    }
}
