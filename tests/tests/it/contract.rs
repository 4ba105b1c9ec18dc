//! The running service, held against its `OpenAPI` document by tools of others: a validator of
//! the document, and Schemathesis, which sends what the document allows and what it does not.

use std::process::{Output, Stdio};

use colophon_testkit::image::ImageSpec;
use colophon_tests::{SiteOptions, World};
use secrecy::ExposeSecret as _;
use tokio::process::Command;

use crate::docs::{page, root};

/// How long the runs may take together, in seconds; `COLOPHON_CONTRACT_SECONDS` asks for more.
const SECONDS: u64 = 60;

/// What every answer is held to. Whether all that the document allows is accepted is not asked:
/// it does not say which references exist, nor which fields exclude each other's values.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance,\
                      negative_data_rejection,unsupported_method,allow_header_conformance,\
                      ignored_auth";

fn tool(name: &str) -> Command {
    let path = root().join(".cache/venv/bin").join(name);
    assert!(path.is_file(), "run `make setup`: there is no {}", path.display());
    let mut command = Command::new(path);
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

fn told(output: &Output) -> String {
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{}\n{out}{err}", output.status)
}

/// What the requests are drawn from unless the environment says otherwise.
const SEED: u32 = 558_161_095;

#[tokio::test]
async fn the_document_is_openapi_3_1() {
    let document = root().join("docs/openapi.json");
    let output = tool("openapi-spec-validator").arg("--schema").arg("3.1").arg(&document).output();
    let output = output.await.unwrap();
    assert!(output.status.success(), "{}", told(&output));
    assert!(page("docs/openapi.json").contains("\"openapi\": \"3.1."));
}

#[tokio::test]
async fn the_service_answers_as_its_document_says_whatever_is_sent() {
    let mut world = World::new().await.unwrap();
    let staging = world.site(SiteOptions::default()).await.unwrap();
    let target = world.site(SiteOptions::default()).await.unwrap();
    let node = world.run().await.unwrap();
    let client = world.client(&node).unwrap();
    staging.push(&ImageSpec::tiny("contract"), "app", "1").await.unwrap();
    let (source, app) = (staging.reference("app", "1"), target.repository("app"));
    let targets: [colophon_tests::Target; 1] = [(&app, &["1.0"], &["latest"])];
    let release = client.publish(&source, &targets).await.unwrap();
    client.wait_end(&release).await.unwrap();

    let folder = world.folder().join("schemathesis");
    std::fs::create_dir(&folder).unwrap();
    let given = std::env::var("COLOPHON_CONTRACT_SEED").ok().map(|text| text.parse().unwrap());
    // The same requests each time, so that it fails by what was changed and by nothing else; the
    // variable takes others.
    let seed: u32 = given.unwrap_or(SEED);
    println!("COLOPHON_CONTRACT_SEED={seed} takes the same requests again");
    let asked = std::env::var("COLOPHON_CONTRACT_SECONDS").ok().map(|text| text.parse().unwrap());
    let seconds: u64 = asked.unwrap_or(SECONDS);
    let reference = format!("{app}:latest");
    // First anything, then what exists: else hardly an answer would be one that has content.
    let known = format!(
        "[parameters]\n\"path.id\" = {release:?}\n\"query.reference\" = {reference:?}\n\
         \"query.repository\" = {app:?}\n"
    );
    for (name, parameters, share) in [("anything", "", 3), ("known", known.as_str(), 1)] {
        // The token is in the environment, because arguments can be seen.
        let config =
            format!("[headers]\nAuthorization = \"Bearer ${{COLOPHON_TOKEN}}\"\n{parameters}");
        let file = folder.join(format!("{name}.toml"));
        std::fs::write(&file, config).unwrap();
        let mut run = tool("schemathesis");
        run.arg("--config-file").arg(&file).arg("run").arg(root().join("docs/openapi.json"));
        run.args(["--url", &format!("http://{}", node.address()), "--checks", CHECKS]);
        run.args(["--seed", &seed.to_string(), "--max-time", &(seconds * share / 4).to_string()]);
        // One thread: the parser of Python 3.11 that the tool uses fails with several.
        run.args(["--workers", "1", "--continue-on-failure", "--request-timeout", "20"]);
        run.args(["--suppress-health-check", "all", "--output-sanitize", "true"]);
        if name == "known" {
            run.args(["--include-method", "GET"]);
        }
        run.env("COLOPHON_TOKEN", world.token().expose_secret());
        let output = run.current_dir(&folder).output().await.unwrap();
        let said = told(&output);
        println!("{name}: {said}");
        assert!(output.status.success(), "{name}, with COLOPHON_CONTRACT_SEED={seed}: {said}");
        assert!(
            said.contains("test cases") || said.contains("Test cases"),
            "nothing was tried: {said}"
        );
    }
    let log = node.log();
    assert!(!log.contains("panicked"), "{log}");
}
