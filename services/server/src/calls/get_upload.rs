//! `UploadService.GetUpload`.

use colophon_api::v1;
use colophon_domain::{Principal, Result};

use super::Calls;
use crate::{answer, fields};

impl Calls {
    /// Shows an upload to its caller.
    pub(crate) async fn get_upload(
        &self,
        caller: &Principal,
        request: v1::GetUploadRequest,
    ) -> Result<v1::Upload> {
        let id = fields::id("id", &request.id)?;
        Ok(answer::upload(self.uploads.upload(caller.clone(), id).await?))
    }
}
