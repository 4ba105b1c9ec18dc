//! `ReleaseService.RetryRelease`.

use colophon_api::v1;
use colophon_domain::{Action, Principal, ReleaseView, Result, TagKind};

use super::Calls;
use crate::{answer, fields};

impl Calls {
    /// Puts a release to work again for a caller who sees it and might ask for all of it now.
    pub(crate) async fn retry_release(
        &self,
        caller: &Principal,
        request: v1::RetryReleaseRequest,
    ) -> Result<v1::Release> {
        let id = fields::id("id", &request.id)?;
        let reason = fields::prose("reason", request.reason, 1_000)?;
        // Who may not see the release learns nothing about it.
        let release = self.visible(caller, id).await?;
        allow(caller, &release).map_err(|failure| failure.field("id"))?;
        Ok(answer::release(self.service.retry(caller.clone(), id, reason).await?))
    }
}

/// The rights that the release would need if it were asked for now.
fn allow(caller: &Principal, release: &ReleaseView) -> Result<()> {
    caller.require(Action::Read, &release.source.repository)?;
    for target in &release.publications {
        let floats = target.tags.iter().any(|tag| tag.kind == TagKind::Floating);
        let needed = [
            (true, Action::Publish),
            (floats || release.version.is_some(), Action::MoveFloating),
            (release.allow_backward, Action::Rollback),
            (release.break_glass, Action::BreakGlass),
        ];
        for (_, action) in needed.into_iter().filter(|(needed, _)| *needed) {
            caller.require(action, &target.repository)?;
        }
    }
    Ok(())
}
