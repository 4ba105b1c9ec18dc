//! What is logged: one line for each call, a failure once with its causes, and never a token.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, OnceLock},
};

use axum::{body::Body, extract::Request};
use colophon_domain::{Failure, Reason};
use colophon_server::ServerSettings;
use serde_json::Value;
use tower::ServiceExt as _;
use tracing_subscriber::EnvFilter;

use crate::fake::{self, CI, Fake, uuid};

static LINES: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Lines(MutexGuard<'static, Vec<u8>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Collects the log of all tests of this process. One subscriber for a test alone would not do:
/// what is logged is decided once for the process, by whichever thread comes to a line first,
/// and another test's thread would decide for nothing.
pub fn collect() {
    static BEGUN: OnceLock<()> = OnceLock::new();
    BEGUN.get_or_init(|| {
        // The HTTP library of client and server shows bytes of the wire at this level.
        let filter = EnvFilter::new("trace,h2=off,hyper=off,hyper_util=off,reqwest=off");
        tracing_subscriber::fmt()
            .json()
            .with_env_filter(filter)
            .with_writer(|| Lines(LINES.lock().unwrap()))
            .init();
    });
}

/// What was logged so far in this process.
pub fn lines() -> Vec<Value> {
    let text = String::from_utf8(LINES.lock().unwrap().clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Calls the router and gives back what was logged under the requests' id.
async fn logged(id: &str, fake: Fake, requests: Vec<Request>) -> Vec<Value> {
    let router = fake::router(Arc::new(fake), Arc::default(), ServerSettings::default());
    for mut request in requests {
        request.headers_mut().insert("x-request-id", id.parse().unwrap());
        router.clone().oneshot(request).await.unwrap();
    }
    let of_id = |line: &Value| line["span"]["request_id"] == id;
    lines().into_iter().filter(of_id).collect()
}

fn request(path: &str, token: &str) -> Request {
    Request::builder()
        .uri(path)
        .header("authorization", format!("Bearer {token}"))
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
    let lines = logged("log-of-a-failure", fake, vec![request(&path, CI)]).await;
    let errors: Vec<_> = lines.iter().filter(|line| line["level"] == "ERROR").collect();
    assert_eq!(errors.len(), 1, "{lines:?}");
    assert_eq!(errors[0]["fields"]["reason"], "INTERNAL");
    assert_eq!(errors[0]["fields"]["message"], "call failed");
    assert_eq!(errors[0]["fields"]["failure"], "row 7 of job");
    assert!(errors[0].to_string().contains("the cause"), "{lines:?}");

    let calls: Vec<_> =
        lines.iter().filter(|line| line["fields"]["message"] == "answered").collect();
    assert_eq!(calls.len(), 1, "{lines:?}");
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
    let lines = logged("log-of-tokens", Fake::default(), requests).await;
    let answered = lines.iter().filter(|line| line["fields"]["message"] == "answered");
    assert_eq!(answered.count(), 4, "{lines:?}");
    let text = format!("{lines:?}");
    assert!(text.contains("UNAUTHENTICATED"), "{text}");
    assert!(!text.contains(CI) && !text.contains(secret), "{text}");
}
