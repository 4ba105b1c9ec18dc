//! Rolling back: a release whose tags go back to what they were. What that was says the ledger;
//! where the content is now is asked of the registries.

use colophon_domain::{
    Certainty, Digest, Expected, Failure, OnFailure, Position, Purpose, Reason, Reference,
    ReleaseRequest, ReleaseView, Repository, Result, RollbackRequest, RollbackSubject, Tag,
    TagKind, TagOrDigest, TagRequest, TargetRequest, positions,
};
use colophon_store::{MovedTag, NewRelease};

use crate::{Engine, fingerprint::rollback_fingerprint};

/// Somebody is on call: a rollback goes before everything else.
const PRIORITY: i16 = 100;

impl Engine {
    /// Accepts a rollback for a caller whose rights were checked. From then on releases of these
    /// tags that were accepted before, and have not moved them, come too late.
    pub async fn rollback(
        &self,
        principal: &str,
        request: &RollbackRequest,
    ) -> Result<ReleaseView> {
        let fingerprint = rollback_fingerprint(request);
        if let Some(key) = &request.idempotency_key
            && let Some(id) = self.store.find_by_key(principal, key, &fingerprint).await?
        {
            return self.store.accepted(id).await;
        }
        let targets = match &request.subject {
            RollbackSubject::Tag { repository, tag, position, expected } => {
                self.known(repository).map_err(|failure| failure.field("reference"))?;
                self.tag_back(repository, tag, position, expected.clone()).await?
            }
            RollbackSubject::Release(id) => self.release_back(*id).await?,
        };
        let mut contents = targets.iter().flat_map(|target| &target.tags);
        let Some(source) = contents.find_map(|tag| tag.content.clone()) else {
            return Err(Failure::new(
                Reason::NotInHistory,
                "none of the release's floating tags was there before it",
            )
            .field("release"));
        };
        let TagOrDigest::Digest(digest) = source.target.clone() else {
            return Err(Failure::new(Reason::Internal, "a rollback goes to a digest"));
        };
        let whole = ReleaseRequest {
            purpose: Purpose::Rollback,
            reason: request.reason.clone(),
            on_behalf_of: request.on_behalf_of.clone(),
            labels: request.labels.clone(),
            priority: PRIORITY,
            idempotency_key: request.idempotency_key.clone(),
            on_failure: OnFailure::Restore,
            break_glass: request.break_glass,
            ..ReleaseRequest::publish(source, targets)
        };
        self.accept(&NewRelease { principal, request: &whole, digest: &digest, fingerprint }).await
    }

    /// One tag, back by steps, to a time or to a digest.
    async fn tag_back(
        &self,
        repository: &Repository,
        tag: &Tag,
        position: &Position,
        expected: Option<Expected>,
    ) -> Result<Vec<TargetRequest>> {
        self.may_move(repository, tag).map_err(|failure| failure.field("reference"))?;
        let digest = self.position(repository, tag, position).await?;
        let content = self.find_content(repository, &digest).await?;
        let back = TagRequest {
            expected,
            content: Some(content),
            ..TagRequest::new(tag.clone(), TagKind::Floating)
        };
        Ok(vec![TargetRequest { repository: repository.clone(), tags: vec![back] }])
    }

    /// A tag that is unique by configuration does not go back either.
    fn may_move(&self, repository: &Repository, tag: &Tag) -> Result<()> {
        let rule = self.rules.of(repository);
        let Some(pattern) = rule.unique_by(tag) else { return Ok(()) };
        Err(Failure::new(
            Reason::TagImmutable,
            format!("{repository}:{tag} is unique by configuration ({pattern}) and never moves"),
        )
        .remedy("take a new tag for other content"))
    }

