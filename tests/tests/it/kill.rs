//! What the tests have in common that kill, stop and cut off workers: a world with an API, two
//! registries and some workers, and the ways to bring a worker to a point and hold it there.
//!
//! Nothing in the service helps with this. A worker is held by the proxy before its registry, or
//! by a row of the database that the test has locked.

use std::time::Duration;

use colophon_testkit::{image::ImageSpec, proxy::Fault, wait::wait_until};
use colophon_tests::{Client, Node, PATIENCE, Site, SiteOptions, World};
use serde_json::Value;
use sqlx::{PgConnection, Postgres, Transaction};

/// Short times; a PUT has a second, so that a test can do something meanwhile.
pub(crate) const TIMES: &str = "lease = \"2s\"\nput_timeout = \"1s\"\ngrace = \"500ms\"\n\
                                poll_interval = \"50ms\"\nbackoff_min = \"50ms\"\n\
                                backoff_max = \"500ms\"\nconsistency_window = \"500ms\"\n\
                                max_attempts = 30\n";

/// Times in which a slow machine gets everything done that a test does meanwhile. What waits for
/// them is helped by [`Crew::time_passes`], [`Crew::lease_ends`] and
/// [`Crew::intents_are_due`].
pub(crate) const LONG_TIMES: &str = "lease = \"60s\"\nput_timeout = \"25s\"\n\
                                     grace = \"5s\"\npoll_interval = \"50ms\"\n\
                                     backoff_min = \"50ms\"\nbackoff_max = \"500ms\"\n\
                                     consistency_window = \"500ms\"\nmax_attempts = 30\n";

/// A world at work.
pub(crate) struct Crew {
    pub(crate) world: World,
    pub(crate) api: Node,
    pub(crate) client: Client,
    pub(crate) source: Site,
    pub(crate) target: Site,
    pub(crate) workers: Vec<Node>,
    /// Those that were killed, for their last words.
    dead: Vec<Node>,
}

impl Crew {
    pub(crate) async fn new(workers: usize) -> Self {
        Self::with(TIMES, workers).await
    }

    /// With other settings of the workers.
    pub(crate) async fn with(times: &str, workers: usize) -> Self {
        Self::on(World::new().await.unwrap(), times, workers).await
    }

    pub(crate) async fn on(mut world: World, times: &str, workers: usize) -> Self {
        times.clone_into(&mut world.worker);
        let source = world.site(SiteOptions::proxied()).await.unwrap();
        let target = world.site(SiteOptions::proxied()).await.unwrap();
        let api = world.serve().await.unwrap();
        let client = world.client(&api).unwrap();
        let mut crew =
            Self { world, api, client, source, target, workers: Vec::new(), dead: Vec::new() };
        for _ in 0..workers {
            crew.hire().await;
        }
        crew
    }

    /// One more worker.
    pub(crate) async fn hire(&mut self) {
        self.workers.push(self.world.work().await.unwrap());
    }

    /// Pushes an image to the source and returns its reference by digest: accepting a release of
    /// it needs no network.
    pub(crate) async fn image(&self, spec: &ImageSpec, repository: &str) -> String {
        let image = self.source.push(spec, repository, "v1").await.unwrap();
        format!("{}@{}", self.source.repository(repository), image.digest())
    }

    /// Publishes to the target, returns the release's id.
    pub(crate) async fn publish(
        &self,
        source: &str,
        repository: &str,
        unique: &[&str],
        floating: &[&str],
    ) -> String {
        let target = self.target.repository(repository);
        self.client.publish(source, &[(&target, unique, floating)]).await.unwrap()
    }

    /// Publishes and waits until all tags are there.
    pub(crate) async fn publish_well(
        &self,
        source: &str,
        repository: &str,
        unique: &[&str],
        floating: &[&str],
    ) {
        let id = self.publish(source, repository, unique, floating).await;
        self.succeeds(&id).await;
    }

    pub(crate) async fn succeeds(&self, id: &str) -> Value {
        let ended = self.client.wait_end(id).await;
        let ended = ended.unwrap_or_else(|error| panic!("{error}\n{}", self.logs()));
        assert_eq!(ended["state"], "RELEASE_STATE_SUCCEEDED", "{ended:#}\n{}", self.logs());
        ended
    }

