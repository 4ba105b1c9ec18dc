//! Copy jobs: which tags to look at before anything is done, and what was copied.

use colophon_domain::{
    BlobState, BlobView, CopyTotals, Digest, Failure, JobKind, Result, TagMoveState,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    Claimed, Move, Store, companions, fan_in,
    intents::fence,
    outcomes::settle,
    rows,
    tx::{self, Bounded as _},
    verdicts::Verdict,
};

impl Store {
    /// The tags of every target of a job's release that are not settled, whoever's turn it is.
    pub async fn all_tags(&self, job: &Claimed) -> Result<Vec<Move>> {
        let targets = sqlx::query!(
            "SELECT id, registry, repository FROM publication WHERE release_id = $1 ORDER BY ordinal",
            job.release,
        )
        .fetch_all(&self.pool)
        .bounded()
        .await?;
        let mut tags = Vec::new();
        for target in targets {
            let repository = rows::repository(&target.registry, &target.repository)?;
            for kind in [JobKind::Unique, JobKind::Floating] {
                let repository = repository.clone();
                let turn = Claimed { publication: target.id, repository, kind, ..job.clone() };
                tags.extend(self.unsettled_tags(&turn).await?);
            }
        }
        Ok(tags)
    }

    /// Notes that the tags were looked at.
    pub async fn mark_checked(&self, release: Uuid) -> Result<()> {
        sqlx::query!("UPDATE release SET checked = true WHERE id = $1", release)
            .execute(&self.pool)
            .bounded()
            .await?;
        Ok(())
    }

    /// A tag of the release cannot be moved: the release fails before anything is done for it.
    pub async fn refuse(
        &self,
        job: &Claimed,
        step: &Move,
        refusal: &Failure,
        at: Option<&Digest>,
    ) -> Result<()> {
        tx::run("release.refuse", || async {
            let mut tx = self.pool.begin().await?;
            fence(&mut tx, job.lease).await?;
            let (reason, message) = (refusal.reason(), refusal.message());
            let verdict = Verdict { state: TagMoveState::Refused, reason: Some(reason), message };
            settle(&mut tx, step.tag_move, &verdict, at).await?;
            // Nobody's tags but this one: the others were not attempted.
            let nobodys = JobKind::Copy;
            fan_in::doom(&mut tx, step.publication, nobodys, refusal, message).await?;
            fan_in::end(&mut tx, job.lease.job, "failed").await?;
            tx.commit().await?;
            Ok(())
        })
        .await
    }

    /// All content is at the target.
    pub async fn finish_copy(&self, job: &Claimed, totals: &CopyTotals) -> Result<()> {
        tx::run("copy.finish", || async {
            let mut tx = self.pool.begin().await?;
            fence(&mut tx, job.lease).await?;
            sqlx::query!(
                r#"
                UPDATE publication SET state = 'COPIED', blobs_copied = $2, blobs_present = $3,
                       blobs_mounted = $4, bytes_copied = $5, bytes_total = $6, notes = $7,
                       blobs = $8, blobs_total = $9
                WHERE id = $1
                "#,
                job.publication,
                totals.blobs_copied,
                totals.blobs_present,
                totals.blobs_mounted,
                totals.bytes_copied,
                totals.bytes_total,
                &totals.notes,
                blobs_json(&totals.blobs),
                totals.blobs_total,
            )
            .execute(&mut *tx)
            .await?;
            companions::needless(&mut tx, job.publication).await?;
            fan_in::complete(&mut tx, job.lease.job).await?;
            tx.commit().await?;
            Ok(())
        })
        .await
    }

    /// Shows how far a running copy is; best effort. Whoever has lost the lease shows nothing more.
    pub async fn report_progress(&self, job: &Claimed, totals: &CopyTotals) -> Result<()> {
        sqlx::query!(
            r#"
            UPDATE publication SET blobs_copied = $2, blobs_present = $3, blobs_mounted = $4,
                   bytes_copied = $5, bytes_total = $6, blobs = $7, blobs_total = $8
            WHERE id = $1 AND state = 'COPYING'
              AND EXISTS (SELECT FROM job
                          WHERE job.id = $9 AND lease_token = $10 AND job.state = 'running')
            "#,
            job.publication,
            totals.blobs_copied,
            totals.blobs_present,
            totals.blobs_mounted,
            totals.bytes_copied,
            totals.bytes_total,
            blobs_json(&totals.blobs),
            totals.blobs_total,
            job.lease.job,
            job.lease.token,
        )
        .execute(&self.pool)
        .bounded()
        .await?;
        Ok(())
    }
}

/// Blobs as they are kept: digest, size, bytes done, state, attempts.
fn blobs_json(blobs: &[BlobView]) -> Value {
    let row = |blob: &BlobView| {
        json!([blob.digest.as_str(), blob.size, blob.done, blob.state.as_str(), blob.attempts])
    };
    blobs.iter().map(row).collect()
}

/// Reads them back. What is not of the form was written by a version that knows more, and is only
/// missing in what is shown.
pub(crate) fn blobs(json: Value) -> Vec<BlobView> {
    let Value::Array(rows) = json else { return Vec::new() };
    rows.into_iter()
        .filter_map(|row| {
            let (digest, size, done, state, attempts) =
                serde_json::from_value::<(String, i64, i64, String, i32)>(row).ok()?;
            let (digest, state) = (digest.parse().ok()?, BlobState::parse(&state)?);
            Some(BlobView { digest, size, done, state, attempts })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blobs_are_read_back_and_what_is_new_is_left_out() {
        let blob = BlobView {
            digest: Digest::sha256(b"a"),
            size: 20,
            done: 5,
            state: BlobState::Sending,
            attempts: 2,
        };
        let mut json = blobs_json(std::slice::from_ref(&blob));
        let rows = json.as_array_mut().unwrap();
        rows.push(json!(["sha256:x", 1, 1, "sending", 1]));
        rows.push(json!([blob.digest.as_str(), 1, 1, "teleported", 1]));
        assert_eq!(blobs(json), [blob]);
        assert_eq!(blobs(Value::Null), []);
    }
}
