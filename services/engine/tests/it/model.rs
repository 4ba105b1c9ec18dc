//! The model: it replays the ledger entry by entry as it grows, and fails where an entry is one
//! that must not be.

use std::collections::BTreeMap;

use colophon_domain::{
    PlanView, Purpose, ReleaseView, Repository, RepositoryPattern, TagMoveState,
};
use sqlx::{PgPool, Row as _};
use uuid::Uuid;

use crate::{
    registry::{Key, Registry},
    rules::{Accepted, Made, TagModel, Wish},
};

/// A freeze.
pub(crate) struct Freeze {
    pub(crate) id: Uuid,
    pub(crate) pattern: RepositoryPattern,
    pub(crate) ends_at: i64,
    pub(crate) lifted: bool,
}

impl Freeze {
    pub(crate) fn holds(&self, now: i64) -> bool {
        !self.lifted && self.ends_at > now
    }
}

/// A PUT that reached the registry's door.
struct Flight {
    until: i64,
    ended: bool,
}

/// An entry as it is stored.
struct Row {
    number: i64,
    id: Uuid,
    key: Key,
    seq: i64,
    kind: String,
    purpose: String,
    old: Option<String>,
    new: Option<String>,
    release: Option<Uuid>,
    reason: Option<String>,
    intent: Option<Uuid>,
}

/// Everything that is known.
#[derive(Default)]
pub(crate) struct Model {
    pub(crate) tags: BTreeMap<Key, TagModel>,
    pub(crate) releases: BTreeMap<Uuid, Accepted>,
    pub(crate) freezes: Vec<Freeze>,
    flights: BTreeMap<Key, Vec<Flight>>,
    /// The newest entry that was replayed.
    number: i64,
    /// How many there were of each kind and purpose.
    pub(crate) kinds: BTreeMap<String, usize>,
}

impl Model {
    pub(crate) fn tag(&mut self, key: &Key) -> &mut TagModel {
        self.tags.entry(key.clone()).or_default()
    }

    /// A release was accepted.
    pub(crate) fn accept(
        &mut self,
        view: &ReleaseView,
        allow_backward: bool,
        plan: Option<&PlanView>,
    ) {
        let mut wishes = BTreeMap::new();
        for (at, publication) in view.publications.iter().enumerate() {
            for tag in &publication.tags {
                let planned = plan.and_then(|plan| {
                    let tags = &plan.publications[at].tags;
                    let seen = tags.iter().find(|seen| seen.tag == tag.tag)?;
                    Some((seen.old.as_ref().map(ToString::to_string), seen.outcome))
                });
                let wish = Wish {
                    kind: tag.kind,
                    ticket: tag.ticket.unwrap_or_default(),
                    order: tag.order.clone(),
                    expected: tag.expected.clone(),
                    wanted: tag.wanted.as_ref().unwrap_or(&view.digest).to_string(),
                    planned,
                };
                let key = (publication.repository.to_string(), tag.tag.to_string());
                if view.purpose == Purpose::Rollback && tag.state != TagMoveState::Kept {
                    self.tag(&key).barriers.insert(view.id, wish.ticket);
                }
                wishes.insert(key, wish);
            }
        }
        let accepted = Accepted {
            purpose: view.purpose,
            allow_backward,
            break_glass: view.break_glass,
            on_failure: view.on_failure,
            cancelled: false,
            wishes,
            made: BTreeMap::new(),
        };
        self.releases.insert(view.id, accepted);
    }

    fn frozen(&self, repository: &str, now: i64) -> bool {
        let repository = Repository::parse(repository).unwrap();
        self.freezes.iter().any(|it| it.holds(now) && it.pattern.covers(&repository))
    }

    /// Replays what was written since the last time.
    pub(crate) async fn sync(&mut self, pool: &PgPool, registry: &Registry, now: i64) {
        let rows = sqlx::query(
            "SELECT q.enq_id, e.id, e.registry || '/' || e.repository AS place, e.tag, e.tag_seq,
                    e.kind, e.purpose, e.old_digest, e.new_digest, e.release_id, e.reason_code,
                    e.intent_id
             FROM audit_queue q JOIN audit_entry e ON e.id = q.entry_id
             WHERE q.enq_id > $1 ORDER BY q.enq_id",
        )
        .bind(self.number)
        .fetch_all(pool)
        .await
        .unwrap();
        if !rows.is_empty() {
            self.lift_barriers(pool).await;
        }
        for row in rows {
            let row = Row {
                number: row.get(0),
                id: row.get(1),
                key: (row.get(2), row.get(3)),
                seq: row.get(4),
                kind: row.get(5),
                purpose: row.get(6),
                old: row.get(7),
                new: row.get(8),
                release: row.get(9),
                reason: row.get(10),
                intent: row.get(11),
            };
            self.replay(&row, now);
            let served = registry.digest(&row.key);
            let tag = self.tag(&row.key);
            if row.kind != "intent" && tag.digest == served {
                tag.touched = false;
            }
        }
        self.compare(registry);
    }

