//! How much waits: releases that have been accepted and have not ended, by caller.

use std::collections::HashMap;

use colophon_domain::Result;
use uuid::Uuid;

use crate::{Store, tx::Bounded as _};

impl Store {
    /// The releases of each caller that have not ended. No more than `most` are counted: it is
    /// enough to know that there are so many.
    pub async fn waiting_releases(&self, most: i64) -> Result<HashMap<String, i64>> {
        let rows = sqlx::query!(
            r#"
            SELECT principal, count(*) AS "releases!"
            FROM (SELECT principal FROM release WHERE ended_at IS NULL LIMIT $1) open
            GROUP BY principal
            "#,
            most,
        )
        .fetch_all(&self.pool)
        .bounded()
        .await?;
        Ok(rows.into_iter().map(|row| (row.principal, row.releases)).collect())
    }

    /// Whose release it is, if there is one and it has ended.
    pub async fn owner_of_ended(&self, id: Uuid) -> Result<Option<String>> {
        sqlx::query_scalar!(
            "SELECT principal FROM release WHERE id = $1 AND ended_at IS NOT NULL",
            id,
        )
        .fetch_optional(&self.pool)
        .bounded()
        .await
    }
}
