//! The directory of a model, from a path or an id on the Hugging Face hub.
//!
//! Files are downloaded into the cache of Python's `huggingface_hub`, whose layout the `hf-hub` crate knows.

mod client;
mod settings;
pub(crate) mod snapshot;

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::{fs, io};

use hf_hub::{Cache, Repo, RepoType};
use tamt_files::atomic_write;

use crate::checkpoint::WEIGHT_FILES;
use crate::checkpoint::shards::ShardIndex;
use crate::digest;
use crate::error::{Error, Result, names_in, read_error, write_error};
use crate::hub::client::{Announced, Client, Failure, link_blob};
use crate::hub::snapshot::{files_beside, record_absent};
use crate::sentence::SentenceModules;

pub use crate::hub::client::Patience;
pub use crate::hub::settings::{Hub, hide_progress};

/// The first request for a model, in errors.
const FILE_LIST: &str = "the list of files";
/// The configuration file of a model directory.
const CONFIG_FILE: &str = "config.json";

/// The directory of a model. `model` is an existing directory or a hub id: `name` or `organisation/name`, with an optional
/// `@revision`. The result for a hub id is the snapshot in the cache, after a download with the settings of
/// [`Hub::from_env`].
///
/// # Errors
/// [`Error::NoSuchDirectory`], [`Error::NotADirectory`], [`Error::BrokenLink`], [`Error::NotAModel`],
/// [`Error::ModelName`], and those of [`Hub::fetch`].
pub fn resolve(model: impl AsRef<OsStr>) -> Result<PathBuf> {
    let model = model.as_ref();
    match local(model)? {
        Some(dir) => Ok(dir),
        None => Hub::from_env().fetch(&model.to_string_lossy()),
    }
}

/// Whether [`resolve`] takes `model` as a hub id: it is no directory, and not written as a path.
pub fn is_hub_id(model: impl AsRef<OsStr>) -> bool {
    matches!(local(model.as_ref()), Ok(None))
}

/// The directory `model`, or `None` if `model` may be a hub id. A name whose first part is a directory here, as in
/// `runs/kd-70`, is a path.
fn local(model: &OsStr) -> Result<Option<PathBuf>> {
    let path = PathBuf::from(model);
    if path.is_dir() {
        return model_in(path).map(Some);
    }
    // A path that is not UTF-8 is no hub id.
    let Some(model) = model.to_str() else { return Err(Error::no_directory(&path)) };
    let id = model.split_once('@').map_or(model, |(id, _)| id);
    let begins_here = id.split_once('/').is_some_and(|(first, _)| !first.is_empty() && Path::new(first).exists());
    let looks_like_a_path = model.starts_with(['.', '/', '~']) || model.ends_with('/') || id.contains('\\');
    let is_here = path.exists() || path.is_symlink();
    let is_path = looks_like_a_path || id.matches('/').count() > 1 || begins_here || is_here;
    if is_path { Err(Error::no_directory(&path)) } else { Ok(None) }
}

/// The model directory `path`, or the directory below it that `modules.json` names.
fn model_in(path: PathBuf) -> Result<PathBuf> {
    let config = path.join(CONFIG_FILE);
    if config.is_file() {
        return Ok(path);
    }
    if let Some(encoder) = SentenceModules::read(&path)?.and_then(|modules| modules.encoder())
        && encoder.join(CONFIG_FILE).is_file()
    {
        return Ok(encoder);
    }
    Err(Error::broken_link(&config).unwrap_or_else(|| Error::NotAModel { found: names_in(&path), path }))
}

impl Hub {
    /// Downloads the missing files of a model's configuration, tokenizer, sentence-transformers modules and weights, and
    /// returns their directory.
    ///
    /// Offline, or if the hub does not answer, the function returns a snapshot of the cache with configuration and weights.
    /// Another program may have left out other files; [`Model::load`](crate::Model::load) then makes a note of them.
    ///
    /// # Errors
    /// [`Error::ModelName`], [`Error::Offline`], [`Error::Hub`], [`Error::Malformed`] for a shard index, or
    /// [`Error::Read`] and [`Error::Write`] for the cache.
    pub fn fetch(&self, model: &str) -> Result<PathBuf> {
        let (id, revision) = parse_id(model)?;
        // `hf-hub` computes the relative links in the cache from absolute paths.
        let cache = std::path::absolute(&self.cache).map_err(read_error(&self.cache))?;
        let session = Session { hub: self, model, id, revision, cache: Cache::new(cache) };
        if self.offline {
            return session
                .cached()
                .ok_or_else(|| Error::Offline { model: model.to_owned(), cache: self.cache.clone() });
        }
        session.download()
    }
}

