//! `ReleaseService.CancelRelease`.

use colophon_api::v1;
use colophon_domain::{Action, Principal, Result};

use super::Calls;
use crate::{answer, fields};

impl Calls {
    /// Stops a release for a caller who sees it and may cancel at every one of its targets.
    pub(crate) async fn cancel_release(
        &self,
        caller: &Principal,
        request: v1::CancelReleaseRequest,
    ) -> Result<v1::Release> {
        let id = fields::id("id", &request.id)?;
        let reason = fields::prose("reason", request.reason, 1_000)?;
        // Who may not see the release learns nothing about it, not even that it cannot be
        // cancelled.
        let release = self.visible(caller, id).await?;
        for publication in &release.publications {
            caller
                .require(Action::Cancel, &publication.repository)
                .map_err(|failure| failure.field("id"))?;
        }
        Ok(answer::release(self.service.cancel(caller.clone(), id, reason).await?))
    }
}
