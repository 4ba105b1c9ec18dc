//! Whether a repository has a blob (distribution-spec, "Checking if content exists in the
//! registry").

use colophon_domain::{Digest, Result};
use http::{Method, StatusCode};

use crate::{exchange::Call, session::Session};

impl Session {
    /// Asks by HEAD. A registry that does not answer HEAD counts as one without the blob, which
    /// is then sent.
    ///
    /// # Errors
    /// Whatever keeps the registry from answering.
    #[tracing::instrument(level = "debug", name = "registry.blob.check", skip_all, fields(repository = self.repository.name(), digest = %digest))]
    pub async fn has_blob(&self, digest: &Digest) -> Result<bool> {
        let _place = self.place(&self.host.limits.requests).await;
        let url = self.url(&format!("blobs/{digest}"));
        let call = Call::reading(self, Method::HEAD, url, format!("looking for the blob {digest}"));
        let asked = call.asked.clone();
        let response = self.follow(call).await?;
        match response.status() {
            status if status.is_success() => Ok(true),
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Ok(false),
            _ => Err(self.refusal(response, &asked).await.into_failure(&asked)),
        }
    }
}