    /// A rollback that ended without bringing a tag back keeps nobody from it.
    async fn lift_barriers(&mut self, pool: &PgPool) {
        let failed: Vec<(Uuid, String, String)> = sqlx::query_as(
            "SELECT r.id, p.registry || '/' || p.repository, m.tag
             FROM release r JOIN publication p ON p.release_id = r.id
             JOIN tag_move m ON m.publication_id = p.id
             JOIN tag_head h ON h.registry = p.registry AND h.repository = p.repository
                            AND h.tag = m.tag
             WHERE r.purpose = 'rollback' AND r.ended_at IS NOT NULL
               AND (m.state NOT IN ('MOVED', 'UNCHANGED')
                    OR r.state <> 'SUCCEEDED' AND m.state = 'UNCHANGED'
                       AND h.mover IS DISTINCT FROM m.id)",
        )
        .fetch_all(pool)
        .await
        .unwrap();
        for (id, place, tag) in failed {
            self.tag(&(place, tag)).barriers.remove(&id);
        }
    }

    /// Where a release puts a tag back to, and who holds it then. If the release before it failed,
    /// too, and left the tag to it, that is what was there before both.
    fn back(&self, key: &Key, release: &Accepted, new: Option<&String>) -> Made {
        let mut made = &release.made[key];
        while made.old.as_ref() != new {
            let before = made.before.mover.and_then(|id| self.releases[&id].made.get(key));
            made = before.unwrap_or_else(|| panic!("{key:?}: put back to what was not before"));
        }
        made.clone()
    }

    fn replay(&mut self, row: &Row, now: i64) {
        let key = &row.key;
        self.number = row.number;
        *self.kinds.entry(format!("{} {}", row.kind, row.purpose)).or_default() += 1;
        let frozen = self.frozen(&key.0, now);
        let tag = self.tags.entry(key.clone()).or_default();
        assert_eq!(row.seq, tag.seq + 1, "{key:?}: an entry out of order");
        assert_eq!(row.old, tag.digest, "{key:?}: {} from elsewhere", row.kind);
        tag.seq = row.seq;
        if matches!(row.kind.as_str(), "baseline" | "drift" | "deleted") {
            assert!(tag.touched, "{key:?}: {} that nobody made", row.kind);
            tag.digest.clone_from(&row.new);
            // Whoever moved it, it is not theirs any more.
            tag.holder.mover = None;
            return;
        }
        let id = row.release.unwrap();
        let release = self.releases.get_mut(&id).unwrap();
        let said = (row.purpose.as_str(), row.new.clone());
        match row.kind.as_str() {
            "intent" => {
                assert!(!frozen || release.break_glass, "{key:?}: an intent under a freeze");
                let back = row.purpose == "publish" && release.goes_back(key, tag);
                let said_reason = row.reason.as_deref();
                let regression = Some("ORDER_REGRESSION");
                let right = match (frozen, back) {
                    (true, _) => said_reason == Some("BREAK_GLASS"),
                    (false, true) => said_reason == regression,
                    // Which versions were there when it was decided, the model does not know.
                    (false, false) => {
                        said_reason.is_none()
                            || said_reason == regression && release.may_regress(key)
                    }
                };
                assert!(right, "{key:?}: decided because of {said_reason:?}");
                let release = release.clone();
                let back = match said.0 {
                    "restore" => Some(self.back(key, &release, said.1.as_ref())),
                    _ => None,
                };
                let tag = self.tag(key);
                tag.begin(key, (row.id, now), (id, &release), said, back);
                return;
            }
            "unchanged" => {
                let mut release = release.clone();
                let back = match said.0 {
                    "restore" => Some(self.back(key, &release, row.new.as_ref())),
                    _ => None,
                };
                let tag = self.tag(key);
                tag.unchanged(key, (id, &mut release), row.new.as_ref(), back);
                tag.digest.clone_from(&row.new);
                self.releases.insert(id, release);
                return;
            }
            kind => tag.end(key, (row.intent, kind), release, row.new.as_ref()),
        }
        tag.digest.clone_from(&row.new);
    }

    /// What nobody else has touched and nobody is moving is where the newest entry says.
    fn compare(&self, registry: &Registry) {
        for (key, tag) in &self.tags {
            if tag.open.is_none() && !tag.touched {
                assert_eq!(registry.digest(key), tag.digest, "{key:?}: the ledger says otherwise");
            }
        }
    }

    /// A PUT is at the door: it has an intent whose time has not run out, and is alone. Returns
    /// the deadline, and when it can be in the network no more.
    pub(crate) fn arrive(&mut self, key: &Key, digest: &str, now: i64) -> (i64, i64) {
        let open = self.tags.get(key).and_then(|tag| tag.open.as_ref());
        let open = open.unwrap_or_else(|| panic!("{key:?}: a PUT without an intent"));
        assert_eq!(open.new.as_deref(), Some(digest), "{key:?}: a PUT of something else");
        assert!(now < open.deadline, "{key:?}: a PUT after its deadline");
        let flights = self.flights.entry(key.clone()).or_default();
        let alone = flights.iter().all(|flight| flight.ended || flight.until <= now);
        assert!(alone, "{key:?}: two PUTs at once");
        flights.retain(|flight| !flight.ended && flight.until > now);
        flights.push(Flight { until: open.until, ended: false });
        (open.deadline, open.until)
    }

    /// Nothing of the tag's PUT is in the network any more.
    pub(crate) fn landed(&mut self, key: &Key, until: i64) {
        for flight in self.flights.entry(key.clone()).or_default() {
            if flight.until == until {
                flight.ended = true;
            }
        }
    }

    /// The intents that nobody has an outcome for.
    pub(crate) fn open(&self) -> Vec<Key> {
        let open = self.tags.iter().filter(|(_, tag)| tag.open.is_some());
        open.map(|(key, _)| key.clone()).collect()
    }
}
