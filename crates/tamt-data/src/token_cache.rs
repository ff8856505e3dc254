//! A folder with the tokens of texts, so that each text is tokenized once.
//!
//! An entry is a file, named by the digest of all that decides the tokens: text, tokenizer, and version of this format
//! and crate. The file is a line of JSON, then the ids, little-endian in 2 or 4 bytes. An entry appears by rename and
//! never changes, so processes share the folder without a lock. The time of an entry's last modification is that of its
//! last use.

use std::fs::{self, File, FileTimes};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tamt_files::digest::{hex, sha256_hex};

use crate::lines::LONGEST_LINE;
use crate::write::atomic_write;

/// Version of the files, and of the rules by which text becomes tokens.
const FORMAT: u32 = 1;

const EXTENSION: &str = "tokens";

/// The longest header that is read.
const LONGEST_HEADER: u64 = 1 << 20;

/// The text files that an entry names; the number of others follows.
const NAMED: usize = 8;

/// Bytes that are converted at a time, a multiple of 4.
const BLOCK: usize = 1 << 20;

/// The age of a temporary file that no process writes any more.
const ABANDONED: Duration = Duration::from_secs(3600);

/// A folder of stored tokens, with a bound on its size.
#[derive(Clone, Debug)]
pub struct TokenCache {
    folder: PathBuf,
    /// Bytes of all entries.
    limit: u64,
}

/// An entry of a [`TokenCache`], for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The file.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// The time of its last use.
    pub used: SystemTime,
    /// The names of the text files; none if the entry is damaged.
    pub files: Vec<String>,
    /// Number of tokens; `None` if the entry is damaged.
    pub tokens: Option<u64>,
}

/// What a text is made of.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) tokens: Vec<u32>,
    pub(crate) lines: usize,
    pub(crate) cut_lines: usize,
}

/// The first line of an entry.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    /// The key, against renamed files.
    key: String,
    tokens: u64,
    bytes_per_token: usize,
    lines: usize,
    cut_lines: usize,
    /// SHA-256 of the other numbers and of the ids' bytes.
    sha256: String,
    files: Vec<String>,
}

impl TokenCache {
    /// The cache in `folder`, which need not exist. Of its entries, the longest unused ones are removed while all have
    /// more than `limit` bytes.
    pub fn new(folder: impl Into<PathBuf>, limit: u64) -> Self {
        Self { folder: folder.into(), limit }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Bytes that all entries may have.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// The entries, the latest used first. A folder that does not exist has none.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn stored(&self) -> io::Result<Vec<Stored>> {
        let stored = |(path, bytes, used): (PathBuf, u64, SystemTime)| {
            let header =
                File::open(&path).and_then(|file| Header::read(&mut BufReader::new(file)).map(|(h, _)| h)).ok();
            let (files, tokens) = header.map(|header| (header.files, header.tokens)).unzip();
            Stored { path, bytes, used, files: files.unwrap_or_default(), tokens }
        };
        Ok(self.files()?.into_iter().map(stored).collect())
    }

    /// Removes all entries, and what writers left that are gone. Returns the number of removed entries and their bytes.
    ///
    /// # Errors
    /// If the folder cannot be read or a file cannot be removed.
    pub fn clear(&self) -> io::Result<(usize, u64)> {
        let (mut removed, mut freed) = (0, 0);
        for (path, bytes, _) in self.files()? {
            match fs::remove_file(&path) {
                Ok(()) => (removed, freed) = (removed + 1, freed + bytes),
                // Another process was faster.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        self.remove_abandoned();
        Ok((removed, freed))
    }

    /// The tokens of a text, by the digests of text and tokenizer; `None` if there is no entry.
    ///
    /// # Errors
    /// What is wrong with a damaged entry, in a sentence.
    pub(crate) fn get(&self, text: &str, tokenizer: &str) -> Result<Option<Entry>, String> {
        let key = key(text, tokenizer);
        let path = self.path(&key);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("cannot read the stored tokens {}: {error}", path.display())),
        };
        let entry = read_entry(&file, &key)
            .map_err(|problem| format!("the stored tokens {} are damaged: {problem}", path.display()))?;
        // A failure makes the entry look unused, and costs no more than its early removal.
        let _ = file.set_times(FileTimes::new().set_modified(SystemTime::now()));
        Ok(Some(entry))
    }

    /// Stores the tokens of a text that `files` hold, unless they alone exceed the limit. Then removes the longest unused
    /// entries above the limit.
    ///
    /// # Errors
    /// Why the tokens cannot be stored, in a sentence.
    pub(crate) fn put(&self, text: &str, tokenizer: &str, files: &[PathBuf], entry: &Entry) -> Result<(), String> {
        let key = key(text, tokenizer);
        let width = if entry.tokens.iter().all(|&id| id <= u32::from(u16::MAX)) { 2 } else { 4 };
        let header = Header {
            tokens: entry.tokens.len() as u64,
            bytes_per_token: width,
            lines: entry.lines,
            cut_lines: entry.cut_lines,
            sha256: String::new(),
            files: names(files),
            key,
        };
        let mut hasher = header.hasher();
        encode(&entry.tokens, width, |bytes| {
            hasher.update(bytes);
            Ok(())
        })
        .map_err(|error| error.to_string())?;
        let header = Header { sha256: hex(&hasher.finalize()), ..header };
        let line = serde_json::to_string(&header).map_err(|error| error.to_string())?;
        let bytes = line.len() as u64 + 1 + header.tokens * width as u64;
        if bytes > self.limit {
            return Err(format!("they have {bytes} bytes, and {} may hold {}", self.folder.display(), self.limit));
        }
        let cannot = |error: io::Error| format!("cannot write to {}: {error}", self.folder.display());
        fs::create_dir_all(&self.folder).map_err(cannot)?;
        let path = self.path(&header.key);
        let written = atomic_write(&path, |out| {
            writeln!(out, "{line}")?;
            encode(&entry.tokens, width, |bytes| out.write_all(bytes))
        });
        written.map_err(|error| match std::error::Error::source(&error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        })?;
        self.remove_unused(&path).map_err(cannot)
    }

