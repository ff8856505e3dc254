//! Signals: what was taken is answered, and a second signal ends the server at once.

use std::io::BufRead;
use std::os::unix::process::ExitStatusExt;

use serde_json::json;

use crate::client::{Connection, request};
use crate::common::{bert, signal};
use crate::fixture::{Running, encoded, floats};

const TEXTS: [&str; 6] = ["taltul", "lordil basgen", "", "durbastan rolstir", "folsta lis", "lis"];

/// Connections on which the server has half of a request.
fn begun(server: &Running) -> Vec<(Connection, Vec<u8>)> {
    let begin = |text: &&str| {
        let whole = request("POST", "/v1/embeddings", "", &json!({ "input": text }).to_string());
        let mut connection = server.connect();
        connection.send(&whole[..whole.len() - 7]).unwrap();
        (connection, whole[whole.len() - 7..].to_vec())
    };
    let all: Vec<_> = TEXTS.iter().map(begin).collect();
    // The server has read all heads once it has reserved room for all bodies.
    let bodies: usize = TEXTS.iter().map(|text| json!({ "input": text }).to_string().len()).sum();
    server.wait_for("tamt_queue_bytes", 4 * bodies as u64);
    all
}

fn wait_for_line(server: &mut Running, text: &str) {
    let mut line = String::new();
    while !line.contains(text) {
        line.clear();
        assert_ne!(server.stderr.read_line(&mut line).unwrap(), 0, "it ended without saying {text:?}");
    }
}

#[test]
fn a_signal_ends_a_server_after_the_answers_to_what_it_took() {
    let expected = encoded(&TEXTS, "");
    for (name, code) in [("TERM", 143), ("INT", 130)] {
        let mut server = Running::start(&format!("--model {}", bert()));
        let mut idle = server.connect();
        assert_eq!(idle.ask("GET", "/health", "", "").unwrap().status, 200);
        let connections = begun(&server);
        signal(&server.child, name);
        wait_for_line(&mut server, "answering what was taken");
        for ((mut connection, rest), expected) in connections.into_iter().zip(&expected) {
            connection.send(&rest).unwrap();
            let answer = connection.answer().unwrap();
            assert_eq!(answer.header("connection"), Some("close"));
            assert_eq!(&floats(&answer.result()["data"][0]["embedding"]), expected);
        }
        assert!(idle.rest().is_empty());
        wait_for_line(&mut server, &format!("stopped by signal {}", code - 128));
        assert_eq!(server.child.wait().unwrap().code(), Some(code), "{name}");
    }
}

#[test]
fn a_second_signal_ends_a_server_at_once() {
    let mut server = Running::start(&format!("--model {}", bert()));
    let connections = begun(&server);
    signal(&server.child, "TERM");
    wait_for_line(&mut server, "answering what was taken; once more to stop at once");
    signal(&server.child, "TERM");
    let status = server.child.wait().unwrap();
    assert_eq!((status.code(), status.signal()), (Some(143), None));
    for (mut connection, _) in connections {
        assert!(connection.rest().is_empty());
    }
}
