//! Manifests go after the blobs, each after those that it names, so that a registry never has one
//! whose content is missing.

use std::time::{Duration, Instant};

use colophon_api::v1::PutManifestRequest;
use colophon_local::Image;

use super::view::View;
use crate::{
    call::{Patience, call},
    connect::Client,
    exit::Problem,
    submit::ATTEMPT,
};

/// How long a server may be away.
pub const AWAY: Duration = Duration::from_mins(3);

/// Puts all of them.
pub async fn send(
    client: &Client,
    upload: &str,
    image: &Image,
    mut view: &View,
) -> Result<(), Problem> {
    for manifest in &image.manifests {
        let request = PutManifestRequest {
            id: upload.to_owned(),
            digest: manifest.digest.to_string(),
            media_type: manifest.media_type.clone(),
            content: manifest.bytes.to_vec(),
        };
        let patience = Patience { attempt: ATTEMPT, until: Instant::now() + AWAY };
        call(patience, &mut view, || {
            let (mut uploads, request) = (client.uploads.clone(), request.clone());
            async move { uploads.put_manifest(request).await }
        })
        .await?;
    }
    Ok(())
}
