//! `FreezeService.LiftFreeze`.

use colophon_api::v1;
use colophon_domain::{Failure, Principal, Reason, Result};

use super::{Calls, create_freeze::allow, list_freezes::sees};
use crate::{answer, fields};

impl Calls {
    /// Ends a freeze, for a caller who sees it and could have made it.
    pub(crate) async fn lift_freeze(
        &self,
        caller: &Principal,
        request: v1::LiftFreezeRequest,
    ) -> Result<v1::Freeze> {
        let id = fields::id("id", &request.id)?;
        let reason = fields::prose("reason", request.reason, 1_000)?;
        // What may not be seen and what is not there get the same answer, as for releases.
        let found = self.service.find_freeze(id).await?.filter(|freeze| sees(caller, freeze));
        let freeze = found.ok_or_else(|| {
            Failure::new(Reason::NotFound, format!("there is no freeze {id}"))
                .field("id")
                .remedy("a freeze is shown to whom it concerns; list the freezes for their ids")
        })?;
        allow(caller, &freeze.pattern).map_err(|failure| failure.field("id"))?;
        Ok(answer::freeze(self.service.lift(caller.clone(), id, reason).await?))
    }
}
