//! Rolling back: a release whose tags go back to what they were. What that was says the ledger;
//! where the content is now is asked of the registries.

use colophon_domain::{
    Action, Certainty, Digest, Expected, Failure, OnFailure, Phase, Position, Principal, Purpose,
    Reason, Reference, ReleaseRequest, ReleaseView, Repository, Result, RollbackRequest,
    RollbackSubject, Tag, TagKind, TagOrDigest, TagRequest, TargetRequest, positions,
};
use colophon_store::{MovedTag, NewRelease};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::{Engine, fingerprint::rollback_fingerprint};

/// Somebody is on call: a rollback goes before everything else.
const PRIORITY: i16 = 100;
/// Digests that are looked for together.
const PLACES_AT_ONCE: usize = 8;

impl Engine {
    /// Accepts a rollback for a caller whose rights were checked. From then on releases of these
    /// tags that were accepted before, and have not moved them, come too late.
    #[tracing::instrument(level = "debug", name = "engine.release.rollback", skip_all)]
    pub async fn rollback(
        &self,
        caller: &Principal,
        request: &RollbackRequest,
    ) -> Result<ReleaseView> {
        let principal = caller.name.as_str();
        let fingerprint = rollback_fingerprint(request);
        if let Some(key) = &request.idempotency_key
            && let Some(id) = self.store.find_by_key(principal, key, &fingerprint).await?
        {
            return self.store.accepted(id).await;
        }
        let targets = match &request.subject {
            RollbackSubject::Tag { repository, tag, position, expected } => {
                self.known(repository).map_err(|failure| failure.field("reference"))?;
                self.tag_back(caller, repository, tag, position, expected.clone()).await?
            }
            RollbackSubject::Release(id) => self.release_back(caller, *id).await?,
        };
        let mut contents = targets.iter().flat_map(|target| &target.tags);
        let Some(source) = contents.find_map(|tag| tag.content.clone()) else {
            return Err(Failure::new(
                Reason::NotInHistory,
                "none of the release's floating tags was there before it",
            )
            .field("release")
            .remedy("publish to these tags what they should have"));
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
        let traceparent = colophon_telemetry::current();
        self.accept(&NewRelease {
            made: None,
            principal,
            request: &whole,
            digest: &digest,
            fingerprint,
            traceparent: traceparent.as_deref(),
        })
        .await
    }

    /// One tag, back by steps, to a time or to a digest.
    async fn tag_back(
        &self,
        caller: &Principal,
        repository: &Repository,
        tag: &Tag,
        position: &Position,
        expected: Option<Expected>,
    ) -> Result<Vec<TargetRequest>> {
        self.may_move(repository, tag).map_err(|failure| failure.field("reference"))?;
        let digest = self.position(repository, tag, position).await?;
        let content = self.content_for(caller, repository, &digest).await?;
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
            return match view.digest.filter(|_| known) {
                Some(digest) => Ok(digest),
                None if known => Err(beyond("at", format!("there was no {repository}:{tag} then"))),
                None => {
                    let why = view.explanation;
                    let text = format!("it is not known what {repository}:{tag} was then: {why}");
                    Err(beyond("at", text))
                }
            };
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
    async fn release_back(&self, caller: &Principal, id: uuid::Uuid) -> Result<Vec<TargetRequest>> {
        let release = self.store.accepted(id).await?;
        if !release.state.ended() {
            let back = release.cancel_requested || release.phase == Phase::Restore;
            let remedy = if back {
                "its tags are being put back already: wait for its end; if a freeze holds it up, \
                 lift that one, or roll back each tag by itself with break_glass"
            } else {
                "cancel it, which puts its tags back, or wait for its end"
            };
            return Err(Failure::new(Reason::NotEnded, format!("release {id} has not ended"))
                .field("release")
                .remedy(remedy));
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
            .remedy("roll back each tag by itself, by steps, to a time or to a digest"));
        }
        // The tags of one release come from the same digest more often than not.
        let mut wanted: Vec<_> =
            moved.iter().filter_map(|tag| Some((&tag.repository, tag.old.as_ref()?))).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let mut looks = Vec::with_capacity(wanted.len());
        for (repository, digest) in &wanted {
            looks.push(self.content_for(caller, repository, digest));
        }
        let places: Vec<Reference> =
            stream::iter(looks).buffered(PLACES_AT_ONCE).try_collect().await?;
        let places: Vec<_> = wanted.iter().zip(places).collect();
        let mut targets: Vec<TargetRequest> = Vec::new();
        for tag in &moved {
            let place = places.iter().find(|((repository, digest), _)| {
                *repository == &tag.repository && Some(*digest) == tag.old.as_ref()
            });
            let back = self.moved_back(tag, place.map(|(_, place)| place.clone()))?;
            let target = targets.iter_mut().find(|target| target.repository == tag.repository);
            if let Some(target) = target {
                target.tags.push(back);
            } else {
                let repository = tag.repository.clone();
                targets.push(TargetRequest { repository, tags: vec![back] });
            }
        }
        Ok(targets)
    }

    /// Where a digest of a repository is for this caller. The ledger knows of places that the caller
    /// may not; from such a one the content is copied back only when the tag's turn comes.
    async fn content_for(
        &self,
        caller: &Principal,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Reference> {
        let place = self.find_content(repository, digest).await?;
        if caller.may(Action::Read, &place.repository) {
            return Ok(place);
        }
        Ok(Reference::digest(repository.clone(), digest.clone()))
    }

    fn moved_back(&self, tag: &MovedTag, content: Option<Reference>) -> Result<TagRequest> {
        self.may_move(&tag.repository, &tag.tag).map_err(|failure| failure.field("release"))?;
        let request = TagRequest {
            expected: Some(Expected::At(tag.new.clone())),
            ..TagRequest::new(tag.tag.clone(), TagKind::Floating)
        };
        let Some(content) = content else {
            let text = format!(
                "{}:{} did not exist before the release, and a registry cannot be asked to forget \
                 only a tag; it stays",
                tag.repository, tag.tag
            );
            return Ok(TagRequest { kept: Some((Reason::NotInHistory, text)), ..request });
        };
        Ok(TagRequest { content: Some(content), ..request })
    }
}
