//! Requests to the hub, each with a limit on waiting and on repetitions.
//!
//! A failed connection, a time-out and an answer of status 5xx may pass, so the request is repeated after a pause that
//! doubles. A status of 4xx is an answer. A download goes on after the bytes that have arrived.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use indicatif::ProgressBar;
use serde::Deserialize;
use ureq::config::RedirectAuthHeaders;
use ureq::http::Response;
use ureq::{Agent, Body};

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
/// The largest list of files, in bytes.
const LARGEST_LIST: u64 = 64 << 20;
/// Redirects within the hub, of a renamed model for example.
const MAX_REDIRECTS: usize = 5;
/// An attempt that brings as many bytes of a file does not count.
const PROGRESS: u64 = 1 << 20;

/// How long requests wait, and how often they are repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// The longest wait for a connection, for an answer, and for the next bytes of an answer.
    pub timeout: Duration,
    /// Attempts of a request, at least one.
    pub attempts: u32,
    /// The pause after the first failed attempt. Each further pause is twice as long, up to eight seconds.
    pub pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(10), attempts: 4, pause: Duration::from_millis(500) }
    }
}

/// Why a request has no usable answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The hub's status.
    Status(u16),
    /// The connection failed, or nothing arrived in time.
    Network(String),
    /// The answer is not that of a hub.
    Answer(String),
    /// A file of the cache cannot be written.
    Write { path: PathBuf, source: io::Error },
}

impl Failure {
    fn may_pass(&self) -> bool {
        matches!(self, Self::Network(_) | Self::Status(500..=599))
    }
}

impl From<ureq::Error> for Failure {
    fn from(error: ureq::Error) -> Self {
        match error {
            ureq::Error::StatusCode(status) => Self::Status(status),
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => Self::Answer(error.to_string()),
            _ => Self::Network(error.to_string()),
        }
    }
}

/// The commit and the files of a revision.
#[derive(Debug, Deserialize)]
pub(super) struct Revision {
    pub(super) sha: String,
    pub(super) siblings: Vec<Sibling>,
}

/// A file of a revision.
#[derive(Debug, Deserialize)]
pub(super) struct Sibling {
    pub(super) rfilename: String,
}

/// What the hub announces about a file.
#[derive(Debug)]
pub(super) struct Announced {
    /// The entity tag: the file's SHA-256 or its Git hash.
    pub(super) etag: String,
    pub(super) size: u64,
}

/// A client of one hub.
#[derive(Debug)]
pub(super) struct Client {
    /// Follows redirects.
    agent: Agent,
    /// Returns redirects.
    direct: Agent,
    endpoint: String,
    token: Option<String>,
    patience: Patience,
    progress: bool,
}

impl Client {
    pub(super) fn new(endpoint: &str, token: Option<&str>, patience: Patience, progress: bool) -> Self {
        let wait = Some(patience.timeout);
        let config = || {
            Agent::config_builder()
                .user_agent(concat!("tamt/", env!("CARGO_PKG_VERSION")))
                .timeout_resolve(wait)
                .timeout_connect(wait)
                .timeout_recv_response(wait)
                .timeout_per_read(wait)
                .timeout_per_write(wait)
        };
        Self {
            agent: config().redirect_auth_headers(RedirectAuthHeaders::SameHost).build().into(),
            direct: config().max_redirects(0).build().into(),
            endpoint: endpoint.to_owned(),
            token: token.map(str::to_owned),
            patience,
            progress,
        }
    }

    /// Makes one attempt of each request.
    pub(super) fn impatient(&self) -> Self {
        let patience = Patience { attempts: 1, ..self.patience };
        Self::new(&self.endpoint, self.token.as_deref(), patience, self.progress)
    }

    /// The list of files at `path` of the hub.
    pub(super) fn revision(&self, path: &str) -> Result<Revision, Failure> {
        let url = format!("{}/{path}", self.endpoint);
        self.repeated(|| {
            let mut response = self.get(&self.agent, &url, None)?;
            let text = response.body_mut().with_config().limit(LARGEST_LIST).read_to_string()?;
            serde_json::from_str(&text).map_err(|error| Failure::Answer(format!("it is no list of files: {error}")))
        })
    }

    /// What the hub announces about the file at `path`. The hub itself knows the hash of a large file, and redirects to
    /// the server that has the file.
    pub(super) fn announced(&self, path: &str) -> Result<Announced, Failure> {
        let first = format!("{}/{path}", self.endpoint);
        self.repeated(|| {
            let mut url = first.clone();
            for _ in 0..MAX_REDIRECTS {
                let response = self.get(&self.direct, &url, Some("bytes=0-0"))?;
                let etag = header(&response, "x-linked-etag").or_else(|| header(&response, "etag"));
                let etag = etag.map(|etag| etag.trim_start_matches("W/").replace('"', ""));
                let location = header(&response, "location").filter(|_| response.status().is_redirection());
                let size = header(&response, "x-linked-size").and_then(|size| size.parse().ok());
                match (location, etag, size) {
                    (Some(to), Some(etag), size) if !to.starts_with('/') => {
                        let at_server = || size_in(&self.get(&self.agent, to, Some("bytes=0-0"))?);
                        return Ok(Announced { etag, size: size.map_or_else(at_server, Ok)? });
                    }
                    (Some(to), ..) if to.starts_with('/') => url = format!("{}{to}", origin(&url)),
                    (Some(to), ..) => url = to.to_owned(),
                    (None, Some(etag), _) => return Ok(Announced { etag, size: size_in(&response)? }),
                    (None, None, _) => return Err(Failure::Answer("it has no entity tag".to_owned())),
                }
            }
            Err(Failure::Answer("it leads from redirect to redirect".to_owned()))
        })
    }

