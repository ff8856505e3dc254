//! Downloads from a loopback server that imitates the hub, and what is found in the cache without it.

mod server;

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use tamt_files::digest::sha256_hex;
use tamt_model::hub::{Hub, Patience};
use tamt_model::{Checkpoint, Config, Error, HeadStart, Model, Parts, TaskKind};
use tempfile::TempDir;

use server::{COMMIT, FakeHub, Fault, MODEL, WEIGHTS, weights};

fn tiny() -> FakeHub {
    FakeHub::new(&[
        ("config.json", b"{}"),
        ("vocab.txt", b"[PAD]\n"),
        (WEIGHTS, &weights("a")),
        ("README.md", b"# Tiny"),
    ])
}

fn offline(hub: &Hub) -> tamt_model::Result<std::path::PathBuf> {
    Hub { offline: true, ..hub.clone() }.fetch(MODEL)
}

fn problem(result: tamt_model::Result<std::path::PathBuf>) -> String {
    match result {
        Err(Error::Hub { problem, .. }) => problem,
        other => panic!("{other:?}"),
    }
}

fn assert_is_tiny(dir: &Path) {
    assert_eq!(fs::read(dir.join("config.json")).unwrap(), b"{}");
    assert_eq!(fs::read(dir.join("vocab.txt")).unwrap(), b"[PAD]\n");
    assert!(!dir.join("README.md").exists(), "only what a model needs is downloaded");
    let checkpoint = Checkpoint::open(dir).unwrap();
    let mut values = vec![0.0; 1000];
    checkpoint.load_f32("a", &[1000], &mut values).unwrap();
    assert_eq!(values[999], 999.0);
}

#[test]
fn a_model_is_downloaded_once_and_then_found_in_the_cache() {
    let (server, cache) = (tiny(), tempfile::tempdir().unwrap());
    let hub = server.client(&cache);
    let dir = hub.fetch(MODEL).unwrap();
    assert_is_tiny(&dir);
    assert!(
        dir.ends_with(format!("models--org--tiny/snapshots/{COMMIT}")),
        "the layout of huggingface_hub: {}",
        dir.display()
    );
    assert!(server.requests().iter().all(|r| r.authorization.is_none()));

    assert_eq!(hub.fetch(MODEL).unwrap(), dir);
    let paths: Vec<_> = server.requests().into_iter().map(|r| r.path).collect();
    assert_eq!(paths, ["/api/models/org/tiny/revision/main"], "only the commit is asked for");

    assert_eq!(offline(&hub).unwrap(), dir);
    assert_eq!(Hub { offline: true, ..hub }.fetch(&format!("{MODEL}@{COMMIT}")).unwrap(), dir);
    assert_eq!(server.requests().len(), 0, "offline means offline");
}

#[test]
fn the_token_goes_with_every_request() {
    let (server, cache) = (tiny(), tempfile::tempdir().unwrap());
    let hub = Hub { token: Some("hf_secret".to_owned()), ..server.client(&cache) };
    hub.fetch(MODEL).unwrap();
    let requests = server.requests();
    assert!(requests.len() > 3);
    assert!(requests.iter().all(|r| r.authorization.as_deref() == Some("Bearer hf_secret")));
}

#[test]
fn a_revision_is_asked_for_by_name_and_downloaded_by_commit() {
    let (server, cache) = (tiny(), tempfile::tempdir().unwrap());
    let model = format!("{MODEL}@refs/pr/1");
    let hub = server.client(&cache);
    let dir = hub.fetch(&model).unwrap();
    let requests = server.requests();
    assert_eq!(requests[0].path, "/api/models/org/tiny/revision/refs%2Fpr%2F1");
    assert!(requests[1..].iter().all(|r| r.path.contains(COMMIT)));
    assert_eq!(Hub { offline: true, ..hub.clone() }.fetch(&model).unwrap(), dir);
    assert!(matches!(offline(&hub), Err(Error::Offline { .. })), "the main revision was not asked for");
}

