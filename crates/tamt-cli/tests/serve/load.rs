//! Many clients at once.

use std::thread;

use serde_json::json;

use crate::common::{bert, signal};
use crate::fixture::{Running, encoded, floats, ticket};
use crate::task_files::sentence;

const CLIENTS: usize = 8;
const REQUESTS: usize = 30;

#[test]
fn requests_of_many_clients_share_batches_and_get_their_own_vectors() {
    let directory = tempfile::tempdir().unwrap();
    let ticket = ticket(&directory, "0.8");
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

/// Clients that send request after request get an answer to each until the server has told them that it ends.
#[test]
fn a_signal_under_load_loses_no_request() {
    let mut server = Running::start(&format!("--model {}", bert()));
    let text = (0..6).map(sentence).collect::<Vec<_>>().join(" ");
    let expected = encoded(&[&text], "").remove(0);
    let body = json!({ "input": vec![text.as_str(); 20] }).to_string();
    let child = &server.child;
    let lost = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let mut connection = server.connect();
                let (body, expected) = (&body, &expected);
                scope.spawn(move || {
                    for request in 0.. {
                        if client == 0 && request == 10 {
                            signal(child, "TERM");
                        }
                        let Ok(answer) = connection.ask("POST", "/v1/embeddings", "", body) else { return 1 };
                        for entry in answer.result()["data"].as_array().unwrap() {
                            assert_eq!(&floats(&entry["embedding"]), expected);
                        }
                        if answer.header("connection") == Some("close") {
                            break;
                        }
                    }
                    0
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).sum::<usize>()
    });
    assert_eq!(lost, 0);
    assert_eq!(server.child.wait().unwrap().code(), Some(143));
}
