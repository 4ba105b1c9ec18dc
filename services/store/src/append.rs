//! Appending to the ledger. Everything about one reference is ordered by the lock on its
//! `tag_head` row; number, predecessor and time of an entry are taken under it.

use colophon_domain::{Digest, Failure, HeadState, OrderKey, Reason, Reference, Repository, Tag};
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

/// What the registry showed, and how long ago it was asked.
#[derive(Debug, Clone, Copy)]
pub struct Look<'a> {
    /// What the tag pointed to; `None` if there was no such tag.
    pub digest: Option<&'a Digest>,
    /// The time since the question was sent.
    pub age: std::time::Duration,
}

impl<'a> Look<'a> {
    /// A look that is too old to decide by.
    const STALE: std::time::Duration = std::time::Duration::from_secs(5);

    /// A look at this moment.
    pub fn now(digest: Option<&'a Digest>) -> Self {
        Self { digest, age: std::time::Duration::ZERO }
    }

    /// A look that began at `since`.
    pub fn since(digest: Option<&'a Digest>, since: std::time::Instant) -> Self {
        Self { digest, age: since.elapsed() }
    }

    /// Whether too much may have happened since.
    pub(crate) fn is_stale(&self) -> bool {
        self.age > Self::STALE
    }
}

/// The newest state of a reference, locked until the transaction ends.
pub(crate) struct LockedHead<'a> {
    pub(crate) repository: &'a Repository,
    pub(crate) tag: &'a Tag,
    pub(crate) tag_seq: i64,
    pub(crate) digest: Option<Digest>,
    /// Who holds the tag, as the rules need to know it.
    pub(crate) state: HeadState,
    /// A freeze stops moves of the tag now.
    pub(crate) frozen: bool,
    /// Everything is held: no move begins.
    pub(crate) held: bool,
    leaf_hash: Option<LeafHash>,
    observed_at: Option<OffsetDateTime>,
    /// The tag was seen so long before this transaction.
    seen: Option<std::time::Duration>,
    /// When the next entry is recorded: later than every one before.
    at: OffsetDateTime,
}

/// Who holds a tag after a move of ours: what the next release is compared with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Holder {
    pub(crate) ticket: Option<i64>,
    pub(crate) order: Option<OrderKey>,
    pub(crate) mover: Option<Uuid>,
}

impl Holder {
    /// Whoever holds it now.
    pub(crate) fn of(state: &HeadState) -> Self {
        Self { ticket: state.moved_ticket, order: state.order.clone(), mover: state.mover }
    }