/// The id and the revision in a model's name.
fn parse_id(model: &str) -> Result<(&str, &str)> {
    let (id, revision) = model.split_once('@').unwrap_or((model, "main"));
    let invalid = |problem| Err(Error::ModelName { model: model.to_owned(), problem });
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if id.matches('/').count() > 1 {
        return invalid("an id has at most one slash");
    }
    for part in id.split('/') {
        if part.is_empty() || part.starts_with(['-', '.']) || part.ends_with(['-', '.']) {
            return invalid("a part of an id is not empty and neither starts nor ends with `-` or `.`");
        }
    }
    if !id.chars().all(|c| plain(c) || c == '/') || id.contains("--") || id.contains("..") || id.len() > 96 {
        return invalid("an id has at most 96 letters, digits, `-`, `_` and `.`, without `--` or `..`");
    }
    if revision.split('/').any(|part| part.is_empty() || part.starts_with('.'))
        || !revision.chars().all(|c| plain(c) || c == '/')
    {
        return invalid("a revision is a branch, a tag or a commit");
    }
    Ok((id, revision))
}

/// The download of one model.
struct Session<'a> {
    hub: &'a Hub,
    model: &'a str,
    id: &'a str,
    revision: &'a str,
    cache: Cache,
}

impl Session<'_> {
    fn repo(&self, revision: &str) -> Repo {
        Repo::with_revision(self.id.to_owned(), RepoType::Model, revision.to_owned())
    }

    /// The directory of the files of a commit.
    fn snapshot(&self, commit: &str) -> PathBuf {
        self.cache.repo(self.repo(commit)).pointer_path(commit)
    }

    /// The revision's snapshot in the cache, if the snapshot has configuration and weights.
    fn cached(&self) -> Option<PathBuf> {
        // A revision is a commit, or a file under `refs` holds its commit.
        let by_commit = self.snapshot(self.revision);
        let dir = if by_commit.is_dir() {
            by_commit
        } else {
            let config = self.cache.repo(self.repo(self.revision)).get(CONFIG_FILE)?;
            config.parent()?.to_owned()
        };
        let is_usable = dir.join(CONFIG_FILE).is_file() && has_weights(&dir);
        is_usable.then_some(dir)
    }

    fn download(&self) -> Result<PathBuf> {
        let Hub { endpoint, token, patience, progress, .. } = self.hub;
        let client = Client::new(endpoint, token.as_deref(), *patience, *progress);
        let cached = self.cached();
        let path = format!("api/{}", self.repo(self.revision).api_url());
        let answer = if cached.is_some() { client.impatient().revision(&path) } else { client.revision(&path) };
        let info = match answer {
            Ok(info) => info,
            Err(failure) => {
                let refused = matches!(failure, Failure::Status(401 | 403 | 404));
                return cached.filter(|_| !refused).ok_or_else(|| self.failed(FILE_LIST, failure));
            }
        };
        if info.sha.is_empty() || !info.sha.chars().all(|c| c.is_ascii_alphanumeric()) {
            return Err(self.error(FILE_LIST, format!("it names a commit `{}`", info.sha)));
        }
        let has = |name: &str| info.siblings.iter().any(|file| file.rfilename == name);

        // All files come from one commit, even if the branch changes during the download.
        let dir = self.snapshot(&info.sha);
        let fetch = |file: &str| self.download_file(&client, &info.sha, &dir, file);
        if !has(CONFIG_FILE) {
            return Err(self.error(CONFIG_FILE, "the model has no such file".to_owned()));
        }
        let Some(weights) = WEIGHT_FILES.into_iter().find(|name| has(name)) else {
            return Err(self.error("the weights", format!("the model has none of {}", WEIGHT_FILES.join(", "))));
        };
        fetch(CONFIG_FILE)?;
        for file in files_beside().filter(|name| has(name)) {
            fetch(file)?;
        }
        record_absent(&dir, has);
        for module in SentenceModules::read(&dir)?.into_iter().flat_map(|modules| modules.modules) {
            let below = format!("{}/", module.path);
            // Models in the directory of a module are not read, only settings and weights of the module itself.
            let is_own = |name: &&str| {
                let file = name.strip_prefix(&below).filter(|_| !module.path.is_empty());
                file.is_some_and(|file| ["config.json", "model.safetensors"].contains(&file))
            };
            for file in info.siblings.iter().map(|file| file.rfilename.as_str()).filter(is_own) {
                fetch(file)?;
            }
        }
        fetch(weights)?;
        if weights.ends_with(".index.json") {
            for shard in ShardIndex::read(&dir.join(weights))?.shards() {
                fetch(shard)?;
            }
        }
        // The reference is written last, so an incomplete snapshot is never used.
        self.refer_to(&info.sha)?;
        Ok(dir)
    }

    /// Records the commit of the revision, whole: another process may read the file at any time.
    fn refer_to(&self, commit: &str) -> Result<()> {
        let folder = self.cache.path().join(self.repo(self.revision).folder_name()).join("refs");
        let reference = folder.join(self.revision);
        if fs::read_to_string(&reference).is_ok_and(|recorded| recorded == commit) {
            return Ok(());
        }
        // The name of a branch may have slashes.
        fs::create_dir_all(reference.parent().unwrap_or(&folder)).map_err(write_error(&folder))?;
        atomic_write(&reference, |file| file.write_all(commit.as_bytes())).map_err(write_error(&reference))
    }

    /// Downloads one file of a commit into the snapshot `dir`, unless the file exists. The file appears after a check of
    /// its length and its digest.
    fn download_file(&self, client: &Client, commit: &str, dir: &Path, file: &str) -> Result<()> {
        let path = dir.join(file);
        if path.is_file() {
            return Ok(());
        }
        let at_hub = format!("{}/resolve/{commit}/{file}", self.id);
        let Announced { etag, size } = client.announced(&at_hub).map_err(|e| self.failed(file, e))?;
        // The entity tag becomes a file name.
        if etag.is_empty() || !etag.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
            return Err(self.error(file, format!("its entity tag is `{etag}`, not a hash")));
        }
        let blob = self.cache.repo(self.repo(self.revision)).blob_path(&etag);
        fs::create_dir_all(blob.parent().unwrap_or(&blob)).map_err(write_error(&blob))?;
        // Another process that downloads the file holds the lock.
        let lock = blob.with_extension("lock");
        let lock = File::create(&lock).and_then(|file| file.lock().map(|()| file)).map_err(write_error(&lock))?;
        if path.is_file() {
            return Ok(());
        }
        // A crash may have cut a blob that no snapshot has yet, of a program that does not wait for the disk.
        let is_whole = fs::metadata(&blob).is_ok_and(|blob| blob.is_file() && blob.len() == size);
        if !is_whole {
            self.download_blob(client, &at_hub, file, &blob, size)?;
        }
        link_blob(&blob, &path, file).map_err(write_error(&path))?;
        drop(lock);
        Ok(())
    }

    fn download_blob(&self, client: &Client, at_hub: &str, file: &str, blob: &Path, size: u64) -> Result<()> {
        let part = blob.with_extension("part");
        if fs::metadata(&part).is_ok_and(|m| m.len() > size) {
            remove(&part)?;
        }
        client.download(at_hub, &part, size).map_err(|e| self.failed(file, e))?;
        let etag = blob.file_name().and_then(OsStr::to_str).unwrap_or_default();
        if is_sha256(etag) && digest::sha256_file(&part)? != etag {
            remove(&part)?;
            let problem = "it arrived damaged: its SHA-256 is not the one the hub announced; try again".to_owned();
            return Err(self.error(file, problem));
        }
        fs::rename(&part, blob).map_err(write_error(blob))
    }

    /// Explains a failed request.
    fn failed(&self, what: &str, failure: Failure) -> Error {
        let problem = match failure {
            Failure::Status(401 | 403) if self.hub.token.is_some() => {
                "there is no such model, or the token in use (HF_TOKEN) gives no access to it".to_owned()
            }
            Failure::Status(401 | 403) => "there is no such model, or it is private or gated: set HF_TOKEN".to_owned(),
            Failure::Status(404) => {
                format!("there is no such model or no revision `{}`, nor a directory of that name", self.revision)
            }
            Failure::Status(status) => format!("the hub answered with status {status}"),
            Failure::Network(problem) if what == FILE_LIST => {
                format!("{problem}; there is no directory of that name either")
            }
            Failure::Network(problem) => format!("{problem}; another try goes on after the bytes that arrived"),
            Failure::Answer(problem) => problem,
            Failure::Write { path, source } => return Error::Write { path, source },
        };
        self.error(what, problem)
    }

    fn error(&self, what: &str, problem: String) -> Error {
        Error::Hub { model: self.model.to_owned(), what: what.to_owned(), endpoint: self.hub.endpoint.clone(), problem }
    }
}

