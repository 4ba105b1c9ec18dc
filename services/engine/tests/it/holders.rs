//! Releases that hold a tag and are still at work: they may yet be put back, so nobody is sent
//! away for what they hold.

use colophon_domain::{OnFailure, Reason};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{model::Model, registry::Key};

/// Reasons that are gone if whoever holds the tag is put back.
pub(crate) fn may_pass(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::Superseded
            | Reason::OrderRegression
            | Reason::OrderKeyMismatch
            | Reason::NotHighest
            | Reason::PlanChanged
            | Reason::TagMoved
    )
}

impl Model {
    /// The release that moved the tag last, if it would be put back, and the newest rollback: those
    /// of them that are at work, and do not wait themselves.
    pub(crate) async fn holders(&self, pool: &PgPool, key: &Key) -> Vec<Uuid> {
        let Some(tag) = self.tags.get(key) else { return Vec::new() };
        let restores = |id: &Uuid| self.releases[id].on_failure == OnFailure::Restore;
        let newest = tag.barriers.iter().max_by_key(|(_, ticket)| **ticket).map(|(id, _)| *id);
        let holders: Vec<Uuid> =
            tag.holder.mover.filter(restores).into_iter().chain(newest).collect();
        if holders.is_empty() {
            return holders;
        }
        sqlx::query_scalar(
            "SELECT id FROM release r
             WHERE id = ANY ($1) AND ended_at IS NULL
               AND (phase = 'restore'
                    OR NOT EXISTS (SELECT FROM job
                                   WHERE release_id = r.id AND waiting_for IS NOT NULL))",
        )
        .bind(&holders)
        .fetch_all(pool)
        .await
        .unwrap()
    }
}
