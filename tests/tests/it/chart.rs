//! The Helm chart, rendered by Helm's own engine: held against Kubernetes' schemas, the pod security
//! standards, the documentation and the real service. The tests are in Python, as the engine is, one
//! file for each of the three here.

use std::process::Stdio;

use colophon_testkit::wait::binary;
use colophon_tests::PATIENCE;
use tokio::process::Command;

use crate::grpc::{python, root};

async fn passes(module: &str) {
    let tests = Command::new(python())
        .args(["-B", "-m", "unittest", "-v", module])
        .current_dir(root().join("tests/python/chart"))
        .env("COLOPHOND", binary("colophond").unwrap())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PATIENCE * 4, tests).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    // Nothing found and nothing skipped: the last line but for an empty one is "OK" and no more.
    assert!(!said.contains("Ran 0 tests") && said.trim_end().ends_with("\nOK"), "{said}");
}

#[tokio::test]
async fn every_example_is_what_helm_kubernetes_and_the_service_take() {
    passes("test_render").await;
}

#[tokio::test]
async fn every_pod_keeps_to_the_restricted_standard_and_reaches_what_is_named() {
    passes("test_security").await;
}

#[tokio::test]
async fn values_are_checked_explained_and_have_their_consequences() {
    passes("test_values").await;
}
