//! A plan: what a release would do now. The same rules are asked as when a tag's turn comes;
//! nothing is stored, nothing is moved.

use std::time::{Duration, Instant};

use colophon_domain::{
    Access, Ask, Decision, Digest, Expected, Failure, HeadState, Obstacle, PlanView,
    PlannedPublication, PlannedTag, Reason, Reference, ReleaseRequest, Result, Retry, TagKind,
    TagMoveState, TagOrDigest, TagRequest, TargetRequest, Version, decide, explain, explain_move,
    retention_tag,
};
use colophon_registry::{CopyOptions, Session, measure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::{
    Engine,
    plan_id::{PLAN_HOLDS, Planned, expiry},
    selected::Published,
};

/// Tags of one target that are looked at together.
const TAGS_AT_ONCE: usize = 8;
/// Targets that are looked at together.
const TARGETS_AT_ONCE: usize = 4;
/// How long the registries may take, all of them together, so that the call ends in time. What is
/// not known then is said as an obstacle; a release that follows the plan has as long.
const LOOK_TIMEOUT: Duration = Duration::from_secs(30);

impl Engine {
    /// What a release would do now.
    #[tracing::instrument(level = "debug", name = "engine.release.plan", skip_all)]
    pub async fn plan(&self, request: &ReleaseRequest) -> Result<PlanView> {
        self.check(request)?;
        let whole = self.fill_in(request)?;
        let published = self.select(&request.source, &request.selection.platforms).await?;
        let until = Instant::now() + LOOK_TIMEOUT;
        let mut looks = Vec::with_capacity(whole.targets.len());
        for target in &whole.targets {
            looks.push(self.plan_target(&whole, target, &published, until));
        }
        let publications: Vec<PlannedPublication> =
            stream::iter(looks).buffered(TARGETS_AT_ONCE).try_collect().await?;
        let created_at = self.clock.now();
        let expires_at = created_at + PLAN_HOLDS;
        let expires_at = expires_at.replace_nanosecond(0).unwrap_or(expires_at);
        let tags: Vec<_> =
            publications.iter().map(|it| (&it.repository, it.tags.as_slice())).collect();
        // What could not be looked at cannot be held to.
        let whole_tags = |(planned, asked): (&PlannedPublication, &TargetRequest)| {
            planned.tags.len() == asked.tags.len()
        };
        let complete = publications.iter().zip(&whole.targets).all(whole_tags);
        let planned = Planned { request, digest: &published.digest, tags: &tags };
        let id = complete.then(|| planned.id(expires_at));
        Ok(PlanView {
            id,
            source: request.source.clone(),
            made_from: published.made_from().cloned(),
            digest: published.digest,
            publications,
            created_at,
            expires_at,
        })
    }

    /// Makes a release follow a plan: what the plan showed must be so still, and each tag must be
    /// where it was when its turn comes.
    pub(crate) async fn follow(
        &self,
        plan: &str,
        request: &ReleaseRequest,
        whole: &mut ReleaseRequest,
        digest: &Digest,
    ) -> Result<()> {
        let expires_at = expiry(plan, self.clock.now())?;
        let mut asked = Vec::with_capacity(whole.targets.len());
        for target in &whole.targets {
            asked.push(self.plan_tags(whole, target, digest));
        }
        let looks = stream::iter(asked).buffered(TARGETS_AT_ONCE).try_collect();
        let looks: Vec<Vec<PlannedTag>> =
            tokio::time::timeout(LOOK_TIMEOUT, looks).await.unwrap_or_else(|_| {
                Err(Failure::new(
                    Reason::RegistryUnavailable,
                    "the registries did not answer in time to compare the plan",
                )
                .retry(Retry::Backoff))
            })?;
        let repositories = whole.targets.iter().map(|target| &target.repository);
        let tags: Vec<_> = repositories.zip(looks.iter().map(Vec::as_slice)).collect();
        if (Planned { request, digest, tags: &tags }).id(expires_at) != plan {
            return Err(Failure::new(
                Reason::PlanChanged,
                "what the plan showed is not what would happen now, or the request is not the one \
                 that was planned",
            )
            .field("plan")
            .remedy("make a new plan with exactly these options, and look at what is different"));
        }
        for (target, seen) in whole.targets.iter_mut().zip(looks) {
            for (tag, planned) in target.tags.iter_mut().zip(seen) {
                hold(tag, planned)?;
            }
        }
        Ok(())
    }

    async fn plan_target(
        &self,
        whole: &ReleaseRequest,
        target: &TargetRequest,
        published: &Published,
        until: Instant,
    ) -> Result<PlannedPublication> {
        let mut planned = PlannedPublication {
            repository: target.repository.clone(),
            tags: Vec::new(),
            copy_from: None,
            manifests: 0,
            blobs: 0,
            bytes: 0,
            notes: Vec::new(),
            companions: Vec::new(),
            obstacles: Vec::new(),
        };
        let looked = tokio::time::timeout_at(until.into(), async {
            match self.plan_tags(whole, target, &published.digest).await {
                Ok(tags) => planned.tags = tags,
                Err(failure) => planned.obstacles.push(obstacle(failure)?),
            }
            self.plan_waits(whole, target, &mut planned).await?;
            let write = self.plan_permissions(target).await;
            let copied = self.plan_copy(whole, target, published, &mut planned).await;
            for failure in [write, copied].into_iter().filter_map(Result::err) {
                planned.obstacles.push(obstacle(failure)?);
            }
            Ok::<(), Failure>(())
        });
        match looked.await {
            Ok(looked) => looked?,
            Err(_) => planned.obstacles.push(Obstacle {
                reason: Reason::Timeout,
                message: format!("{} did not answer in time; plan again", target.repository),
            }),
        }
        self.plan_kept(&mut planned);
        Ok(planned)
    }

    /// What the target would keep besides.
    fn plan_kept(&self, planned: &mut PlannedPublication) {
        if self.rules.of(&planned.repository).retention().is_none() {
            return;
        }
        for tag in &planned.tags {
            let moves = tag.kind == TagKind::Floating && tag.outcome == TagMoveState::Moved;
            if let Some(old) = tag.old.as_ref().filter(|_| moves) {
                let kept = retention_tag(old);
                planned.notes.push(format!("{} leaves {old}, which is kept as {kept}", tag.tag));
            }
        }
    }

    /// What would become of each tag of a target.
    async fn plan_tags(
        &self,
        whole: &ReleaseRequest,
        target: &TargetRequest,
        digest: &Digest,
    ) -> Result<Vec<PlannedTag>> {
        let session = self.registries.session(&target.repository, Access::Push)?;
        let lines: Vec<_> = target.tags.iter().filter_map(|tag| tag.line).collect();
        let own = whole.version.as_ref().map(|asked| &asked.version);
        let highest = match own {
            Some(own) if !lines.is_empty() => Some(self.highest(&session, lines, own).await?),
            _ => None,
        };
        let mut looks = Vec::with_capacity(target.tags.len());
        for tag in &target.tags {
            let line = tag.line.as_ref().zip(highest.as_ref());
            let above = line.and_then(|(line, highest)| highest.of(line));
            looks.push(self.plan_tag(whole, &session, tag, digest, above));
        }
        stream::iter(looks).buffered(TAGS_AT_ONCE).try_collect().await
    }

    async fn plan_tag(
        &self,
        whole: &ReleaseRequest,
        session: &Session,
        tag: &TagRequest,
        digest: &Digest,
        highest: Option<&Version>,
    ) -> Result<PlannedTag> {
        let old = session.observe(&TagOrDigest::Tag(tag.tag.clone())).await?;
        let (outcome, reason, message) = if let Some((reason, message)) = &tag.kept {
            (TagMoveState::Kept, Some(*reason), message.clone())
        } else {
            let head = self.store.head_state(session.repository(), &tag.tag).await?;
            let ask = Ask {
                kind: tag.kind,
                purpose: whole.purpose,
                wanted: digest,
                expected: tag.expected.as_ref(),
                planned: false,
                // Accepted later than everything that is there.
                ticket: (tag.kind == TagKind::Floating).then_some(i64::MAX),
                order: tag.order.as_ref(),
                if_older: tag.if_older,
                allow_backward: whole.allow_backward,
                highest,
            };
            foresee(&ask, &format!("{}:{}", session.repository(), tag.tag), old.as_ref(), &head)
        };
        let new = if outcome == TagMoveState::Moved {
            digest.clone()
        } else {
            old.clone().unwrap_or_else(|| digest.clone())
        };
        let (tag, kind) = (tag.tag.clone(), tag.kind);
        Ok(PlannedTag { tag, kind, old, new, outcome, reason, message })
    }

    /// Whether the target would let us write.
    async fn plan_permissions(&self, target: &TargetRequest) -> Result<()> {
        self.registries.session(&target.repository, Access::Push)?.preflight().await
    }

    /// What the release would wait for.
    async fn plan_waits(
        &self,
        whole: &ReleaseRequest,
        target: &TargetRequest,
        planned: &mut PlannedPublication,
    ) -> Result<()> {
        let tags: Vec<_> = target.tags.iter().map(|tag| &tag.tag).collect();
        for unknown in self.store.unknown_outcomes(&target.repository, &tags).await? {
            planned.obstacles.push(Obstacle {
                reason: Reason::OutcomeUnknown,
                message: format!(
                    "the release would wait until it is known what became of an interrupted move \
                     of {}:{unknown}",
                    target.repository
                ),
            });
        }
        if whole.break_glass {
            return Ok(());
        }
        if let Some(frozen) = self.store.frozen(&target.repository).await? {
            planned.obstacles.push(Obstacle {
                reason: Reason::Frozen,
                message: format!("the release would wait for the end of {}", frozen.what),
            });
        }
        Ok(())
    }

    /// What would be copied to the target.
    async fn plan_copy(
        &self,
        whole: &ReleaseRequest,
        target: &TargetRequest,
        published: &Published,
        planned: &mut PlannedPublication,
    ) -> Result<()> {
        let from = &whole.source.repository;
        let source = self.registries.session(from, Access::Pull)?;
        let session = self.registries.session(&target.repository, Access::Push)?;
        let options = CopyOptions {
            selection: whole.selection.clone(),
            made: published.manifest()?,
            ..CopyOptions::default()
        };
        let need = measure(&source, &session, &published.digest, options).await?;
        (planned.manifests, planned.blobs, planned.bytes) =
            (need.manifests, need.blobs, need.bytes);
        // By what it is there: an index of some platforms is made of it.
        let from_digest = published.made_from().unwrap_or(&published.digest);
        planned.copy_from =
            (need.manifests > 0).then(|| Reference::digest(from.clone(), from_digest.clone()));
        planned.notes = need.notes;
        planned.companions = need.companions;
        Ok(())
    }
}

/// What stands against the target, by a failure at its registry. What is wrong with us is no
/// statement about the release.
fn obstacle(failure: Failure) -> Result<Obstacle> {
    match failure.reason() {
        Reason::Internal | Reason::DatabaseUnavailable => Err(failure),
        _ => Ok(Obstacle::from(&failure)),
    }
}

/// Holds a tag to what the plan showed of it.
fn hold(tag: &mut TagRequest, planned: PlannedTag) -> Result<()> {
    match (planned.outcome, planned.reason) {
        // It stays, also if nothing would keep it any more when its turn comes.
        (TagMoveState::Kept, Some(reason)) => tag.kept = Some((reason, planned.message)),
        (state, Some(reason)) if !state.good() => {
            return Err(Failure::new(reason, planned.message)
                .field("plan")
                .remedy("the plan showed that this stands against it"));
        }
        _ => tag.expected = Some(Expected::from(planned.old)),
    }
    Ok(())
}

/// What the rules say of a tag now: the state in which it would end, and why.
fn foresee(
    ask: &Ask<'_>,
    reference: &str,
    old: Option<&Digest>,
    head: &HeadState,
) -> (TagMoveState, Option<Reason>, String) {
    match decide(ask, old, head) {
        Decision::Move => (TagMoveState::Moved, None, explain_move(ask, head)),
        Decision::Unchanged => (TagMoveState::Unchanged, None, String::new()),
        Decision::Leave(state, reason) => {
            (state, Some(reason), explain(reason, reference, ask, old, head))
        }
    }
}
