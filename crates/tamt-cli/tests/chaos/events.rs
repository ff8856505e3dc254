//! A reader of TensorBoard's event files, for the few fields that runs write.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::common::files;

/// How the names of event files begin.
pub(crate) const PREFIX: &str = "events.out.tfevents.";

/// A message of an event file.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Event {
    step: u64,
    /// Whether the run starts, again or for the first time.
    is_start: bool,
    /// The bits of the values by name.
    scalars: Vec<(String, u32)>,
}

/// The events of a file, whose records must be whole.
///
/// A record is its length (u64), a checksum of the length (u32), the message, and a checksum of the message (u32).
pub(crate) fn read(mut bytes: &[u8]) -> Result<Vec<Event>, String> {
    let mut events = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk::<8>().ok_or("a record without a length")?;
        let length = u64::from_le_bytes(*length) as usize;
        let message = rest.get(4..4 + length).filter(|_| rest.len() >= length + 8).ok_or("a record ends early")?;
        events.push(event(message).ok_or("a message ends early")?);
        bytes = &rest[length + 8..];
    }
    Ok(events)
}

/// `Event { step = 2: int64, summary = 5: Summary, session_log = 7 }`, `Summary { value = 1: repeated Value }`,
/// `Value { tag = 1: string, simple_value = 2: float }`.
fn event(message: &[u8]) -> Option<Event> {
    let mut event = Event::default();
    for (field, value) in fields(message)? {
        match (field, value) {
            (2, Field::Number(step)) => event.step = step,
            (7, Field::Bytes(_)) => event.is_start = true,
            (5, Field::Bytes(summary)) => {
                for (_, value) in fields(summary)? {
                    let Field::Bytes(value) = value else { return None };
                    let [(1, Field::Bytes(tag)), (2, Field::Number(bits))] = fields(value)?[..] else { return None };
                    event.scalars.push((String::from_utf8(tag.to_vec()).ok()?, bits as u32));
                }
            }
            _ => {}
        }
    }
    Some(event)
}

#[derive(Clone, Copy)]
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn fields(mut message: &[u8]) -> Option<Vec<(u64, Field<'_>)>> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let key = varint(&mut message)?;
        let value = match key & 7 {
            0 => Field::Number(varint(&mut message)?),
            1 => Field::Number(u64::from_le_bytes(take(&mut message, 8)?.try_into().ok()?)),
            2 => {
                let length = varint(&mut message)? as usize;
                Field::Bytes(take(&mut message, length)?)
            }
            5 => Field::Number(u32::from_le_bytes(take(&mut message, 4)?.try_into().ok()?).into()),
            _ => return None,
        };
        fields.push((key >> 3, value));
    }
    Some(fields)
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(message, 1)?[0];
        value |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn take<'a>(message: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = message.split_at_checked(count)?;
    *message = rest;
    Some(taken)
}

/// The values that TensorBoard shows of each folder below `root`, by folder, step and name: it reads files in the order
/// of their names, and where a run starts again it forgets that step and the later ones.
pub(crate) fn shown(root: &Path) -> BTreeMap<(String, u64, String), u32> {
    let mut shown: BTreeMap<(String, u64, String), u32> = BTreeMap::new();
    for (name, path) in files(root) {
        let (folder, file) = name.rsplit_once('/').unwrap_or(("", &name));
        if !file.starts_with(PREFIX) {
            continue;
        }
        for event in read(&fs::read(&path).unwrap()).unwrap() {
            if event.is_start {
                shown.retain(|(of, step, _), _| of != folder || *step < event.step);
            }
            for (tag, bits) in event.scalars {
                shown.insert((folder.to_owned(), event.step, tag), bits);
            }
        }
    }
    shown
}
