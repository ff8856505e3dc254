//! What a server refuses: keys, sizes, a full queue, slow clients, and bytes that are no requests.

use std::io;

use serde_json::{Value, json};

use crate::client::{Connection, request};
use crate::common::{bert, stderr, tamt};
use crate::fixture::{Running, encoded, floats};

const TEXT: &str = "taltul lordil basgen";

#[track_caller]
fn works(server: &Running) {
    assert_eq!(server.vectors("bert", &[TEXT]), encoded(&[TEXT], ""));
}

/// A connection on which `begin` has succeeded: where this process pauses for longer than the server waits, `begin` fails
/// and takes another connection.
fn in_time<T>(server: &Running, mut begin: impl FnMut(&mut Connection) -> io::Result<T>) -> (Connection, T) {
    let begun = (0..20).find_map(|_| {
        let mut connection = server.connect();
        let result = begin(&mut connection).ok()?;
        Some((connection, result))
    });
    begun.expect("the server ends each connection ahead of its answer")
}

#[test]
fn a_server_with_a_key_answers_only_who_presents_the_key() {
    let by_flag = Running::start(&format!("--model {} --api-key kolifa", bert()));
    let by_variable = Running::start_with(&format!("--model {}", bert()), &[("TAMT_API_KEY", "kolifa")]);
    let body = json!({ "input": TEXT }).to_string();
    for server in [by_flag, by_variable] {
        for (header, status) in [
            ("", 401),
            ("authorization: Bearer\r\n", 401),
            ("authorization: Bearer kolif\r\n", 401),
            ("authorization: Bearer kolifax\r\n", 401),
            ("authorization: Basic kolifa\r\n", 401),
            ("authorization: Bearer kolifa\r\n", 200),
            ("Authorization: bearer kolifa\r\n", 200),
        ] {
            let answer = server.connect().ask("POST", "/v1/embeddings", header, &body).unwrap();
            assert_eq!(answer.status, status, "{header}");
            if status == 401 {
                assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
                assert_eq!(answer.json()["error"]["code"], "invalid_api_key");
            }
        }
        for (path, status) in [("/health", 200), ("/metrics", 401), ("/info", 401), ("/v1/models", 401), ("/x", 401)] {
            assert_eq!(server.get(path).status, status, "{path}");
        }
    }
    let wrong = tamt(&format!("serve --model {} --api-key ä", bert())).code(2);
    assert!(stderr(&wrong).contains("--api-key: a key is one or more ASCII characters"));
}

#[test]
fn requests_beyond_a_size_are_refused_with_413() {
    let limits = "--max-body-bytes 1000 --max-text-bytes 50 --max-inputs 3 --max-queue-tokens 90";
    let server = Running::start(&format!("--model {} {limits}", bert()));
    let text = "lis ".repeat(30);
    for (body, said) in [
        (json!({ "inputs": "a".repeat(1000) }), "the body has more than 1000 bytes"),
        (json!({ "inputs": "a".repeat(51) }), "text 0 has 51 bytes; at most 50 are taken"),
        (json!({ "inputs": ["a", "b", "c", "d"] }), "4 texts in a request; at most 3 are taken"),
        (json!({ "inputs": [&text[..48], &text[..48], &text[..48], ] }), ""),
    ] {
        let answer = server.post("/embed", &body);
        let expected = if said.is_empty() { 200 } else { 413 };
        assert_eq!(answer.status, expected, "{}", answer.body);
        assert!(said.is_empty() || answer.json()["error"].as_str().unwrap().contains(said), "{}", answer.body);
    }
    // A body whose length is not declared is refused where it grows too long.
    let mut connection = server.connect();
    let head = "POST /embed HTTP/1.1\r\nhost: tamt\r\ntransfer-encoding: chunked\r\n\r\n";
    connection.send(head.as_bytes()).unwrap();
    for _ in 0..3 {
        connection.send(format!("190\r\n{}\r\n", "a".repeat(400)).as_bytes()).unwrap();
    }
    assert_eq!(connection.status().unwrap(), 413);

    let server = Running::start(&format!("--model {} --max-queue-tokens 50", bert()));
    let many = server.post("/embed", &json!({ "inputs": vec![text.as_str(); 3] }));
    assert_eq!(many.status, 413);
    assert!(many.body.contains("more than the 50 of the queue"), "{}", many.body);
    works(&server);
}

#[test]
fn a_request_without_room_in_memory_is_told_to_come_again() {
    let limits = "--max-body-bytes 4096 --max-queue-bytes 17000";
    let server = Running::start(&format!("--model {} {limits}", bert()));
    let mut large = server.connect();
    let body = json!({ "input": TEXT, "user": "u".repeat(4000) }).to_string();
    let whole = request("POST", "/v1/embeddings", "", &body);
    let (first, rest) = whole.split_at(200);
    large.send(first).unwrap();
    // The body counts four times, from its head on.
    server.wait_for("tamt_queue_bytes", 4 * body.len() as u64);
    let refused = server.post("/v1/embeddings", &json!({ "input": TEXT, "user": "u".repeat(300) }));
    assert_eq!(refused.status, 429, "{}", refused.body);
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(refused.json()["error"]["type"], "rate_limit_error");
    let refused = server.post("/embed", &json!({ "inputs": TEXT, "user": "u".repeat(300) }));
    assert_eq!((refused.status, refused.json()["error_type"].clone()), (429, json!("overloaded")));
    large.send(rest).unwrap();
    large.answer().unwrap().result();
    server.wait_for("tamt_queue_bytes", 0);
    works(&server);
}

