//! `ReleaseService.CreateRelease`.

use colophon_api::v1;
use colophon_domain::{Principal, Result};

use super::{
    Calls,
    release_request::{allow, parse},
};
use crate::answer;

impl Calls {
    /// Accepts a release for a caller who may read the source and publish to every target.
    pub(crate) async fn create_release(
        &self,
        caller: &Principal,
        request: v1::CreateReleaseRequest,
    ) -> Result<v1::Release> {
        let request = parse(request)?;
        allow(caller, &request)?;
        let release = self.service.create(caller.clone(), request).await?;
        Ok(answer::release(release))
    }
}
