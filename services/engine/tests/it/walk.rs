//! The random walk: what happens next, by chance, and the time without faults in which
//! everything comes to its end.

use std::time::Duration;

use colophon_domain::{Clock as _, Position, Reason, Repository, RollbackSubject};
use rand::{Rng as _, seq::IndexedRandom as _};

use crate::{
    keeping::is_kept,
    registry::Key,
    world::{APP, COPY, How, Next, World},
};

/// Workers and reconcilers at the same time.
const MOST: usize = 5;
/// Nobody waits longer than so many steps for an answer.
const OLD: u32 = 40;
/// So many jobs are never there at once: who takes more takes one again and again.
const JOBS: usize = 2_000;

/// Whether releases take the tag for unique: `u3`, `v1.2.3`.
pub(crate) fn is_unique(key: &Key) -> bool {
    key.1.starts_with('u') || key.1.matches('.').count() > 1 || is_kept(key)
}

impl World {
    /// One thing happens.
    pub(crate) async fn step(&mut self) {
        for running in &mut self.running {
            running.age += 1;
        }
        if let Some(at) = self.running.iter().position(|running| running.age > OLD) {
            return self.answer_somehow(at).await;
        }
        match self.rng.random_range(0..1000) {
            0..550 if !self.running.is_empty() => {
                let at = self.rng.random_range(0..self.running.len());
                return self.answer_somehow(at).await;
            }
            0..700 if self.running.len() < MOST => {
                self.start_worker().await;
                return;
            }
            700..760 if self.running.len() < MOST => {
                self.start_reconciler().await;
                return;
            }
            760..810 => self.ask_for_release().await,
            810..825 => {
                let jobs = self.engine.reap_once().await.unwrap();
                self.say("reap", jobs);
            }
            825..850 if !self.running.is_empty() => {
                let at = self.rng.random_range(0..self.running.len());
                let how = *[How::Lost, How::Done, How::Late].choose(&mut self.rng).unwrap();
                let how = if self.possible(at, how) { how } else { How::Lost };
                self.crash(at, how).await;
            }
            850..860 => self.deliver(),
            860..905 => self.somebody_acts().await,
            905..920 => self.others_act(),
            920..924 => self.restart(),
            924..940 if self.paused => self.restart(),
            965.. if self.may_prune() => {
                self.start_pruner().await;
                return;
            }
            _ => self.random_pass().await,
        }
        self.sync().await;
    }

    async fn answer_somehow(&mut self, at: usize) {
        let asked = &self.running[at].parked.asked;
        let rare = asked.writes() && asked.key().is_some_and(|key| self.model.is_rare(&key));
        if rare && self.chance(50) {
            let how = *[How::Lost, How::DoneLost, How::Late].choose(&mut self.rng).unwrap();
            let how = if self.possible(at, how) { how } else { How::Lost };
            self.answer(at, how).await;
            return;
        }
        // Answers to reads that make the client ask again cost real time.
        let how = match self.rng.random_range(0..1000) {
            0..12 => How::Lost,
            12..20 => How::Error,
            20..60 => How::DoneLost,
            60..90 => How::Late,
            90..110 => How::DoneError,
            110..130 => How::Throttled,
            130..133 => How::Paused,
            133..190 => How::Denied,
            190..240 => How::Immutable,
            240..300 => How::Stale,
            _ => How::Done,
        };
        let how = [how, How::Done, How::Lost].into_iter().find(|how| self.possible(at, *how));
        self.answer(at, how.unwrap()).await;
    }

    async fn ask_for_release(&mut self) {
        let mut request = self.random_request();
        let mut plan = None;
        if self.chance(20) {
            let made = self.plan(&request).await.unwrap();
            if self.chance(50) {
                self.others_act();
            }
            if self.chance(30) {
                let at = self.rng.random_range(0..=self.running.len());
                if at < self.running.len() {
                    self.answer_somehow(at).await;
                }
            }
            // One that cannot be held to is refused by this name.
            request.plan = Some(made.id.clone().unwrap_or_else(|| "incomplete".into()));
            plan = Some(made);
        }
        let accepted = self.accept(&request, plan.as_ref()).await;
        if let Err(failure) = accepted {
            let mut known = vec![Reason::PlanChanged, Reason::InvalidArgument, Reason::RateLimited];
            // What the plan showed that stands against it.
            let planned = plan.iter().flat_map(|plan| &plan.publications).flat_map(|it| &it.tags);
            known.extend(planned.filter_map(|tag| tag.reason));
            assert!(known.contains(&failure.reason()), "{failure}");
        }
    }

    /// A tag that was named before, or any other.
    pub(crate) fn some_tag(&mut self) -> Key {
        let any = self.chance(10);
        let known = self.model.tags.keys().filter(|key| any || !is_kept(key));
        let known: Vec<Key> = known.cloned().collect();
        let other = (self.place().to_owned(), "edge".to_owned());
        known.choose(&mut self.rng).cloned().unwrap_or(other)
    }