#[test]
fn a_client_that_announces_a_large_body_and_sends_none_keeps_no_one_out() {
    let server = Running::start(&format!("--model {}", bert()));
    // Sixteen times this length, four bytes of memory for each, is all the memory for requests.
    let head = "POST /embed HTTP/1.1\r\nhost: x\r\ncontent-length: 2097152\r\n\r\n";
    let mut silent: Vec<Connection> = (0..32).map(|_| server.connect()).collect();
    for connection in &mut silent {
        connection.send(head.as_bytes()).unwrap();
    }
    server.wait_for("tamt_queue_bytes", 32 * 4 * 65536);
    works(&server);
}

#[test]
fn clients_that_do_not_send_are_not_waited_for() {
    let server = Running::start(&format!("--model {} --read-timeout 1", bert()));
    let mut silent = server.connect();
    let (mut begun, ()) = in_time(&server, |begun| begun.send(b"POST /embed HTTP/1.1\r\nhost: ta"));
    let (mut idle, answer) = in_time(&server, |idle| idle.ask("GET", "/health", "", ""));
    assert_eq!(answer.status, 200);
    let body = json!({ "model": "bert", "input": [TEXT] }).to_string();
    let whole = request("POST", "/v1/embeddings", "", &body);
    let (mut half, answer) = in_time(&server, |half| {
        half.send(&whole[..whole.len() - 5])?;
        half.answer()
    });
    assert_eq!((answer.status, answer.header("connection")), (408, Some("close")));
    for connection in [&mut silent, &mut begun, &mut idle, &mut half] {
        let rest = String::from_utf8(connection.rest()).unwrap();
        assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 408 "), "{rest}");
    }
    let (_, answer) = in_time(&server, |connection| connection.ask("POST", "/v1/embeddings", "", &body));
    assert_eq!(floats(&answer.result()["data"][0]["embedding"]), encoded(&[TEXT], "")[0]);
}

#[test]
fn a_client_that_takes_no_answer_is_not_waited_for() {
    let server = Running::start(&format!("--model {} --write-timeout 1", bert()));
    let mut silent = server.connect();
    assert_eq!(silent.ask("GET", "/health", "", "").unwrap().status, 200);
    // Each answer has some 400 kB, all together more than the buffers of the operating system hold.
    let whole = request("POST", "/embed", "", &json!({ "inputs": vec![""; 2048] }).to_string());
    for _ in 0..64 {
        // The server may have ended the connection.
        let _ = silent.send(&whole);
    }
    server.wait_for("tamt_connections", 1);
    server.wait_for("tamt_queue_bytes", 0);
    works(&server);
}

#[test]
fn a_connection_beyond_the_most_is_served_when_an_earlier_one_has_ended() {
    let server = Running::start(&format!("--model {} --max-connections 1", bert()));
    let mut first = server.connect();
    assert_eq!(first.ask("GET", "/health", "", "").unwrap().status, 200);
    let mut second = server.connect();
    second.send(&request("GET", "/health", "", "")).unwrap();
    // A server without the limit would have answered the second client by the last of these answers.
    for _ in 0..200 {
        let metrics = first.ask("GET", "/metrics", "", "").unwrap().body;
        assert!(metrics.lines().any(|line| line == "tamt_connections 1"), "{metrics}");
        assert!(second.is_unanswered());
    }
    drop(first);
    assert_eq!(second.answer().unwrap().status, 200);
}

#[test]
fn the_largest_number_of_connections_is_a_number_like_others() {
    works(&Running::start(&format!("--model {} --max-connections {}", bert(), i64::MAX)));
}

/// Requests whose bytes are enough to refuse them.
fn refused() -> Vec<Vec<u8>> {
    let heads = [
        "POST /embed HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        "POST /embed HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n",
        "POST /embed HTTP/1.1\r\ncontent-length: 9999999999999\r\n\r\nx",
        "POST /embed HTTP/1.1\r\ncontent-length: 3\r\ncontent-length: 5\r\n\r\nabcde",
        "POST /embed HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        "POST /v1/embeddings?model=%ff%fe HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
    ];
    let mut all: Vec<Vec<u8>> = heads.into_iter().map(|text| text.as_bytes().to_vec()).collect();
    for body in ["null", "3", "\"a\"", "[]", "[[]]", "{\"inputs\": null}", "{\"inputs\": [null]}", "{\"input\": \"a\","]
    {
        all.push(request("POST", "/embed", "", body));
        all.push(request("POST", "/predict", "", body));
        all.push(request("POST", "/v1/embeddings", "", body));
    }
    let mut not_text = request("POST", "/v1/embeddings", "", &json!({ "input": TEXT }).to_string());
    not_text.iter_mut().rev().nth(4).into_iter().for_each(|byte| *byte = 0xff);
    all.push(not_text);
    for method in ["GET", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "HEAD", "xyz"] {
        all.push(request(method, "/embed", "", ""));
    }
    all
}

