//! The simulated world: workers and reconcilers as tasks of which one moves at a time, from one
//! request about a tag to the next.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc, time::Duration};

use colophon_domain::{Access, Credential, CredentialSource, Reason, Repository, Result, TagRules};
use colophon_engine::{Engine, WorkSettings, Worker};
use colophon_registry::{Registries, RegistryConfig};
use futures_util::future::{BoxFuture, ready};
use rand::{SeedableRng as _, rngs::SmallRng};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::{
    base::Base,
    model::Model,
    registry::{Asked, Key, Parked, Registry, error, served, status, with},
    releases::Sent,
    rules::{CONSISTENCY, GRACE, PUT},
    sights::Sights,
};

pub(crate) const BUILD: &str = "one.test/build";
pub(crate) const APP: &str = "one.test/app";
pub(crate) const COPY: &str = "two.test/app";

/// Images that can be published from [`BUILD`].
pub(crate) const IMAGES: u32 = 24;
/// Nothing real takes this long.
const PATIENCE: Duration = Duration::from_mins(1);

/// How a request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// It is done.
    Done,
    /// The connection ends before anything is done.
    Lost,
    /// It is done, and the connection ends without an answer.
    DoneLost,
    /// The connection ends; it is done later, if at all.
    Late,
    /// 500, and nothing is done.
    Error,
    /// 500, and it is done all the same.
    DoneError,
    /// 429, to be tried again at once.
    Throttled,
    /// 429, to be tried again much later.
    Paused,
    /// 403.
    Denied,
    /// The registry does not let the tag move.
    Immutable,
    /// What the tag was before the last PUT.
    Stale,
}

/// What a worker or a reconciler does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// It waits for an answer.
    Asks,
    /// It has done something, and ended.
    Ended,
    /// It found nothing to do.
    Idle,
}

/// A worker or a reconciler, between two requests.
pub(crate) struct Running {
    pub(crate) name: String,
    task: JoinHandle<Result<bool>>,
    pub(crate) parked: Parked,
    /// The deadline of a PUT, and when it can be in the network no more.
    pub(crate) window: Option<(i64, i64)>,
    /// What the tag was before the PUT that was done last.
    pub(crate) replaced: Option<(Key, String)>,
    /// What it was shown so far.
    sights: Sights,
    /// Steps since the request came.
    pub(crate) age: u32,
}

/// A PUT whose sender hears no answer.
pub(crate) struct Flying {
    key: Key,
    parked: Asked,
    until: i64,
}

/// No registry asks for a credential.
pub(crate) struct Anonymous;

impl CredentialSource for Anonymous {
    fn credential<'a>(
        &'a self,
        _: &'a Repository,
        _: Access,
        _: Option<u64>,
    ) -> BoxFuture<'a, Result<Option<Credential>>> {
        Box::pin(ready(Ok(None)))
    }

    fn shared(&self, _: &Repository, _: &Repository) -> bool {
        true
    }
}

/// Everything, with a seed.
pub(crate) struct World {
    pub(crate) base: Base,
    pub(crate) registry: Registry,
    pub(crate) engine: Engine,
    pub(crate) model: Model,
    pub(crate) rng: SmallRng,
    pub(crate) running: Vec<Running>,
    pub(crate) flying: Vec<Flying>,
    /// The digests of the images.
    pub(crate) images: Vec<String>,
    /// Requests with a key, and what became of them.
    pub(crate) sent: Vec<Sent>,
    /// Releases in the order of acceptance.
    pub(crate) releases: Vec<Uuid>,
    /// Numbers of what happened, by name.
    pub(crate) counts: BTreeMap<String, usize>,
    pub(crate) trace: Vec<String>,
    /// This process has been asked to leave a registry alone for long.
    pub(crate) paused: bool,
    places: Vec<(&'static str, String)>,
    rules: TagRules,
    workers: usize,
    seed: u64,
}

impl Drop for World {
    /// Says how to see a failure again.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let from = self.trace.len().saturating_sub(60);
            let (seed, lines) = (self.seed, self.trace.len());
            let mut text = format!("COLOPHON_SIM_SEED={seed}, line {lines} of the trace:\n");
            for line in &self.trace[from..] {
                let _ = writeln!(text, "  {line}");
            }
            eprintln!("{text}");
        }
    }
}

impl World {
    pub(crate) async fn new(seed: u64) -> Self {
        Self::ruled(seed, TagRules::default()).await
    }

    /// With tag rules as an operator configures them.
    pub(crate) async fn ruled(seed: u64, rules: TagRules) -> Self {
        let base = Base::new().await;
        let registry = Registry::new();
        let mut places = Vec::new();
        for host in ["one.test", "two.test"] {
            places.push((host, registry.serve(host).await));
        }
        let add = |content: &mut crate::registry::Content| {
            (0..IMAGES).map(|number| content.add_image(number)).collect()
        };
        let images = registry.within(BUILD, add);
        let engine = engine(&base, &places, &rules);
        let mut model = Model::default();
        model.keeping.ruled = rules.of(&Repository::parse(APP).unwrap()).retention().is_some();
        Self {
            base,
            registry,
            engine,
            model,
            rng: SmallRng::seed_from_u64(seed),
            running: Vec::new(),
            flying: Vec::new(),
            images,
            sent: Vec::new(),
            releases: Vec::new(),
            counts: BTreeMap::new(),
            trace: Vec::new(),
            paused: false,
            places,
            rules,
            workers: 0,
            seed,
        }
    }

