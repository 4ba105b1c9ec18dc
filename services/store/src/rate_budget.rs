//! The rate budgets of registries, one row each, for all processes on the same database. A row is
//! made when something is known of a registry. Its arithmetic is the domain's; only what happens with
//! every request is one statement, and a test holds it against that.

use std::time::Duration;

use colophon_domain::{
    BudgetEvent, Failure, HostBudget, Limit, RateBudget, Reason, RegistryHost, Result, SlotAsk,
    Slots,
};
use futures_util::future::BoxFuture;

use crate::{
    Store,
    tx::{self, Bounded as _, Fault},
    wake::BUDGETS,
};

struct Row {
    version: i64,
    paused_for: f64,
    strikes: i32,
    refused_per_second: Option<f64>,
    refused_least: Option<f64>,
    refused_proven: bool,
    refused_age: Option<f64>,
    told_per_second: Option<f64>,
    told_age: Option<f64>,
}

impl Row {
    fn budget(self) -> HostBudget {
        let limit = |per_second: Option<f64>, age: Option<f64>| {
            per_second.zip(age).map(|(per_second, age)| Limit::known(per_second, seconds(age)))
        };
        let refused = limit(self.refused_per_second, self.refused_age);
        HostBudget {
            version: self.version,
            paused_for: seconds(self.paused_for),
            strikes: u32::try_from(self.strikes).unwrap_or_default(),
            refused: refused.zip(self.refused_least).map(|(it, least)| Limit {
                least,
                proven: self.refused_proven,
                ..it
            }),
            advised: limit(self.told_per_second, self.told_age),
        }
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

impl RateBudget for Store {
    fn look<'a>(&'a self, host: &'a RegistryHost) -> BoxFuture<'a, Result<HostBudget>> {
        Box::pin(async move {
            let row = sqlx::query_as!(
                Row,
                r#"
                SELECT version, strikes, refused_per_second, refused_least, refused_proven,
                       told_per_second,
                       COALESCE(EXTRACT(EPOCH FROM paused_until - colophon_now()), 0)::float8
                           AS "paused_for!",
                       EXTRACT(EPOCH FROM colophon_now() - refused_at)::float8 AS refused_age,
                       EXTRACT(EPOCH FROM colophon_now() - told_at)::float8 AS told_age
                FROM registry_budget WHERE registry = $1
                "#,
                host.as_str(),
            )
            .fetch_optional(&self.pool)
            .bounded()
            .await?;
            Ok(row.map(Row::budget).unwrap_or_default())
        })
    }

    fn reserve<'a>(&'a self, host: &'a RegistryHost, ask: SlotAsk) -> BoxFuture<'a, Result<Slots>> {
        Box::pin(async move {
            if let Some(slots) = self.try_reserve(host, ask).await? {
                return Ok(slots);
            }
            self.make_budget(host).await?;
            let slots = self.try_reserve(host, ask).await?;
            slots.ok_or_else(|| Failure::new(Reason::Internal, "a budget's row is gone"))
        })
    }

    fn note<'a>(
        &'a self,
        host: &'a RegistryHost,
        event: &'a BudgetEvent,
    ) -> BoxFuture<'a, Result<HostBudget>> {
        Box::pin(async move {
            self.make_budget(host).await?;
            let budget =
                tx::run("budget.note", || async { self.write_down(host, event).await }).await?;
            // That the registry answers again is worth nobody's haste.
            if *event != BudgetEvent::Answered {
                sqlx::query!("SELECT pg_notify($1, $2)", BUDGETS, host.as_str())
                    .execute(&self.pool)
                    .bounded()
                    .await?;
            }
            Ok(budget)
        })
    }
}

impl Store {
    async fn make_budget(&self, host: &RegistryHost) -> Result<()> {
        sqlx::query!(
            "INSERT INTO registry_budget (registry) VALUES ($1) ON CONFLICT DO NOTHING",
            host.as_str(),
        )
        .execute(&self.pool)
        .bounded()
        .await?;
        Ok(())
    }

