//! Damaged files: truncated, with flipped bits, with random bytes. A damaged file gives an error that names the file, or
//! skipped rows, but no panic and no printed message of a caught panic.

use std::fs;
use std::panic;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use tamt_data::Error;
use tamt_data::squad::Dataset;
use tamt_data::tasks::{Split, Task, read};
use tempfile::TempDir;

/// Number of panics that reach the panic hook and so are printed.
static PANICS: AtomicUsize = AtomicUsize::new(0);

fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANICS.fetch_add(1, Ordering::Relaxed);
            before(info);
        }));
    });
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// A file under test, and its task.
struct Victim {
    dir: TempDir,
    file: &'static str,
    task: Task,
    split: Split,
    bytes: Vec<u8>,
    /// Rows or questions in the undamaged file.
    rows: usize,
}

impl Victim {
    fn new(file: &'static str, task: Task, split: Split, bytes: Vec<u8>) -> Self {
        count_panics();
        let mut victim = Self { dir: tempfile::tempdir().unwrap(), file, task, split, bytes, rows: 0 };
        victim.rows = victim.read(&victim.bytes).unwrap_or_else(|e| panic!("undamaged, {file} is read: {e}"));
        victim
    }

    /// Number of rows or questions in the file, skipped ones included.
    fn read(&self, bytes: &[u8]) -> Result<usize, Error> {
        let path = self.dir.path().join(self.file);
        // Some file systems sync a file on overwriting, but not on removal.
        let _ = fs::remove_file(&path);
        fs::write(&path, bytes).unwrap();
        if self.file.ends_with(".json") {
            return Dataset::read(&self.task, self.dir.path(), self.split).map(|dataset| dataset.questions.len());
        }
        read(&self.task, self.dir.path(), self.split).map(|examples| examples.items.len() + examples.skipped.len())
    }

    /// Reads the damaged file. An error must name the file, and the number of rows must not exceed the number of bytes.
    fn survives(&self, bytes: &[u8], what: impl Fn() -> String) {
        match self.read(bytes) {
            Ok(rows) => assert!(rows <= self.rows.max(bytes.len()), "{} {}: {rows} rows", self.file, what()),
            Err(error) => assert!(error.to_string().contains(self.file), "{} {}: {error}", self.file, what()),
        }
    }

    /// Tries each truncation, and each flipped bit of every `step`th byte.
    fn survives_everything(&self, step: usize) {
        for end in (0..self.bytes.len()).step_by(step) {
            self.survives(&self.bytes[..end], || format!("cut to {end}"));
        }
        let mut bytes = self.bytes.clone();
        for at in (0..bytes.len()).step_by(step) {
            for bit in 0..8 {
                bytes[at] ^= 1 << bit;
                self.survives(&bytes, || format!("bit {bit} of byte {at}"));
                bytes[at] ^= 1 << bit;
            }
        }
        assert_eq!(PANICS.load(Ordering::Relaxed), 0, "panics were printed");
    }
}

fn glue(name: &str) -> Task {
    Task::by_name(name).unwrap().clone()
}

fn own(file: &str, text: &str) -> Task {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("task.toml");
    let declaration = format!(
        "name = \"own\"\nkind = \"classification\"\nlabels = [\"0\", \"1\", \"2\"]\n[files]\ntrain = \"{file}\"\n\
         [columns]\nfirst = \"{text}\"\nlabel = \"stars\"\n"
    );
    fs::write(&path, declaration).unwrap();
    Task::from_file(&path).unwrap()
}

fn hub(file: &str) -> Vec<u8> {
    fs::read(fixtures().join("hub").join(file)).unwrap()
}

#[test]
fn parquet_files_of_the_hub_survive_every_flipped_bit_and_every_cut() {
    for (file, task, split, original) in [
        ("test_matched-plain.parquet", "mnli", Split::Test, "mnli/test_matched-00000-of-00001.parquet"),
        ("train-zstd.parquet", "mnli", Split::Train, "mnli/train-00000-of-00002.parquet"),
        ("train-snappy.parquet", "mnli", Split::Train, "mnli/train-00001-of-00002.parquet"),
        ("validation-float.parquet", "stsb", Split::Dev, "stsb/validation-00000-of-00001.parquet"),
    ] {
        Victim::new(file, glue(task), split, hub(original)).survives_everything(1);
    }
}

