//! The model: it replays the ledger entry by entry as it grows, and fails where an entry is one
//! that must not be.

use std::collections::BTreeMap;

use colophon_domain::{Repository, RepositoryPattern};
use sqlx::{PgPool, Row as _};
use uuid::Uuid;

use crate::{
    ended::Ended,
    keeping::Keeping,
    registry::{Key, Registry},
    rules::{Accepted, Made, TagModel},
    sights::Sights,
    verdicts::Verdict,
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

/// How far entries and ends were written.
type News = (i64, i64, i64, i64, i64);

/// An entry as it is stored.
pub(crate) struct Row {
    number: i64,
    pub(crate) id: Uuid,
    pub(crate) key: Key,
    seq: i64,
    pub(crate) kind: String,
    pub(crate) purpose: String,
    old: Option<String>,
    pub(crate) new: Option<String>,
    pub(crate) release: Option<Uuid>,
    reason: Option<String>,
    intent: Option<Uuid>,
}

/// Everything that is known.
#[derive(Default)]
pub(crate) struct Model {
    pub(crate) tags: BTreeMap<Key, TagModel>,
    pub(crate) releases: BTreeMap<Uuid, Accepted>,
    pub(crate) freezes: Vec<Freeze>,
    /// Rollbacks that have not ended.
    pub(crate) rollbacks: Vec<Uuid>,
    /// What ended, and what was done to releases that may make them fail.
    pub(crate) ended: Ended,
    /// The digests that floating tags leave.
    pub(crate) keeping: Keeping,
    flights: BTreeMap<Key, Vec<Flight>>,
    /// How far it was written when it was looked at last.
    news: News,
    /// The newest entry that was replayed.
    number: i64,
    /// How many there were of each kind and purpose.
    pub(crate) kinds: BTreeMap<String, usize>,
}

impl Model {
    pub(crate) fn tag(&mut self, key: &Key) -> &mut TagModel {
        self.tags.entry(key.clone()).or_default()
    }

    pub(crate) fn frozen(&self, repository: &str, now: i64) -> bool {
        let repository = Repository::parse(repository).unwrap();
        self.freezes.iter().any(|it| it.holds(now) && it.pattern.covers(&repository))
    }

    /// Judges what ended since the last time and replays what was written. `sights` are those of
    /// the one worker that has gone on since.
    pub(crate) async fn sync(
        &mut self,
        pool: &PgPool,
        registry: &Registry,
        now: i64,
        sights: Option<&Sights>,
    ) {
        let news = self.news(pool).await;
        if news == self.news {
            return self.compare(registry);
        }
        self.news = news;
        let rows = self.entries(pool).await;
        // What was decided was decided by what was there before it was written.
        self.judge_ends(pool, (&rows, sights), registry).await;
        for row in rows {
            self.replay(&row, now, sights);
            let served = registry.digest(&row.key);
            let tag = self.tag(&row.key);
            if row.kind != "intent" && tag.digest == served {
                tag.touched = false;
            }
        }
        self.lift_barriers(pool).await;
        self.keeping.look(pool).await;
        self.compare(registry);
    }

    /// By what one can tell that something was written: entries, ends of tags and of rollbacks.
    async fn news(&self, pool: &PgPool) -> News {
        sqlx::query_as(
            "SELECT COALESCE((SELECT max(enq_id) FROM audit_queue), 0),
                    count(*) FILTER (WHERE ended_at IS NOT NULL),
                    count(*) FILTER (WHERE state = 'RESTORING'),
                    (SELECT count(*) FROM release WHERE id = ANY ($1) AND ended_at IS NOT NULL),
                    (SELECT COALESCE(sum(extract(epoch FROM left_at) * 1000), 0)::bigint FROM kept_digest)
             FROM tag_move",
        )
        .bind(&self.rollbacks)
        .fetch_one(pool)
        .await
        .unwrap()
    }

    /// The entries that were written since the last time.
    async fn entries(&self, pool: &PgPool) -> Vec<Row> {
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
        let row = |row: sqlx::postgres::PgRow| Row {
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
        rows.into_iter().map(row).collect()
    }

    /// A rollback that ended without bringing a tag back keeps nobody from it.
    async fn lift_barriers(&mut self, pool: &PgPool) {
        if self.rollbacks.is_empty() {
            return;
        }
        let ended: Vec<(Uuid, String, String, bool)> = sqlx::query_as(
            "SELECT r.id, p.registry || '/' || p.repository, m.tag,
                    m.state = 'MOVED' OR m.state = 'UNCHANGED'
                        AND (r.state = 'SUCCEEDED' OR h.mover = m.id)
             FROM release r JOIN publication p ON p.release_id = r.id
             JOIN tag_move m ON m.publication_id = p.id
             JOIN tag_head h ON h.registry = p.registry AND h.repository = p.repository
                            AND h.tag = m.tag
             WHERE r.id = ANY ($1) AND r.ended_at IS NOT NULL",
        )
        .bind(&self.rollbacks)
        .fetch_all(pool)
        .await
        .unwrap();
        for (id, place, tag, holds) in ended {
            self.rollbacks.retain(|known| *known != id);
            if !holds {
                self.tag(&(place, tag)).barriers.remove(&id);
            }
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

    fn replay(&mut self, row: &Row, now: i64, sights: Option<&Sights>) {
        let key = &row.key;
        self.number = row.number;
        let deletes = row.purpose == "retention" && row.new.is_none();
        let purpose = if deletes { "prune" } else { &row.purpose };
        *self.kinds.entry(format!("{} {purpose}", row.kind)).or_default() += 1;
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
        match (row.kind.as_str(), row.purpose.as_str()) {
            ("intent", "retention") => return self.begin_keeping(row, now, sights),
            ("intent", _) => return self.begin(row, now, sights),
            ("unchanged", "retention") => {
                let tag = self.tag(key);
                assert_eq!(tag.digest, row.new, "{key:?}: unchanged, elsewhere");
            }
            ("unchanged", _) => self.found(row),
            (kind, "retention") => {
                self.tag(key).end(key, (row.intent, kind), None, row.new.as_ref());
            }
            (kind, _) => {
                let release = self.releases.get_mut(&row.release.unwrap());
                let tag = self.tags.entry(key.clone()).or_default();
                tag.end(key, (row.intent, kind), release, row.new.as_ref());
            }
        }
        self.tag(key).digest.clone_from(&row.new);
    }

    /// An intent of a release's own tag.
    fn begin(&mut self, row: &Row, now: i64, sights: Option<&Sights>) {
        let (key, id) = (&row.key, row.release.unwrap());
        let release = self.releases[&id].clone();
        let frozen = self.frozen(&key.0, now);
        assert!(!frozen || release.break_glass, "{key:?}: an intent under a freeze");
        let sights = sights.unwrap_or_else(|| panic!("{key:?}: an intent without a look"));
        let highest = release.highest(key, sights);
        let restores = row.purpose == "restore";
        let tag = self.tag(key);
        let back = !restores && release.goes_back(&release.wishes[key], tag, highest.as_ref());
        let reason = match (frozen, back) {
            (true, _) => Some("BREAK_GLASS"),
            (false, true) => Some("ORDER_REGRESSION"),
            (false, false) => None,
        };
        assert_eq!(row.reason.as_deref(), reason, "{key:?}: decided for another reason");
        if !restores {
            let seen = sights.of(key).unwrap_or_else(|| panic!("{key:?}: moved without a look"));
            let wish = &release.wishes[key];
            let verdict = release.verdict(wish, tag, seen.as_ref(), highest.as_ref());
            assert_eq!(verdict, Verdict::Moves, "{key:?}: moved");
            release.overlooks_nothing(key, sights);
        }
        let back = restores.then(|| self.back(key, &release, row.new.as_ref()));
        let said = (row.purpose.as_str(), row.new.clone());
        self.tag(key).begin(key, (row.id, now), (id, &release), said, back);
    }

    /// A tag of a release that was found where it should be.
    fn found(&mut self, row: &Row) {
        let (key, id) = (&row.key, row.release.unwrap());
        let mut release = self.releases[&id].clone();
        let back = (row.purpose == "restore").then(|| self.back(key, &release, row.new.as_ref()));
        self.tag(key).unchanged(key, (id, &mut release), row.new.as_ref(), back);
        self.releases.insert(id, release);
    }

    /// What nobody else has touched and nobody is moving is where the newest entry says.
    fn compare(&self, registry: &Registry) {
        for (key, tag) in &self.tags {
            if tag.open.is_none() && !tag.touched {
                assert_eq!(registry.digest(key), tag.digest, "{key:?}: the ledger says otherwise");
            }
        }
    }

    /// A PUT or a DELETE is at the door: it has an intent whose time has not run out, and is
    /// alone. `digest` is what it brings. Returns the deadline, and when it can be in the network
    /// no more.
    pub(crate) fn arrive(
        &mut self,
        (key, digest): (&Key, Option<&str>),
        registry: &Registry,
        now: i64,
    ) -> (i64, i64) {
        let open = self.tags.get(key).and_then(|tag| tag.open.as_ref());
        let open = open.unwrap_or_else(|| panic!("{key:?}: a PUT without an intent"));
        assert_eq!(open.new.as_deref(), digest, "{key:?}: a PUT of something else");
        assert!(now < open.deadline, "{key:?}: a PUT after its deadline");
        self.must_be_kept(key, open, registry);
        let (deadline, until) = (open.deadline, open.until);
        let flights = self.flights.entry(key.clone()).or_default();
        let alone = flights.iter().all(|flight| flight.ended || flight.until <= now);
        assert!(alone, "{key:?}: two PUTs at once");
        flights.retain(|flight| !flight.ended && flight.until > now);
        flights.push(Flight { until, ended: false });
        (deadline, until)
    }

    /// Nothing of the tag's PUT is in the network any more.
    pub(crate) fn landed(&mut self, key: &Key, until: i64) {
        for flight in self.flights.entry(key.clone()).or_default() {
            if flight.until == until {
                flight.ended = true;
            }
        }
    }

    /// Whether a request is about a move that is rarely made: its faults are rarer still.
    pub(crate) fn is_rare(&self, key: &Key) -> bool {
        let open = self.tags.get(key).and_then(|tag| tag.open.as_ref());
        open.is_some_and(|open| matches!(open.purpose.as_str(), "restore" | "rollback"))
    }

    /// The intents that nobody has an outcome for.
    pub(crate) fn open(&self) -> Vec<Key> {
        let open = self.tags.iter().filter(|(_, tag)| tag.open.is_some());
        open.map(|(key, _)| key.clone()).collect()
    }
}
