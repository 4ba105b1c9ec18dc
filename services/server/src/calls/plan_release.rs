//! `ReleaseService.PlanRelease`.

use colophon_api::v1;
use colophon_domain::{Failure, Principal, ReleaseRequest, Result};

use super::{
    Calls,
    release_request::{self, allow},
};
use crate::answer;

impl Calls {
    /// Shows what a release would do to a caller who may make it.
    pub(crate) async fn plan_release(
        &self,
        caller: &Principal,
        request: v1::CreateReleaseRequest,
    ) -> Result<v1::Plan> {
        let request = parse(request)?;
        allow(caller, &request)?;
        let plan = self.service.plan(caller.clone(), request).await?;
        Ok(answer::plan(plan))
    }
}

/// Reads the request as a release's, without what only a release can have.
fn parse(request: v1::CreateReleaseRequest) -> Result<ReleaseRequest> {
    for (field, text) in [("idempotency_key", &request.idempotency_key), ("plan", &request.plan)] {
        if !text.is_empty() {
            return Err(Failure::invalid(field, format!("a plan has no {field}"))
                .remedy(format!("give {field} when you create the release")));
        }
    }
    release_request::parse(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_a_release_has_is_refused() {
        let request = v1::CreateReleaseRequest {
            source: "ghcr.io/acme/app:sha-1".into(),
            targets: vec![v1::Target {
                repository: "docker.io/acme/app".into(),
                ..Default::default()
            }],
            semver: "1.4.2".into(),
            ..Default::default()
        };
        assert_eq!(parse(request.clone()).unwrap().idempotency_key, None);
        let keyed = v1::CreateReleaseRequest { idempotency_key: "k".into(), ..request.clone() };
        assert_eq!(parse(keyed).unwrap_err().field_name(), Some("idempotency_key"));
        let planned = v1::CreateReleaseRequest { plan: "p".into(), ..request };
        assert_eq!(parse(planned).unwrap_err().field_name(), Some("plan"));
    }
}