    /// The index of the worker that holds the release's job of this kind.
    pub(crate) async fn holder(&self, release: &str, kind: &str) -> usize {
        let held = async || {
            let worker: Option<String> = sqlx::query_scalar(
                "SELECT worker FROM job
                 WHERE release_id = $1::uuid AND kind = $2 AND state = 'running'",
            )
            .bind(release)
            .bind(kind)
            .fetch_optional(self.world.database().pool())
            .await
            .unwrap();
            let pid: u32 = worker?.rsplit('/').next()?.parse().ok()?;
            self.workers.iter().position(|node| node.id() == pid)
        };
        wait_until("a worker holds the job", PATIENCE, held).await.unwrap()
    }

    /// Kills the worker that holds the job.
    pub(crate) async fn kill_holder(&mut self, release: &str, kind: &str) {
        let index = self.holder(release, kind).await;
        self.kill(index);
    }

    /// Kills a worker.
    pub(crate) fn kill(&mut self, index: usize) {
        let mut node = self.workers.swap_remove(index);
        node.kill();
        self.dead.push(node);
    }

    /// Waits until one of Colophon's connections waits for a lock that the test holds; returns
    /// the process id of its server process.
    pub(crate) async fn somebody_waits_for(&self, lock: &mut Lock) -> i32 {
        let pid: i32 =
            sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(lock.held()).await.unwrap();
        let waits = async || {
            sqlx::query_scalar(
                "SELECT pid FROM pg_stat_activity
                 WHERE datname = current_database() AND $1 = ANY (pg_blocking_pids(pid)) LIMIT 1",
            )
            .bind(pid)
            .fetch_optional(self.world.database().pool())
            .await
            .unwrap()
        };
        wait_until("a worker waits for the lock", PATIENCE, waits).await.unwrap()
    }

    /// Locks a tag's head, which every transaction about the tag needs.
    pub(crate) async fn lock_head(&self, repository: &str, tag: &str) -> Lock {
        let mut held = self.world.database().pool().begin().await.unwrap();
        sqlx::query("SELECT FROM tag_head WHERE repository = $1 AND tag = $2 FOR UPDATE")
            .bind(repository)
            .bind(tag)
            .execute(&mut *held)
            .await
            .unwrap();
        Lock(held)
    }

    /// Locks a release, which the end of each of its jobs needs.
    pub(crate) async fn lock_release(&self, release: &str) -> Lock {
        let mut held = self.world.database().pool().begin().await.unwrap();
        sqlx::query("SELECT FROM release WHERE id = $1::uuid FOR UPDATE")
            .bind(release)
            .execute(&mut *held)
            .await
            .unwrap();
        Lock(held)
    }

    /// Locks a job, which every transaction of its worker begins with.
    pub(crate) async fn lock_job(&self, release: &str, kind: &str) -> Lock {
        let mut held = self.world.database().pool().begin().await.unwrap();
        sqlx::query("SELECT FROM job WHERE release_id = $1::uuid AND kind = $2 FOR UPDATE")
            .bind(release)
            .bind(kind)
            .execute(&mut *held)
            .await
            .unwrap();
        Lock(held)
    }

