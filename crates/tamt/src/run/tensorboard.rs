//! A writer of `TensorBoard`'s event files.

use std::io;
use std::path::Path;
use std::process;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};
use crate::run::files::entries;
use crate::run::growing::GrowingFile;

/// How the names of event files begin; `TensorBoard` finds them by this prefix.
pub(super) const FILE_PREFIX: &str = "events.out.tfevents.";

/// Writes scalars to a `TensorBoard` event file.
///
/// The file is a sequence of `TFRecord`s (`tensorflow/core/lib/io/record_writer.h`), each holding one protocol buffer
/// message `Event` (`tensorboard/compat/proto/event.proto`). The few needed fields are encoded by hand: the crates for
/// event files depend on an image decoder or a protocol buffer compiler.
#[derive(Debug)]
pub struct EventWriter {
    file: GrowingFile,
}

impl EventWriter {
    /// Creates an event file in `directory`, beside the older ones.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be created or written.
    pub fn create(directory: &Path) -> Result<Self> {
        let host = gethostname::gethostname().to_string_lossy().replace(std::path::is_separator, "_");
        // TensorBoard reads the files of a directory in the order of their names. The clock may have been set back.
        let after_others = newest(directory)?.map_or(0, |second| second.saturating_add(1));
        let second = after_others.max(wall_time() as u64);
        let base = format!("{FILE_PREFIX}{second:010}.{host}.{}", process::id());
        let mut taken = 0;
        let file = loop {
            let name = if taken == 0 { base.clone() } else { format!("{base}.{taken}") };
            let path = directory.join(name);
            match GrowingFile::create_new(&path) {
                Ok(file) => break file,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => taken += 1,
                Err(error) => return Err(Error::io("create", &path)(error)),
            }
        };
        let mut writer = Self { file };
        writer.write(&event(wall_time(), 0, &Content::FileVersion("brain.Event:2")))?;
        Ok(writer)
    }

    /// Announces that the run starts (again) at `step`: `TensorBoard` forgets that step and later ones of older files.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written.
    pub fn restart_at(&mut self, step: u64) -> Result<()> {
        self.write(&event(wall_time(), step, &Content::SessionStart))
    }

    /// Writes `values` by name as those of `step`, in single precision: the format holds no more.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written.
    pub fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> Result<()> {
        self.write(&event(wall_time(), step, &Content::Scalars(values)))
    }

    /// Waits until the disk holds everything written so far.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written.
    pub fn flush(&mut self) -> Result<()> {
        self.file.flush()
    }

    fn write(&mut self, event: &[u8]) -> Result<()> {
        self.file.append(&record(event))
    }
}

/// The latest second in the names of the event files in `directory`.
fn newest(directory: &Path) -> Result<Option<u64>> {
    let second = |name: String| name.strip_prefix(FILE_PREFIX)?.split('.').next()?.parse().ok();
    Ok(entries(directory)?.into_iter().filter_map(second).max())
}

/// Seconds since 1970.
fn wall_time() -> f64 {
    // A clock set before 1970 is no reason to stop a run.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |elapsed| elapsed.as_secs_f64())
}

/// Frames a message: its length (u64), the masked CRC-32C of the length, the message, its masked CRC-32C.
fn record(message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u64).to_le_bytes();
    [&length, &masked_crc(&length).to_le_bytes()[..], message, &masked_crc(message).to_le_bytes()].concat()
}

/// `mask(c) = rotate_right(c, 15) + 0xa282ead8`: masking avoids problems with checksums of data
/// that contains checksums.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

enum Content<'a> {
    FileVersion(&'a str),
    SessionStart,
    Scalars(&'a [(&'a str, f64)]),
}

/// `Event { wall_time = 1: double, step = 2: int64, file_version = 3, summary = 5, session_log = 7 }`; the last three
/// are alternatives.
fn event(wall_time: f64, step: u64, content: &Content<'_>) -> Vec<u8> {
    let mut message = Message::default();
    message.fixed64(1, wall_time.to_le_bytes());
    // A field with its default value is not written.
    if step != 0 {
        message.varint(2, step);
    }
    match content {
        Content::FileVersion(version) => message.bytes(3, version.as_bytes()),
        // `SessionLog { status = 1: START = 1 }`
        Content::SessionStart => {
            let mut log = Message::default();
            log.varint(1, 1);
            message.bytes(7, &log.0);
        }
        // `Summary { value = 1: repeated Value { tag = 1, simple_value = 2: float } }`
        Content::Scalars(values) => {
            let mut summary = Message::default();
            for (tag, value) in *values {
                let mut entry = Message::default();
                entry.bytes(1, tag.as_bytes());
                entry.fixed32(2, (*value as f32).to_le_bytes());
                summary.bytes(1, &entry.0);
            }
            message.bytes(5, &summary.0);
        }
    }
    message.0
}

/// A protocol buffer message under construction: fields as key (number, wire type) and payload.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn varint(&mut self, field: u64, value: u64) {
        self.raw_varint(field << 3);
        self.raw_varint(value);
    }

    fn fixed64(&mut self, field: u64, value: [u8; 8]) {
        self.raw_varint(field << 3 | 1);
        self.0.extend(value);
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.raw_varint(field << 3 | 2);
        self.raw_varint(value.len() as u64);
        self.0.extend(value);
    }

    fn fixed32(&mut self, field: u64, value: [u8; 4]) {
        self.raw_varint(field << 3 | 5);
        self.0.extend(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_follows_the_older_ones_by_its_name_whatever_the_clock_says() {
        let directory = tempfile::tempdir().unwrap();
        let older = directory.path().join(format!("{FILE_PREFIX}4000000000.host.1"));
        std::fs::write(&older, "").unwrap();
        std::fs::write(directory.path().join(format!("{FILE_PREFIX}text")), "").unwrap();
        EventWriter::create(directory.path()).unwrap();
        EventWriter::create(directory.path()).unwrap();
        let names = entries(directory.path()).unwrap();
        let seconds: Vec<_> = names.iter().filter_map(|name| name.split('.').nth(3)).collect();
        assert_eq!(seconds, ["4000000000", "4000000001", "4000000002", "text"]);
    }

    /// Expected bytes: Python `tensorboard` 2.21.0,
    /// `RecordWriter(f).write(event_pb2.Event(wall_time=.., step=.., ..).SerializeToString())`.
    #[test]
    fn records_equal_those_of_the_tensorboard_package() {
        let hex = |wall_time, step, content| -> String {
            record(&event(wall_time, step, &content)).iter().map(|byte| format!("{byte:02x}")).collect()
        };
        assert_eq!(
            hex(1_700_000_000.25, 0, Content::FileVersion("brain.Event:2")),
            "1800000000000000a37f4b220900001040fc54d9411a0d627261696e2e4576656e743a32338d2fe9"
        );
        assert_eq!(
            hex(1_700_000_000.5, 301, Content::SessionStart),
            "100000000000000095fbfe180900002040fc54d94110ad023a020801596f3f79"
        );
        assert_eq!(
            hex(1_700_000_001.75, 300, Content::Scalars(&[("train/loss", 2.5)])),
            "2100000000000000017becf60900007040fc54d94110ac022a130a110a0a747261696e2f6c6f73731500002040a72ba93e"
        );
    }
}