    pub(crate) fn now(&self) -> i64 {
        self.base.clock.millis()
    }

    /// Writes down what happened.
    pub(crate) fn say(&mut self, what: &str, more: impl std::fmt::Display) {
        *self.counts.entry(what.to_owned()).or_default() += 1;
        self.trace.push(format!("{:>9} {what} {more}", self.now()));
    }

    pub(crate) async fn sync(&mut self) {
        self.sync_after(None).await;
    }

    /// After one worker has gone on by what it was shown.
    async fn sync_after(&mut self, sights: Option<&Sights>) {
        let now = self.now();
        self.model.sync(&self.base.pool, &self.registry, now, sights).await;
    }

    /// A new process with other tag rules.
    pub(crate) fn use_rules(&mut self, rules: TagRules) {
        self.rules = rules;
        self.restart();
    }

    /// A new process: it remembers no pause and no manifest.
    pub(crate) fn restart(&mut self) {
        self.engine = engine(&self.base, &self.places, &self.rules);
        self.paused = false;
        self.say("restart", "");
    }

    /// A name that nobody had.
    pub(crate) fn next_name(&mut self, letter: &str) -> String {
        self.workers += 1;
        format!("{letter}{}", self.workers)
    }

    /// A worker takes a job.
    pub(crate) async fn start_worker(&mut self) -> Next {
        let name = self.next_name("w");
        let worker = Worker::new(self.engine.clone(), name.clone());
        let task = tokio::spawn(async move { worker.work_one().await });
        self.follow(name, task, None, Sights::default()).await
    }

    /// A reconciler takes an intent.
    pub(crate) async fn start_reconciler(&mut self) -> Next {
        let name = self.next_name("r");
        let engine = self.engine.clone();
        let task = tokio::spawn(async move { engine.reconcile_once().await });
        self.follow(name, task, None, Sights::default()).await
    }

    /// Lets a task go on until it asks again or ends.
    pub(crate) async fn follow(
        &mut self,
        name: String,
        mut task: JoinHandle<Result<bool>>,
        replaced: Option<(Key, String)>,
        mut sights: Sights,
    ) -> Next {
        let next = async {
            tokio::select! {
                biased;
                parked = self.registry.arrival() => Ok(parked),
                ended = &mut task => Err(ended.unwrap().unwrap()),
            }
        };
        let next = tokio::time::timeout(PATIENCE, next).await.expect("a task stands still");
        self.sync_after(Some(&sights)).await;
        match next {
            Ok(parked) => {
                let asked = &parked.asked;
                let text = format!("{} {}/{}", asked.method, asked.repository, asked.rest);
                let key = asked.key().filter(|_| asked.writes());
                let (now, brings) = (self.now(), asked.puts().then(|| asked.digest()));
                let window = key
                    .map(|key| self.model.arrive((&key, brings.as_deref()), &self.registry, now));
                self.say("asks", format_args!("{name} {text}"));
                if let Some(key) = parked.asked.key().filter(|_| parked.asked.looks()) {
                    let holders = self.model.holders(&self.base.pool, &key).await;
                    sights.begin(key, holders);
                }
                let running = Running { name, task, parked, window, replaced, sights, age: 0 };
                self.running.push(running);
                Next::Asks
            }
            Err(true) => {
                self.say("ends", name);
                Next::Ended
            }
            Err(false) => {
                self.say("idle", name);
                Next::Idle
            }
        }
    }

    /// Whether this answer can be given to this request at this time.
    pub(crate) fn possible(&self, at: usize, how: How) -> bool {
        let running = &self.running[at];
        let asked = &running.parked.asked;
        let Some((deadline, until)) = running.window else {
            return match how {
                How::Stale => running.replaced.as_ref().is_some_and(|(key, digest)| {
                    let content = |content: &mut crate::registry::Content| {
                        content.manifests.contains_key(digest)
                    };
                    asked.method == http::Method::HEAD
                        && asked.key().as_ref() == Some(key)
                        && self.registry.within(&key.0, content)
                }),
                How::Done | How::Lost | How::Error | How::Throttled | How::Paused => true,
                _ => false,
            };
        };
        match how {
            How::Stale => false,
            How::Lost => true,
            How::DoneLost | How::Late => self.now() < until,
            _ => self.now() < deadline,
        }
    }