/// Bytes that are no request, or too few to say whether they are a good one.
fn broken() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = ["", "\r\n\r\n", "GET\r\n\r\n", "\0\0\0\0\r\n\r\n", "POST /embed HTTP/9.9\r\n\r\n"]
        .into_iter()
        .map(|text| text.as_bytes().to_vec())
        .collect();
    all.push(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec());
    all.push(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec());
    all.push(b"POST /embed HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n".to_vec());
    // Heads of which the server reads a part: its answer may be lost with the rest.
    all.push(format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(100_000)).into_bytes());
    all.push(format!("GET /info HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(5000)).into_bytes());
    // All pieces of a good request, after which the client is gone.
    let whole = request("POST", "/v1/embeddings", "", &json!({ "input": TEXT }).to_string());
    all.extend((1..whole.len()).map(|end| whole[..end].to_vec()));
    all
}

#[test]
fn malformed_requests_get_4xx_and_broken_ones_4xx_or_nothing_and_the_server_goes_on() {
    let server = Running::start(&format!("--model {} --max-body-bytes 10000", bert()));
    let (refused, broken) = (refused(), broken());
    assert!(refused.len() > 30 && broken.len() > 100, "{} and {}", refused.len(), broken.len());
    let shown = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
    for bytes in &refused {
        let mut connection = server.connect();
        connection.send(bytes).unwrap();
        let status = connection.status().unwrap_or_else(|error| panic!("{:?}: {error}", shown(bytes)));
        assert!((400..500).contains(&status), "{:?}: {status}", shown(bytes));
    }
    for bytes in &broken {
        let mut connection = server.connect();
        // The server may end the connection before it has all bytes.
        let _ = connection.send(bytes);
        connection.end();
        let rest = connection.rest();
        let status = rest.strip_prefix(b"HTTP/1.1 ").or_else(|| rest.strip_prefix(b"HTTP/1.0 "));
        assert!(
            rest.is_empty() || status.is_some_and(|status| status[0] == b'4' || status[0] == b'5' && status[2] == b'5'),
            "{:?}: {:?}",
            shown(bytes),
            String::from_utf8_lossy(&rest)
        );
    }
    // Clients that do not even wait for the answer.
    for bytes in refused.iter().chain(&broken) {
        let _ = server.connect().send(bytes);
    }
    works(&server);
    server.wait_for("tamt_connections", 1);
    server.wait_for("tamt_queue_bytes", 0);
    server.wait_for("tamt_queue_tokens", 0);
}

#[test]
fn wrong_flags_are_refused_in_the_words_of_the_command_line() {
    let model = format!("--model {}", bert());
    for (line, code, said) in [
        ("".to_owned(), 2, "--model <MODEL>"),
        (format!("{model} --ticket half"), 2, "it is a name, =, and a path"),
        (format!("{model} --dense"), 2, "--ticket"),
        (format!("{model} --pool none"), 2, "[possible values: cls, mean]"),
        (format!("{model} --max-queue-tokens 39"), 2, "--max-queue-tokens: a text may have 40 tokens"),
        (format!("{model} --max-inputs 100000"), 2, "--max-inputs: it is at most 16384"),
        (format!("{model} --max-queue-bytes 100"), 2, "--max-queue-bytes: the largest body"),
        (format!("{model} --max-length 41"), 2, "--max-length"),
        (format!("{model} --max-length 2"), 2, "--max-length: 2 tokens leave no room for text"),
        (format!("{model} --address 127.0.0.1:x"), 2, "for '--address <HOST:PORT>': it is a host (an IPv6"),
        (format!("{model} --address 127.0.0.1:99999"), 2, "for '--address <HOST:PORT>'"),
        (format!("{model} --address nonsense"), 2, "for '--address <HOST:PORT>'"),
        (format!("{model} --max-wait -1"), 2, "for '--max-wait <MS>': it must not be negative"),
        (format!("{model} --head h={}", bert()), 1, "head"),
        (format!("{model} --ticket a=no-such-ticket"), 1, "no-such-ticket"),
    ] {
        let assert = tamt(&format!("serve {line}")).code(code);
        assert!(stderr(&assert).contains(said), "{line}: {}", stderr(&assert));
    }
    let running = Running::start(&model);
    let taken = tamt(&format!("serve {model} --address {}", running.address)).code(1);
    assert!(stderr(&taken).contains(&format!("cannot listen on {}", running.address)), "{}", stderr(&taken));
    let _: Value = running.get("/info").result();
}
