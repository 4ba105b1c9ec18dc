//! Holding everything, and going on: after a restore the registries may be further than what is
//! recorded, so they are compared tag by tag before anything moves, and a person ends the hold.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use colophon_domain::{
    Access, Digest, Failure, Reason, RegistryHost, Repository, Result, Tag, TagOrDigest,
};
use colophon_store::{Compared, Finding, Found, Hold, Look, Recorded};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use uuid::Uuid;

use crate::{Engine, reconcile::LOOK_TIMEOUT};

/// Tags that are read at once.
const PAGE: i64 = 500;
/// Tags that are looked at at the same time; each registry has its own limit besides.
const AT_ONCE: usize = 16;
/// A registry that is silent so often in a row is asked no more this time.
const SILENT_MOST: u32 = 8;

/// How a hold is ended.
#[derive(Debug, Clone, Copy)]
pub struct Resume<'a> {
    /// Who ends it.
    pub by: &'a str,
    /// Why.
    pub reason: &'a str,
    /// Releases from before the restore go on, also where their tags have moved since.
    pub keep_queue: bool,
    /// Tags that were not compared do not keep it from ending.
    pub unchecked: bool,
}

/// What was done at the end of a hold.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Resumed {
    /// Tags of which the ledger says now what the registry shows.
    pub recorded: u64,
    /// Tags that differ and could not be looked at once more; the next look at them is recorded.
    pub unseen: u64,
    /// Releases that were cancelled.
    pub cancelled: Vec<Uuid>,
    /// Releases from before the restore that go on.
    pub going_on: Vec<Uuid>,
}

impl Engine {
    /// Writes down where the database lives, or begins a hold where it may have been restored;
    /// every process calls this at its start.
    pub async fn look_for_restore(&self) -> Result<Option<Hold>> {
        self.store.look_for_restore().await
    }

    /// The hold that is in force.
    pub async fn hold(&self) -> Result<Option<Hold>> {
        self.store.hold().await
    }

    /// Holds everything from now on.
    pub async fn begin_hold(&self, by: &str, reason: &str) -> Result<Hold> {
        self.store.begin_hold(by, reason).await
    }

    /// Holds everything because somebody knows that the database was restored.
    pub async fn begin_restored(&self, by: &str, reason: &str) -> Result<Hold> {
        self.store.begin_restored(by, reason).await
    }

    /// Compares what is recorded of every tag with what its registry shows. What was compared
    /// already is not compared again unless `again` says so; what could not be, is.
    pub async fn compare(&self, again: bool) -> Result<Compared> {
        if again {
            self.store.compare_again().await?;
        }
        let (silent, mut after) = (Silent::default(), None);
        loop {
            let page = self.store.to_compare(after.as_ref(), PAGE).await?;
            stream::iter(&page)
                .map(Ok)
                .try_for_each_concurrent(AT_ONCE, |recorded| self.compare_one(recorded, &silent))
                .await?;
            let Some(last) = page.into_iter().last() else { break };
            after = Some(last);
        }
        self.store.compared().await
    }

    async fn compare_one(&self, recorded: &Recorded, silent: &Silent) -> Result<()> {
        let host = recorded.repository.registry();
        let found = if silent.is_given_up(host) {
            Found::Unreachable("not asked: the registry did not answer before".to_owned())
        } else {
            let looked = self.served(&recorded.repository, &recorded.tag).await;
            silent.note(host, &looked);
            match looked {
                Ok(served) if served == recorded.digest => Found::Same,
                Ok(served) => Found::Differs(served),
                Err(failure) => Found::Unreachable(failure.message().to_owned()),
            }
        };
        self.store.found(recorded, &found).await
    }

    /// What a registry shows now.
    async fn served(&self, repository: &Repository, tag: &Tag) -> Result<Option<Digest>> {
        let session = self.registries.session(repository, Access::Pull)?;
        let what = TagOrDigest::Tag(tag.clone());
        let looked = tokio::time::timeout(LOOK_TIMEOUT, session.observe(&what)).await;
        looked.unwrap_or_else(|_| {
            Err(Failure::new(Reason::RegistryUnavailable, "the registry did not answer in time"))
        })
    }

    /// A page of what the comparison has found; `after` is the last one of the page before.
    pub async fn findings(&self, after: Option<&Finding>) -> Result<Vec<Finding>> {
        self.store.findings(after.map(|finding| &finding.recorded), PAGE).await
    }

