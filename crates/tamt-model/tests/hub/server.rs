//! A loopback server that imitates the hub.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use safetensors::tensor::{Dtype, TensorView, serialize};
use tamt_files::digest::sha256_hex;
use tamt_model::hub::{Hub, Patience};
use tempfile::TempDir;

pub(crate) const MODEL: &str = "org/tiny";
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
pub(crate) const WEIGHTS: &str = "model.safetensors";

/// A fault of the server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    None,
    /// Answers all requests with this status.
    Status(u16),
    /// Closes the connection after this number of bytes of the weights.
    Cut(usize),
    /// Changes a byte of the weights.
    Damage,
    /// Ignores the requested range and sends the whole weights.
    IgnoreRange,
    /// Sends a commit or an entity tag with a path out of the cache.
    EvilCommit,
    EvilEtag,
}

#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) range: Option<String>,
    pub(crate) authorization: Option<String>,
}

struct State {
    files: BTreeMap<String, Vec<u8>>,
    fault: Fault,
    /// Number of requests until the fault is gone, if it goes.
    failing: Option<usize>,
    requests: Vec<Request>,
}

/// A hub with one model.
pub(crate) struct FakeHub {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl FakeHub {
    pub(crate) fn new(files: &[(&str, &[u8])]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let files = files.iter().map(|&(name, bytes)| (name.to_owned(), bytes.to_vec())).collect();
        let state = Arc::new(Mutex::new(State { files, fault: Fault::None, failing: None, requests: Vec::new() }));
        let served = Arc::clone(&state);
        // The thread ends with the process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                // A client may close its connection.
                let _ = answer(&stream.unwrap(), &mut served.lock().unwrap());
            }
        });
        Self { address, state }
    }

    pub(crate) fn fail_with(&self, fault: Fault) {
        self.state.lock().unwrap().fault = fault;
    }

    /// Fails `times` requests.
    pub(crate) fn fail(&self, fault: Fault, times: usize) {
        let mut state = self.state.lock().unwrap();
        (state.fault, state.failing) = (fault, Some(times));
    }

    /// The requests since the last call.
    pub(crate) fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }

    pub(crate) fn client(&self, cache: &TempDir) -> Hub {
        Hub {
            endpoint: format!("http://{}", self.address),
            cache: cache.path().to_owned(),
            token: None,
            offline: false,
            progress: false,
            patience: Patience { timeout: Duration::from_secs(60), attempts: 1, pause: Duration::from_millis(1) },
        }
    }

    /// A client that repeats failed requests.
    pub(crate) fn patient(&self, cache: &TempDir, attempts: u32) -> Hub {
        let hub = self.client(cache);
        Hub { patience: Patience { attempts, ..hub.patience }, ..hub }
    }
}

fn answer(stream: &TcpStream, state: &mut State) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let range = headers.remove("range");
    state.requests.push(Request {
        path: path.clone(),
        range: range.clone(),
        authorization: headers.remove("authorization"),
    });

    if let Some(left) = &mut state.failing {
        if *left == 0 {
            state.fault = Fault::None;
        } else {
            *left -= 1;
        }
    }

    let mut out = stream;
    if let Fault::Status(status) = state.fault {
        return write!(out, "HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    if path.starts_with("/api/models/") {
        let siblings: Vec<String> = state.files.keys().map(|name| format!(r#"{{"rfilename":"{name}"}}"#)).collect();
        let commit = if state.fault == Fault::EvilCommit { "../../../evil" } else { COMMIT };
        let body = format!(r#"{{"sha":"{commit}","siblings":[{}]}}"#, siblings.join(","));
        return write!(out, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    }
    let name = path.strip_prefix(&format!("/{MODEL}/resolve/{COMMIT}/")).unwrap_or_default();
    let Some(bytes) = state.files.get(name) else {
        return write!(out, "HTTP/1.1 404 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    let (start, end) = match range.as_deref().and_then(|r| r.strip_prefix("bytes=")?.split_once('-')) {
        Some(_) if state.fault == Fault::IgnoreRange && range.as_deref() != Some("bytes=0-0") => (0, bytes.len()),
        Some((start, end)) => (start.parse().unwrap(), end.parse().map_or(bytes.len(), |e: usize| e + 1)),
        None => (0, bytes.len()),
    };
    if start >= bytes.len() {
        return write!(out, "HTTP/1.1 416 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    let etag = if state.fault == Fault::EvilEtag { "../../evil".to_owned() } else { sha256_hex([bytes.as_slice()]) };
    let mut body = bytes[start..end].to_vec();
    write!(
        out,
        "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {start}-{}/{}\r\nETag: \"{etag}\"\r\n\
         X-Repo-Commit: {COMMIT}\r\nConnection: close\r\n\r\n",
        body.len(),
        end - 1,
        bytes.len(),
    )?;
    if name == WEIGHTS && range.as_deref() != Some("bytes=0-0") {
        match state.fault {
            Fault::Cut(len) => body.truncate(len),
            Fault::Damage => body[len_of_header(bytes) + 1] ^= 1,
            _ => {}
        }
    }
    out.write_all(&body)
}

fn len_of_header(safetensors: &[u8]) -> usize {
    8 + u64::from_le_bytes(*safetensors.first_chunk().unwrap()) as usize
}

pub(crate) fn weights(name: &str) -> Vec<u8> {
    let data: Vec<u8> = (0..1000).flat_map(|i| (i as f32).to_le_bytes()).collect();
    serialize([(name, TensorView::new(Dtype::F32, vec![1000], &data).unwrap())], None).unwrap()
}