#[test]
fn shards_come_with_their_index() {
    let index = br#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}"#;
    let (first, second) = (weights("a"), weights("b"));
    let files: [(&str, &[u8]); 4] = [
        ("config.json", b"{}"),
        ("model.safetensors.index.json", index),
        ("model-1.safetensors", &first),
        ("model-2.safetensors", &second),
    ];
    let (server, cache) = (FakeHub::new(&files), tempfile::tempdir().unwrap());
    let hub = server.client(&cache);
    let dir = hub.fetch(MODEL).unwrap();
    assert_eq!(Checkpoint::open(&dir).unwrap().names().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(offline(&hub).unwrap(), dir);
    fs::remove_file(dir.join("model-2.safetensors")).unwrap();
    assert!(matches!(offline(&hub), Err(Error::Offline { .. })), "a shard is missing");
}

#[test]
fn the_modules_of_sentence_transformers_are_downloaded() {
    let modules = br#"[{"path": "", "type": "s.Transformer"}, {"path": "1_Pooling", "type": "s.Pooling"}]"#;
    let weights = weights("a");
    let files: [(&str, &[u8]); 8] = [
        ("config.json", b"{}"),
        (WEIGHTS, &weights),
        ("modules.json", modules),
        ("config_sentence_transformers.json", b"{}"),
        ("sentence_bert_config.json", b"{}"),
        ("1_Pooling/config.json", b"{}"),
        ("1_Pooling/other.txt", b""),
        ("onnx/config.json", b"{}"),
    ];
    let (server, cache) = (FakeHub::new(&files), tempfile::tempdir().unwrap());
    let dir = server.client(&cache).fetch(MODEL).unwrap();
    for (name, ..) in &files[..6] {
        assert!(dir.join(name).is_file(), "{name}");
    }
    assert!(!dir.join("1_Pooling/other.txt").exists() && !dir.join("onnx").exists());
}

#[test]
fn pytorch_weights_are_downloaded_where_there_are_no_others() {
    let files: [(&str, &[u8]); 3] = [("config.json", b"{}"), ("pytorch_model.bin", b"bin"), ("tf_model.h5", b"h5")];
    let (server, cache) = (FakeHub::new(&files), tempfile::tempdir().unwrap());
    let dir = server.client(&cache).fetch(MODEL).unwrap();
    assert_eq!(fs::read(dir.join("pytorch_model.bin")).unwrap(), b"bin");
    assert!(!dir.join("tf_model.h5").exists());
}

#[test]
fn a_model_without_weights_or_configuration_is_refused_before_downloading() {
    for (files, missing) in
        [([("config.json", b"{}")], "none of model.safetensors"), ([(WEIGHTS, b"xx")], "no such file")]
    {
        let files = files.map(|(name, bytes)| (name, bytes.as_slice()));
        let (server, cache) = (FakeHub::new(&files), tempfile::tempdir().unwrap());
        let problem = problem(server.client(&cache).fetch(MODEL));
        assert!(problem.contains(missing), "{problem}");
        assert_eq!(server.requests().len(), 1);
    }
}

#[test]
fn refusals_of_the_hub_are_explained() {
    let (server, cache) = (tiny(), tempfile::tempdir().unwrap());
    let hub = server.client(&cache);
    for (status, explanation) in
        [(404, "no revision `main`"), (401, "set HF_TOKEN"), (403, "set HF_TOKEN"), (503, "503")]
    {
        server.fail_with(Fault::Status(status));
        let problem = problem(hub.fetch(MODEL));
        assert!(problem.contains(explanation), "{status}: {problem}");
    }
    server.fail_with(Fault::Status(401));
    let problem = problem(Hub { token: Some("bad".to_owned()), ..hub }.fetch(MODEL));
    assert!(problem.contains("the token in use"), "{problem}");
}

#[test]
fn a_complete_cache_replaces_a_hub_that_does_not_answer() {
    let cache = tempfile::tempdir().unwrap();
    let server = tiny();
    let mut hub = server.client(&cache);
    let dir = hub.fetch(MODEL).unwrap();
    server.fail_with(Fault::Status(503));
    assert_eq!(hub.fetch(MODEL).unwrap(), dir);
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    hub.endpoint = format!("http://{}", mute.local_addr().unwrap());
    thread::spawn(move || mute.incoming().for_each(drop));
    assert_eq!(hub.fetch(MODEL).unwrap(), dir);
    let empty = tempfile::tempdir().unwrap();
    hub.cache = empty.path().to_owned();
    assert!(matches!(hub.fetch(MODEL), Err(Error::Hub { .. })));
    // A definite answer of the hub takes precedence over the cache.
    hub = server.client(&cache);
    server.fail_with(Fault::Status(404));
    assert!(matches!(hub.fetch(MODEL), Err(Error::Hub { .. })));
}

/// The files of a model that can be loaded.
fn real() -> TempDir {
    let text = r#"{"model_type": "bert", "vocab_size": 5, "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 4, "max_position_embeddings": 5, "type_vocab_size": 1}"#;
    let directory = tempfile::tempdir().unwrap();
    Model::random(Config::from_json(text).unwrap(), Parts::default(), 1).save(directory.path()).unwrap();
    directory
}

#[test]
fn a_snapshot_of_another_program_is_used_with_a_note_of_what_it_may_lack() {
    let (files, cache) = (real(), tempfile::tempdir().unwrap());
    let repository = cache.path().join("models--org--tiny");
    let snapshot = repository.join("snapshots").join(COMMIT);
    fs::create_dir_all(&snapshot).unwrap();
    for name in ["config.json", WEIGHTS] {
        fs::copy(files.path().join(name), snapshot.join(name)).unwrap();
    }
    fs::write(snapshot.join("tokenizer.json"), "{}").unwrap();
    fs::create_dir(repository.join("refs")).unwrap();
    fs::write(repository.join("refs/main"), COMMIT).unwrap();

    let server = tiny();
    let hub = server.client(&cache);
    server.fail_with(Fault::Status(503));
    for dir in [offline(&hub).unwrap(), hub.fetch(MODEL).unwrap()] {
        let notes = Model::load(&dir).unwrap().notes;
        let [note] = &notes[..] else { panic!("{notes:?}") };
        for name in ["tokenizer_config.json", "modules.json"] {
            assert!(note.contains(name), "{note}");
        }
        assert!(!note.contains("tokenizer.json"), "{note}");
        let sequence = TaskKind::Sequence { outputs: 2 };
        let with_head = Model::load_for_task(&dir, sequence, HeadStart::Random(1)).unwrap();
        assert_eq!(with_head.notes, notes);
    }

    // What Python's `huggingface_hub` keeps of files that the hub did not have.
    let absent = repository.join(".no_exist").join(COMMIT);
    fs::create_dir_all(&absent).unwrap();
    for name in ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "modules.json"] {
        fs::write(absent.join(name), "").unwrap();
    }
    assert_eq!(Model::load(&offline(&hub).unwrap()).unwrap().notes, [""; 0]);
}

