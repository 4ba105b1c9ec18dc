//! What callers and strangers do in the walk's world: publish, roll back, cancel, freeze, settle
//! by hand, move tags behind our back.

use std::time::Duration;

use colophon_domain::{
    Digest, Expected, FreezeRequest, IfOlder, OnFailure, OrderKey, Purpose, Reason, Reference,
    ReleaseRequest, Settlement, TagKind, TagRequest,
};
use colophon_store::Author;
use rand::{Rng, seq::IndexedRandom};
use sqlx::Row as _;

use crate::{
    base::{digest, repository, request, rollback},
    world::World,
};

impl World {
    pub(crate) async fn publish(&mut self) {
        let content = digest(self.rng.random());
        // Some are named twice: the second release is refused.
        let unique = format!("u{}", self.rng.random_range(0..self.releases.len() + 6));
        // A retag half of the time, else copies to two targets.
        let mut wanted = match self.rng.random_range(0..6) {
            0 => request(&[("source", &[], &["latest"])]),
            1 => request(&[("source", &[&unique], &["latest", "v1"])]),
            2 => request(&[("source", &[], &["latest", "v1"])]),
            3 => request(&[("a", &[&unique], &["latest"]), ("b", &[], &["latest", "v1"])]),
            4 => request(&[("a", &[], &["latest"]), ("b", &[], &["latest"])]),
            _ => request(&[("a", &[], &["latest"])]),
        };
        self.condition(&mut wanted);
        wanted.allow_backward = self.chance(8);
        self.accept(wanted, &content).await;
    }

    /// A rollback of one or two floating tags, each to content of its own.
    pub(crate) async fn roll_back(&mut self) {
        let place = self.place();
        let (one, two) = (self.content(), self.content());
        let mut wanted = rollback(place, "latest", &one);
        if self.chance(40) {
            let mut second = TagRequest::new("v1".parse().unwrap(), TagKind::Floating);
            second.content = Some(Reference::digest(repository(place), two));
            wanted.targets[0].tags.push(second);
        }
        if self.chance(20) {
            // What is gone from the place is copied back from another one.
            let from = Reference::digest(repository("elsewhere"), one.clone());
            wanted.targets[0].tags[0].content = Some(from);
        }
        assert_eq!(wanted.purpose, Purpose::Rollback);
        self.happened("rollbacks");
        self.accept(wanted, &one).await;
    }

    /// Of few digests, so that tags are found where they are wanted, and come back to where they
    /// were.
    fn content(&mut self) -> Digest {
        digest(self.rng.random_range(0..10))
    }

    async fn accept(&mut self, mut wanted: ReleaseRequest, content: &Digest) {
        wanted.break_glass = self.chance(10);
        if self.chance(30) {
            wanted.on_failure = OnFailure::Keep;
        }
        if self.chance(4) {
            let left = Duration::from_secs(self.rng.random_range(0..90));
            wanted.not_after = Some(self.time() + left);
        }
        self.releases.push(self.base.accept(&wanted, content).await);
    }

    /// Conditions of single tags: `latest` mostly has a build number, `v1` mostly none.
    fn condition(&mut self, wanted: &mut ReleaseRequest) {
        for target in &mut wanted.targets {
            for tag in &mut target.tags {
                if self.chance(5) {
                    let seen = self.served(&target.repository, &tag.tag);
                    let lies = self.chance(40);
                    tag.expected = Some(if lies { Expected::Absent } else { seen.into() });
                }
                if tag.kind == TagKind::Unique {
                    continue;
                }
                let keyed = if tag.tag.as_str() == "latest" { 97 } else { 4 };
                if self.chance(keyed) {
                    // Later builds have greater numbers, more or less.
                    let build = self.releases.len() as u64 + self.rng.random_range(0..8);
                    tag.order = Some(OrderKey::Number(build));
                }
                tag.if_older = *IfOlder::ALL.choose(&mut self.rng).unwrap();
            }
        }
    }

    pub(crate) fn foreign_move(&mut self) {
        let key = (repository(self.place()), "latest".parse().unwrap());
        let content = self.content();
        self.registry.insert(key.clone(), content);
        self.touched.push(key);
    }

    fn place(&mut self) -> &'static str {
        ["source", "a", "b"].choose(&mut self.rng).unwrap()
    }

    /// Mostly one of the last releases, which still goes on.
    pub(crate) async fn cancel(&mut self) {
        let last = self.releases.len().saturating_sub(6);
        let Some(id) = self.releases[last..].choose(&mut self.rng).copied() else { return };
        match self.base.store.cancel_release(id, "bot", "").await {
            Ok(()) => self.happened("cancels"),
            Err(failure) => assert_eq!(failure.reason(), Reason::NotCancellable),
        }
    }

    pub(crate) async fn freeze(&mut self) {
        let patterns = ["*", "r.test/*", "r.test/a", "r.test/b", "r.test/source", "r.test/c"];
        let length = Duration::from_secs(self.rng.random_range(1..30));
        let wanted = FreezeRequest {
            pattern: patterns.choose(&mut self.rng).unwrap().parse().unwrap(),
            reason: "a holiday".into(),
            ends_at: self.time() + length,
        };
        self.freezes.push(self.base.store.create_freeze("op", &wanted).await.unwrap());
        self.happened("freezes");
    }

    pub(crate) async fn lift(&mut self) {
        if let Some(id) = self.freezes.pop() {
            self.base.store.lift_freeze(id, "op", "").await.unwrap();
        }
    }

    /// A person says what became of some move: the truth as a rule.
    pub(crate) async fn settle_by_hand(&mut self) {
        let open = "SELECT repository, tag, old_digest, new_digest,
                           epoch > 0 OR resolve_after <= colophon_now() AS due
                    FROM open_intent ORDER BY repository, tag";
        let rows = sqlx::query(open).fetch_all(&self.base.pool).await.unwrap();
        let Some(row) = rows.choose(&mut self.rng) else { return };
        let (place, tag): (String, String) = (row.get("repository"), row.get("tag"));
        let key = (repository(&place), tag.parse().unwrap());
        let served = self.registry.get(&key).map(ToString::to_string);
        let moved = served == row.get::<Option<String>, _>("new_digest");
        let truth = moved || served == row.get::<Option<String>, _>("old_digest");
        let lies = self.chance(15);
        let said = if moved == lies { Settlement::NotMoved } else { Settlement::Moved };
        let author = Author {
            principal: "op".into(),
            on_behalf_of: String::new(),
            reason: "it is known".into(),
        };
        let settled = match self.base.store.take_unknown(&key.0, &key.1).await {
            Ok(due) => self.base.store.settle_by_hand(&due, said, &author).await,
            Err(failure) => Err(failure),
        };
        if row.get("due") {
            settled.unwrap();
            self.happened("settled by hand");
            if lies || !truth {
                self.touched.push(key);
            }
        } else {
            assert_eq!(settled.unwrap_err().reason(), Reason::NotUnknown);
        }
    }
}
