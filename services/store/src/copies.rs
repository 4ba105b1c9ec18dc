//! Copy jobs: which unique tags to look at before anything is copied, and what was moved.

use colophon_domain::{CopyTotals, Digest, Failure, Reason, Repository, Result, Tag, TagMoveState};
use uuid::Uuid;

use crate::{
    Claimed, Store, fan_in,
    intents::fence,
    outcomes::{Verdict, settle},
    rows,
    tx::{self, Bounded as _},
};

/// One unique tag that must be free, or at the digest, before anything is copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UniqueTag {
    /// The tag of the release.
    pub tag_move: Uuid,
    /// Its repository.
    pub repository: Repository,
    /// Its name.
    pub tag: Tag,
}

impl Store {
    /// The unique tags of every target of a release.
    pub async fn unique_tags(&self, release: Uuid) -> Result<Vec<UniqueTag>> {
        let rows = sqlx::query!(
            r#"
            SELECT m.id, m.tag, p.registry, p.repository
            FROM tag_move m JOIN publication p ON p.id = m.publication_id
            WHERE m.release_id = $1 AND m.kind = 'unique'
            ORDER BY p.ordinal, m.ordinal
            "#,
            release,
        )
        .fetch_all(&self.pool)
        .bounded()
        .await?;
        rows.into_iter()
            .map(|row| {
                Ok(UniqueTag {
                    tag_move: row.id,
                    repository: rows::repository(&row.registry, &row.repository)?,
                    tag: rows::tag(&row.tag)?,
                })
            })
            .collect()
    }

    /// Notes that every unique tag was looked at.
    pub async fn mark_checked(&self, release: Uuid) -> Result<()> {
        sqlx::query!("UPDATE release SET checked = true WHERE id = $1", release)
            .execute(&self.pool)
            .bounded()
            .await?;
        Ok(())
    }

    /// A unique tag is at another digest: the release fails before anything is copied.
    pub async fn refuse(&self, job: &Claimed, task: &UniqueTag, at: &Digest) -> Result<()> {
        tx::run("refuse", || async {
            let mut tx = self.pool.begin().await?;
            fence(&mut tx, job.lease).await?;
            let message = format!(
                "the unique tag {}:{} is at {at} already and never moves; take a new tag, or \
                 publish that digest",
                task.repository, task.tag
            );
            let reason = Reason::TagImmutable;
            let verdict =
                Verdict { state: TagMoveState::Refused, reason: Some(reason), message: &message };
            settle(&mut tx, task.tag_move, &verdict, Some(at)).await?;
            let failure = Failure::new(reason, message.clone());
            fan_in::doom(&mut tx, job.publication, job.kind, &failure, &message).await?;
            fan_in::end(&mut tx, job.lease.job, "failed").await?;
            tx.commit().await?;
            Ok(())
        })
        .await
    }

    /// All content is at the target.
    pub async fn finish_copy(&self, job: &Claimed, totals: &CopyTotals) -> Result<()> {
        tx::run("finish_copy", || async {
            let mut tx = self.pool.begin().await?;
            fence(&mut tx, job.lease).await?;
            sqlx::query!(
                r#"
                UPDATE publication SET state = 'COPIED', blobs_copied = $2, blobs_present = $3,
                       blobs_mounted = $4, bytes_copied = $5, bytes_total = $6, notes = $7
                WHERE id = $1
                "#,
                job.publication,
                totals.blobs_copied,
                totals.blobs_present,
                totals.blobs_mounted,
                totals.bytes_copied,
                totals.bytes_total,
                &totals.notes,
            )
            .execute(&mut *tx)
            .await?;
            fan_in::complete(&mut tx, job.lease.job).await?;
            tx.commit().await?;
            Ok(())
        })
        .await
    }

    /// Shows how far a running copy is; best effort.
    pub async fn report_progress(&self, job: &Claimed, totals: &CopyTotals) -> Result<()> {
        sqlx::query!(
            r#"
            UPDATE publication SET blobs_copied = $2, blobs_present = $3, blobs_mounted = $4,
                   bytes_copied = $5, bytes_total = $6
            WHERE id = $1 AND state = 'COPYING'
            "#,
            job.publication,
            totals.blobs_copied,
            totals.blobs_present,
            totals.blobs_mounted,
            totals.bytes_copied,
            totals.bytes_total,
        )
        .execute(&self.pool)
        .bounded()
        .await?;
        Ok(())
    }
}