#[test]
fn a_model_that_was_downloaded_whole_has_no_note_offline() {
    let (files, cache) = (real(), tempfile::tempdir().unwrap());
    let [config, weights] = ["config.json", WEIGHTS].map(|name| fs::read(files.path().join(name)).unwrap());
    let server = FakeHub::new(&[("config.json", &config), (WEIGHTS, &weights), ("vocab.txt", b"[PAD]\n")]);
    let hub = server.client(&cache);
    hub.fetch(MODEL).unwrap();
    let dir = offline(&hub).unwrap();
    assert_eq!(Model::load(&dir).unwrap().notes, [""; 0]);
    let absent = cache.path().join("models--org--tiny/.no_exist").join(COMMIT);
    assert!(absent.join("modules.json").is_file() && !absent.join("vocab.txt").exists());
    fs::remove_file(dir.join("vocab.txt")).unwrap();
    assert_eq!(Model::load(&dir).unwrap().notes, [""; 0], "a tokenizer without a vocabulary is an error of its own");
}

#[test]
fn offline_without_a_cached_model_is_an_error_that_says_so() {
    let cache = tempfile::tempdir().unwrap();
    let error = offline(&tiny().client(&cache)).unwrap_err();
    assert!(error.to_string().contains("HF_HUB_OFFLINE"), "{error}");
}

#[test]
fn an_interrupted_download_is_an_error_and_resumes_where_it_stopped() {
    let (server, cache) = (tiny(), tempfile::tempdir().unwrap());
    let hub = server.client(&cache);
    server.fail_with(Fault::Cut(1000));
    assert!(matches!(hub.fetch(MODEL), Err(Error::Hub { what, .. }) if what == WEIGHTS));
    assert!(matches!(offline(&hub), Err(Error::Offline { .. })), "half a model is none");

    server.fail_with(Fault::None);
    server.requests();
    assert_is_tiny(&hub.fetch(MODEL).unwrap());
    let ranges: Vec<_> = server.requests().into_iter().filter_map(|r| r.range).collect();
    assert_eq!(ranges, ["bytes=0-0", "bytes=1000-"], "of the weights, only what was missing");
}

#[test]
fn a_complete_partial_file_of_an_earlier_attempt_does_no_harm() {
    let (server, cache) = (tiny(), tempfile::tempdir().unwrap());
    let blobs = cache.path().join("models--org--tiny/blobs");
    fs::create_dir_all(&blobs).unwrap();
    let bytes = weights("a");
    fs::write(blobs.join(sha256_hex([bytes.as_slice()])).with_extension("part"), bytes).unwrap();
    assert_is_tiny(&server.client(&cache).fetch(MODEL).unwrap());
}