    async fn somebody_acts(&mut self) {
        match self.rng.random_range(0..100) {
            0..34 => self.random_rollback().await,
            34..42 => self.random_retry().await,
            42..62 if !self.releases.is_empty() => {
                let from = self.releases.len().saturating_sub(4);
                let at = self.rng.random_range(from..self.releases.len());
                self.cancel(at).await;
            }
            62..70 => {
                let pattern =
                    *["one.test/*", "two.test/*", APP, "*"].choose(&mut self.rng).unwrap();
                let seconds = self.rng.random_range(5..1_200);
                self.freeze(pattern, Duration::from_secs(seconds)).await;
            }
            70..80 => {
                let now = self.now();
                let held = self.model.freezes.iter().rposition(|freeze| freeze.holds(now));
                if let Some(at) = held {
                    self.lift(at).await;
                }
            }
            80..90 => {
                let open = self.model.open();
                let key = open.choose(&mut self.rng).cloned();
                let key = key.unwrap_or_else(|| self.some_tag());
                self.settle(&key).await;
            }
            _ if !self.sent.is_empty() => {
                let at = self.rng.random_range(0..self.sent.len());
                self.send_again(at).await;
            }
            _ => {}
        }
    }

    /// A tag that may have something to go back to.
    fn tag_with_a_past(&mut self) -> Key {
        let tags = self.model.tags.iter().filter(|(key, tag)| !is_unique(key) && tag.seq > 3);
        let moved: Vec<Key> = tags.map(|(key, _)| key.clone()).collect();
        let any = self.some_tag();
        if self.chance(20) { any } else { moved.choose(&mut self.rng).cloned().unwrap_or(any) }
    }

    async fn random_rollback(&mut self) {
        let subject = if self.chance(40) && !self.releases.is_empty() {
            let from = self.releases.len().saturating_sub(8);
            RollbackSubject::Release(*self.releases[from..].choose(&mut self.rng).unwrap())
        } else {
            let key = self.tag_with_a_past();
            let position = match self.rng.random_range(0..5) {
                0..3 => Position::Steps(self.rng.random_range(1..3)),
                3 => {
                    let back = Duration::from_secs(self.rng.random_range(1..2_000));
                    Position::At(self.base.clock.now() - back)
                }
                _ => Position::To(self.images.choose(&mut self.rng).unwrap().parse().unwrap()),
            };
            // A tag that is unique by its releases is no business of rollbacks.
            if is_unique(&key) {
                return;
            }
            RollbackSubject::Tag {
                repository: Repository::parse(&key.0).unwrap(),
                tag: key.1.parse().unwrap(),
                position,
                expected: None,
            }
        };
        let break_glass = self.chance(20);
        if let Err(failure) = self.roll_back(subject, break_glass).await {
            let known = [
                Reason::NotInHistory,
                Reason::TagMoved,
                Reason::SourceGone,
                Reason::RateLimited,
                Reason::NotEnded,
            ];
            assert!(known.contains(&failure.reason()), "{failure}");
        }
    }

    fn others_act(&mut self) {
        let key = self.some_tag();
        match self.rng.random_range(0..12) {
            0..4 => self.foreign_move(&key),
            4..7 => self.meddle(&key),
            7..9 => self.hide_version(),
            _ => {
                let place = *[APP, COPY].choose(&mut self.rng).unwrap();
                self.collect_garbage(place);
            }
        }
    }

    /// Nothing goes wrong any more, until every release has ended.
    pub(crate) async fn settle_all(&mut self) {
        if self.paused {
            self.restart();
        }
        let left = "SELECT (SELECT count(*) FROM release WHERE ended_at IS NULL)
                        + (SELECT count(*) FROM open_intent)";
        for _ in 0..300 {
            while !self.running.is_empty() {
                self.finish(0).await;
            }
            while !self.flying.is_empty() {
                self.deliver();
            }
            self.work_all().await;
            if self.base.count(left).await == 0 {
                return;
            }
            self.engine.reap_once().await.unwrap();
            self.pass(Duration::from_secs(400)).await;
        }
        panic!("releases never ended");
    }

    /// Whoever finds something to do now does it, without faults; who waits already waits on.
    pub(crate) async fn work_all(&mut self) {
        for _ in 0..JOBS {
            let worker = self.start_worker().await;
            if worker == Next::Asks {
                self.finish(self.running.len() - 1).await;
            }
            let reconciler = self.start_reconciler().await;
            if reconciler == Next::Asks {
                self.finish(self.running.len() - 1).await;
            }
            if (worker, reconciler) == (Next::Idle, Next::Idle) {
                return;
            }
        }
        panic!("workers turn in circles");
    }

    /// One release of each floating tag more, which sees what others have done to it.
    pub(crate) async fn observe_all(&mut self) {
        let freezes = 0..self.model.freezes.len();
        for at in freezes {
            if self.model.freezes[at].holds(self.now()) {
                self.lift(at).await;
            }
        }
        let tags = self.model.tags.keys().filter(|key| !is_kept(key));
        for key in tags.cloned().collect::<Vec<_>>() {
            let digest = self.images[0].clone();
            let text = if is_unique(&key) { format!("!{}", key.1) } else { key.1.clone() };
            let mut request = crate::requests::publish(&digest, &key.0, &[&text]);
            request.allow_backward = true;
            self.publish(&request).await.unwrap();
        }
        self.settle_all().await;
    }
}