/// Whether a directory has all its weights files.
fn has_weights(dir: &Path) -> bool {
    WEIGHT_FILES.iter().map(|name| dir.join(name)).find(|path| path.is_file()).is_some_and(|path| {
        path.extension().is_none_or(|e| e != "json")
            || ShardIndex::read(&path).is_ok_and(|index| index.shards().iter().all(|shard| dir.join(shard).is_file()))
    })
}

fn is_sha256(etag: &str) -> bool {
    etag.len() == 64 && etag.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(write_error(path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_one_or_two_parts_and_maybe_a_revision() {
        assert_eq!(parse_id("bert-base-uncased").unwrap(), ("bert-base-uncased", "main"));
        assert_eq!(parse_id("org/name@refs/pr/1").unwrap(), ("org/name", "refs/pr/1"));
        for bad in
            ["", "a/b/c", "a/", "/a", "a b", "a--b", "-a", "a/..", "a@", "a@../b", "a@b//c", "a?b", &"a".repeat(97)]
        {
            assert!(matches!(parse_id(bad), Err(Error::ModelName { .. })), "{bad}");
        }
    }

    #[test]
    fn what_looks_like_a_path_is_never_looked_for_on_the_hub() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        for path in ["./model", "../model", "/no/model", "~/model", "a/b/model", "a\\b", ".", file.to_str().unwrap()] {
            let error = local(path.as_ref());
            let is_of_a_path = matches!(
                error,
                Err(Error::NoSuchDirectory { .. } | Error::NotADirectory { .. } | Error::NotAModel { .. })
            );
            assert!(is_of_a_path, "{path}: {error:?}");
        }
        // Unit tests run in the directory of the crate, which has a directory `src`.
        for path in ["src/model", "model/"] {
            assert!(matches!(local(path.as_ref()), Err(Error::NoSuchDirectory { .. })), "{path}");
        }
        assert!(matches!(local("org/name@refs/pr/1".as_ref()), Ok(None)));
    }

    #[test]
    fn a_path_that_does_not_exist_is_named_with_its_last_part_that_does_and_a_file_is_said_to_be_one() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().to_str().unwrap();
        let message = |path: &str| local(path.as_ref()).unwrap_err().to_string();
        let missing = format!("{at}/runs/kd");
        assert_eq!(message(&missing), format!("no such directory: {missing}; {at} is the last part that exists"));
        assert_eq!(message("./no/such/model"), "no such directory: ./no/such/model");
        let file = format!("{at}/model.safetensors");
        fs::write(&file, "").unwrap();
        assert!(
            message(&file).starts_with(&format!("{file} is a file; a model is the directory")),
            "{}",
            message(&file)
        );
        assert_eq!(message(&format!("{file}/x")), format!("no such directory: {file}/x; {file} is a file"));
    }

    #[cfg(unix)]
    #[test]
    fn a_link_that_leads_to_nothing_is_named_with_its_target() {
        use std::os::unix::fs::symlink;

        use crate::checkpoint::Checkpoint;

        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["model", CONFIG_FILE, WEIGHT_FILES[0]] {
            symlink("gone", at(name)).unwrap();
        }
        let refused = |error: Error, name: &str| {
            let expected = format!("{} is a link to gone, which does not exist", at(name).display());
            assert_eq!(error.to_string(), expected);
        };
        refused(resolve(at("model")).unwrap_err(), "model");
        refused(resolve(dir.path()).unwrap_err(), CONFIG_FILE);
        fs::remove_file(at(CONFIG_FILE)).unwrap();
        fs::write(at(CONFIG_FILE), "{}").unwrap();
        assert_eq!(resolve(dir.path()).unwrap(), dir.path());
        refused(Checkpoint::open(dir.path()).unwrap_err(), WEIGHT_FILES[0]);
    }

    #[test]
    fn a_directory_is_a_model_only_with_a_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap();
        assert!(matches!(resolve(path), Err(Error::NotAModel { .. })));
        fs::write(dir.path().join(CONFIG_FILE), "{}").unwrap();
        assert_eq!(resolve(path).unwrap(), dir.path());
    }
}
