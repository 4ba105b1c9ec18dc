//! What a tag pointed to at a time: the entries around that time, and what they prove.

use colophon_domain::{Certainty, EntryView, Failure, Repository, Result, Tag, TagView};
use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::{
    Store,
    entries::EntryRow,
    tx::{self, Fault},
};

/// The entries around a time, and when the tag was last seen as the newest one says.
struct Around {
    /// The newest entry up to the time that says what the tag points to.
    state: Option<EntryView>,
    /// The newest entry up to the time is an intent: its outcome came later, or is not known.
    moving: bool,
    /// The first entry behind the time.
    next: Option<EntryView>,
    observed_at: Option<OffsetDateTime>,
}

impl Store {
    /// What a tag pointed to, now or at a time, and how certain that is.
    pub async fn tag_at(
        &self,
        repository: &Repository,
        tag: &Tag,
        at: Option<OffsetDateTime>,
    ) -> Result<TagView> {
        let (around, at, now) = tx::run("tag.read", || self.read(repository, tag, at)).await?;
        if at > now {
            return Err(Failure::invalid("at", "the time asked about lies in the future")
                .remedy("leave it out for now"));
        }
        Ok(judge(around, at))
    }

    /// Reads in one snapshot: an entry that is written in between must not be half seen.
    async fn read(
        &self,
        repository: &Repository,
        tag: &Tag,
        at: Option<OffsetDateTime>,
    ) -> Result<(Around, OffsetDateTime, OffsetDateTime), Fault> {
        let mut tx =
            self.pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY").await?;
        // The newest entry may be later than now: the database's clock may have been put back.
        let head = sqlx::query!(
            r#"
            SELECT c.now AS "now!", GREATEST(c.now, h.last_at) AS "newest!", h.observed_at
            FROM (SELECT colophon_now() AS now) c LEFT JOIN tag_head h
                ON h.registry = $1 AND h.repository = $2 AND h.tag = $3
            "#,
            repository.registry().as_str(),
            repository.name(),
            tag.as_str(),
        )
        .fetch_one(&mut *tx)
        .await?;
        let at = at.unwrap_or(head.newest);
        let around = around(&mut tx, repository, tag, at, head.observed_at).await?;
        Ok((around, at, head.now.max(head.newest)))
    }
}

async fn around(
    conn: &mut PgConnection,
    repository: &Repository,
    tag: &Tag,
    at: OffsetDateTime,
    observed_at: Option<OffsetDateTime>,
) -> Result<Around, Fault> {
    // Up to three rows: the state, an intent behind it, and the first entry after the time.
    let rows = sqlx::query_as!(
            EntryRow,
            r#"
            WITH own AS (
                SELECT * FROM audit_entry WHERE registry = $1 AND repository = $2 AND tag = $3
            ), picked AS (
                (SELECT id FROM own WHERE at <= $4 AND kind NOT IN ('intent', 'annotation', 'redaction')
                 ORDER BY at DESC LIMIT 1)
                UNION
                (SELECT id FROM own WHERE at <= $4 AND kind NOT IN ('annotation', 'redaction')
                 ORDER BY at DESC LIMIT 1)
                UNION
                (SELECT id FROM own WHERE at > $4 AND kind NOT IN ('annotation', 'redaction')
                 ORDER BY at LIMIT 1)
            )
            SELECT e.id, e.registry, e.repository, e.tag, e.tag_seq, e.kind, e.purpose,
                   e.old_digest, e.new_digest, e.at, e.not_before, e.release_id, e.reason_code,
                   e.intent_id, e.source, e.body, e.leaf_hash AS "leaf_hash!",
                   o.principal AS "principal?", o.on_behalf_of AS "on_behalf_of?",
                   o.reason AS "reason?"
            FROM picked JOIN audit_entry e USING (id) LEFT JOIN opening o ON o.entry_id = e.id
            ORDER BY e.at
            "#,
            repository.registry().as_str(),
            repository.name(),
            tag.as_str(),
            at,
        )
        .fetch_all(conn)
        .await?;
    let mut around = Around { state: None, moving: false, next: None, observed_at };
    for row in rows {
        let entry = row.view()?;
        if entry.at > at {
            around.next = Some(entry);
        } else if entry.kind == "intent" {
            around.moving = true;
        } else {
            around.state = Some(entry);
        }
    }
    Ok(around)
}

/// The answer that the entries around a time allow, and no more than that.
fn judge(around: Around, at: OffsetDateTime) -> TagView {
    let next_says = around.next.as_ref().map(|entry| entry.kind.as_str());
    let (certainty, explanation) = match (&around.state, around.moving, next_says) {
        (_, true, _) => (
            Certainty::Uncertain,
            "a move of the tag was under way at that time; this is what it pointed to before",
        ),
        (None, false, None) => (Certainty::Unknown, "the ledger has no entry about this tag"),
        (None, false, Some(_)) => {
            (Certainty::Unknown, "the time lies before the first entry about this tag")
        }
        (Some(_), false, Some("drift" | "deleted")) => {
            let window = around.next.as_ref().and_then(|entry| entry.not_before);
            match window {
                Some(last_seen) if at <= last_seen => {
                    (Certainty::Confirmed, "the tag was seen here before and after that time")
                }
                _ => (
                    Certainty::Unknown,
                    "somebody else moved the tag after it was last seen here and before the next \
                     observation",
                ),
            }
        }
        (Some(_), false, Some(_)) => {
            (Certainty::Confirmed, "the tag was still here at its next entry")
        }
        (Some(_), false, None) if around.observed_at.is_some_and(|seen| seen >= at) => {
            (Certainty::Confirmed, "the tag was seen here before and after that time")
        }
        (Some(_), false, None) => {
            (Certainty::LastObserved, "the tag was not looked at since it was last seen here")
        }
    };
    let last_observed_at = around.state.as_ref().map(|entry| {
        let seen_later = match &around.next {
            Some(next) => next.not_before.or(Some(entry.at)),
            None => around.observed_at,
        };
        seen_later.filter(|seen| *seen <= at).unwrap_or(entry.at).max(entry.at)
    });
    TagView {
        digest: around.state.as_ref().and_then(|entry| entry.new_digest.clone()),
        certainty,
        explanation: explanation.to_owned(),
        at,
        last_observed_at,
        entry: around.state,
    }
}
