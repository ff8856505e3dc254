//! A queue without an engine, so that it stays as full as a test wants.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::Body;
use axum::http::header::RETRY_AFTER;
use axum::http::{Request, Response};
use http_body_util::BodyExt;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use tamt::Compute;
use tamt::base::Base;
use tamt::encode::{EncodeSettings, Encoder};
use tamt::predict::Classifier;
use tamt::tune::TaskModel;
use tamt_model::Storage;

use crate::app::App;
use crate::compute;
use crate::http::router;
use crate::models::{Kind, Models, Served};
use crate::settings::Settings;

/// The small BERT of `tests/golden`, 16 wide and with 40 positions.
fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/bert")
}

fn app_of(kind: Kind, max_queue_tokens: usize) -> Arc<App> {
    let served = Served { name: "small".to_owned(), sha256: String::new(), ticket: None, kind };
    let models = Models::new(vec![served], Compute::default()).unwrap();
    Arc::new(App::new(models, Settings { max_queue_tokens, ..Settings::default() }))
}

fn app(max_queue_tokens: usize) -> Arc<App> {
    let settings = EncodeSettings { max_length: 40, ..EncodeSettings::default() };
    let encoder = Encoder::new(Base::load(golden()).unwrap(), None, Compute::default());
    app_of(Kind::Encoder { encoder, settings }, max_queue_tokens)
}

/// The answer to one text.
async fn ask_about(app: Arc<App>, path: &str, text: String) -> Response<Body> {
    let request = Request::post(path).body(Body::from(json!({ "inputs": text }).to_string())).unwrap();
    TowerToHyperService::new(router(&app)).call(request).await.unwrap()
}

/// The answer to one text of 40 tokens.
async fn ask(app: Arc<App>) -> Response<Body> {
    ask_about(app, "/embed", "lis ".repeat(100)).await
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(test);
}

async fn wait_for(app: &App, tokens: usize) {
    while app.tokens.used() != tokens {
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_full_queue_refuses_a_request_and_takes_the_next_one_once_there_is_room() {
    run(async {
        let app = app(60);
        let first = tokio::spawn(ask(app.clone()));
        wait_for(&app, 40).await;
        let refused = ask(app.clone()).await;
        assert_eq!(refused.status(), 429);
        assert_eq!(refused.headers()[RETRY_AFTER], "1");
        let body = refused.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, r#"{"error":"the queue is full; try again later","error_type":"overloaded"}"#);
        assert_eq!(app.tokens.used(), 40);

        let own = app.clone();
        let engine = std::thread::spawn(move || compute::run(&own, compute::warm_up(&own)));
        assert_eq!(first.await.unwrap().status(), 200);
        wait_for(&app, 0).await;
        let answer = ask(app.clone()).await;
        assert_eq!(answer.status(), 200);
        // The answer takes memory until it is sent.
        assert!(app.bytes.used() > 0);
        drop(answer);
        app.queue.close();
        engine.join().unwrap();
        assert_eq!((app.bytes.used(), app.tokens.used()), (0, 0));
    });
}

#[test]
fn texts_of_clients_that_are_gone_are_not_computed() {
    run(async {
        let app = app(100);
        let (gone, waiting) = (tokio::spawn(ask(app.clone())), tokio::spawn(ask(app.clone())));
        wait_for(&app, 80).await;
        gone.abort();
        assert!(gone.await.unwrap_err().is_cancelled());
        let own = app.clone();
        let engine = std::thread::spawn(move || compute::run(&own, compute::warm_up(&own)));
        assert_eq!(waiting.await.unwrap().status(), 200);
        wait_for(&app, 0).await;
        assert!(app.metrics.render(&[]).contains("tamt_texts_total{model=\"small\"} 1\n"));
        app.queue.close();
        engine.join().unwrap();
    });
}

#[test]
fn a_text_whose_outputs_overflow_fails_its_own_request_alone() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        for folder in [golden(), golden().join("classifier")] {
            for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
                if entry.path().is_file() {
                    std::fs::copy(entry.path(), directory.path().join(entry.file_name())).unwrap();
                }
            }
        }
        let (mut task, own) = TaskModel::load_own(directory.path(), None, Storage::Dense).unwrap();
        // Texts of more than 20 tokens overflow.
        let positions = task.model.embeddings.position;
        task.model.params.get_mut(positions)[20 * 16..21 * 16].fill(1e38);
        let classifier = Classifier::new(task, own, Compute::default()).unwrap();
        let app = app_of(Kind::Classifier(Box::new(classifier)), 100);

        let long = tokio::spawn(ask_about(app.clone(), "/predict", "lis ".repeat(100)));
        wait_for(&app, 40).await;
        let short = tokio::spawn(ask_about(app.clone(), "/predict", "lis".to_owned()));
        while app.tokens.used() <= 40 {
            tokio::task::yield_now().await;
        }
        // Both are one batch.
        let own = app.clone();
        let engine = std::thread::spawn(move || compute::run(&own, compute::warm_up(&own)));
        assert_eq!((long.await.unwrap().status().as_u16(), short.await.unwrap().status().as_u16()), (500, 200));
        app.queue.close();
        engine.join().unwrap();
    });
}