    /// Stops every transaction that inserts into the table a row that meets the condition (of
    /// `NEW`), while it commits: with the lock it commits, whether its client lives or not.
    pub(crate) async fn stop_commits(&self, table: &str, condition: &str) -> Lock {
        let pool = self.world.database().pool();
        let trigger = format!(
            "CREATE OR REPLACE FUNCTION stop_commits() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END';
             DROP TRIGGER IF EXISTS stop_commits ON {table};
             CREATE CONSTRAINT TRIGGER stop_commits AFTER INSERT ON {table}
                 DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN ({condition})
                 EXECUTE FUNCTION stop_commits()"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(trigger)).execute(pool).await.unwrap();
        let mut held = pool.begin().await.unwrap();
        sqlx::query("SELECT pg_advisory_xact_lock(1)").execute(&mut *held).await.unwrap();
        Lock(held)
    }

    /// Ends what [`stop_commits`](Self::stop_commits) began.
    pub(crate) async fn let_commits_pass(&self) {
        let pool = self.world.database().pool();
        sqlx::query("DROP FUNCTION IF EXISTS stop_commits() CASCADE").execute(pool).await.unwrap();
    }

    /// Lets the time be over of what dead workers have left of a release: their leases, and the
    /// intents that are open then. What others do with it at the same time keeps its time.
    pub(crate) async fn time_passes(&self, release: &str) {
        let pool = self.world.database().pool();
        let dead: Vec<String> = self.dead.iter().map(|node| format!("/{}", node.id())).collect();
        let dead = format!("({})$", dead.join("|"));
        let open: Vec<String> = sqlx::query_scalar(
            "SELECT i.intent_id::text FROM open_intent i JOIN tag_move m ON m.id = i.tag_move_id
             JOIN job j ON j.publication_id = m.publication_id
             WHERE m.release_id = $1::uuid AND j.state = 'running' AND j.worker ~ $2",
        )
        .bind(release)
        .bind(&dead)
        .fetch_all(pool)
        .await
        .unwrap();
        sqlx::query(
            "UPDATE job SET lease_expires_at = colophon_now()
             WHERE release_id = $1::uuid AND state = 'running' AND worker ~ $2",
        )
        .bind(release)
        .bind(&dead)
        .execute(pool)
        .await
        .unwrap();
        sqlx::query(
            "UPDATE open_intent SET deadline = colophon_now(), resolve_after = colophon_now()
             WHERE intent_id::text = ANY ($1)",
        )
        .bind(open)
        .execute(pool)
        .await
        .unwrap();
    }

    /// Lets the leases of the release's jobs end now, as if their time was over.
    pub(crate) async fn lease_ends(&self, release: &str) {
        self.sql(
            "UPDATE job SET lease_expires_at = colophon_now()
             WHERE release_id = $1::uuid AND state = 'running'",
            release,
        )
        .await;
    }

    /// Lets the time of the release's open intents end now, with their grace.
    pub(crate) async fn intents_are_due(&self, release: &str) {
        self.sql(
            "UPDATE open_intent i SET deadline = colophon_now(), resolve_after = colophon_now()
             FROM tag_move m WHERE m.id = i.tag_move_id AND m.release_id = $1::uuid",
            release,
        )
        .await;
    }

    async fn sql(&self, statement: &'static str, release: &str) {
        let pool = self.world.database().pool();
        sqlx::query(statement).bind(release).execute(pool).await.unwrap();
    }

    /// Lets a PUT go that is held before the target, and waits until the registry has answered it.
    pub(crate) async fn lands(&self, held: &Fault) {
        let before = self.target.proxy().manifest_puts().len();
        held.forward();
        let landed = async || {
            let puts = self.target.proxy().manifest_puts();
            let all = puts.iter().all(|put| put.answered.is_some());
            (puts.len() > before && all).then_some(())
        };
        wait_until("the PUT has landed", PATIENCE, landed).await.unwrap();
    }

    /// Waits until somebody has given the tag's open intent an outcome.
    pub(crate) async fn intent_is_closed(&self, repository: &str, tag: &str) {
        let closed = async || {
            let open: bool = sqlx::query_scalar(
                "SELECT EXISTS (SELECT FROM open_intent WHERE repository = $1 AND tag = $2)",
            )
            .bind(repository)
            .bind(tag)
            .fetch_one(self.world.database().pool())
            .await
            .unwrap();
            (!open).then_some(())
        };
        wait_until("the intent has an outcome", PATIENCE, closed).await.unwrap();
    }

    /// What all workers wrote, for a test that fails.
    pub(crate) fn logs(&self) -> String {
        let log = |node: &Node| format!("--- {}\n{}", node.id(), node.log());
        self.dead.iter().chain(&self.workers).map(log).collect()
    }
}

/// A row that the test has locked.
pub(crate) struct Lock(Transaction<'static, Postgres>);

impl Lock {
    fn held(&mut self) -> &mut PgConnection {
        &mut self.0
    }

    pub(crate) async fn release(self) {
        self.0.rollback().await.unwrap();
    }

    /// Puts the locked job back into the queue as if its lease had run out, for later.
    pub(crate) async fn take_away(mut self, release: &str, kind: &str) {
        sqlx::query(
            "UPDATE job SET state = 'queued', lease_token = NULL, lease_expires_at = NULL,
                    run_at = colophon_now() + interval '1 hour'
             WHERE release_id = $1::uuid AND kind = $2",
        )
        .bind(release)
        .bind(kind)
        .execute(self.held())
        .await
        .unwrap();
        self.0.commit().await.unwrap();
    }
}

/// Seconds for a table.
pub(crate) fn seconds(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64())
}
