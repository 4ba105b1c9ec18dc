//! The gRPC face as another language sees it: Python's grpcio, with stubs made from `proto/` at
//! the time of the test; and that both faces give the same reasons.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use colophon_testkit::image::ImageSpec;
use colophon_tests::{Answer, Client, SiteOptions, World, request};
use http::Method;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::release_scene::text;

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Python with what `make setup` installs.
pub(crate) fn python() -> PathBuf {
    let python = root().join(".cache/venv/bin/python");
    assert!(python.is_file(), "run `make setup`: there is no {}", python.display());
    python
}

/// Makes the stubs of our contract.
pub(crate) async fn stubs(folder: &Path) {
    let protos = root().join("proto");
    let output = Command::new(python())
        .args(["-m", "grpc_tools.protoc", "-I"])
        .arg(&protos)
        .arg(format!("--python_out={}", folder.display()))
        .arg(format!("--grpc_python_out={}", folder.display()))
        .args([
            "colophon/v1/freeze.proto",
            "colophon/v1/plan.proto",
            "colophon/v1/release.proto",
            "colophon/v1/tag.proto",
            "colophon/v1/tag_move.proto",
            "colophon/v1/upload.proto",
            "colophon/v1/watch.proto",
            "buf/validate/validate.proto",
            "google/api/annotations.proto",
        ])
        .current_dir(&protos)
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Runs a client and returns what it printed.
pub(crate) async fn run_script(name: &str, stubs: &Path, given: &Value) -> Value {
    let mut client = Command::new(python())
        .arg(root().join("tests/python").join(name))
        .env_clear()
        .env("PYTHONPATH", stubs)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut input = client.stdin.take().unwrap();
    input.write_all(given.to_string().as_bytes()).await.unwrap();
    drop(input);
    let output = client.wait_with_output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn python_uses_the_whole_contract_and_hears_the_same_reasons_as_on_rest() {
    let mut world = World::new().await.unwrap();
    let staging = world.site(SiteOptions::default()).await.unwrap();
    let target = world.site(SiteOptions::default()).await.unwrap();
    let node = world.run().await.unwrap();
    let client = world.client(&node).unwrap();
    staging.push(&ImageSpec::tiny("grpc"), "app", "1").await.unwrap();
    let made = world.folder().join("stubs");
    std::fs::create_dir(&made).unwrap();
    stubs(&made).await;
    let (source, app) = (staging.reference("app", "1"), target.repository("app"));
    let missing = staging.reference("app", "none");
    let given = json!({
        "address": node.address(), "token": world.token().expose_secret(), "source": source,
        "missing": missing, "target": app,
    });
    let printed = run_script("grpc_client.py", &made, &given).await;
    let services = json!([
        "colophon.v1.FreezeService",
        "colophon.v1.ReleaseService",
        "colophon.v1.TagService",
        "colophon.v1.UploadService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
    ]);
    assert_eq!(printed["services"], services, "{printed:#}");

    let release = text(&printed, "/release");
    let both = [(app.as_str(), &["1.0"][..], &["latest"][..])];
    let foreign = [("elsewhere.example/app", &["1"][..], &[][..])];
    let create =
        async |source: &str, targets| client.create(&request(source, targets)).await.unwrap();
    let mut reused = request(&source, &both);
    reused["idempotencyKey"] = json!("python");
    let get = async |client: &Client, path: &str, query: &[(&str, &str)]| -> Answer {
        client.call(Method::GET, path, query, None).await.unwrap()
    };
    let nobody = world.client_of(&node, &"clp_nobody".into()).unwrap();
    let reference = format!("{app}:latest");
    let future = [("reference", reference.as_str()), ("at", "2999-01-01T00:00:00Z")];
    let unknown = "/v1/releases/019a4d1c-0000-7000-8000-000000000001";
    let garbage = [("page_token", "garbage")];
    let post = async |path: &str, body: &Value| -> Answer {
        client.call(Method::POST, path, &[], Some(body)).await.unwrap()
    };
    let mut planned = request(&source, &both);
    planned["plan"] = json!("p2");
    let far = json!({ "reference": reference, "steps": 9, "reason": "a test" });
    let endless = json!({ "pattern": "*", "reason": "a test" });
    let settle = json!({
        "reference": reference, "settledAs": "SETTLED_AS_MOVED", "reason": "a test",
    });
    let by_rest = [
        ("no source", create("", &both).await),
        ("no reference", create("a b", &both).await),
        ("unknown registry", create(&source, &foreign).await),
        ("missing source", create(&missing, &both).await),
        ("key reused", client.create(&reused).await.unwrap()),
        ("no release", get(&client, unknown, &[]).await),
        ("no id", get(&client, "/v1/releases/7", &[]).await),
        ("page token", get(&client, "/v1/releases", &garbage).await),
        ("too late", client.cancel(release).await.unwrap()),
        ("the future", get(&client, "/v1/tag", &future).await),
        ("no such plan", client.create(&planned).await.unwrap()),
        ("too far back", post("/v1/rollbacks", &far).await),
        ("no end", post("/v1/freezes", &endless).await),
        ("nothing to settle", post("/v1/tag/settle", &settle).await),
        ("nobody", get(&nobody, &format!("/v1/releases/{release}"), &[]).await),
    ];
    assert_eq!(printed["errors"].as_object().unwrap().len(), by_rest.len());
    for (case, answer) in &by_rest {
        let code = match answer.status.as_u16() {
            400 => "INVALID_ARGUMENT",
            401 => "UNAUTHENTICATED",
            404 => "NOT_FOUND",
            409 => "FAILED_PRECONDITION",
            other => panic!("{case}: {other} {:#}", answer.body),
        };
        let rest = json!({
            "code": code,
            "reason": answer.text("/reason"),
            "field": answer.text("/field"),
            "message": answer.text("/detail"),
            "remedy": answer.text("/remedy"),
        });
        assert_eq!(printed["errors"][case], rest, "{case}");
    }
    assert!(!node.log().contains("panicked"), "{}", node.log());
}
