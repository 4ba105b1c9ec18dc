//! Appending to the ledger. Everything about one reference is ordered by the lock on its
//! `tag_head` row; number, predecessor and time of an entry are taken under it.

use colophon_domain::{Digest, Failure, Reason, Reference, Repository, Tag};
use colophon_ledger::{Actor, Entry, Kind, LeafHash, Opening, Proof, Purpose, Source};
use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::{Store, rows, tx::Fault};

/// Who asked for a release, and why. In the ledger it is a salted commitment; what opens it is
/// kept apart and can be erased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    /// The caller's name.
    pub principal: String,
    /// On whose behalf, as claimed; may be empty.
    pub on_behalf_of: String,
    /// Why, in the caller's words; may be empty.
    pub reason: String,
}

/// The newest state of a reference, locked until the transaction ends.
pub(crate) struct LockedHead<'a> {
    pub(crate) repository: &'a Repository,
    pub(crate) tag: &'a Tag,
    pub(crate) tag_seq: i64,
    pub(crate) digest: Option<Digest>,
    pub(crate) moved_ticket: Option<i64>,
    leaf_hash: Option<LeafHash>,
    observed_at: Option<OffsetDateTime>,
    /// When the next entry is recorded: later than every one before.
    at: OffsetDateTime,
}

/// What an entry says beyond its place in the chain.
#[derive(Default)]
pub(crate) struct Draft<'a> {
    pub(crate) new: Option<&'a Digest>,
    pub(crate) intent: Option<Uuid>,
    pub(crate) not_before: Option<OffsetDateTime>,
    pub(crate) source: Option<&'a Reference>,
    pub(crate) release: Option<Uuid>,
    pub(crate) reason_code: Option<Reason>,
    pub(crate) author: Option<&'a Author>,
}

impl<'a> LockedHead<'a> {
    /// Locks the reference. The row exists since the first release that named the tag.
    pub(crate) async fn lock(
        conn: &mut PgConnection,
        repository: &'a Repository,
        tag: &'a Tag,
    ) -> Result<Self, Fault> {
        let row = sqlx::query!(
            r#"
            SELECT tag_seq, digest, moved_ticket, leaf_hash, observed_at,
                   GREATEST(colophon_now(), last_at + interval '1 microsecond') AS "at!"
            FROM tag_head WHERE registry = $1 AND repository = $2 AND tag = $3
            FOR UPDATE
            "#,
            repository.registry().as_str(),
            repository.name(),
            tag.as_str(),
        )
        .fetch_one(conn)
        .await?;
        let leaf_hash = row.leaf_hash.map(leaf_hash).transpose()?;
        Ok(Self {
            repository,
            tag,
            tag_seq: row.tag_seq,
            digest: rows::digest_option(row.digest.as_deref())?,
            moved_ticket: row.moved_ticket,
            leaf_hash,
            observed_at: row.observed_at,
            at: row.at,
        })
    }

    /// Writes what was observed where it is not what the newest entry says: the tag was there
    /// before us (`baseline`), or somebody else moved it (`drift`) or removed it (`deleted`).
    pub(crate) async fn observe(
        &mut self,
        store: &Store,
        conn: &mut PgConnection,
        observed: Option<&Digest>,
    ) -> Result<(), Fault> {
        if self.digest.as_ref() != observed {
            let kind = match observed {
                Some(_) if self.tag_seq == 0 => Kind::Baseline,
                Some(_) => Kind::Drift,
                None => Kind::Deleted,
            };
            let not_before = if kind == Kind::Baseline { None } else { self.observed_at };
            let draft = Draft { new: observed, not_before, ..Draft::default() };
            self.append(store, conn, kind, Purpose::Observation, draft).await?;
        }
        self.observed_at = Some(self.at);
        Ok(())
    }

    /// Appends one entry and returns its id.
    pub(crate) async fn append(
        &mut self,
        store: &Store,
        conn: &mut PgConnection,
        kind: Kind,
        purpose: Purpose,
        draft: Draft<'_>,
    ) -> Result<Uuid, Fault> {
        let opening = draft.author.map(|author| opening(store, author));
        let entry = self.entry(store.entropy.uuid(), kind, purpose, &draft, opening.as_ref())?;
        let body = entry.to_bytes().map_err(|error| {
            Failure::new(Reason::Internal, "an entry of the ledger cannot be written")
                .caused_by(error)
        })?;
        insert(conn, &entry, &draft, opening.as_ref(), &body).await?;

        self.tag_seq += 1;
        self.leaf_hash = Some(LeafHash::of(&body));
        if kind != Kind::Intent {
            self.digest = draft.new.cloned();
        }
        self.at += Duration::MICROSECOND;
        Ok(entry.id)
    }

