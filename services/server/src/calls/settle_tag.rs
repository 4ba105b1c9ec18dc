//! `TagService.SettleTag`.

use colophon_api::v1;
use colophon_domain::{Action, Failure, Principal, Reference, Result, Settlement};

use super::{Calls, get_tag::tagged};
use crate::{answer, fields};

impl Calls {
    /// Writes what became of an interrupted move, for a caller who may say so.
    pub(crate) async fn settle_tag(
        &self,
        caller: &Principal,
        request: v1::SettleTagRequest,
    ) -> Result<v1::Tag> {
        let reference: Reference = fields::required("reference", &request.reference)?;
        let (repository, tag) = tagged("reference", reference.clone())?;
        let settlement = settlement(request.settled_as)?;
        let reason = fields::reason(request.reason)?;
        let on_behalf_of = fields::prose("on_behalf_of", request.on_behalf_of, 200)?;
        caller
            .require(Action::Settle, &repository)
            .map_err(|failure| failure.field("reference"))?;
        let settled =
            self.service.settle(caller.clone(), repository, tag, settlement, reason, on_behalf_of);
        Ok(answer::tag(&reference, settled.await?))
    }
}

fn settlement(number: i32) -> Result<Settlement> {
    let message = match v1::SettledAs::try_from(number) {
        Ok(v1::SettledAs::Moved) => return Ok(Settlement::Moved),
        Ok(v1::SettledAs::NotMoved) => return Ok(Settlement::NotMoved),
        Ok(v1::SettledAs::Unspecified) => "settled_as is required".to_owned(),
        Err(_) => format!("{number} is no value of settled_as"),
    };
    Err(Failure::invalid("settled_as", message)
        .remedy("give SETTLED_AS_MOVED or SETTLED_AS_NOT_MOVED"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_settled_by_default() {
        assert_eq!(settlement(1).unwrap(), Settlement::Moved);
        assert_eq!(settlement(2).unwrap(), Settlement::NotMoved);
        for number in [0, 3, -1] {
            assert_eq!(settlement(number).unwrap_err().field_name(), Some("settled_as"));
        }
    }
}
