//! Which versions a repository has: what floating tags that follow from a version are decided by.
//! Looked at when the tags' turn comes, and for a plan; in the registry and in the ledger.

use std::borrow::Cow;

use colophon_domain::{Highest, Line, OrderKey, Result, TagOrDigest, Version};
use colophon_registry::Session;
use colophon_store::Move;
use tokio::sync::OnceCell;

use crate::Engine;

/// Versions of one line that only the ledger knows and that the registry is asked for.
const RECHECKED: usize = 8;

/// The versions that one job's tags are compared with: looked for once, and not before the first
/// such tag has its turn. A job that waits for the end of a freeze lists nothing.
#[derive(Default)]
pub(crate) struct Versions {
    lines: Vec<Line>,
    highest: OnceCell<Highest>,
}

impl Versions {
    pub(crate) fn of(steps: &[Move]) -> Self {
        let lines = steps.iter().filter_map(|step| step.terms.line).collect();
        Self { lines, highest: OnceCell::new() }
    }

    /// The tag with the highest version of its line, if it follows from one.
    pub(crate) fn told<'a>(&self, step: &'a Move) -> Cow<'a, Move> {
        let Some(((line, _), highest)) = follows(step).zip(self.highest.get()) else {
            return Cow::Borrowed(step);
        };
        let mut told = step.clone();
        told.terms.highest = highest.of(line).cloned();
        Cow::Owned(told)
    }
}

/// The line and the version of a tag that follows from one. What is put back follows from nothing.
fn follows(step: &Move) -> Option<(&Line, &Version)> {
    match (&step.terms.line, &step.terms.order, &step.restore) {
        (Some(line), Some(OrderKey::Semver(own)), None) => Some((line, own)),
        _ => None,
    }
}

impl Engine {
    /// Looks for the versions that a tag is compared with, if it follows from one and nobody has
    /// looked yet; true if that took time: meanwhile anything may have happened to the tag.
    pub(crate) async fn look_for_versions(
        &self,
        step: &Move,
        session: &Session,
        versions: &Versions,
    ) -> Result<bool> {
        let Some((_, own)) = follows(step) else { return Ok(false) };
        let known = versions.highest.initialized();
        let look = || self.highest(session, versions.lines.clone(), own);
        versions.highest.get_or_try_init(look).await?;
        Ok(!known)
    }

    /// The highest version of each line. Pre-releases count only beside one of their kind: 2.0.0-rc.1
    /// must not keep `latest` from 1.9.1.
    pub(crate) async fn highest(
        &self,
        session: &Session,
        lines: Vec<Line>,
        own: &Version,
    ) -> Result<Highest> {
        let mut highest = Highest::new(lines.clone(), !own.is_plain());
        session.tags(&mut |tag| highest.see(tag)).await?;
        self.recheck(session, &lines, own, &mut highest).await?;
        Ok(highest)
    }

    /// The ledger may know of a higher version that the registry's list does not show: it may be
    /// new, or deleted. The registry is asked for each such, the highest first.
    async fn recheck(
        &self,
        session: &Session,
        lines: &[Line],
        own: &Version,
        highest: &mut Highest,
    ) -> Result<()> {
        let tags = self.store.version_tags(session.repository()).await?;
        let mut known: Vec<Version> =
            tags.iter().filter_map(|tag| Version::from_tag(tag)).collect();
        known.retain(|version| version.is_plain() || !own.is_plain());
        known.sort_by(|a, b| b.precedence(a));
        for line in lines {
            let above = |version: &&Version| {
                let best = highest.of(line);
                line.contains(version) && best.is_none_or(|best| version.precedence(best).is_gt())
            };
            let unseen: Vec<&Version> = known.iter().filter(above).take(RECHECKED).collect();
            for version in unseen {
                let tag = version.tag();
                if session.observe(&TagOrDigest::Tag(tag.clone())).await?.is_some() {
                    highest.see(tag.as_str());
                    break;
                }
            }
        }
        Ok(())
    }
}
