//! Why tags of releases end as they do. Each end must have a reason that the model knows of: a
//! tag that is left, a release that fails without one, is a fault, too.

use std::collections::BTreeMap;

use colophon_domain::{Purpose, Reason, TagKind, TagMoveState};
use sqlx::{PgPool, Row as _};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    holders::may_pass,
    keeping::{is_kept, named},
    model::{Model, Row},
    registry::{Key, Registry},
    rules::{Accepted, TagModel},
    sights::Sights,
    verdicts::Verdict,
    world::BUILD,
};

/// What ended so far.
#[derive(Default)]
pub(crate) struct Ended {
    /// When the last one ended.
    since: Option<OffsetDateTime>,
    /// How each tag of each release ended, as far as it did.
    seen: BTreeMap<Uuid, End>,
    /// How many faults each release had to bear.
    pub(crate) faults: BTreeMap<Uuid, usize>,
    /// Garbage was collected so often.
    pub(crate) collected: usize,
}

/// The end of one tag of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
struct End {
    release: Uuid,
    key: Key,
    state: TagMoveState,
    reason: Option<Reason>,
    at: OffsetDateTime,
}

/// What was written since the last time, and what the one worker that went on had been shown.
pub(crate) type Since<'a> = (&'a [Row], Option<&'a Sights>);

/// Whether one of these entries was written about a release's tag.
fn written(rows: &[Row], end: &End, kinds: &[&str], restores: bool) -> bool {
    rows.iter().any(|row| {
        (row.release, &row.key) == (Some(end.release), &end.key)
            && kinds.contains(&row.kind.as_str())
            && (row.purpose == "restore") == restores
    })
}

impl Model {
    /// Judges the tags that ended since the last time by what was there until now.
    pub(crate) async fn judge_ends(
        &mut self,
        pool: &PgPool,
        since: Since<'_>,
        registry: &Registry,
    ) {
        let rows = sqlx::query(
            "SELECT m.id, m.release_id, p.registry || '/' || p.repository, m.tag, m.state,
                    m.reason_code, m.ended_at
             FROM tag_move m JOIN publication p ON p.id = m.publication_id
             WHERE m.ended_at >= COALESCE($1, m.ended_at) ORDER BY m.id",
        )
        .bind(self.ended.since)
        .fetch_all(pool)
        .await
        .unwrap();
        let mut ends = Vec::new();
        for row in rows {
            let end = End {
                release: row.get(1),
                key: (row.get(2), row.get(3)),
                state: TagMoveState::parse(row.get(4)).unwrap(),
                reason: row.get::<Option<&str>, _>(5).map(|text| Reason::parse(text).unwrap()),
                at: row.get(6),
            };
            self.ended.since = self.ended.since.max(Some(end.at));
            let before = self.ended.seen.insert(row.get(0), end.clone());
            if before.as_ref() != Some(&end) {
                ends.push(end);
            }
        }
        for end in ends {
            let what = if is_kept(&end.key) { "kept " } else { "" };
            let reason = end.reason.map(|reason| format!(" {reason}")).unwrap_or_default();
            *self.kinds.entry(format!("{what}{}{reason}", end.state)).or_default() += 1;
            let right = self.right(&end, since, registry);
            assert!(right, "{:?}: ended {}{reason} without a reason", end.key, end.state);
            if let Some(sights) = since.1 {
                self.nobody_is_sent_away(pool, &end, sights).await;
            }
        }
    }

    /// A tag is not left for a release that was at work when the tag was looked at, and is still.
    async fn nobody_is_sent_away(&self, pool: &PgPool, end: &End, sights: &Sights) {
        let left = matches!(
            end.state,
            TagMoveState::Superseded | TagMoveState::Refused | TagMoveState::Kept
        );
        if !left || !end.reason.is_some_and(may_pass) {
            return;
        }
        let mut before = sights.holders(&end.key).to_vec();
        before.retain(|id| *id != end.release);
        if before.is_empty() {
            return;
        }
        let now = self.holders(pool, &end.key).await;
        let holds = before.iter().find(|id| now.contains(id));
        assert_eq!(holds, None, "{end:?}: left to one that may be put back");
    }

    fn right(&self, end: &End, (rows, sights): Since<'_>, registry: &Registry) -> bool {
        let release = &self.releases[&end.release];
        match (end.state, end.reason) {
            (TagMoveState::Moved, None) => written(rows, end, &["confirmed", "recovered"], false),
            (TagMoveState::Unchanged, None) => {
                written(rows, end, &["unchanged"], false)
                    || release.found(&end.key)
                        && (written(rows, end, &["unchanged"], true)
                            || self.may_stay(end, Reason::TagMoved, (rows, sights), registry))
            }
            (TagMoveState::Unchanged, Some(reason)) => {
                release.found(&end.key) && self.may_stay(end, reason, (rows, sights), registry)
            }
            (TagMoveState::Restored, Some(Reason::Restored)) => {
                written(rows, end, &["confirmed", "recovered", "unchanged"], true)
            }
            (TagMoveState::NotAttempted, Some(Reason::Cancelled)) => release.cancelled,
            // Whether its release may end before its turn comes, is looked at when it has ended.
            (TagMoveState::NotAttempted, Some(Reason::NotAttempted)) => true,
            (TagMoveState::Moved, Some(reason)) => {
                self.may_stay(end, reason, (rows, sights), registry)
            }
            (TagMoveState::Failed, Some(reason)) => {
                self.may_fail(end, reason, (rows, sights), registry)
            }
            (state, Some(reason)) => {
                let kept = release.wishes.get(&end.key).and_then(|wish| wish.kept);
                state == TagMoveState::Kept && kept == Some(reason)
                    || self.verdict_on(end, sights) == Some(Verdict::Left(state, reason))
            }
            (_, None) => false,
        }
    }

