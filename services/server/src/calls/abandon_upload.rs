//! `UploadService.AbandonUpload`.

use colophon_api::v1;
use colophon_domain::{Principal, Result};

use super::Calls;
use crate::fields;

impl Calls {
    /// Ends an upload for its caller.
    pub(crate) async fn abandon_upload(
        &self,
        caller: &Principal,
        request: v1::AbandonUploadRequest,
    ) -> Result<v1::AbandonUploadResponse> {
        let id = fields::id("id", &request.id)?;
        self.uploads.abandon(caller.clone(), id).await?;
        Ok(v1::AbandonUploadResponse {})
    }
}
