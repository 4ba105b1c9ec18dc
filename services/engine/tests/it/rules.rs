//! What the model knows of one tag and of one release, and the rules by which a tag may move,
//! written down a second time and without looking at the product's.

use std::{cmp::Ordering, collections::BTreeMap};

use colophon_domain::{
    IfOlder, Line, OnFailure, OrderKey, Purpose, Reason, TagKind, TagMoveState, Version,
};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{registry::Key, sights::Sights};

/// Who holds a tag.
#[derive(Debug, Clone, Default)]
pub(crate) struct Holder {
    pub(crate) ticket: i64,
    pub(crate) order: Option<OrderKey>,
    pub(crate) mover: Option<Uuid>,
}

/// A move that is under way.
#[derive(Debug, Clone)]
pub(crate) struct Open {
    pub(crate) intent: Uuid,
    /// The release; `None` where a kept digest is let go.
    pub(crate) release: Option<Uuid>,
    pub(crate) purpose: String,
    pub(crate) old: Option<String>,
    pub(crate) new: Option<String>,
    /// No PUT is sent after this.
    pub(crate) deadline: i64,
    /// No PUT can be in the network after this.
    pub(crate) until: i64,
    /// Nobody looks before this.
    pub(crate) resolve_after: i64,
    /// Who held the tag; if it is put back, who holds it then.
    before: Holder,
}

/// One tag as the ledger tells it.
#[derive(Debug, Default)]
pub(crate) struct TagModel {
    pub(crate) seq: i64,
    pub(crate) digest: Option<String>,
    pub(crate) holder: Holder,
    pub(crate) open: Option<Open>,
    /// The tickets of accepted rollbacks that brought the tag back, or still may.
    pub(crate) barriers: BTreeMap<Uuid, i64>,
    /// Somebody else has changed it since the newest entry.
    pub(crate) touched: bool,
}

/// One tag of a release as it was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) kind: TagKind,
    pub(crate) ticket: i64,
    pub(crate) order: Option<OrderKey>,
    pub(crate) if_older: IfOlder,
    /// The versions of which the release's must be the highest.
    pub(crate) line: Option<Line>,
    /// Why it stays, whatever happens.
    pub(crate) kept: Option<Reason>,
    pub(crate) expected: Option<String>,
    pub(crate) wanted: String,
    /// What a plan showed: where the tag is, and what becomes of it.
    pub(crate) planned: Option<(Option<String>, TagMoveState)>,
}

/// A move of a release that was made: where the tag was, and who held it.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    pub(crate) old: Option<String>,
    pub(crate) before: Holder,
    /// It was there already, and the release only took it over.
    pub(crate) found: bool,
}

/// A release as it was accepted.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a word of the request")]
pub(crate) struct Accepted {
    pub(crate) purpose: Purpose,
    pub(crate) allow_backward: bool,
    pub(crate) break_glass: bool,
    pub(crate) planned: bool,
    pub(crate) not_after: Option<OffsetDateTime>,
    pub(crate) on_failure: OnFailure,
    pub(crate) cancelled: bool,
    pub(crate) wishes: BTreeMap<Key, Wish>,
    pub(crate) made: BTreeMap<Key, Made>,
}

impl Accepted {
    /// Whether the tag goes behind a newer build, or behind a higher version of its line, which
    /// the ledger has to say.
    pub(crate) fn goes_back(&self, wish: &Wish, tag: &TagModel, highest: Option<&Version>) -> bool {
        if self.purpose != Purpose::Publish || wish.kind != TagKind::Floating {
            return false;
        }
        let above = match (&wish.order, highest) {
            (Some(OrderKey::Semver(own)), Some(highest)) => own.precedence(highest).is_lt(),
            _ => false,
        };
        let Some(last) = &tag.holder.order else { return above };
        let compared = wish.order.as_ref().and_then(|own| own.compare(last));
        above || !matches!(compared, Some(Ordering::Equal | Ordering::Greater))
    }

    /// The highest version of the tag's line that a worker was shown.
    pub(crate) fn highest(&self, key: &Key, sights: &Sights) -> Option<Version> {
        let wish = &self.wishes[key];
        let Some(OrderKey::Semver(own)) = &wish.order else { return None };
        sights.highest(&key.0, wish.line?, own)
    }

    /// Who holds the tag after this release took it.
    fn taken(&self, id: Uuid, wish: &Wish, tag: &TagModel) -> Holder {
        let order = match self.purpose {
            Purpose::Rollback => tag.holder.order.clone(),
            Purpose::Publish if self.allow_backward => wish.order.clone(),
            Purpose::Publish => wish.order.clone().or_else(|| tag.holder.order.clone()),
        };
        Holder { ticket: wish.ticket.max(tag.holder.ticket), order, mover: Some(id) }
    }
}

/// The times that the engine was set up with, in milliseconds.
pub(crate) const PUT: i64 = 600_000;
pub(crate) const GRACE: i64 = 60_000;
pub(crate) const CONSISTENCY: i64 = 600_000;