    /// The next slots, by [`SlotAsk::grant`]; `None` if there is no row.
    async fn try_reserve(&self, host: &RegistryHost, ask: SlotAsk) -> Result<Option<Slots>> {
        let (every, ahead) = (ask.every.as_secs_f64(), ask.ahead.as_secs_f64());
        let row = sqlx::query!(
            r#"
            WITH free AS (
                SELECT next_at, paused_until FROM registry_budget WHERE registry = $1 FOR UPDATE
            ), now AS (
                -- So far ahead nobody reaches: then the clock was set back.
                SELECT colophon_now() AS at, paused_until,
                       CASE WHEN next_at < colophon_now() + interval '2 minutes' THEN next_at END
                           AS next_at
                FROM free
            ), first AS (
                SELECT at, EXTRACT(EPOCH FROM greatest(next_at, paused_until, at) - at)::float8
                           AS free_in
                FROM now
            ), slots AS (
                SELECT at, free_in,
                       least(greatest($4::bigint, 1), floor(($3::float8 - free_in) / $2::float8) + 1) AS n
                FROM first
            ), taken AS (
                UPDATE registry_budget
                SET next_at = at + (free_in + n * $2::float8) * interval '1 second',
                    updated_at = at
                FROM slots WHERE registry = $1 AND free_in <= $3::float8
                RETURNING registry
            )
            SELECT free_in AS "free_in!", n::bigint AS "count!",
                   EXISTS (SELECT FROM taken) AS "taken!"
            FROM slots
            "#,
            host.as_str(),
            every,
            ahead,
            i64::from(ask.count),
        )
        .fetch_optional(&self.pool)
        .bounded()
        .await?;
        Ok(row.map(|row| {
            if row.taken {
                let count = u32::try_from(row.count).unwrap_or(1);
                Slots::Granted { first_in: seconds(row.free_in), count }
            } else {
                Slots::Later(seconds(row.free_in - ahead))
            }
        }))
    }

    async fn write_down(
        &self,
        host: &RegistryHost,
        event: &BudgetEvent,
    ) -> Result<HostBudget, Fault> {
        let mut tx = self.pool.begin().await?;
        let row = sqlx::query_as!(
            Row,
            r#"
            SELECT version, strikes, refused_per_second, refused_least, refused_proven,
                   told_per_second,
                   COALESCE(EXTRACT(EPOCH FROM paused_until - colophon_now()), 0)::float8
                       AS "paused_for!",
                   EXTRACT(EPOCH FROM colophon_now() - refused_at)::float8 AS refused_age,
                   EXTRACT(EPOCH FROM colophon_now() - told_at)::float8 AS told_age
            FROM registry_budget WHERE registry = $1 FOR UPDATE
            "#,
            host.as_str(),
        )
        .fetch_one(&mut *tx)
        .await?;
        let budget = row.budget().after(event);
        sqlx::query!(
            r#"
            UPDATE registry_budget
            SET version = $2, strikes = $3, updated_at = colophon_now(),
                paused_until = colophon_now() + $4::float8 * interval '1 second',
                refused_per_second = $5,
                refused_at = colophon_now() - $6::float8 * interval '1 second',
                refused_least = $9, refused_proven = $10, told_per_second = $7,
                told_at = colophon_now() - $8::float8 * interval '1 second'
            WHERE registry = $1
            "#,
            host.as_str(),
            budget.version,
            i32::try_from(budget.strikes).unwrap_or(i32::MAX),
            budget.paused_for.as_secs_f64(),
            budget.refused.map(|limit| limit.per_second),
            budget.refused.map(|limit| limit.age.as_secs_f64()),
            budget.advised.map(|limit| limit.per_second),
            budget.advised.map(|limit| limit.age.as_secs_f64()),
            budget.refused.map(|limit| limit.least),
            budget.refused.is_some_and(|limit| limit.proven),
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(budget)
    }
}