    /// Downloads the file at `path`, of `size` bytes, into `part`, after the bytes that `part` holds, and flushes it to
    /// disk.
    pub(super) fn download(&self, path: &str, part: &Path, size: u64) -> Result<(), Failure> {
        let url = format!("{}/{path}", self.endpoint);
        let failed = |source| Failure::Write { path: part.to_owned(), source };
        let mut file = OpenOptions::new().create(true).append(true).open(part).map_err(failed)?;
        let bar = if self.progress { ProgressBar::new(size) } else { ProgressBar::hidden() };
        let (mut failures, mut pause) = (0, self.patience.pause);
        loop {
            let before = file.metadata().map_err(failed)?.len();
            if before == size {
                // A file of the cache is trusted by its name from now on, also after a crash.
                file.sync_all().map_err(failed)?;
                bar.finish_and_clear();
                return Ok(());
            }
            let outcome = self.append(&url, part, &mut file, before, size, &bar);
            let after = file.metadata().map_err(failed)?.len();
            let failure = match outcome {
                Ok(()) if after >= size => continue,
                Ok(()) => Failure::Network(format!("{after} of {size} bytes arrived")),
                Err(failure) => failure,
            };
            failures = if after >= before + PROGRESS { 0 } else { failures + 1 };
            if !failure.may_pass() || failures >= self.patience.attempts {
                return Err(failure);
            }
            thread::sleep(pause);
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }

    /// Appends the bytes from `start` on to `file`, which has `start` bytes. A server that sends the whole file instead
    /// replaces what is there.
    fn append(
        &self,
        url: &str,
        part: &Path,
        file: &mut File,
        start: u64,
        size: u64,
        bar: &ProgressBar,
    ) -> Result<(), Failure> {
        let failed = |source| Failure::Write { path: part.to_owned(), source };
        let (_, body) = {
            let response = self.get(&self.agent, url, Some(&format!("bytes={start}-")))?;
            if start_in(&response) != Some(start) {
                file.set_len(0).map_err(failed)?;
            }
            response.into_parts()
        };
        let mut at = file.seek(SeekFrom::End(0)).map_err(failed)?;
        let mut reader = body.into_reader();
        let mut buffer = vec![0; 1 << 16];
        loop {
            bar.set_position(at);
            let n = match reader.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Failure::Network(error.to_string())),
            };
            at += n as u64;
            if at > size {
                return Err(Failure::Answer(format!("it has more than the {size} bytes that the hub announced")));
            }
            file.write_all(&buffer[..n]).map_err(failed)?;
        }
    }

    /// The token is for the hub only, not for servers that the hub redirects to.
    fn get(&self, agent: &Agent, url: &str, range: Option<&str>) -> Result<Response<Body>, Failure> {
        let mut request = agent.get(url).header("Accept-Encoding", "identity");
        if let Some(token) = self.token.as_deref().filter(|_| origin(url) == origin(&self.endpoint)) {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        if let Some(range) = range {
            request = request.header("Range", range);
        }
        Ok(request.call()?)
    }

    fn repeated<T>(&self, mut attempt: impl FnMut() -> Result<T, Failure>) -> Result<T, Failure> {
        let mut pause = self.patience.pause;
        for _ in 1..self.patience.attempts {
            match attempt() {
                Err(failure) if failure.may_pass() => thread::sleep(pause),
                outcome => return outcome,
            }
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
        attempt()
    }
}

fn header<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

/// Scheme, host and port of an address.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url[host..].find('/').map_or(url.len(), |at| host + at);
    &url[..end]
}

/// The size of the file in the answer to a request for its first byte, of which a server may send all.
fn size_in(response: &Response<Body>) -> Result<u64, Failure> {
    let total = header(response, "content-range").and_then(|range| range.rsplit('/').next());
    let whole = || header(response, "content-length").filter(|_| response.status() == 200);
    let size = total.or_else(whole).and_then(|size| size.parse().ok());
    size.ok_or_else(|| Failure::Answer("it does not say the size of the file".to_owned()))
}

/// The first byte of an answer in the file.
fn start_in(response: &Response<Body>) -> Option<u64> {
    match header(response, "content-range") {
        Some(range) => range.strip_prefix("bytes ")?.split('-').next()?.parse().ok(),
        None => Some(0),
    }
}

/// Links `link`, a file named `file` in a snapshot, to a blob of the cache, as `huggingface_hub` does.
pub(super) fn link_blob(blob: &Path, link: &Path, file: &str) -> io::Result<()> {
    if let Some(directory) = link.parent() {
        fs::create_dir_all(directory)?;
    }
    #[cfg(unix)]
    {
        let up = "../".repeat(2 + file.matches('/').count());
        let name = blob.file_name().unwrap_or_default();
        // Another process may read the link that is there, or make one at the same moment.
        let new = link.with_file_name(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::os::unix::fs::symlink(Path::new(&up).join("blobs").join(name), &new)?;
        fs::rename(&new, link)
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        fs::rename(blob, link)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        for (url, expected) in [
            ("https://huggingface.co/a/b", "https://huggingface.co"),
            ("http://127.0.0.1:80", "http://127.0.0.1:80"),
            ("host/path", "host"),
        ] {
            assert_eq!(origin(url), expected);
        }
    }

    #[test]
    fn time_outs_and_faults_of_the_server_may_pass_and_answers_do_not() {
        assert!(Failure::Status(503).may_pass() && Failure::Network(String::new()).may_pass());
        assert!(!Failure::Status(404).may_pass() && !Failure::Answer(String::new()).may_pass());
    }
}
