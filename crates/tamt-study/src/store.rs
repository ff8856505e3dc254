//! The store: a directory for each run, shared by plans and by workers.
//!
//! ```text
//! tickets/NAME/   losses/NAME/   tasks/NAME/     the runs
//! .study/digests.json                            digests of input files
//! .study/leases/ID/                              who works on a run
//! .study/workers/                                signs of life
//! .study/aside/                                  directories of damaged runs
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files::{create_directory, entries};
use crate::identity::Digests;
use crate::labels::Kind;
use crate::record::{Outcome, Record, TICKET_FILE};
use crate::run::{Run, Source, Ticket};

/// The folder of the store's own files.
pub const OWN: &str = ".study";

/// The state of a run in the store.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// Nothing is there.
    ToDo,
    /// A part is there.
    Started,
    /// The result is there, of the run itself or of another search that writes the same ticket.
    Done {
        /// The directory, below the store.
        directory: PathBuf,
        /// Seconds that the run took.
        seconds: f64,
    },
    /// The run ended with an error.
    Failed {
        /// The error.
        error: String,
    },
    /// The result is there and cannot be used: the run is done again.
    Damaged {
        /// The problem.
        reason: String,
    },
}

/// A store.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// Opens a store, and creates the directory if it is missing.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(root: &Path) -> Result<Self> {
        let root = std::path::absolute(root).map_err(Error::io("open", root))?;
        create_directory(&root.join(OWN))?;
        Ok(Self { root })
    }

    /// The store in a directory that may be missing.
    #[must_use]
    pub fn at(root: &Path) -> Self {
        Self { root: std::path::absolute(root).unwrap_or_else(|_| root.to_owned()) }
    }

    /// The directory of the store.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A path among the store's own files.
    #[must_use]
    pub fn own(&self, name: &str) -> PathBuf {
        self.root.join(OWN).join(name)
    }

    /// The remembered digests of input files.
    #[must_use]
    pub fn digests(&self) -> Digests {
        Digests::open(&self.own("digests.json"))
    }

    /// The directory of a run.
    #[must_use]
    pub fn directory(&self, run: &Run) -> PathBuf {
        self.root.join(run.directory())
    }

    /// The state of a run.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::UnknownFormat`].
    pub fn state(&self, run: &Run) -> Result<State> {
        for other in &run.alternatives {
            if self.holds(other)? {
                let directory = PathBuf::from(Kind::Find.folder()).join(&other.name);
                return Ok(State::Done { directory, seconds: 0.0 });
            }
        }
        let directory = self.directory(run);
        let damaged = |reason: String| Ok(State::Damaged { reason });
        let record = match Record::read(&directory) {
            Ok(Some(record)) => record,
            Ok(None) if entries(&directory)?.is_empty() => return Ok(State::ToDo),
            Ok(None) => return Ok(State::Started),
            Err(Error::Damaged { reason, .. }) => return damaged(format!("its record is damaged: {reason}")),
            Err(error) => return Err(error),
        };
        if record.id != run.id {
            return damaged(format!("it holds the run {}", record.id));
        }
        if record.status == Outcome::Failed {
            return Ok(State::Failed { error: record.error.unwrap_or_default() });
        }
        if let Some(reason) = record.damage(&directory)? {
            return damaged(reason);
        }
        if let Some(folder) = run.folders().find(|folder| !directory.join(folder).join(TICKET_FILE).is_file()) {
            return damaged(format!("the plan asks for its ticket {folder}, which it did not write"));
        }
        Ok(State::Done { directory: run.directory(), seconds: record.seconds })
    }

    /// Whether a search is done and holds a ticket.
    fn holds(&self, source: &Source) -> Result<bool> {
        let directory = self.root.join(Kind::Find.folder()).join(&source.name);
        let is_there = match &source.folder {
            None => directory.join(TICKET_FILE).is_file(),
            Some(folder) => directory.join(folder).join(TICKET_FILE).is_file(),
        };
        if !is_there {
            return Ok(false);
        }
        match Record::read(&directory) {
            Ok(record) => Ok(record.is_some_and(|record| record.status == Outcome::Done && record.id == source.run)),
            Err(Error::Damaged { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A finished search that holds a ticket, and the ticket's folder; `None` if there is none yet.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::UnknownFormat`].
    pub fn find(&self, ticket: &Ticket) -> Result<Option<(Source, PathBuf)>> {
        for source in &ticket.sources {
            if self.holds(source)? {
                return Ok(Some((source.clone(), self.root.join(Kind::Find.folder()).join(source.label()))));
            }
        }
        Ok(None)
    }

    /// Moves the directory of a run aside, where nothing reads it any more, so that the run can begin anew.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn set_aside(&self, run: &Run) -> Result<()> {
        let (from, folder) = (self.directory(run), self.own("aside").join(run.kind.folder()));
        let rename = || {
            create_directory(&folder)?;
            let free = (1..).map(|n| folder.join(format!("{}-{n}", run.name))).find(|path| !path.exists());
            let to = free.unwrap_or_else(|| folder.join(&run.name));
            fs::rename(&from, &to).map_err(Error::io("rename", &from))
        };
        match rename() {
            // The --prune of another process has removed the folder between its creation and the renaming.
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => rename(),
            outcome => outcome,
        }
    }

    /// Tickets on the way that the directory of a search has, by steps.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn steps_in(&self, run: &Run) -> Result<Vec<u64>> {
        let names = entries(&self.directory(run))?;
        Ok(names.iter().filter_map(|name| name.strip_prefix("step-")?.parse().ok()).collect())
    }

    /// The names of all directories of runs, by kind.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn directories(&self) -> Result<Vec<PathBuf>> {
        let mut all = Vec::new();
        for kind in Kind::ALL {
            let folder = PathBuf::from(kind.folder());
            all.extend(entries(&self.root.join(&folder))?.into_iter().map(|name| folder.join(name)));
        }
        Ok(all)
    }
}