    fn entry(
        &self,
        id: Uuid,
        kind: Kind,
        purpose: Purpose,
        draft: &Draft<'_>,
        opening: Option<&Opening>,
    ) -> Result<Entry, Fault> {
        let tag_seq = u64::try_from(self.tag_seq + 1)
            .map_err(|_| Failure::new(Reason::Internal, "an entry's number is negative"))?;
        Ok(Entry {
            id,
            kind,
            purpose,
            registry: self.repository.registry().to_string(),
            repository: self.repository.name().to_owned(),
            tag: self.tag.to_string(),
            tag_seq,
            prev: self.leaf_hash,
            old: self.digest.as_ref().map(ToString::to_string),
            new: draft.new.map(ToString::to_string),
            intent: draft.intent,
            at: self.at,
            not_before: draft.not_before,
            source: draft.source.map(|source| Source {
                registry: source.repository.registry().to_string(),
                repository: source.repository.name().to_owned(),
                digest: source.target.to_string(),
            }),
            release: draft.release,
            reason_code: draft.reason_code.map(|reason| reason.as_str().to_owned()),
            actor: opening.map(Opening::commit_actor),
            reason: opening.map(Opening::commit_reason),
            after: None,
        })
    }

    /// Writes the head back. `moved_ticket` is the ticket of a release that moved the tag or
    /// found it where it wanted it.
    pub(crate) async fn save(
        self,
        conn: &mut PgConnection,
        moved_ticket: Option<i64>,
    ) -> Result<(), Fault> {
        sqlx::query!(
            r#"
            UPDATE tag_head
            SET tag_seq = $4, leaf_hash = $5, digest = $6, observed_at = $7,
                last_at = CASE WHEN $5::bytea IS NOT NULL THEN $8::timestamptz END,
                moved_ticket = GREATEST(moved_ticket, $9)
            WHERE registry = $1 AND repository = $2 AND tag = $3
            "#,
            self.repository.registry().as_str(),
            self.repository.name(),
            self.tag.as_str(),
            self.tag_seq,
            self.leaf_hash.map(|hash| hash.as_bytes().to_vec()),
            self.digest.map(String::from),
            self.observed_at,
            self.at - Duration::MICROSECOND,
            moved_ticket,
        )
        .execute(conn)
        .await?;
        Ok(())
    }
}

fn leaf_hash(bytes: Vec<u8>) -> Result<LeafHash, Failure> {
    let bytes: [u8; 32] = bytes.try_into().map_err(|_| {
        Failure::new(Reason::Internal, "the database holds an unreadable leaf hash")
    })?;
    Ok(LeafHash::from_bytes(bytes))
}

fn opening(store: &Store, author: &Author) -> Opening {
    let behalf = (!author.on_behalf_of.is_empty()).then(|| author.on_behalf_of.clone());
    Opening {
        salt: store.entropy.salt(),
        actor: Actor {
            principal: author.principal.clone(),
            on_behalf_of: behalf,
            // A static token proves only itself.
            proof: Proof::Claimed,
        },
        reason: author.reason.clone(),
    }
}

async fn insert(
    conn: &mut PgConnection,
    entry: &Entry,
    draft: &Draft<'_>,
    opening: Option<&Opening>,
    body: &[u8],
) -> Result<(), Fault> {
    let actor = opening.map(|opening| &opening.actor);
    sqlx::query!(
        r#"
        WITH entry AS (
            INSERT INTO audit_entry (id, registry, repository, tag, tag_seq, kind, purpose,
                                     old_digest, new_digest, at, not_before, release_id,
                                     reason_code, intent_id, source, body)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
        ), opened AS (
            INSERT INTO opening (entry_id, salt, principal, on_behalf_of, proof, reason)
            SELECT $1, $17::bytea, $18, $19, $20, $21 WHERE $17::bytea IS NOT NULL
        )
        INSERT INTO audit_queue (entry_id) VALUES ($1)
        "#,
        entry.id,
        entry.registry,
        entry.repository,
        entry.tag,
        i64::try_from(entry.tag_seq).unwrap_or(i64::MAX),
        entry.kind.as_str(),
        entry.purpose.as_str(),
        entry.old,
        entry.new,
        entry.at,
        entry.not_before,
        entry.release,
        entry.reason_code,
        entry.intent,
        draft.source.map(ToString::to_string),
        body,
        opening.map(|opening| &opening.salt[..]),
        actor.map(|actor| actor.principal.as_str()),
        actor.and_then(|actor| actor.on_behalf_of.as_deref()),
        actor.map(|actor| actor.proof.as_str()),
        opening.map(|opening| opening.reason.as_str()),
    )
    .execute(conn)
    .await?;
    Ok(())
}