    /// The digest of a position of the tag's past.
    async fn position(
        &self,
        repository: &Repository,
        tag: &Tag,
        position: &Position,
    ) -> Result<Digest> {
        let beyond = |field: &'static str, message: String| {
            Failure::new(Reason::NotInHistory, message)
                .field(field)
                .remedy(format!("look at the history of {repository}:{tag}"))
        };
        if let Position::At(time) = position {
            let view = self.store.tag_at(repository, tag, Some(*time)).await?;
            let known = view.certainty != Certainty::Unknown;
            return view.digest.filter(|_| known).ok_or_else(|| {
                let why = view.explanation;
                beyond(
                    "at",
                    format!("the ledger does not say what {repository}:{tag} was then: {why}"),
                )
            });
        }
        let steps = self.store.tag_steps(repository, tag).await?;
        if let Position::To(digest) = position {
            let seen = steps.iter().any(|step| step.digest.as_ref() == Some(digest));
            return if seen {
                Ok(digest.clone())
            } else {
                let text = format!("{repository}:{tag} never was at {digest}");
                Err(beyond("digest", text)
                    .remedy("publish that digest, if the tag should have it all the same"))
            };
        }
        let Position::Steps(wanted) = position else {
            return Err(Failure::new(Reason::Internal, "a position of no kind"));
        };
        let past = positions(&steps);
        // The first position is where the tag is, unless it was deleted: then it is one back.
        let first = usize::from(steps.last().is_some_and(|step| step.digest.is_some()));
        let wanted_at = usize::try_from(*wanted).unwrap_or(usize::MAX);
        let at = wanted_at.saturating_sub(1).saturating_add(first);
        past.get(at).cloned().ok_or_else(|| {
            let known = past.len().saturating_sub(first);
            beyond("steps", format!("{repository}:{tag} can go back {known} steps, not {wanted}"))
        })
    }

    /// All floating tags that a release moved, back to what they were before it.
    async fn release_back(&self, id: uuid::Uuid) -> Result<Vec<TargetRequest>> {
        let release = self.store.accepted(id).await?;
        if !release.state.ended() {
            return Err(Failure::new(Reason::NotEnded, format!("release {id} has not ended"))
                .field("release")
                .remedy("cancel it, which puts its tags back, or wait for its end"));
        }
        let moved = self.store.moved_tags(id).await?;
        if moved.is_empty() {
            return Err(Failure::new(
                Reason::NotInHistory,
                format!("release {id} has moved no floating tag that could go back"),
            )
            .field("release"));
        }
        if let Some(other) = moved.iter().find(|tag| !tag.ours) {
            return Err(Failure::new(
                Reason::TagMoved,
                format!(
                    "{}:{} was moved again after release {id}; going back behind it would undo \
                     that, too",
                    other.repository, other.tag
                ),
            )
            .field("release")
            .remedy("roll the tags back one by one, by --steps, --at or --to"));
        }
        let mut targets: Vec<TargetRequest> = Vec::new();
        for tag in moved {
            let back = self.moved_back(&tag).await?;
            match targets.iter_mut().find(|target| target.repository == tag.repository) {
                Some(target) => target.tags.push(back),
                None => {
                    targets.push(TargetRequest { repository: tag.repository, tags: vec![back] });
                }
            }
        }
        Ok(targets)
    }

    async fn moved_back(&self, tag: &MovedTag) -> Result<TagRequest> {
        self.may_move(&tag.repository, &tag.tag).map_err(|failure| failure.field("release"))?;
        let request = TagRequest {
            expected: Some(Expected::At(tag.new.clone())),
            ..TagRequest::new(tag.tag.clone(), TagKind::Floating)
        };
        let Some(old) = &tag.old else {
            let text = format!(
                "{}:{} did not exist before the release, and a registry cannot be asked to forget \
                 only a tag; it stays",
                tag.repository, tag.tag
            );
            return Ok(TagRequest { kept: Some((Reason::NotInHistory, text)), ..request });
        };
        let content: Reference = self.find_content(&tag.repository, old).await?;
        Ok(TagRequest { content: Some(content), ..request })
    }
}
