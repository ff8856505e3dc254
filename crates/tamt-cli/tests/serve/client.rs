//! A client that shows what a server sends, byte by byte, and sends what no other client would.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// No answer of these tests takes as long on any machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Lines of the head after the first one, in lower case up to the colon.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    /// The result of a request that succeeds.
    #[track_caller]
    pub(crate) fn result(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        self.json()
    }
}

/// A connection.
pub(crate) struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Connection {
    pub(crate) fn new(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, read: Vec::new() }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Tells the server that nothing more comes.
    pub(crate) fn end(&mut self) {
        // The server may have ended the connection.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Reads up to the end of the connection.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.read);
        if let Err(error) = self.stream.read_to_end(&mut rest) {
            // A server that refuses a body ends the connection while the body is on its way.
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "the connection does not end: {error}");
        }
        rest
    }

    /// Whether no byte has come that belongs to the next answer.
    pub(crate) fn is_between_answers(&self) -> bool {
        self.read.is_empty()
    }

    /// Whether the connection is open and nothing has come.
    pub(crate) fn is_unanswered(&self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).unwrap();
        self.read.is_empty() && peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    fn more(&mut self) -> io::Result<()> {
        let mut part = [0; 16 << 10];
        match self.stream.read(&mut part)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.read.extend_from_slice(&part[..count]);
                Ok(())
            }
        }
    }

    /// Reads the first line of an answer, and returns its status; an error if the connection ends first.
    pub(crate) fn status(&mut self) -> io::Result<u16> {
        while !self.read.contains(&b'\n') {
            self.more()?;
        }
        let line = String::from_utf8_lossy(&self.read);
        Ok(line.split(' ').nth(1).unwrap().parse().unwrap())
    }

    /// Reads an answer; an error if the connection ends first.
    pub(crate) fn answer(&mut self) -> io::Result<Answer> {
        let end = loop {
            if let Some(end) = self.read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end;
            }
            self.more()?;
        };
        let head = String::from_utf8(self.read[..end].to_vec()).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let length: usize = length.map_or(0, |(_, value)| value.parse().unwrap());
        while self.read.len() < end + 4 + length {
            self.more()?;
        }
        let body = String::from_utf8(self.read[end + 4..][..length].to_vec()).unwrap();
        self.read.drain(..end + 4 + length);
        Ok(Answer { status, headers, body })
    }

    /// Sends a request and reads its answer.
    pub(crate) fn ask(&mut self, method: &str, path: &str, headers: &str, body: &str) -> io::Result<Answer> {
        self.send(&request(method, path, headers, body))?;
        self.answer()
    }
}

/// The bytes of a request. `headers` are whole lines.
pub(crate) fn request(method: &str, path: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("{method} {path} HTTP/1.1\r\nhost: tamt\r\n{headers}content-length: {length}\r\n\r\n{body}").into_bytes()
}