    /// Ends the hold. After a restore the ledger is told first what the registries show, releases
    /// that were overtaken are cancelled, and those that go on put nothing back.
    ///
    /// # Errors
    /// `NOT_FOUND` if nothing is held, and `ON_HOLD` if tags were not compared.
    pub async fn resume(&self, asked: &Resume<'_>) -> Result<Resumed> {
        let Some(hold) = self.store.look_for_restore().await? else {
            return Err(Failure::new(Reason::NotFound, "the service is not on hold"));
        };
        let mut resumed = Resumed::default();
        if hold.restored {
            let left = self.store.compared().await?.left;
            if left > 0 && !asked.unchecked {
                let text = format!("{left} tags were not compared with their registries");
                return Err(Failure::new(Reason::OnHold, text)
                    .remedy("run colophond restore-check first, or resume with --unchecked"));
            }
            self.record_sights(&mut resumed).await?;
            if !asked.keep_queue {
                self.store.put_nothing_back().await?;
                resumed.cancelled = self.cancel_overtaken(asked).await?;
            }
            resumed.going_on = self.store.going_on().await?;
        }
        self.store.end_hold(&hold, asked.by, asked.reason, asked.keep_queue).await?;
        self.wake();
        // The hold has ended, whatever becomes of the hint: without it, others look a moment later.
        if let Err(failure) = self.store.announce_jobs().await {
            tracing::warn!(%failure, "the other processes were not told that the hold has ended");
        }
        tracing::warn!(
            by = asked.by,
            reason = asked.reason,
            recorded = resumed.recorded,
            cancelled = resumed.cancelled.len(),
            going_on = resumed.going_on.len(),
            "the hold was ended"
        );
        Ok(resumed)
    }

    /// Tells the ledger what the registries show.
    async fn record_sights(&self, resumed: &mut Resumed) -> Result<()> {
        let mut after = None;
        loop {
            let page = self.findings(after.as_ref()).await?;
            let differing = page.iter().filter(|one| matches!(one.found, Found::Differs(_)));
            let recorded: Vec<bool> = stream::iter(differing)
                .map(|finding| self.record_sight(&finding.recorded))
                .buffer_unordered(AT_ONCE)
                .try_collect()
                .await?;
            for recorded in recorded {
                *(if recorded { &mut resumed.recorded } else { &mut resumed.unseen }) += 1;
            }
            let Some(last) = page.into_iter().last() else { return Ok(()) };
            after = Some(last);
        }
    }

    /// Tells the ledger what a registry shows of one tag now; `false` if the registry did not say, or
    /// something else came between.
    async fn record_sight(&self, recorded: &Recorded) -> Result<bool> {
        let Recorded { repository, tag, .. } = recorded;
        let tag_seq = self.store.tag_seq(repository, tag).await?;
        let asked = Instant::now();
        match self.served(repository, tag).await {
            Ok(served) => {
                let look = Look::since(served.as_ref(), asked);
                self.store.record_sight(repository, tag, tag_seq, look).await
            }
            Err(failure) => {
                let tag = format!("{repository}:{tag}");
                tracing::warn!(%tag, %failure, "what a registry shows was not recorded");
                Ok(false)
            }
        }
    }

    async fn cancel_overtaken(&self, asked: &Resume<'_>) -> Result<Vec<Uuid>> {
        let mut cancelled = Vec::new();
        let why = format!(
            "the database was restored, and the registries are further than it: {}",
            asked.reason
        );
        for id in self.store.overtaken().await? {
            match self.store.cancel_release(id, asked.by, &why).await {
                Ok(()) => cancelled.push(id),
                // It ended meanwhile, or is being put back: it moves nothing forward any more.
                Err(failure) if failure.reason() == Reason::NotCancellable => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(cancelled)
    }
}

/// Registries that do not answer: each tag of them would cost as long as a look may take.
#[derive(Default)]
struct Silent(Mutex<HashMap<RegistryHost, u32>>);

impl Silent {
    fn is_given_up(&self, host: &RegistryHost) -> bool {
        let silent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        silent.get(host).is_some_and(|times| *times >= SILENT_MOST)
    }

    fn note<T>(&self, host: &RegistryHost, looked: &Result<T>) {
        let mut silent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let times = silent.entry(host.clone()).or_default();
        match looked {
            Err(failure) if failure.reason() == Reason::RegistryUnavailable => *times += 1,
            _ => *times = 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_registry_is_given_up_and_an_answer_takes_it_back() {
        let (silent, host) = (Silent::default(), "ghcr.io".parse().unwrap());
        let away = || Err::<(), _>(Failure::new(Reason::RegistryUnavailable, ""));
        for _ in 1..SILENT_MOST {
            silent.note(&host, &away());
        }
        assert!(!silent.is_given_up(&host));
        silent.note(&host, &Err::<(), _>(Failure::new(Reason::RegistryDenied, "")));
        silent.note(&host, &away());
        assert!(!silent.is_given_up(&host), "a refusal is an answer");
        for _ in 0..SILENT_MOST {
            silent.note(&host, &away());
        }
        assert!(silent.is_given_up(&host));
        assert!(!silent.is_given_up(&"docker.io".parse().unwrap()));
    }
}
