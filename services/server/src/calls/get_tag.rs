//! `TagService.GetTag`.

use colophon_api::v1;
use colophon_domain::{
    Action, Failure, Principal, Reason, Reference, Repository, Result, Tag, TagOrDigest,
};

use super::Calls;
use crate::{answer, fields};

impl Calls {
    /// Says what a tag pointed to, to a caller who may read its repository.
    pub(crate) async fn get_tag(
        &self,
        caller: &Principal,
        request: v1::GetTagRequest,
    ) -> Result<v1::Tag> {
        let reference: Reference = fields::required("reference", &request.reference)?;
        let (repository, tag) = tagged("reference", reference.clone())?;
        let at = fields::time("at", request.at)?;
        caller.require(Action::Read, &repository).map_err(|failure| failure.field("reference"))?;
        if at.is_some_and(|at| at > self.clock.now()) {
            return Err(Failure::invalid("at", "the time asked about is in the future")
                .remedy("leave it out for now"));
        }
        let view = self.service.tag(repository, tag, at).await?;
        Ok(answer::tag(&reference, view))
    }
}

/// The tag of a reference; one by digest has none and never moves.
pub(super) fn tagged(field: &'static str, reference: Reference) -> Result<(Repository, Tag)> {
    match reference.target {
        TagOrDigest::Tag(tag) => Ok((reference.repository, tag)),
        TagOrDigest::Digest(_) => Err(Failure::new(
            Reason::InvalidReference,
            "the reference names a digest where a tag is expected",
        )
        .field(field)
        .remedy("leave out the part from @ on and name a tag")),
    }
}
