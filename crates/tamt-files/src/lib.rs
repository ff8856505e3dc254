//! Files that appear whole or not at all, their digests, what a file is by its bytes, and names that several crates know.
//! The workspace's crates write their results by [`atomic_write`]; logs and downloads grow, and leases of a study have a
//! protocol of their own.

pub mod digest;
pub mod kind;
pub mod names;
pub mod text;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How the names of temporary files begin. Six random letters and digits follow.
const PREFIX: &str = ".tmp-";

/// Whether [`atomic_write`] gives such names to temporary files. A process that is killed leaves such a file behind.
pub fn is_temporary(name: &str) -> bool {
    let random = name.strip_prefix(PREFIX).unwrap_or_default();
    random.len() == 6 && random.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Writes a file atomically: also after a crash, `path` holds either all of the new contents or the old ones. `contents`
/// writes to a temporary file in the same directory, which is flushed to disk and then renamed. The directory must exist.
/// Where `path` is a symbolic link, the file it leads to is written in this way, and the link stays.
///
/// # Errors
/// Those of the file system and of `contents`. `path` then keeps its old contents, unless the error is one of the last
/// step, which makes the rename durable: then `path` holds the new contents, and after a crash either.
pub fn atomic_write(path: &Path, contents: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    atomic_write_seeking(path, |file| contents(file))
}

/// A writer that goes back in its file.
pub trait WriteSeek: Write + Seek {}

impl<T: Write + Seek> WriteSeek for T {}

/// [`atomic_write`] for formats that go back in the file, such as zip.
///
/// # Errors
/// Those of [`atomic_write`].
pub fn atomic_write_seeking(
    path: &Path,
    contents: impl FnOnce(&mut dyn WriteSeek) -> io::Result<()>,
) -> io::Result<()> {
    // The rename would replace a link.
    let path = &end_of_links(path)?;
    let dir = match path.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(PREFIX);
    // Temporary files are private by default; the umask determines who may read the file.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    // `temp` removes the file on each early return.
    let (temp, _unfinished) = {
        let mut all = unfinished();
        let temp = builder.tempfile_in(dir)?;
        all.insert(temp.path().to_owned());
        let registered = Unfinished(temp.path().to_owned());
        (temp, registered)
    };
    let mut out = BufWriter::with_capacity(1 << 18, SyncedWriter { file: temp.as_file(), unsynced: 0 });
    contents(&mut out)?;
    out.flush()?;
    drop(out);
    temp.as_file().sync_all()?;
    temp.persist(path).map_err(|e| e.error)?;
    // The sync of the directory makes the rename durable. Systems that cannot open a directory need no sync, and some
    // cannot sync one.
    let Ok(dir) = File::open(dir) else { return Ok(()) };
    match dir.sync_all() {
        Err(error) if !matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Err(error),
        _ => Ok(()),
    }
}

/// Whether two paths lead to the same file: by one name, by links, or by two names of one file. False where nothing is.
#[cfg(unix)]
pub fn same_file(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |path: &Path| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino())).ok();
    identity(one).is_some_and(|one| identity(other) == Some(one))
}

/// Whether two paths lead to the same file: by one name or by symbolic links. False where nothing is.
#[cfg(not(unix))]
pub fn same_file(one: &Path, other: &Path) -> bool {
    fs::canonicalize(one).is_ok_and(|one| fs::canonicalize(other).is_ok_and(|other| one == other))
}

/// Where the symbolic link at `path` points to, and why it cannot be followed; `None` for links that can be, and for paths
/// that are no links.
pub fn broken_link(path: &Path) -> Option<(PathBuf, io::Error)> {
    let target = fs::read_link(path).ok()?;
    Some((target, fs::metadata(path).err()?))
}

/// Symbolic links that are followed one after the other, as many as Linux follows.
const MAX_LINKS: usize = 40;

/// Where a path leads to: the end of a chain of symbolic links, also where nothing is there yet. A path that is no link is
/// its own end.
fn end_of_links(path: &Path) -> io::Result<PathBuf> {
    let mut end = path.to_owned();
    for _ in 0..=MAX_LINKS {
        // What is no link, or cannot be read, is left to the operations that follow.
        let Ok(target) = fs::read_link(&end) else { return Ok(end) };
        // A relative target is relative to the directory of the link.
        end = end.parent().unwrap_or(Path::new("")).join(target);
    }
    Err(io::Error::other("too many levels of symbolic links"))
}