#[test]
fn parquet_files_of_all_encodings_survive_flipped_bits_and_cuts() {
    for file in
        ["delta_1.parquet", "delta_2.parquet", "delta_length_1.parquet", "dictionary_2.parquet", "plain_2.parquet"]
    {
        let bytes = hub(&format!("own/{file}"));
        Victim::new(file, own(file, "text"), Split::Train, bytes).survives_everything(11);
    }
}

#[test]
fn text_files_survive_every_flipped_bit_and_every_cut() {
    let tsv = "index\tsentence1\tsentence2\tlabel\r\n0\ta \"map\t\u{e9}tude\tentailment\r\n1\tb\tc\tnot_entailment\r\n";
    Victim::new("train.tsv", glue("rte"), Split::Train, tsv.into()).survives_everything(1);
    let cola = "\u{feff}gj04\t1\t\tOne.\ngj04\t0\t*\tTwo the.\n";
    Victim::new("dev.tsv", glue("cola"), Split::Dev, cola.into()).survives_everything(1);
    let csv = "text,stars\n\"a, \"\"b\"\"\nc\",1\n\nplain,0\n";
    Victim::new("data.csv", own("data.csv", "text"), Split::Train, csv.into()).survives_everything(1);
    let jsonl =
        "{\"text\": \"a \\u00e9 \\\"b\\\"\", \"stars\": 1}\n\n{\"stars\": \"2\", \"text\": \"b\", \"x\": [{}, 1e3]}\n";
    Victim::new("data.jsonl", own("data.jsonl", "text"), Split::Train, jsonl.into()).survives_everything(1);
}

#[test]
fn squad_files_survive_every_flipped_bit_and_every_cut() {
    let squad = r#"{"version": "v2.0", "data": [{"title": "t", "paragraphs": [
        {"context": "A caf\u00e9 in Zürich kept her map.", "qas": [
            {"id": "1", "question": "where", "answers": [{"text": "Zürich", "answer_start": 10}], "is_impossible": false},
            {"id": "2", "question": "why", "answers": [], "is_impossible": true}]}]}]}"#;
    Victim::new("dev-v2.0.json", glue("squad2"), Split::Dev, squad.into()).survives_everything(1);
}

proptest! {
    #[test]
    fn bytes_at_random_make_no_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        count_panics();
        let dir = tempfile::tempdir().unwrap();
        for (file, name) in [("train.tsv", "sst2"), ("train-a.parquet", "rte"), ("train-v1.1.json", "squad")] {
            fs::write(dir.path().join(file), &bytes).unwrap();
            let _ = read(&glue(name), dir.path(), Split::Train);
            let _ = Dataset::read(&glue(name), dir.path(), Split::Train);
        }
        for file in ["data.csv", "data.jsonl"] {
            fs::write(dir.path().join(file), &bytes).unwrap();
            let _ = read(&own(file, "text"), dir.path(), Split::Train);
        }
        prop_assert_eq!(PANICS.load(Ordering::Relaxed), 0);
    }

    /// Several damages at once reach other code than a single one.
    #[test]
    fn a_parquet_file_survives_several_damages(
        damages in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 2..6),
        which in any::<prop::sample::Index>(),
    ) {
        let file = *which.get(&["delta_1.parquet", "dictionary_2.parquet", "plain_1.parquet"]);
        let victim = Victim::new(file, own(file, "text"), Split::Train, hub(&format!("own/{file}")));
        let mut bytes = victim.bytes.clone();
        for (at, byte) in damages {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        victim.survives(&bytes, || "damaged in several places".to_owned());
        prop_assert_eq!(PANICS.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn lines_of_tabs_and_words_make_no_reader_panic(text in "([a1]{0,2}[\t\r\n\"]{0,2}){0,30}") {
        let dir = tempfile::tempdir().unwrap();
        for (file, name) in [("train.tsv", "cola"), ("dev.tsv", "stsb")] {
            fs::write(dir.path().join(file), &text).unwrap();
            for split in Split::ALL {
                let _ = read(&glue(name), dir.path(), split);
            }
        }
    }
}