    fn path(&self, key: &str) -> PathBuf {
        self.folder.join(key).with_extension(EXTENSION)
    }

    /// Path, size and time of last use of all entries, the latest used first.
    fn files(&self) -> io::Result<Vec<(PathBuf, u64, SystemTime)>> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut files = Vec::new();
        for entry in entries {
            let path = entry?.path();
            // Another process may have removed the file.
            let Ok(metadata) = fs::metadata(&path) else { continue };
            if metadata.is_file() && path.extension().is_some_and(|extension| extension == EXTENSION) {
                files.push((path, metadata.len(), metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH)));
            }
        }
        files.sort_by(|(a, _, x), (b, _, y)| y.cmp(x).then_with(|| a.cmp(b)));
        Ok(files)
    }

    /// Removes the longest unused entries above the limit, but not `new`.
    fn remove_unused(&self, new: &Path) -> io::Result<()> {
        self.remove_abandoned();
        let mut kept = fs::metadata(new).map_or(0, |metadata| metadata.len());
        for (path, bytes, _) in self.files()?.into_iter().filter(|(path, ..)| path != new) {
            kept = kept.saturating_add(bytes);
            if kept > self.limit {
                // A reader that has opened the file reads on; a file that stays is removed next time.
                let _ = fs::remove_file(path);
            }
        }
        Ok(())
    }

    /// Removes temporary files of processes that ended while they wrote.
    fn remove_abandoned(&self) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let age =
                entry.metadata().and_then(|metadata| metadata.modified()).ok().and_then(|time| time.elapsed().ok());
            let is_temporary = tamt_files::is_temporary(&entry.file_name().to_string_lossy());
            if is_temporary && age.is_some_and(|age| age > ABANDONED) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// The digest of all that decides the tokens of a text.
fn key(text: &str, tokenizer: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let all = format!("{FORMAT} {version} {LONGEST_LINE} {tokenizer} {text}");
    sha256_hex([all.as_bytes()])
}

fn names(files: &[PathBuf]) -> Vec<String> {
    let mut names: Vec<String> = files.iter().take(NAMED).map(|file| file.to_string_lossy().into_owned()).collect();
    if files.len() > NAMED {
        names.push(format!("{} more", files.len() - NAMED));
    }
    names
}

impl Header {
    /// The header at the start of an entry, and its bytes.
    fn read(entry: &mut impl BufRead) -> io::Result<(Self, u64)> {
        let mut line = Vec::new();
        let bytes = entry.take(LONGEST_HEADER).read_until(b'\n', &mut line)?;
        Ok((serde_json::from_slice(&line)?, bytes as u64))
    }

    /// The digest of the numbers, to be continued with the ids.
    fn hasher(&self) -> Sha256 {
        let Self { key, tokens, bytes_per_token, lines, cut_lines, .. } = self;
        Sha256::new_with_prefix(format!("{key} {tokens} {bytes_per_token} {lines} {cut_lines}\n"))
    }
}

/// The entry in a file, checked against its digest.
fn read_entry(file: &File, key: &str) -> Result<Entry, String> {
    let length = file.metadata().map_err(|error| error.to_string())?.len();
    let mut reader = BufReader::with_capacity(BLOCK, file);
    let (header, start) = Header::read(&mut reader).map_err(|error| format!("the first line: {error}"))?;
    if header.key != *key {
        return Err("they belong to another text".to_owned());
    }
    let width = header.bytes_per_token;
    let bytes = header.tokens.checked_mul(width as u64);
    // The size of the file bounds the memory that a header can claim.
    if ![2, 4].contains(&width) || bytes.and_then(|bytes| bytes.checked_add(start)) != Some(length) {
        return Err(format!("the file has {length} bytes"));
    }
    let mut hasher = header.hasher();
    let mut tokens = Vec::with_capacity(usize::try_from(header.tokens).map_err(|error| error.to_string())?);
    let (mut block, mut left) = (vec![0; BLOCK], length - start);
    while left > 0 {
        let part = &mut block[..left.min(BLOCK as u64) as usize];
        reader.read_exact(part).map_err(|error| error.to_string())?;
        hasher.update(&*part);
        decode(part, width, &mut tokens);
        left -= part.len() as u64;
    }
    if hex(&hasher.finalize()) != header.sha256 {
        return Err("they do not have the recorded SHA-256".to_owned());
    }
    Ok(Entry { tokens, lines: header.lines, cut_lines: header.cut_lines })
}

/// Gives the bytes of the ids to `write`, block by block.
fn encode(tokens: &[u32], width: usize, mut write: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut block = Vec::with_capacity(BLOCK);
    for tokens in tokens.chunks(BLOCK / 4) {
        block.clear();
        match width {
            2 => block.extend(tokens.iter().flat_map(|&id| (id as u16).to_le_bytes())),
            _ => block.extend(tokens.iter().flat_map(|id| id.to_le_bytes())),
        }
        write(&block)?;
    }
    Ok(())
}

fn decode(bytes: &[u8], width: usize, tokens: &mut Vec<u32>) {
    match width {
        2 => tokens.extend(bytes.as_chunks::<2>().0.iter().map(|&id| u32::from(u16::from_le_bytes(id)))),
        _ => tokens.extend(bytes.as_chunks::<4>().0.iter().map(|&id| u32::from_le_bytes(id))),
    }
}
