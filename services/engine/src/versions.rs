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
}

impl Engine {
    /// A tag whose turn has come, with the highest version of its line if it follows from one.
    pub(crate) async fn informed<'a>(
        &self,
        step: &'a Move,
        session: &Session,
        versions: &Versions,
    ) -> Result<Cow<'a, Move>> {
        let (Some(line), Some(OrderKey::Semver(own)), None) =
            (&step.terms.line, &step.terms.order, &step.restore)
        else {
            return Ok(Cow::Borrowed(step));
        };
        let look = || self.highest(session, versions.lines.clone(), own);
        let highest = versions.highest.get_or_try_init(look).await?;
        let mut informed = step.clone();
        informed.terms.highest = highest.of(line).cloned();
        Ok(Cow::Owned(informed))
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
