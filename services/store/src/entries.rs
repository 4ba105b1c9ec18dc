//! Reading the ledger: the moves of tags, newest first.

use colophon_domain::{EntryQuery, EntryView, Reference, Repository, Result, Tag};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{Store, releases::like_patterns, rows, tx::Bounded as _};

/// An entry with its opening, as the database holds it.
pub(crate) struct EntryRow {
    pub(crate) id: Uuid,
    pub(crate) registry: String,
    pub(crate) repository: String,
    pub(crate) tag: String,
    pub(crate) tag_seq: i64,
    pub(crate) kind: String,
    pub(crate) purpose: String,
    pub(crate) old_digest: Option<String>,
    pub(crate) new_digest: Option<String>,
    pub(crate) at: OffsetDateTime,
    pub(crate) not_before: Option<OffsetDateTime>,
    pub(crate) release_id: Option<Uuid>,
    pub(crate) reason_code: Option<String>,
    pub(crate) intent_id: Option<Uuid>,
    pub(crate) source: Option<String>,
    pub(crate) body: Vec<u8>,
    pub(crate) leaf_hash: Vec<u8>,
    pub(crate) principal: Option<String>,
    pub(crate) on_behalf_of: Option<String>,
    pub(crate) reason: Option<String>,
}

impl EntryRow {
    pub(crate) fn view(self) -> Result<EntryView> {
        Ok(EntryView {
            id: self.id,
            kind: self.kind,
            purpose: self.purpose,
            repository: rows::repository(&self.registry, &self.repository)?,
            tag: rows::tag(&self.tag)?,
            tag_seq: self.tag_seq,
            old_digest: rows::digest_option(self.old_digest.as_deref())?,
            new_digest: rows::digest_option(self.new_digest.as_deref())?,
            at: self.at,
            not_before: self.not_before,
            release: self.release_id,
            source: self.source.as_deref().map(str::parse::<Reference>).transpose()?,
            actor: self.principal,
            on_behalf_of: self.on_behalf_of,
            reason: self.reason.filter(|reason| !reason.is_empty()),
            reason_code: self.reason_code.as_deref().map(rows::reason).transpose()?,
            intent: self.intent_id,
            body: self.body,
            leaf_hash: self.leaf_hash,
        })
    }
}

impl Store {
    /// A page of entries, newest first.
    pub async fn list_entries(&self, query: &EntryQuery) -> Result<Vec<EntryView>> {
        let rows = sqlx::query_as!(
            EntryRow,
            r#"
            SELECT e.id, e.registry, e.repository, e.tag, e.tag_seq, e.kind, e.purpose,
                   e.old_digest, e.new_digest, e.at, e.not_before, e.release_id, e.reason_code,
                   e.intent_id, e.source, e.body, e.leaf_hash AS "leaf_hash!",
                   o.principal AS "principal?", o.on_behalf_of AS "on_behalf_of?",
                   o.reason AS "reason?"
            FROM audit_entry e LEFT JOIN opening o ON o.entry_id = e.id
            WHERE ($1::text IS NULL OR (e.registry = $1 AND e.repository = $2))
              AND ($3::text IS NULL OR e.tag = $3)
              AND ($4::uuid IS NULL OR e.release_id = $4)
              AND ($5::text IS NULL OR o.principal = $5)
              AND ($6::timestamptz IS NULL OR e.at >= $6)
              AND ($7::timestamptz IS NULL OR e.at < $7)
              AND ($8 OR e.kind <> 'intent')
              AND ($9::timestamptz IS NULL OR (e.at, e.id) < ($9, $10))
              AND e.registry || '/' || e.repository LIKE ANY ($11)
            ORDER BY e.at DESC, e.id DESC LIMIT $12
            "#,
            query.repository.as_ref().map(|repository| repository.registry().as_str()),
            query.repository.as_ref().map(Repository::name),
            query.tag.as_ref().map(Tag::as_str),
            query.release,
            query.actor,
            query.from,
            query.until,
            query.include_intents,
            query.before.map(|(at, _)| at),
            query.before.map(|(_, id)| id),
            &like_patterns(&query.visibility.readable),
            i64::from(query.limit),
        )
        .fetch_all(&self.pool)
        .bounded()
        .await?;
        rows.into_iter().map(EntryRow::view).collect()
    }
}
