//! Stored tokens of texts.

use std::cell::RefCell;
use std::fs::{self, File, FileTimes};
use std::path::{Path, PathBuf};
use std::slice::from_ref;
use std::time::{Duration, SystemTime};

use tamt_data::{Corpus, ReadOptions, ReadStage, TokenCache, Tokenizer};
use tempfile::TempDir;

fn tokenizer(name: &str) -> Tokenizer {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    Tokenizer::from_dir(&dir).unwrap()
}

/// A folder with texts and a cache.
struct Place {
    dir: TempDir,
    cache: TokenCache,
}

/// What a reading did.
struct Outcome {
    corpus: Corpus,
    has_tokenized: bool,
    notes: Vec<String>,
}

impl Place {
    fn new(limit: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cache = TokenCache::new(dir.path().join("cache/tokens"), limit);
        Self { dir, cache }
    }

    /// A text of more than 64 KiB that begins with `name`.
    fn text(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        let lines: String = (0..3000).map(|i| format!("the keeper kept map {i} of the river\n")).collect();
        fs::write(&path, format!("{name}\n{lines}")).unwrap();
        path
    }

    fn read(&self, files: &[PathBuf], tokenizer: &Tokenizer) -> Outcome {
        let (has_tokenized, notes) = (RefCell::new(false), RefCell::new(Vec::new()));
        let progress = |read: tamt_data::ReadProgress| {
            *has_tokenized.borrow_mut() |= read.stage == ReadStage::Tokenize;
        };
        let note = |text: &str| notes.borrow_mut().push(text.to_owned());
        let options = ReadOptions { progress: Some(&progress), cache: Some(&self.cache), note: Some(&note) };
        let corpus = Corpus::read(files, tokenizer, options).unwrap();
        Outcome { corpus, has_tokenized: has_tokenized.into_inner(), notes: notes.into_inner() }
    }

    fn entries(&self) -> Vec<PathBuf> {
        self.cache.stored().unwrap().into_iter().map(|entry| entry.path).collect()
    }
}

#[test]
fn a_text_is_tokenized_once_whatever_its_name() {
    let (place, t) = (Place::new(u64::MAX), tokenizer("bert"));
    let text = place.text("one");
    let want = Corpus::read(from_ref(&text), &t, ReadOptions::default()).unwrap();
    let first = place.read(from_ref(&text), &t);
    let copy = place.dir.path().join("copy");
    fs::rename(&text, &copy).unwrap();
    let second = place.read(&[copy], &t);
    assert!(first.has_tokenized && !second.has_tokenized);
    assert_eq!((&first.corpus, &second.corpus), (&want, &want));
    assert!(first.notes.is_empty() && second.notes.is_empty(), "{:?}", second.notes);
    let stored = place.cache.stored().unwrap();
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[0].tokens, Some(want.tokens.len() as u64));
    assert_eq!(stored[0].files, [text.to_str().unwrap()]);
}

#[test]
fn another_text_or_tokenizer_has_tokens_of_its_own() {
    let place = Place::new(u64::MAX);
    let text = place.text("one");
    for name in ["bert", "bert_json", "roberta"] {
        let t = tokenizer(name);
        let want = Corpus::read(from_ref(&text), &t, ReadOptions::default()).unwrap();
        assert_eq!(place.read(from_ref(&text), &t).corpus, want, "{name}");
        assert_eq!(place.read(from_ref(&text), &t).corpus, want, "{name}");
    }
    // The same name and size with other bytes.
    let t = tokenizer("bert");
    let mut bytes = fs::read(&text).unwrap();
    bytes[..3].copy_from_slice(b"map");
    fs::write(&text, bytes).unwrap();
    let want = Corpus::read(from_ref(&text), &t, ReadOptions::default()).unwrap();
    let other = place.read(&[text], &t);
    assert!(other.has_tokenized);
    assert_eq!(other.corpus, want);
}

#[test]
fn the_same_bytes_in_other_files_are_other_lines() {
    let (place, t) = (Place::new(u64::MAX), tokenizer("bert"));
    let whole = place.text("one");
    let bytes = fs::read(&whole).unwrap();
    // The first part ends within a line, and a line ends with its file.
    let middle = bytes.len() / 2 + bytes[bytes.len() / 2..].iter().position(|&byte| byte == b' ').unwrap();
    let parts = ["first", "second"].map(|name| place.dir.path().join(name));
    fs::write(&parts[0], &bytes[..middle]).unwrap();
    fs::write(&parts[1], &bytes[middle..]).unwrap();
    let want = Corpus::read(&parts, &t, ReadOptions::default()).unwrap();
    assert!(place.read(&[whole], &t).has_tokenized);
    let read = place.read(&parts, &t);
    assert!(read.has_tokenized && read.corpus == want);
    assert!(!place.read(&parts, &t).has_tokenized);
}