    /// Answers a request, and lets whoever asked go on.
    pub(crate) async fn answer(&mut self, at: usize, how: How) -> Next {
        assert!(self.possible(at, how), "{how:?}");
        let running = self.running.swap_remove(at);
        let Running { name, task, parked, window, replaced, mut sights, .. } = running;
        let Parked { asked, reply } = parked;
        self.say("answer", format_args!("{name} {how:?}"));
        self.bear(&name, how).await;
        self.show(&mut sights, &asked, how, replaced.as_ref());
        let before = asked.key().and_then(|key| Some((key.clone(), self.registry.digest(&key)?)));
        let mut next = None;
        let answer = match how {
            How::Done if asked.puts() => {
                next = before;
                Some(self.registry.act(&asked))
            }
            How::Done => Some(self.registry.act(&asked)),
            How::DoneLost | How::DoneError => {
                drop(self.registry.act(&asked));
                (how == How::DoneError).then(|| status(500))
            }
            How::Lost | How::Late => None,
            How::Error => Some(status(500)),
            How::Throttled => Some(with(429, &[("retry-after", "0")], "")),
            How::Paused => {
                self.paused = true;
                Some(with(429, &[("retry-after", "3600")], ""))
            }
            How::Denied => Some(error(403, "DENIED")),
            How::Immutable => Some(error(412, "TAG_IMMUTABLE")),
            How::Stale => {
                let (key, digest) = replaced.unwrap();
                let bytes = self.registry.within(&key.0, |it| it.manifests[&digest].clone());
                Some(served(&bytes))
            }
        };
        if let (Some((_, until)), Some(key)) = (window, asked.key()) {
            if how == How::Late {
                self.flying.push(Flying { key, parked: asked, until });
            } else {
                self.model.landed(&key, until);
            }
        }
        match answer {
            Some(answer) => drop(reply.send(answer)),
            None => drop(reply),
        }
        self.follow(name, task, next, sights).await
    }

    /// Whoever asked knows the answer from now on.
    fn show(&self, sights: &mut Sights, asked: &Asked, how: How, replaced: Option<&(Key, String)>) {
        match (how, asked.key()) {
            (How::Done, _) => sights.note(asked, (&self.registry, &self.model, None)),
            (How::Stale, _) => {
                let stale = replaced.map(|(_, digest)| digest.as_str());
                sights.note(asked, (&self.registry, &self.model, stale));
            }
            (How::Denied, Some(key)) => sights.refuse(key, Reason::RegistryDenied),
            (How::Immutable, Some(key)) => sights.refuse(key, Reason::TagImmutable),
            _ => {}
        }
    }

    /// Counts a fault for the release whose job a worker has.
    async fn bear(&mut self, worker: &str, how: How) {
        if matches!(how, How::Done | How::Stale) {
            return;
        }
        let release = "SELECT release_id FROM job WHERE worker = $1 AND state = 'running'";
        let release: Option<Uuid> =
            sqlx::query_scalar(release).bind(worker).fetch_optional(&self.base.pool).await.unwrap();
        if let Some(release) = release {
            *self.model.ended.faults.entry(release).or_default() += 1;
        }
    }

    /// A worker dies while it waits for an answer. What it sent may be done or not, now or later.
    pub(crate) async fn crash(&mut self, at: usize, how: How) {
        let Running { name, task, parked, window, .. } = self.running.swap_remove(at);
        task.abort();
        drop(task.await);
        self.say("crash", format_args!("{name} {how:?}"));
        self.bear(&name, How::Lost).await;
        if let (Some((_, until)), Some(key)) = (window, parked.asked.key()) {
            match how {
                How::Late => {
                    self.flying.push(Flying { key, parked: parked.asked, until });
                    return;
                }
                How::Done => drop(self.registry.act(&parked.asked)),
                _ => {}
            }
            self.model.landed(&key, until);
        }
    }

    /// A PUT that was in the network arrives, unless its time is over.
    pub(crate) fn deliver(&mut self) {
        let now = self.now();
        let Some(put) = self.flying.pop() else { return };
        self.model.landed(&put.key, put.until);
        if now < put.until {
            drop(self.registry.act(&put.parked));
            self.say("arrives", format_args!("{}:{}", put.key.0, put.key.1));
        }
    }

    /// Lets a worker go on without faults until it ends.
    pub(crate) async fn finish(&mut self, at: usize) {
        let name = self.running[at].name.clone();
        while let Some(at) = self.running.iter().position(|it| it.name == name) {
            let how = if self.possible(at, How::Done) { How::Done } else { How::Lost };
            self.answer(at, how).await;
        }
    }
}

fn engine(base: &Base, places: &[(&'static str, String)], rules: &TagRules) -> Engine {
    let long = Duration::from_hours(1);
    let millis = |time: i64| Duration::from_millis(time.unsigned_abs());
    let configs = places.iter().map(|(host, place)| RegistryConfig {
        endpoint: Some(place.clone()),
        plain_http: true,
        request_timeout: long,
        ..RegistryConfig::new(host.parse().unwrap())
    });
    let registries = Registries::new(configs.collect(), Arc::new(Anonymous)).unwrap();
    let settings = WorkSettings {
        lease: long,
        put_timeout: millis(PUT),
        grace: millis(GRACE),
        consistency_window: millis(CONSISTENCY),
        tags_at_once: 1,
        ..WorkSettings::default()
    };
    settings.check().unwrap();
    let held = (base.clock.clone() as _, base.entropy.clone() as _);
    Engine::new(base.store.clone(), registries, held, rules.clone(), settings)
}
