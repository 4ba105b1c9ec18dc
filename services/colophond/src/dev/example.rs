//! The example that a new folder begins with: two builds in `staging`, the first of them
//! published to `production` as version 1.0.0.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use reqwest::{Client, StatusCode, header::LOCATION};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, sleep};

use super::{
    folder::{Caller, Folder},
    parts::Beside,
};

/// The marker of a folder that has its example.
const DONE: &str = "example.done";

/// How long the first release may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// What the example is made with.
pub(super) struct Example<'a> {
    pub(super) server: &'a str,
    pub(super) caller: &'a Caller,
    pub(super) beside: &'a Beside,
}

impl Example<'_> {
    /// Makes it, once in the life of a folder, if both registries are there.
    pub(super) async fn fill(&self, folder: &Folder) -> Result<()> {
        let [Some(staging), Some(production)] = self.beside.hosts() else { return Ok(()) };
        if folder.has(DONE) {
            return Ok(());
        }
        let client = Client::builder().no_proxy().timeout(PATIENCE).build()?;
        for build in ["build-1", "build-2"] {
            push(&client, &format!("http://{staging}"), "hello", build).await?;
        }
        let release = json!({
            "source": format!("{staging}/hello:build-1"),
            "targets": [{ "repository": format!("{production}/hello") }],
            "semver": "1.0.0",
            "reason": "the example of colophond dev",
            // The folder's own: a database may be that of other folders, too.
            "idempotencyKey": format!("colophond-dev-example-{}", self.caller.token_sha256),
        });
        self.publish(&client, &release).await?;
        folder.write(DONE, "").map(drop)
    }

    /// Publishes as any caller does, and waits for the end.
    async fn publish(&self, client: &Client, release: &Value) -> Result<()> {
        let url = format!("{}/v1/releases", self.server);
        let token = self.caller.token.expose_secret();
        let mut answer = client.post(&url).bearer_auth(token).json(release).send().await?;
        let since = Instant::now();
        loop {
            let status = answer.status();
            let body: Value = answer.json().await.context("the service answered without JSON")?;
            let text = |field: &str| body.get(field).and_then(Value::as_str).unwrap_or_default();
            if !status.is_success() {
                bail!("{status}: {}", text("detail"));
            }
            match text("state") {
                "RELEASE_STATE_SUCCEEDED" => return Ok(()),
                "RELEASE_STATE_QUEUED" | "RELEASE_STATE_RUNNING" if since.elapsed() < PATIENCE => {}
                state => bail!("release {} is {state}", text("id")),
            }
            sleep(Duration::from_millis(50)).await;
            let one = format!("{url}/{}", text("id"));
            answer = client.get(one).bearer_auth(token).send().await?;
        }
    }
}

/// Pushes an image with one text file, the same bytes at every call.
async fn push(client: &Client, registry: &str, name: &str, build: &str) -> Result<()> {
    let layer = layer(build)?;
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
    })
    .to_string()
    .into_bytes();
    let described = |media_type: &str, bytes: &[u8]| json!({ "mediaType": media_type, "digest": digest(bytes), "size": bytes.len() });
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": manifest_type,
        "config": described("application/vnd.oci.image.config.v1+json", &config),
        "layers": [described("application/vnd.oci.image.layer.v1.tar", &layer)],
    })
    .to_string();
    let repository = format!("{registry}/v2/{name}");
    for blob in [layer, config] {
        push_blob(client, &repository, blob).await?;
    }
    let url = format!("{repository}/manifests/{build}");
    let request = client.put(&url).header("Content-Type", manifest_type).body(manifest);
    expect(request.send().await?.status(), StatusCode::CREATED, &url)
}

/// In one piece (distribution-spec 1.1, "POST then PUT").
async fn push_blob(client: &Client, repository: &str, blob: Vec<u8>) -> Result<()> {
    let url = format!("{repository}/blobs/uploads/");
    let opened = client.post(&url).send().await?;
    expect(opened.status(), StatusCode::ACCEPTED, &url)?;
    let location = opened.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let place = opened.url().join(location.context("an upload has a Location")?)?;
    let upload = client.put(place).query(&[("digest", digest(&blob))]);
    let put = upload.header("Content-Type", "application/octet-stream").body(blob);
    expect(put.send().await?.status(), StatusCode::CREATED, &url)
}

fn expect(status: StatusCode, wanted: StatusCode, url: &str) -> Result<()> {
    if status != wanted {
        bail!("{url} answered {status} and not {wanted}");
    }
    Ok(())
}

/// A tar with one file that says which build it is.
fn layer(build: &str) -> Result<Vec<u8>> {
    let text = format!("Hello from {build}.\n");
    let mut header = tar::Header::new_gnu();
    header.set_size(u64::try_from(text.len())?);
    header.set_mode(0o644);
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut header, "hello.txt", text.as_bytes())?;
    Ok(archive.into_inner()?)
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}