#[test]
fn a_damaged_entry_is_made_again_and_said_to_be_damaged() {
    let (place, t) = (Place::new(u64::MAX), tokenizer("bert"));
    let text = place.text("one");
    let want = place.read(from_ref(&text), &t).corpus;
    let entry = place.entries().remove(0);
    let good = fs::read(&entry).unwrap();
    let header = good.iter().position(|&byte| byte == b'\n').unwrap();
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    let text_of_header = String::from_utf8(good[..header].to_vec()).unwrap();
    let claims = |from: &str, to: &str| {
        assert!(text_of_header.contains(from));
        [text_of_header.replace(from, to).as_bytes(), &good[header..]].concat()
    };
    let tokens = format!("\"tokens\":{}", want.tokens.len());
    let damages = [
        vec![],
        b"\n".to_vec(),
        good[..header / 2].to_vec(),
        good[..good.len() - 1].to_vec(),
        [&good[..], b"x"].concat(),
        flipped(header + 1),
        flipped(good.len() - 1),
        claims(&tokens, "\"tokens\":18446744073709551615"),
        claims(&tokens, "\"tokens\":4611686018427387904"),
        claims("\"lines\":3001", "\"lines\":3000"),
        claims("\"bytes_per_token\":2", "\"bytes_per_token\":0"),
        claims("\"key\":\"", "\"key\":\"0"),
    ];
    for (number, damage) in damages.into_iter().enumerate() {
        fs::write(&entry, damage).unwrap();
        let read = place.read(from_ref(&text), &t);
        assert!(read.has_tokenized, "{number}");
        assert_eq!(read.corpus, want, "{number}");
        assert!(matches!(&*read.notes, [note] if note.contains("damaged")), "{number}: {:?}", read.notes);
        assert_eq!(fs::read(&entry).unwrap(), good, "{number}");
    }
}

#[test]
fn the_longest_unused_entries_are_removed_above_the_limit() {
    let (place, t) = (Place::new(u64::MAX), tokenizer("bert"));
    let texts = ["one", "two", "three"].map(|name| place.text(name));
    let used = |path: &Path, seconds: u64| {
        let time = SystemTime::now() - Duration::from_secs(seconds);
        File::open(path).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();
    };
    place.read(&texts[..1], &t);
    let one = place.entries().remove(0);
    place.read(&texts[1..2], &t);
    let two = place.entries().into_iter().find(|path| *path != one).unwrap();
    used(&one, 200);
    used(&two, 100);
    // A use makes `one` younger than `two`.
    assert!(!place.read(&texts[..1], &t).has_tokenized);
    let size = fs::metadata(&one).unwrap().len();
    let small = Place { cache: TokenCache::new(place.cache.folder(), 2 * size + size / 2), dir: place.dir };
    assert!(small.read(&texts[2..], &t).has_tokenized);
    assert!(one.exists() && !two.exists());
    assert_eq!(small.entries().len(), 2);

    // What alone exceeds the limit is not kept, and nothing is removed for it.
    let tiny = Place { cache: TokenCache::new(small.cache.folder(), size / 2), dir: small.dir };
    let read = tiny.read(&texts[1..2], &t);
    assert!(matches!(&*read.notes, [note] if note.contains("not kept")), "{:?}", read.notes);
    assert_eq!(tiny.entries().len(), 2);
}

#[test]
fn a_folder_that_cannot_be_written_costs_only_a_note() {
    let (place, t) = (Place::new(u64::MAX), tokenizer("bert"));
    fs::write(place.dir.path().join("cache"), "a file").unwrap();
    let read = place.read(&[place.text("one")], &t);
    assert!(read.has_tokenized && !read.notes.is_empty());
    assert!(read.notes.iter().any(|note| note.contains("not kept for later runs")), "{:?}", read.notes);
}

#[test]
fn readers_and_writers_share_the_folder_without_a_lock() {
    let (place, t) = (Place::new(200_000), tokenizer("bert"));
    let texts: Vec<PathBuf> = ["one", "two", "three"].iter().map(|name| place.text(name)).collect();
    let wants: Vec<Corpus> =
        texts.iter().map(|text| Corpus::read(from_ref(text), &t, ReadOptions::default()).unwrap()).collect();
    // The limit holds two of the three, so entries come and go while others read them.
    std::thread::scope(|scope| {
        for first in 0..4 {
            let (texts, wants, t, cache) = (&texts, &wants, &t, &place.cache);
            scope.spawn(move || {
                for turn in 0..6 {
                    let number = (first + turn) % 3;
                    let noted = |text: &str| panic!("{text}");
                    let options = ReadOptions { cache: Some(cache), note: Some(&noted), ..ReadOptions::default() };
                    assert_eq!(Corpus::read(&texts[number..=number], t, options).unwrap(), wants[number]);
                }
            });
        }
    });
    let bytes: u64 = place.cache.stored().unwrap().iter().map(|entry| entry.bytes).sum();
    assert!(bytes <= 200_000, "{bytes}");
}

#[test]
fn clearing_removes_entries_and_what_gone_writers_left_and_nothing_else() {
    let (place, t) = (Place::new(u64::MAX), tokenizer("bert"));
    place.read(&[place.text("one")], &t);
    place.read(&[place.text("two")], &t);
    let folder = place.cache.folder();
    for (name, age) in [(".tmp-oldold", 7200), (".tmp-newnew", 1), ("mine.txt", 7200)] {
        let time = SystemTime::now() - Duration::from_secs(age);
        let file = File::create(folder.join(name)).unwrap();
        file.set_times(FileTimes::new().set_modified(time)).unwrap();
    }
    let (removed, bytes) = place.cache.clear().unwrap();
    assert_eq!(removed, 2);
    assert!(bytes > 0);
    let mut left: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, [".tmp-newnew", "mine.txt"]);
    assert_eq!(TokenCache::new(place.dir.path().join("none"), 1).clear().unwrap(), (0, 0));
}