/// The temporary files of this process that are being written.
static UNFINISHED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn unfinished() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    // Insertions and removals are whole, so a poisoned lock still guards a consistent set.
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A temporary file among those that are being written.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        unfinished().remove(&self.0);
    }
}

/// Removes the temporary files of this process. A program calls the function from a thread of its own right ahead of
/// [`std::process::exit`], which runs no destructor. Later calls of [`atomic_write`] in this process wait for its end.
pub fn remove_unfinished() {
    let unfinished = unfinished();
    for path in unfinished.iter() {
        // A file that is gone was finished or removed in this moment.
        let _ = fs::remove_file(path);
    }
    std::mem::forget(unfinished);
}

/// Bytes that may wait for the disk at a time.
const UNSYNCED: usize = 1 << 25;

/// A writer that waits for the disk every [`UNSYNCED`] bytes: a process in a long `fsync` does not end before its return.
struct SyncedWriter<'a> {
    file: &'a File,
    unsynced: usize,
}

impl Write for SyncedWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.unsynced >= UNSYNCED {
            self.file.sync_data()?;
            self.unsynced = 0;
        }
        let written = self.file.write(&bytes[..bytes.len().min(UNSYNCED)])?;
        self.unsynced += written;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for SyncedWriter<'_> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.file.seek(position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_whole_and_a_failure_leaves_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        atomic_write(&path, |out| out.write_all(b"old")).unwrap();
        atomic_write(&path, |out| out.write_all(b"new")).unwrap();
        let error = atomic_write(&path, |out| {
            out.write_all(&[0; 1 << 20])?;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(dir.path()), ["state.json"]);
    }

    #[test]
    fn writing_into_a_directory_that_is_not_there_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gone").join("x");
        assert_eq!(atomic_write(&path, |_| Ok(())).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_file_that_is_being_written_has_a_temporary_name() {
        let dir = tempfile::tempdir().unwrap();
        atomic_write(&dir.path().join("x"), |_| {
            let [name] = names(dir.path()).try_into().expect("one file");
            assert!(is_temporary(&name), "{name}");
            Ok(())
        })
        .unwrap();
        assert!(!is_temporary("x") && !is_temporary(".tmp-notes") && !is_temporary(".tmp-a-b_c1"));
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_and_the_file_it_leads_to_is_written() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("far")).unwrap();
        fs::write(at("far/file"), "old").unwrap();
        symlink("far/second", at("first")).unwrap();
        symlink("file", at("far/second")).unwrap();
        symlink(at("far/new"), at("dangling")).unwrap();
        for (link, file) in [("first", "far/file"), ("dangling", "far/new")] {
            atomic_write(&at(link), |out| out.write_all(b"new")).unwrap();
            assert!(at(link).is_symlink(), "{link}");
            assert_eq!(fs::read(at(link)).unwrap(), b"new", "{link}");
            assert!(!at(file).is_symlink(), "{file}");
            assert_eq!(fs::read(at(file)).unwrap(), b"new", "{file}");
        }
        assert!(at("far/second").is_symlink());
        symlink("circle", at("circle")).unwrap();
        assert!(atomic_write(&at("circle"), |_| Ok(())).is_err());
        assert_eq!(names(dir.path()), ["circle", "dangling", "far", "first"]);
        assert_eq!(names(&at("far")), ["file", "new", "second"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_file_is_the_same_by_each_of_its_names() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "content").unwrap();
        fs::copy(at("file"), at("copy")).unwrap();
        fs::hard_link(at("file"), at("second")).unwrap();
        std::os::unix::fs::symlink("second", at("link")).unwrap();
        for (name, is_same) in [("file", true), ("second", true), ("link", true), ("copy", false), ("gone", false)] {
            assert_eq!(same_file(&at("file"), &at(name)), is_same, "{name}");
        }
        assert!(!same_file(&at("gone"), &at("gone")));
    }

    #[cfg(unix)]
    #[test]
    fn files_are_readable_by_others_where_the_umask_lets_them() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("plain"), "").unwrap();
        atomic_write(&dir.path().join("atomic"), |_| Ok(())).unwrap();
        let mode = |name| fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode("atomic"), mode("plain"));
    }
}
