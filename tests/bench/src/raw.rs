//! The limits: what the registry and the database do when nobody is careful.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use futures_util::{StreamExt as _, stream};
use reqwest::{Body, Client, Method, Response, header};
use serde_json::Value;
use sqlx::postgres::PgPool;

use crate::{rig::Rig, stats::Sample};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A request to a registry that must succeed.
async fn call(
    client: &Client,
    method: Method,
    url: &str,
    body: Option<Vec<u8>>,
) -> Result<Response> {
    let mut request = client.request(method.clone(), url).header(header::ACCEPT, MANIFEST);
    if let Some(body) = body {
        request = request.header(header::CONTENT_TYPE, MANIFEST).body(body);
    }
    let answer = request.send().await?;
    if !answer.status().is_success() {
        bail!("{method} {url}: {}", answer.status());
    }
    Ok(answer)
}

/// A manifest as it is.
pub(crate) async fn manifest(rig: &Rig, repository: &str, tag: &str) -> Result<Vec<u8>> {
    let url = format!("{}/v2/{repository}/manifests/{tag}", rig.source.url());
    Ok(call(&rig.client, Method::GET, &url, None).await?.bytes().await?.to_vec())
}

/// The requests of one retag, one after the other: HEAD of the source, HEAD of the tag, GET of the
/// manifest, PUT, HEAD.
pub(crate) async fn retag(rig: &Rig, repository: &str, count: usize) -> Result<Sample> {
    let client = Client::builder().tls_certs_only([]).no_proxy().build()?;
    let base = format!("{}/v2/{repository}/manifests", rig.source.url());
    let source = [format!("{base}/build-0"), format!("{base}/build-1")];
    let tag = format!("{base}/raw");
    let mut durations = Vec::with_capacity(count);
    for number in 0..=count {
        let Some(source) = source.get(number % 2) else { continue };
        let since = Instant::now();
        call(&client, Method::HEAD, source, None).await?;
        if number > 0 {
            call(&client, Method::HEAD, &tag, None).await?;
        }
        let bytes = call(&client, Method::GET, source, None).await?.bytes().await?.to_vec();
        call(&client, Method::PUT, &tag, Some(bytes)).await?;
        call(&client, Method::HEAD, &tag, None).await?;
        if number > 0 {
            durations.push(since.elapsed());
        }
    }
    Ok(Sample::new(durations))
}

/// Commits of one row each, one after the other.
pub(crate) async fn commits(pool: &PgPool, count: usize) -> Result<Sample> {
    sqlx::query("CREATE TABLE IF NOT EXISTS bench_commit (n bigint)").execute(pool).await?;
    let mut connection = pool.acquire().await?;
    let mut durations = Vec::with_capacity(count);
    for _ in 0..count {
        let since = Instant::now();
        sqlx::query("INSERT INTO bench_commit VALUES (1)").execute(&mut *connection).await?;
        durations.push(since.elapsed());
    }
    Ok(Sample::new(durations))
}

/// PUTs of manifests under the tags that `name` gives them, so many at a time; how many each
/// second.
pub(crate) async fn put_each(
    rig: &Rig,
    repository: &str,
    manifests: &[Vec<u8>],
    name: impl Fn(usize) -> String,
    at_once: usize,
) -> Result<f64> {
    let base = format!("{}/v2/{repository}/manifests", rig.source.url());
    let put = async |(number, manifest): (usize, &Vec<u8>)| {
        let url = format!("{base}/{}", name(number));
        let answer = call(&rig.client, Method::PUT, &url, Some(manifest.clone())).await?;
        answer.bytes().await?;
        anyhow::Ok(())
    };
    let since = Instant::now();
    let mut running = stream::iter(manifests.iter().enumerate()).map(put).buffer_unordered(at_once);
    while let Some(result) = running.next().await {
        result?;
    }
    #[expect(clippy::cast_precision_loss, reason = "far fewer tags than 2^52")]
    Ok(manifests.len() as f64 / since.elapsed().as_secs_f64())
}

/// Every blob of a manifest straight from one registry into another, all at once and without a
/// look at a digest; then the manifest.
pub(crate) async fn copy(
    rig: &Rig,
    to: &str,
    repository: &str,
    manifest: &[u8],
) -> Result<Duration> {
    let content: Value = serde_json::from_slice(manifest)?;
    let layers = content.get("layers").and_then(Value::as_array).into_iter().flatten();
    let blobs: Vec<&str> = layers
        .chain(content.get("config"))
        .filter_map(|blob| blob.get("digest").and_then(Value::as_str))
        .collect();
    let since = Instant::now();
    let from = format!("{}/v2/{repository}", rig.source.url());
    let to = format!("{to}/v2/{repository}");
    let copy = async |digest: &str| {
        let source =
            call(&rig.client, Method::GET, &format!("{from}/blobs/{digest}"), None).await?;
        let size = source.content_length().context("a blob without a length")?;
        let session = rig.client.post(format!("{to}/blobs/uploads/")).send().await?;
        let place = session.headers().get(header::LOCATION).context("an upload without a place")?;
        let place = place.to_str()?;
        let mark = if place.contains('?') { '&' } else { '?' };
        let answer = rig
            .client
            .put(format!("{place}{mark}digest={digest}"))
            .header(header::CONTENT_LENGTH, size)
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .body(Body::wrap_stream(source.bytes_stream()))
            .send()
            .await?;
        if !answer.status().is_success() {
            bail!("PUT of {digest}: {}", answer.status());
        }
        anyhow::Ok(())
    };
    futures_util::future::try_join_all(blobs.into_iter().map(copy)).await?;
    let url = format!("{to}/manifests/raw");
    call(&rig.client, Method::PUT, &url, Some(manifest.to_vec())).await?;
    Ok(since.elapsed())
}
