//! What is logged: one line for each call, a failure once with its causes, and never a token.

use std::{
    io,
    sync::{Arc, Mutex},
};

use axum::{body::Body, extract::Request};
use colophon_domain::{Failure, Reason};
use colophon_server::ServerSettings;
use serde_json::Value;
use tower::ServiceExt as _;
use tracing::instrument::WithSubscriber as _;

use crate::fake::{CI, Fake, callers, uuid};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Calls the router in this task, so that its log lines come here.
async fn logged(fake: Fake, requests: Vec<Request>) -> String {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let clock = Arc::new(colophon_domain::SystemClock);
    let router =
        colophon_server::router(Arc::new(fake), callers(), clock, ServerSettings::default());
    async {
        for request in requests {
            router.clone().oneshot(request).await.unwrap();
        }
    }
    .with_subscriber(subscriber)
    .await;
    let bytes = lines.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

fn request(path: &str, token: &str) -> Request {
    Request::builder()
        .uri(path)
        .header("authorization", format!("Bearer {token}"))
        .header("x-request-id", "run-17")
        .body(Body::empty())
        .unwrap()
}

#[tokio::test]
async fn a_failure_is_logged_once_with_its_causes_and_the_requests_id() {
    let fake = Fake::default().get(|_| {
        let cause = io::Error::other("the cause");
        Err(Failure::new(Reason::Internal, "row 7 of job").caused_by(cause))
    });
    let path = format!("/v1/releases/{}", uuid(1));
    let text = logged(fake, vec![request(&path, CI)]).await;
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let errors: Vec<_> = lines.iter().filter(|line| line["level"] == "ERROR").collect();
    assert_eq!(errors.len(), 1, "{text}");
    assert_eq!(errors[0]["fields"]["reason"], "INTERNAL");
    assert_eq!(errors[0]["fields"]["message"], "call failed");
    assert_eq!(errors[0]["fields"]["failure"], "row 7 of job");
    assert!(errors[0].to_string().contains("the cause"), "{text}");
    assert_eq!(errors[0]["span"]["request_id"], "run-17");

    let calls: Vec<_> =
        lines.iter().filter(|line| line["fields"]["message"] == "answered").collect();
    assert_eq!(calls.len(), 1, "{text}");
    let span = &calls[0]["span"];
    assert_eq!(span["route"], "/v1/releases/{id}");
    assert_eq!((&span["method"], &span["caller"]), (&"GET".into(), &"ci".into()));
    assert_eq!(span["status"], 500);
    assert!(calls[0]["fields"]["took_ms"].is_u64());
}

#[tokio::test]
async fn a_token_is_never_logged() {
    let grpc = Request::post("/colophon.v1.TagService/GetTag")
        .header("content-type", "application/grpc")
        .header("authorization", format!("Bearer {CI}"))
        .body(Body::empty())
        .unwrap();
    let secret = "clp_not-known-to-anybody";
    let requests =
        vec![request("/v1/releases", CI), request("/v1/releases", secret), request("/x", CI), grpc];
    let text = logged(Fake::default(), requests).await;
    assert!(text.contains("answered") && text.contains("UNAUTHENTICATED"), "{text}");
    assert!(!text.contains(CI) && !text.contains(secret), "{text}");
}
