//! Temporary files of a process that ends in the middle of its writes. The test is alone in its process, whose later writes
//! would wait for its end.

use std::sync::mpsc;
use std::{fs, io, thread};

use tamt_files::{atomic_write, remove_unfinished};

#[test]
fn what_is_being_written_is_removed_and_what_was_there_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    atomic_write(&path, |out| out.write_all(b"old")).unwrap();
    let names = || fs::read_dir(dir.path()).unwrap().count();
    let (begin, begun) = mpsc::channel();
    let new = path.clone();
    thread::spawn(move || {
        atomic_write(&new, |out| {
            out.write_all(&[1; 1 << 20])?;
            begin.send(()).map_err(io::Error::other)?;
            loop {
                thread::park();
            }
        })
    });
    begun.recv().unwrap();
    assert_eq!(names(), 2);
    remove_unfinished();
    assert_eq!(names(), 1);
    assert_eq!(fs::read(&path).unwrap(), b"old");
}
