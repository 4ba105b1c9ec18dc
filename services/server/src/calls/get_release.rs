//! `ReleaseService.GetRelease`.

use colophon_api::v1;
use colophon_domain::{Principal, Result};

use super::Calls;
use crate::{answer, fields};

impl Calls {
    /// Shows one release to a caller who may see it.
    pub(crate) async fn get_release(
        &self,
        caller: &Principal,
        request: v1::GetReleaseRequest,
    ) -> Result<v1::Release> {
        let id = fields::id("id", &request.id)?;
        Ok(answer::release(self.visible(caller, id).await?))
    }
}