    /// Whoever holds it, after somebody else has moved the tag: it is no release's any more.
    pub(crate) fn disturbed(state: &HeadState) -> Self {
        Self { mover: None, ..Self::of(state) }
    }
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
            SELECT tag_seq, digest, moved_ticket, order_kind, order_value, barrier_ticket,
                   barrier_release, mover,
                   leaf_hash, observed_at,
                   EXISTS (SELECT FROM freeze_of(registry, repository)) AS "frozen!",
                   on_hold() AS "held!",
                   GREATEST(colophon_now(), last_at + interval '1 microsecond', observed_at) AS "at!"
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
            state: HeadState {
                moved_ticket: row.moved_ticket,
                order: rows::order(row.order_kind.as_deref(), row.order_value.as_deref())?,
                barrier: row.barrier_ticket,
                barrier_release: row.barrier_release,
                mover: row.mover,
            },
            frozen: row.frozen,
            held: row.held,
            leaf_hash,
            observed_at: row.observed_at,
            seen: None,
            at: row.at,
        })
    }

    /// Writes what was observed where it is not what the newest entry says: the tag was there
    /// before us (`baseline`), or somebody else moved it (`drift`) or removed it (`deleted`).
    /// When it was seen is written with the next entry, or by [`Self::touch`].
    pub(crate) async fn observe(
        &mut self,
        store: &Store,
        conn: &mut PgConnection,
        look: Look<'_>,
    ) -> Result<(), Fault> {
        self.seen = Some(look.age);
        if self.digest.as_ref() != look.digest {
            let kind = match look.digest {
                Some(_) if self.tag_seq == 0 => Kind::Baseline,
                Some(_) => Kind::Drift,
                None => Kind::Deleted,
            };
            let not_before = if kind == Kind::Baseline { None } else { self.observed_at };
            // Not later than the entry itself, also where the database's clock was put back.
            let not_before = not_before.map(|time| time.min(self.at));
            let draft = Draft { new: look.digest, not_before, ..Draft::default() };
            // Whatever release moved it last, it is not that release's any more, also if it should
            // come back to the same digest.
            self.state.mover = None;
            let holder = Some(Holder::of(&self.state));
            self.append(store, conn, kind, Purpose::Observation, draft, holder).await?;
        }
        Ok(())
    }

    /// Appends one entry, writes the head that it makes, and returns its id. `holder` is who holds
    /// the tag from now on, if that changes.
    pub(crate) async fn append(
        &mut self,
        store: &Store,
        conn: &mut PgConnection,
        kind: Kind,
        purpose: Purpose,
        draft: Draft<'_>,
        holder: Option<Holder>,
    ) -> Result<Uuid, Fault> {
        let opening = draft.author.map(|author| opening(store, author));
        let entry = self.entry(store.entropy.uuid(), kind, purpose, &draft, opening.as_ref())?;
        let body = entry.to_bytes().map_err(|error| {
            Failure::new(Reason::Internal, "an entry of the ledger cannot be written")
                .caused_by(error)
        })?;
        if kind != Kind::Intent {
            self.digest = draft.new.cloned();
        }
        let source = draft.source.map(ToString::to_string);
        let row = Row { entry: &entry, source, opening: opening.as_ref(), body: &body };
        insert(conn, &row, self, holder.as_ref()).await?;
        self.tag_seq += 1;
        self.leaf_hash = Some(LeafHash::of(&body));
        self.at += Duration::MICROSECOND;
        Ok(entry.id)
    }

    /// For an outcome: what was seen, and when.
    pub(crate) fn seen(&mut self, look: Look<'_>) {
        self.seen = Some(look.age);
    }

    /// Writes that the tag was seen where the newest entry says, where no entry follows.
    pub(crate) async fn touch(self, conn: &mut PgConnection) -> Result<(), Fault> {
        sqlx::query!(
            r#"
            UPDATE tag_head SET observed_at = GREATEST(observed_at, $4::timestamptz - $5::float8 * interval '1 second')
            WHERE registry = $1 AND repository = $2 AND tag = $3
            "#,
            self.repository.registry().as_str(),
            self.repository.name(),
            self.tag.as_str(),
            self.at,
            self.seen.unwrap_or_default().as_secs_f64(),
        )
        .execute(conn)
        .await?;
        Ok(())
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

/// An entry as it is written.
struct Row<'a> {
    entry: &'a Entry,
    source: Option<String>,
    opening: Option<&'a Opening>,
    body: &'a [u8],
}

/// Writes an entry, its opening, its place in the queue of the log and the reference's new head,
/// in one statement.
async fn insert(
    conn: &mut PgConnection,
    row: &Row<'_>,
    head: &LockedHead<'_>,
    holder: Option<&Holder>,
) -> Result<(), Fault> {
    let (order_kind, order_value) =
        rows::order_columns(holder.and_then(|holder| holder.order.as_ref()));
    let Row { entry, source, opening, body } = row;
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
        ), head AS (
            UPDATE tag_head
            SET tag_seq = $5, leaf_hash = sha256('\x00'::bytea || $16::bytea), digest = $22,
                last_at = $10,
                moved_ticket = CASE WHEN $25 THEN $23 ELSE moved_ticket END,
                order_kind = CASE WHEN $25 THEN $26 ELSE order_kind END,
                order_value = CASE WHEN $25 THEN $27 ELSE order_value END,
                mover = CASE WHEN $25 THEN $28 ELSE mover END,
                observed_at = GREATEST(observed_at, $10 - $24::float8 * interval '1 second')
            WHERE registry = $2 AND repository = $3 AND tag = $4
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
        source.as_deref(),
        *body,
        opening.map(|opening| &opening.salt[..]),
        actor.map(|actor| actor.principal.as_str()),
        actor.and_then(|actor| actor.on_behalf_of.as_deref()),
        actor.map(|actor| actor.proof.as_str()),
        opening.map(|opening| opening.reason.as_str()),
        head.digest.as_ref().map(Digest::as_str),
        holder.and_then(|holder| holder.ticket),
        head.seen.map(|age| age.as_secs_f64()),
        holder.is_some(),
        order_kind,
        order_value,
        holder.and_then(|holder| holder.mover),
    )
    .execute(conn)
    .await?;
    Ok(())
}