impl TagModel {
    /// An intent was committed at `now`.
    pub(crate) fn begin(
        &mut self,
        key: &Key,
        (intent, now): (Uuid, i64),
        (id, release): (Uuid, &Accepted),
        (purpose, new): (&str, Option<String>),
        back: Option<Made>,
    ) {
        assert!(self.open.is_none(), "{key:?}: two intents at once");
        let wish = &release.wishes[key];
        if back.is_some() {
            assert_eq!(release.on_failure, OnFailure::Restore, "{key:?}: put back, to be kept");
            assert_eq!(self.holder.mover, Some(id), "{key:?}: put back what is not its own");
            assert_eq!(
                self.digest.as_ref(),
                Some(&wish.wanted),
                "{key:?}: put back from elsewhere"
            );
            assert_eq!(wish.kind, TagKind::Floating, "{key:?}: put back a unique tag");
        } else {
            self.may_take(key, release, wish);
            assert_eq!(new.as_ref(), Some(&wish.wanted), "{key:?}: moved to something else");
        }
        let before = back.map_or_else(|| self.holder.clone(), |back| back.before);
        self.open_up((intent, now), Some(id), (purpose, new), before);
    }

    /// Nobody else moves the tag until there is an outcome.
    pub(crate) fn open_up(
        &mut self,
        (intent, now): (Uuid, i64),
        release: Option<Uuid>,
        (purpose, new): (&str, Option<String>),
        before: Holder,
    ) {
        self.open = Some(Open {
            intent,
            release,
            purpose: purpose.to_owned(),
            old: self.digest.clone(),
            new,
            deadline: now + PUT,
            until: now + PUT + GRACE,
            resolve_after: now + PUT + GRACE + CONSISTENCY,
            before,
        });
    }

    fn may_take(&self, key: &Key, release: &Accepted, wish: &Wish) {
        assert_eq!(release.late(wish, self, None), None, "{key:?}: moved back");
        if wish.kind == TagKind::Unique {
            assert_eq!(self.digest, None, "{key:?}: a unique tag was moved");
        }
        let here = self.digest.as_deref().unwrap_or("none");
        if let Some(expected) = &wish.expected {
            assert_eq!(expected, here, "{key:?}: moved from where it was not expected");
        }
        if let Some((old, outcome)) = &wish.planned {
            assert_eq!(old, &self.digest, "{key:?}: moved from where no plan saw it");
            assert_eq!(*outcome, TagMoveState::Moved, "{key:?}: moved, and planned to stay");
        }
    }

    /// The outcome of the intent; `release` is whose it is, unless a digest is kept or let go.
    pub(crate) fn end(
        &mut self,
        key: &Key,
        (intent, kind): (Option<Uuid>, &str),
        release: Option<&mut Accepted>,
        new: Option<&String>,
    ) {
        let open = self.open.take().unwrap_or_else(|| panic!("{key:?}: a second outcome"));
        assert_eq!(Some(open.intent), intent, "{key:?}: the outcome of another intent");
        match kind {
            "not_applied" => assert_eq!(new, open.old.as_ref(), "{key:?}: {kind}"),
            "confirmed" | "recovered" => {
                assert_eq!(new, open.new.as_ref(), "{key:?}: {kind}");
                let Some(release) = release else { return };
                if open.purpose == "restore" {
                    self.holder = open.before;
                    return;
                }
                let id = open.release.unwrap();
                self.holder = release.taken(id, &release.wishes[key], self);
                release
                    .made
                    .insert(key.clone(), Made { old: open.old, before: open.before, found: false });
            }
            _ => {
                assert!(new != open.old.as_ref() && new != open.new.as_ref(), "{key:?}: {kind}");
                // Whoever moved it, it is not theirs any more.
                self.holder.mover = None;
            }
        }
    }

    /// The tag was found where it should be.
    pub(crate) fn unchanged(
        &mut self,
        key: &Key,
        (id, release): (Uuid, &mut Accepted),
        new: Option<&String>,
        back: Option<Made>,
    ) {
        assert!(self.open.is_none(), "{key:?}: unchanged while it was moved");
        assert_eq!(new, self.digest.as_ref(), "{key:?}: unchanged, elsewhere");
        let wish = &release.wishes[key];
        if let Some(back) = back {
            assert_eq!(self.holder.mover, Some(id), "{key:?}: put back what is not its own");
            self.holder = back.before;
            return;
        }
        assert_eq!(release.late(wish, self, None), None, "{key:?}: taken although too late");
        assert_eq!(new, Some(&wish.wanted), "{key:?}: unchanged at something else");
        let taken = release.taken(id, wish, self);
        let before = std::mem::replace(&mut self.holder, taken);
        // It is the release's from now on, and must be given back like one that it has moved.
        let old = self.digest.clone();
        release.made.insert(key.clone(), Made { old, before, found: true });
    }
}
