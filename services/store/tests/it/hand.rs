//! A worker of which every step is called by the test, before a registry that is a map.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use colophon_domain::{
    CopyTotals, Decision, Digest, Failure, JobKind, Reason, ReleaseRequest, Result,
};
use colophon_store::{Begun, Claimed, GaveUp, Intent, Look, Move, Outcome};
use sqlx::Row as _;
use uuid::Uuid;

use crate::base::{Base, digest};

/// How long a PUT may take, and how much longer it may be under way.
pub(crate) const WINDOW: Duration = Duration::from_secs(10);
pub(crate) const GRACE: Duration = Duration::from_secs(5);

/// A tag of a release as it ended, or as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tagged {
    pub(crate) state: String,
    pub(crate) reason: Option<String>,
    pub(crate) message: String,
}

/// The worker, its database and its registry.
pub(crate) struct Hand {
    pub(crate) base: Base,
    /// What the registry serves, by `repository:tag` without the registry.
    pub(crate) served: BTreeMap<String, Digest>,
    /// Tags that the registry does not let anybody move.
    pub(crate) denied: BTreeSet<&'static str>,
}

impl Hand {
    pub(crate) async fn new() -> Self {
        Self { base: Base::new().await, served: BTreeMap::new(), denied: BTreeSet::new() }
    }

    pub(crate) fn serve(&mut self, key: &str, number: u8) {
        self.served.insert(key.to_owned(), digest(number));
    }

    pub(crate) fn serves(&self, key: &str) -> Option<Digest> {
        self.served.get(key).cloned()
    }

    pub(crate) async fn accept(&self, request: &ReleaseRequest, number: u8) -> Uuid {
        self.base.accept(request, &digest(number)).await
    }

    /// The one job that can be claimed.
    pub(crate) async fn claim(&self) -> Claimed {
        let mut jobs = self.base.claim(1).await;
        assert_eq!(jobs.len(), 1, "no job is claimable");
        jobs.remove(0)
    }

    /// The job's first tag that is left.
    pub(crate) async fn step(&self, job: &Claimed) -> Move {
        self.base.store.unsettled_tags(job).await.unwrap().remove(0)
    }

    /// Accepts a release, copies where it has to be copied, and works until it has ended.
    pub(crate) async fn publish(&mut self, request: &ReleaseRequest, number: u8) -> Uuid {
        let id = self.accept(request, number).await;
        self.work_all().await;
        id
    }

    /// Claims and does so many jobs, one after the other.
    pub(crate) async fn works(&mut self, jobs: usize) {
        for _ in 0..jobs {
            let job = self.claim().await;
            self.work(&job).await;
        }
    }

    /// Claims and works until nothing is claimable.
    pub(crate) async fn work_all(&mut self) {
        while let Some(job) = self.base.claim(1).await.pop() {
            self.work(&job).await;
        }
    }

    /// Does a whole job.
    pub(crate) async fn work(&mut self, job: &Claimed) {
        let store = self.base.store.clone();
        if job.stop {
            store.stop(job).await.unwrap();
            return;
        }
        if job.kind == JobKind::Copy {
            store.finish_copy(job, &CopyTotals::default()).await.unwrap();
            return;
        }
        for step in store.unsettled_tags(job).await.unwrap() {
            match self.settle(&step).await {
                // The release is failing: what is not moved need not be put back.
                Err(failure) if failure.reason() == Reason::Cancelled => {
                    assert_eq!(store.stop(job).await.unwrap(), GaveUp::Yes);
                    return;
                }
                settled => drop(settled.unwrap()),
            }
        }
        // The last tag ends the job, or it had none.
        if let Err(failure) = store.complete(job).await {
            assert_eq!(failure.reason(), Reason::LeaseLost, "{failure}");
        }
    }

    /// Settles one tag, by a move where the rules want one.
    pub(crate) async fn settle(&mut self, step: &Move) -> Result<Outcome> {
        let key = key(step);
        let store = self.base.store.clone();
        if self.denied.contains(key.as_str()) {
            return store.fail_tag(step, &denied()).await;
        }
        let seen = self.serves(&key);
        let head = store.head(step).await?;
        let look = Look::now(seen.as_ref());
        if step.decide(seen.as_ref(), &head.state) != Decision::Move {
            return store.settle_without_move(step, head.tag_seq, look).await;
        }
        let Begun::Intent(intent) = self.begin(step).await? else { panic!("{key} is stale") };
        self.served.insert(key, step.wanted.clone());
        store.finish_move(step, &intent, Look::now(Some(&step.wanted)), None).await
    }

    /// Tries to commit an intent.
    pub(crate) async fn begin(&self, step: &Move) -> Result<Begun> {
        let head = self.base.store.head(step).await?;
        let seen = self.serves(&key(step));
        let look = Look::now(seen.as_ref());
        self.base.store.begin_move(step, head.tag_seq, look, WINDOW, GRACE).await
    }

    /// Commits an intent.
    pub(crate) async fn intent(&self, step: &Move) -> Intent {
        match self.begin(step).await.unwrap() {
            Begun::Intent(intent) => intent,
            Begun::Stale => panic!("{} cannot be moved", key(step)),
        }
    }

    /// State, reason and message of a release.
    pub(crate) async fn release(&self, id: Uuid) -> Tagged {
        let row = sqlx::query("SELECT state, state_reason, message FROM release WHERE id = $1")
            .bind(id)
            .fetch_one(&self.base.pool)
            .await
            .unwrap();
        Tagged { state: row.get(0), reason: row.get(1), message: row.get(2) }
    }

    /// One tag of a release.
    pub(crate) async fn tag(&self, release: Uuid, key: &str) -> Tagged {
        let row = sqlx::query(
            "SELECT m.state, m.reason_code, m.message
             FROM tag_move m JOIN publication p ON p.id = m.publication_id
             WHERE m.release_id = $1 AND p.repository || ':' || m.tag = $2",
        )
        .bind(release)
        .bind(key)
        .fetch_one(&self.base.pool)
        .await
        .unwrap();
        Tagged { state: row.get(0), reason: row.get(1), message: row.get(2) }
    }
}

pub(crate) fn key(step: &Move) -> String {
    format!("{}:{}", step.repository.name(), step.tag)
}

/// What a registry says that does not let a tag be moved.
pub(crate) fn denied() -> Failure {
    Failure::new(Reason::RegistryDenied, "the registry says no")
}
