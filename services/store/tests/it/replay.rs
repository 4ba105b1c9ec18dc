//! The order of builds, told from the ledger alone: who held a floating tag when a release moved
//! it, and what holds it at the end. It shares no code with the rules.

use sqlx::{PgPool, Row as _};
use uuid::Uuid;

/// Who holds a tag.
#[derive(Debug, Clone, Default, PartialEq)]
struct Held {
    ticket: Option<i64>,
    number: Option<i64>,
    mover: Option<Uuid>,
}

/// What a release asks for one tag.
struct Asks {
    tag_move: Uuid,
    ticket: i64,
    number: Option<i64>,
    backward: bool,
}

impl Asks {
    /// Nobody who holds the tag now is newer.
    fn may_follow(&self, held: &Held) -> bool {
        let in_time = held.ticket.is_none_or(|ticket| ticket <= self.ticket);
        match (held.number, self.number) {
            (Some(held), Some(own)) if own > held => true,
            (Some(held), Some(own)) if own == held => in_time,
            (None, _) => in_time,
            // An older build, or one of which nobody can tell.
            (Some(_), _) => self.backward && in_time,
        }
    }

    fn holds(&self, held: &Held, purpose: &str) -> Held {
        let number = match purpose {
            "rollback" => held.number,
            _ if self.backward => self.number,
            _ => self.number.or(held.number),
        };
        Held { ticket: held.ticket.max(Some(self.ticket)), number, mover: Some(self.tag_move) }
    }
}

/// Replays every floating tag; panics where a move was out of order, or where the head is not
/// what the replay ends with.
pub(crate) async fn check(pool: &PgPool) {
    let heads =
        "SELECT DISTINCT h.* FROM tag_head h JOIN publication p USING (registry, repository)
                 JOIN tag_move m ON m.publication_id = p.id AND m.tag = h.tag
                 WHERE m.kind = 'floating'";
    for head in sqlx::query(heads).fetch_all(pool).await.unwrap() {
        let (repository, tag): (String, String) = (head.get("repository"), head.get("tag"));
        let number: Option<String> = head.get("order_value");
        let written = Held {
            ticket: head.get("moved_ticket"),
            number: number.map(|number| number.parse().unwrap()),
            mover: head.get("mover"),
        };
        let replayed = replay(pool, &repository, &tag).await;
        assert_eq!(replayed, written, "{repository}:{tag}");
    }
}

async fn replay(pool: &PgPool, repository: &str, tag: &str) -> Held {
    let entries = sqlx::query(
        "SELECT e.tag_seq, e.kind, e.purpose, e.old_digest, e.new_digest, m.id, m.ticket, m.order_value,
                r.allow_backward
         FROM audit_entry e
         LEFT JOIN release r ON r.id = e.release_id
         LEFT JOIN publication p ON p.release_id = r.id AND p.repository = e.repository
         LEFT JOIN tag_move m ON m.publication_id = p.id AND m.tag = e.tag
         WHERE e.repository = $1 AND e.tag = $2
           AND e.kind IN ('confirmed', 'recovered', 'unchanged', 'baseline', 'drift', 'deleted',
                          'conflict')
         ORDER BY e.tag_seq",
    )
    .bind(repository)
    .bind(tag)
    .fetch_all(pool)
    .await
    .unwrap();
    let mut held = Held::default();
    let mut past: Vec<Before> = Vec::new();
    for entry in entries {
        let (seq, purpose): (i64, String) = (entry.get("tag_seq"), entry.get("purpose"));
        let kind: String = entry.get("kind");
        if purpose == "observation" || kind == "conflict" {
            // Somebody else moved it: it is no release's any more.
            held.mover = None;
            continue;
        }
        let number: Option<String> = entry.get("order_value");
        let asks = Asks {
            tag_move: entry.get("id"),
            ticket: entry.get("ticket"),
            number: number.map(|number| number.parse().unwrap()),
            backward: entry.get("allow_backward"),
        };
        if purpose == "restore" {
            // Somebody else may have put it back himself, which is found out just before.
            let found = kind == "unchanged" && held.mover.is_none();
            let ours = found || held.mover == Some(asks.tag_move);
            assert!(ours, "{repository}:{tag} {seq} put back what {held:?} has");
            held = put_back(&past, asks.tag_move, entry.get("new_digest"));
            continue;
        }
        if purpose == "publish" {
            assert!(
                asks.may_follow(&held),
                "{repository}:{tag} {seq} moved with ticket {} number {:?} over {held:?}",
                asks.ticket,
                asks.number,
            );
        }
        let next = asks.holds(&held, &purpose);
        let before = std::mem::replace(&mut held, next);
        past.push(Before { mover: asks.tag_move, held: before, digest: entry.get("old_digest") });
    }
    held
}

/// What was there before a move.
struct Before {
    mover: Uuid,
    held: Held,
    digest: Option<String>,
}

/// Who holds a tag that is back at a digest: who held it before, or before the release before,
/// where that one failed too and left its put-back to this one.
fn put_back(past: &[Before], mover: Uuid, digest: Option<&str>) -> Held {
    let mut next = Some(mover);
    while let Some(mover) = next {
        let before = past.iter().rev().find(|before| before.mover == mover).unwrap();
        if before.digest.as_deref() == digest {
            return before.held.clone();
        }
        next = before.held.mover;
    }
    panic!("{mover} put the tag back to {digest:?}, where it never was");
}