    /// What the model says of a tag that somebody looked at and left.
    fn verdict_on(&self, end: &End, sights: Option<&Sights>) -> Option<Verdict> {
        let (release, sights) = (&self.releases[&end.release], sights?);
        let seen = sights.of(&end.key)?;
        if is_kept(&end.key) {
            let wrong = seen.as_ref().is_some_and(|seen| *seen != named(&end.key));
            let left = Verdict::Left(TagMoveState::Refused, Reason::TagImmutable);
            return wrong.then_some(left);
        }
        let nobody = TagModel::default();
        let tag = self.tags.get(&end.key).unwrap_or(&nobody);
        let highest = release.highest(&end.key, sights);
        let wish = &release.wishes[&end.key];
        Some(release.verdict(wish, tag, seen.as_ref(), highest.as_ref()))
    }

    /// Whether a tag that was to be put back stays for a good reason.
    fn may_stay(
        &self,
        end: &End,
        reason: Reason,
        (rows, sights): Since<'_>,
        registry: &Registry,
    ) -> bool {
        let own = self.tags[&end.key].holder.mover == Some(end.release);
        let wanted = &self.releases[&end.release].wishes[&end.key].wanted;
        let seen = sights.and_then(|sights| sights.of(&end.key));
        match reason {
            Reason::TagMoved => {
                written(rows, end, &["conflict"], true)
                    || seen.is_some_and(|seen| !own || seen.as_ref() != Some(wanted))
            }
            _ => self.had_a_fault(end, reason, sights, registry),
        }
    }

    /// Whether a tag failed for a good reason.
    fn may_fail(
        &self,
        end: &End,
        reason: Reason,
        (rows, sights): Since<'_>,
        registry: &Registry,
    ) -> bool {
        if reason == Reason::TagMoved && written(rows, end, &["conflict"], false) {
            return true;
        }
        // What it was about to leave could not be kept.
        let kept = |other: &End| {
            let of_it = (other.release, &other.key.0) == (end.release, &end.key.0);
            let failed = matches!(other.state, TagMoveState::Failed | TagMoveState::Refused);
            of_it && is_kept(&other.key) && failed && other.reason == Some(reason)
        };
        self.had_a_fault(end, reason, sights, registry)
            || self.releases[&end.release].floats(&end.key) && self.ended.seen.values().any(kept)
    }

    /// Whether something was done to the release that may end its tag for this reason.
    fn had_a_fault(
        &self,
        end: &End,
        reason: Reason,
        sights: Option<&Sights>,
        registry: &Registry,
    ) -> bool {
        let release = &self.releases[&end.release];
        let refused = sights.and_then(|sights| sights.refused(&end.key));
        match reason {
            Reason::TagImmutable => refused == Some(reason),
            // Nobody has a credential, which is what a refusal is blamed on.
            Reason::RegistryUnauthorized => refused == Some(Reason::RegistryDenied),
            Reason::Expired => release.not_after.is_some_and(|time| time < end.at),
            // How many attempts there were is looked at when the release has ended.
            Reason::AttemptsExhausted => self.ended.faults.contains_key(&end.release),
            Reason::SourceGone => self.ended.collected > 0 && self.is_gone(end, registry),
            Reason::ContentMissing => self.ended.collected > 0,
            _ => false,
        }
    }

    /// Whether what the tag should go to, or back to, is gone from its repository, and from where it
    /// came from, if that is another one.
    fn is_gone(&self, end: &End, registry: &Registry) -> bool {
        let goals: Vec<String> = if end.state == TagMoveState::Moved {
            self.before(end.release, &end.key).into_iter().flatten().collect()
        } else {
            let wish = self.releases[&end.release].wishes.get(&end.key);
            wish.map(|wish| wish.wanted.clone()).into_iter().collect()
        };
        let there = |digest: &String| {
            registry.within(&end.key.0, |content| content.manifests.contains_key(digest))
        };
        // What is published comes from the builds, and is copied from there again.
        let published = end.state != TagMoveState::Moved
            && self.releases[&end.release].purpose == Purpose::Publish;
        let built = |digest: &String| {
            registry.within(BUILD, |content| content.manifests.contains_key(digest))
        };
        !goals.iter().all(|digest| there(digest) || published && built(digest))
    }
}

impl Accepted {
    fn floats(&self, key: &Key) -> bool {
        self.wishes.get(key).is_some_and(|wish| wish.kind == TagKind::Floating)
    }

    /// Whether the tag was there already, and the release only took it over.
    fn found(&self, key: &Key) -> bool {
        self.made.get(key).is_some_and(|made| made.found)
    }

    /// A version moves nothing that a higher one should have, however it may have been hidden.
    pub(crate) fn overlooks_nothing(&self, key: &Key, sights: &Sights) {
        let wish = &self.wishes[key];
        let (Some(colophon_domain::OrderKey::Semver(own)), Some(line)) = (&wish.order, wish.line)
        else {
            return;
        };
        let above = sights.overlooked(&key.0, line, own).filter(|_| !self.allow_backward);
        assert_eq!(above, None, "{key:?}: {own} moved it");
    }
}
