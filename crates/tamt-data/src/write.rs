//! Writing of files by atomic rename.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use crate::error::{Result, io_error};

/// Prefix of temporary files, as in `tamt_model::write::atomic_write`: a folder may hold left-over files of this name.
pub(crate) const TEMPORARY: &str = ".tmp-";

/// Writes a file atomically: also after a crash, `path` holds either all of the new contents or the old ones. `contents`
/// writes to a temporary file in the same directory, which is flushed to disk and then renamed. The directory must exist.
///
/// # Errors
///
/// [`Error::Io`](crate::Error::Io) with `path`, which then keeps its old contents.
pub(crate) fn atomic_write(path: &Path, contents: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    write_and_rename(path, contents).map_err(io_error("write", path))
}

fn write_and_rename(path: &Path, contents: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let dir = match path.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY);
    // Temporary files are private by default; the umask determines who may read the file.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    // `temp` removes the file on each early return.
    let temp = builder.tempfile_in(dir)?;
    let mut out = BufWriter::new(temp.as_file());
    contents(&mut out)?;
    out.flush()?;
    drop(out);
    temp.as_file().sync_all()?;
    temp.persist(path).map_err(|e| e.error)?;
    // The sync of the directory makes the rename durable. Systems that cannot open a directory need no sync.
    if let Ok(dir) = File::open(dir) {
        dir.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_a_failure_leaves_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vocab.txt");
        atomic_write(&path, |out| out.write_all(b"old")).unwrap();
        atomic_write(&path, |out| out.write_all(b"new")).unwrap();
        let error = atomic_write(&path, |out| {
            out.write_all(&[0; 1 << 16])?;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert!(error.unwrap_err().to_string().contains("vocab.txt"));
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
