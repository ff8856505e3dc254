//! Many clients at once.

use std::io::Read;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::json;

use crate::client::Connection;
use crate::common::{at, bert, magnitude, signal};
use crate::fixture::{Running, encoded, floats};
use crate::task_files::sentence;

const CLIENTS: usize = 8;
const REQUESTS: usize = 30;

#[test]
fn requests_of_many_clients_share_batches_and_get_their_own_vectors() {
    let directory = tempfile::tempdir().unwrap();
    let ticket = magnitude(&bert(), 0.8, &at(&directory, "ticket"));
    let flags = format!("--ticket sparse={ticket} --dense --name dense --max-batch-tokens 64 --max-wait 5");
    let server = Running::start(&format!("--model {} {flags}", bert()));
    let texts: Vec<String> =
        (0..200).map(|i| (0..1 + i % 4).map(|j| sentence(7 * i + j)).collect::<Vec<_>>().join(" ")).collect();
    let all: Vec<&str> = texts.iter().map(String::as_str).collect();
    let expected = [("dense", encoded(&all, "")), ("sparse", encoded(&all, &format!("--ticket {ticket}")))];
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (server, expected, all) = (&server, &expected, &all);
            scope.spawn(move || {
                let mut connection = server.connect();
                for request in 0..REQUESTS {
                    let (model, vectors) = &expected[(client + request) % 2];
                    // One text to five, at another place in each request.
                    let from = (client * 53 + request * 17) % 195;
                    let range = from..from + 1 + request % 5;
                    let body = json!({ "model": model, "input": all[range.clone()] }).to_string();
                    let answer = connection.ask("POST", "/v1/embeddings", "", &body).unwrap().result();
                    let entries = answer["data"].as_array().unwrap().iter();
                    let got: Vec<_> = entries.map(|entry| floats(&entry["embedding"])).collect();
                    assert_eq!(got, vectors[range], "client {client}, request {request}");
                }
            });
        }
    });
    let metrics = server.get("/metrics").body;
    let answered = CLIENTS * REQUESTS;
    let line = format!("tamt_requests_total{{path=\"/v1/embeddings\",status=\"200\"}} {answered}");
    assert!(metrics.contains(&line), "{metrics}");
}

/// What a client of a server that ends has seen.
#[derive(Debug, Default)]
struct Seen {
    answers: u64,
    lost: u64,
}

/// Sends request after request until the server has told that it ends, `at_request` ahead of each. `is_ending` says whether
/// the server may have been told to end.
fn asks_on(
    mut connection: Connection,
    body: &str,
    expected: &[f32],
    is_ending: &AtomicBool,
    at_request: impl Fn(u64),
) -> Seen {
    let mut seen = Seen::default();
    loop {
        at_request(seen.answers);
        let was_ending = is_ending.load(Ordering::SeqCst);
        match connection.ask("POST", "/v1/embeddings", "", body) {
            Ok(answer) => {
                for entry in answer.result()["data"].as_array().unwrap() {
                    assert_eq!(floats(&entry["embedding"]), expected);
                }
                seen.answers += 1;
                if answer.header("connection") == Some("close") {
                    return seen;
                }
            }
            // A server that ends closes a connection on which the client has paused, and takes no request of it.
            Err(_) if was_ending && connection.is_between_answers() => return seen,
            Err(_) => return Seen { lost: 1, ..seen },
        }
    }
}

/// Clients that send request after request get an answer to each that they sent ahead of the signal, and to each that the
/// server took.
#[test]
fn a_signal_under_load_loses_no_request() {
    let mut server = Running::start(&format!("--model {}", bert()));
    let text = (0..6).map(sentence).collect::<Vec<_>>().join(" ");
    let expected = encoded(&[&text], "").remove(0);
    let body = json!({ "input": vec![text.as_str(); 20] }).to_string();
    // The server has taken all connections ahead of the load.
    let greeted = |_| {
        let mut connection = server.connect();
        assert_eq!(connection.ask("GET", "/health", "", "").unwrap().status, 200);
        connection
    };
    let connections: Vec<Connection> = (0..CLIENTS).map(greeted).collect();
    let (all, is_ending, child) = (Barrier::new(CLIENTS), AtomicBool::new(false), &server.child);
    let seen: Vec<Seen> = thread::scope(|scope| {
        let start = |(client, connection)| {
            let (all, is_ending, body, expected) = (&all, &is_ending, &body, &expected);
            scope.spawn(move || {
                all.wait();
                asks_on(connection, body, expected, is_ending, |request| {
                    if client == 0 && request == 10 {
                        is_ending.store(true, Ordering::SeqCst);
                        signal(child, "TERM");
                    }
                })
            })
        };
        let clients: Vec<_> = connections.into_iter().enumerate().map(start).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    assert!(seen.iter().all(|seen| seen.lost == 0), "{seen:?}");
    assert_eq!(server.child.wait().unwrap().code(), Some(143));
    let mut said = String::new();
    server.stdout.read_to_string(&mut said).unwrap();
    let answered = CLIENTS as u64 + seen.iter().map(|seen| seen.answers).sum::<u64>();
    let line = said.lines().find(|line| line.ends_with(" requests answered")).expect(&said);
    let digits: String = line.chars().filter(char::is_ascii_digit).collect();
    assert_eq!(digits.parse::<u64>().unwrap(), answered, "{seen:?}");
}
