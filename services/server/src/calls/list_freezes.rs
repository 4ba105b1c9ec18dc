//! `FreezeService.ListFreezes`.

use colophon_api::v1;
use colophon_domain::{Action, FreezeView, Principal, Result};

use super::{Calls, visibility};
use crate::answer;

impl Calls {
    /// Lists the freezes that the caller may see.
    pub(crate) async fn list_freezes(
        &self,
        caller: &Principal,
        request: v1::ListFreezesRequest,
    ) -> Result<v1::ListFreezesResponse> {
        let freezes = self.service.freezes(request.include_ended).await?;
        let seen = freezes.into_iter().filter(|freeze| sees(caller, freeze));
        Ok(v1::ListFreezesResponse { freezes: seen.map(answer::freeze).collect() })
    }
}

/// Whether the caller may see a freeze: one that concerns something that the caller reads, in
/// part or as a whole, or one that the caller could have made and may have to lift.
pub(super) fn sees(caller: &Principal, freeze: &FreezeView) -> bool {
    let concerned = visibility(caller)
        .readable
        .iter()
        .any(|readable| readable.includes(&freeze.pattern) || freeze.pattern.includes(readable));
    concerned || caller.may_all(Action::Freeze, &freeze.pattern)
}

#[cfg(test)]
mod tests {
    use colophon_domain::Grant;
    use time::OffsetDateTime;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_freeze_is_shown_to_whom_it_concerns() {
        let caller = |granted: &str, action| Principal {
            name: "ci".into(),
            grants: vec![Grant {
                repositories: vec![granted.parse().unwrap()],
                actions: vec![action],
            }],
        };
        let freeze = FreezeView {
            id: Uuid::nil(),
            pattern: "docker.io/acme/*".parse().unwrap(),
            reason: "holidays".into(),
            actor: "ops".into(),
            created_at: OffsetDateTime::UNIX_EPOCH,
            ends_at: OffsetDateTime::UNIX_EPOCH,
            lifted: None,
            active: true,
        };
        for readable in ["*", "docker.io/*", "docker.io/acme/*", "docker.io/acme/app"] {
            assert!(sees(&caller(readable, Action::Read), &freeze), "{readable}");
        }
        for other in ["ghcr.io/*", "docker.io/acme2/*", "docker.io/acme"] {
            assert!(!sees(&caller(other, Action::Read), &freeze), "{other}");
        }
        assert!(sees(&caller("docker.io/*", Action::Freeze), &freeze));
        assert!(!sees(&caller("docker.io/acme/app", Action::Freeze), &freeze));
        assert!(!sees(&caller("*", Action::Publish), &freeze));
    }
}
