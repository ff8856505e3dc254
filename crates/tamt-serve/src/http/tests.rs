//! A queue without an engine, so that it stays as full as a test wants.

use std::path::Path;
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

use crate::app::App;
use crate::compute;
use crate::http::router;
use crate::models::{Kind, Models, Served};
use crate::settings::Settings;

/// The small BERT of `tests/golden`, 16 wide and with 40 positions.
fn app(max_queue_tokens: usize) -> Arc<App> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/bert");
    let (base, compute) = (Base::load(path).unwrap(), Compute::default());
    let settings = EncodeSettings { max_length: 40, ..EncodeSettings::default() };
    let encoder = Encoder::new(base, None, compute);
    let kind = Kind::Encoder { encoder, settings };
    let served = Served { name: "small".to_owned(), sha256: String::new(), ticket: None, kind };
    let models = Models::new(vec![served], compute).unwrap();
    Arc::new(App::new(models, Settings { max_queue_tokens, ..Settings::default() }))
}

/// The answer to one text of 40 tokens.
async fn ask(app: Arc<App>) -> Response<Body> {
    let body = json!({ "inputs": "lis ".repeat(100) }).to_string();
    let request = Request::post("/embed").body(Body::from(body)).unwrap();
    TowerToHyperService::new(router(&app)).call(request).await.unwrap()
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