#[test]
fn a_blob_that_a_crash_has_cut_is_downloaded_again() {
    let (server, cache) = (tiny(), tempfile::tempdir().unwrap());
    let blobs = cache.path().join("models--org--tiny/blobs");
    fs::create_dir_all(&blobs).unwrap();
    let bytes = weights("a");
    let blob = blobs.join(sha256_hex([bytes.as_slice()]));
    fs::write(&blob, &bytes[..1000]).unwrap();
    assert_is_tiny(&server.client(&cache).fetch(MODEL).unwrap());
}

#[test]
fn damaged_downloads_are_removed() {
    let (server, cache) = (tiny(), tempfile::tempdir().unwrap());
    let hub = server.client(&cache);
    server.fail_with(Fault::Damage);
    let problem = problem(hub.fetch(MODEL));
    assert!(problem.contains("SHA-256"), "{problem}");
    assert!(matches!(offline(&hub), Err(Error::Offline { .. })));
    server.fail_with(Fault::None);
    assert_is_tiny(&hub.fetch(MODEL).unwrap());
}

#[test]
fn a_server_that_ignores_ranges_sends_the_file_again() {
    let (server, cache) = (tiny(), tempfile::tempdir().unwrap());
    let hub = server.client(&cache);
    server.fail_with(Fault::Cut(100));
    assert!(hub.fetch(MODEL).is_err());
    server.fail_with(Fault::IgnoreRange);
    assert_is_tiny(&hub.fetch(MODEL).unwrap());
}

#[test]
fn faults_that_pass_are_waited_out_and_refusals_are_not() {
    let (server, cache) = (tiny(), tempfile::tempdir().unwrap());
    let hub = server.patient(&cache, 3);
    server.fail(Fault::Status(503), 2);
    assert_is_tiny(&hub.fetch(MODEL).unwrap());
    let paths: Vec<_> = server.requests().into_iter().map(|request| request.path).collect();
    assert!(paths[..3].iter().all(|path| path.starts_with("/api/models/")), "{paths:?}");
    for (status, requests) in [(404, 1), (401, 1), (429, 1), (500, 3)] {
        let empty = tempfile::tempdir().unwrap();
        server.fail(Fault::Status(status), 3);
        problem(server.patient(&empty, 3).fetch(MODEL));
        assert_eq!(server.requests().len(), requests, "{status}");
    }
}

#[test]
fn a_download_that_breaks_off_goes_on_where_it_stopped() {
    let (server, cache) = (tiny(), tempfile::tempdir().unwrap());
    server.fail_with(Fault::Cut(1500));
    assert_is_tiny(&server.patient(&cache, 4).fetch(MODEL).unwrap());
    let ranges: Vec<_> = server.requests().into_iter().filter_map(|request| request.range).collect();
    assert_eq!(ranges[4..], ["bytes=0-0", "bytes=0-", "bytes=1500-", "bytes=3000-"], "{ranges:?}");
    // Fewer attempts than pieces.
    let empty = tempfile::tempdir().unwrap();
    let problem = problem(server.patient(&empty, 2).fetch(MODEL));
    assert!(problem.contains("another try goes on after the bytes that arrived"), "{problem}");
}

#[test]
fn a_server_that_never_answers_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let (seen, connections) = std::sync::mpsc::channel();
    // The connections stay open.
    thread::spawn(move || while seen.send(silent.accept().unwrap()).is_ok() {});
    let server = tiny();
    // A time that passes ahead of a connection makes none, and a longer one takes its place.
    for milliseconds in [50, 200, 1000, 5000, 20_000] {
        let cache = tempfile::tempdir().unwrap();
        let timeout = Duration::from_millis(milliseconds);
        let patience = Patience { timeout, attempts: 3, pause: Duration::from_millis(1) };
        let hub = Hub { endpoint: format!("http://{address}"), patience, ..server.client(&cache) };
        let problem = problem(hub.fetch(MODEL));
        assert!(problem.contains("timeout"), "{problem}");
        // Connections are accepted in their order, so that those of the client come ahead of this one.
        let last = TcpStream::connect(address).unwrap().local_addr().unwrap();
        let attempts = connections.iter().take_while(|(_, from)| *from != last).count();
        assert!(attempts <= 3, "{attempts}");
        if attempts == 3 {
            return;
        }
    }
    panic!("fewer than three attempts");
}

#[test]
fn names_from_the_hub_do_not_lead_out_of_the_cache() {
    for fault in [Fault::EvilCommit, Fault::EvilEtag] {
        let (server, root) = (tiny(), tempfile::tempdir().unwrap());
        server.fail_with(fault);
        let hub = Hub { cache: root.path().join("a/b/c/d"), ..server.client(&root) };
        let problem = problem(hub.fetch(MODEL));
        assert!(problem.contains("evil"), "{problem}");
        assert!(!root.path().join("a").exists(), "nothing was written");
    }
}
