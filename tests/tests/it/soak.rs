//! A soak: two servers and three workers on one database at 80 % of what they can do, while
//! processes are killed, PostgreSQL restarts and OpenBao is sealed. Nothing may be lost, and memory
//! must not grow.
//!
//! A run of some seconds is part of every test run; `make soak` takes ten minutes with release
//! builds. What it saw goes to standard error.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use colophon_testkit::{
    image::ImageSpec,
    launcher::{Login, PostgresOptions},
    wait::wait_until,
};
use colophon_tests::{Client, Node, PATIENCE, Site, SiteOptions, Vault, World};
use futures_util::future::join_all;
use rand::{Rng as _, seq::IndexedRandom as _};
use serde_json::{Value, json};
use tokio::{
    sync::RwLock,
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};

use crate::{kill::TIMES, ledger_check, memory::Memory};

/// How long a run takes that is part of every test run.
const SECONDS: u64 = 20;

/// Releases under way at once while the capacity is measured.
const AT_ONCE: usize = 24;

/// As many repositories as it takes that callers seldom wait for each other's tags.
const REPOSITORIES: usize = 32;

/// Images of each repository; content is copied once, and tags go to and fro.
const IMAGES: usize = 2;

#[tokio::test]
async fn nothing_is_lost_and_memory_stays_flat_in_a_soak() {
    let time = std::env::var("COLOPHON_SOAK_SECONDS").map_or(SECONDS, |text| text.parse().unwrap());
    let time = Duration::from_secs(time);
    let mut soak = Soak::start().await;
    let capacity = soak.capacity(time.mul_f64(0.15)).await;
    let rate = capacity * 0.8;
    eprintln!("capacity {capacity:.1} releases/s; going on with {rate:.1}/s");

    let callers = soak.callers(rate, time);
    let mut memory = Memory::default();
    let troubles = soak.trouble(time, &mut memory).await;
    let Sent { accepted, sent_again } = callers.await.unwrap();
    let drained = soak.drain().await;

    let ends = soak.ends().await;
    eprintln!(
        "{accepted} releases accepted ({sent_again} requests sent again), {ends:?}; {troubles}; \
         all ended {:.1} s after the last",
        drained.as_secs_f64()
    );
    assert!(accepted > 0);
    let total: i64 = ends.iter().map(|(_, count)| count).sum();
    assert_eq!(total, i64::try_from(accepted).unwrap() + soak.measured, "nothing is lost");
    let wrong = ends.iter().filter(|(end, _)| end != "SUCCEEDED" && end != "FAILED SUPERSEDED");
    assert_eq!(wrong.count(), 0, "{ends:?}\n{}", soak.logs());
    ledger_check::check(&soak.world, &soak.source, &[&soak.target]).await;
    ledger_check::puts_never_overlap(&soak.target);
    eprintln!("{memory}");
    memory.is_flat(time);
}

/// Everything of one run.
struct Soak {
    world: World,
    source: Site,
    target: Site,
    vault: Vault,
    /// The first of each is never killed: its memory is watched.
    servers: Vec<Node>,
    workers: Vec<Node>,
    clients: Arc<RwLock<Vec<Client>>>,
    builds: Builds,
    /// Releases that were published to learn the capacity.
    measured: i64,
}

/// What can be published: the target's repository and the source, by digest.
type Builds = Arc<Vec<(String, String)>>;

/// What the callers did.
struct Sent {
    accepted: usize,
    sent_again: usize,
}

impl Soak {
    async fn start() -> Self {
        let options = PostgresOptions { fsync: true, ..PostgresOptions::default() };
        let mut world = World::with_own_postgres(options).await.unwrap();
        TIMES.clone_into(&mut world.worker);
        world.environment = vec![("RUST_LOG".to_owned(), "warn,colophond=info".to_owned())];
        let login = Login::new("robot", format!("pat-{}", rand::random::<u64>()));
        // A PAT is asked for again and again, so that a sealed Vault is felt.
        let vault = world.vault("pat_cache_ttl = \"1s\"").await.unwrap();
        vault.put_login("target", &login).await.unwrap();
        let source = world.site(SiteOptions::proxied()).await.unwrap();
        let credentials = "[[registry.credentials]]\npush = \"registries/target\"";
        let target = SiteOptions::proxied().login(&login).settings(credentials);
        let target = world.site(target).await.unwrap();
        let mut builds = Vec::new();
        for repository in
            (0..REPOSITORIES).map(|number| format!("team-{}/app-{number}", number % 4))
        {
            for number in 0..IMAGES {
                let spec = ImageSpec::tiny(format!("{repository} {number}"));
                let image = source.push(&spec, &repository, &format!("v{number}")).await.unwrap();
                let reference = format!("{}@{}", source.repository(&repository), image.digest());
                builds.push((target.repository(&repository), reference));
            }
        }
        let (mut servers, mut workers) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            servers.push(world.serve().await.unwrap());
        }
        for _ in 0..3 {
            workers.push(world.work().await.unwrap());
        }
        let clients = servers.iter().map(|node| world.client(node).unwrap()).collect();
        Self {
            world,
            source,
            target,
            vault,
            servers,
            workers,
            clients: Arc::new(RwLock::new(clients)),
            builds: Arc::new(builds),
            measured: 0,
        }
    }

    /// How many releases a second come to their end when there are always enough of them.
    async fn capacity(&mut self, time: Duration) -> f64 {
        let began = Instant::now();
        let caller = async |caller: usize| {
            let mut number = 0;
            while began.elapsed() < time {
                let request = request(&self.builds, &format!("capacity-{caller}-{number}"), false);
                let client = self.clients.read().await[caller % 2].clone();
                let release = client.create(&request).await.unwrap().good().unwrap();
                client.wait_end(release["id"].as_str().unwrap()).await.unwrap();
                number += 1;
            }
            number
        };
        let done: u32 = join_all((0..AT_ONCE).map(caller)).await.into_iter().sum();
        self.measured = i64::from(done);
        f64::from(done) / began.elapsed().as_secs_f64()
    }

    /// Callers that ask at a fixed rate, whatever becomes of the releases before.
    fn callers(&self, rate: f64, time: Duration) -> tokio::task::JoinHandle<Sent> {
        let (clients, builds) = (self.clients.clone(), self.builds.clone());
        let again = Arc::new(AtomicUsize::new(0));
        tokio::spawn(async move {
            let mut ticks = interval(Duration::from_secs_f64(1.0 / rate));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let (began, mut callers, mut accepted) = (Instant::now(), JoinSet::new(), 0);
            while began.elapsed() < time {
                ticks.tick().await;
                let unique = accepted % 50 == 0;
                let request = request(&builds, &format!("soak-{accepted}"), unique);
                callers.spawn(insist(clients.clone(), request, again.clone()));
                accepted += 1;
            }
            callers.join_all().await;
            Sent { accepted, sent_again: again.load(Ordering::Relaxed) }
        })
    }

    /// Makes trouble until the time is over, and watches the memory of those that live on.
    async fn trouble(&mut self, time: Duration, memory: &mut Memory) -> String {
        let (began, mut counts) = (Instant::now(), [0_usize; 5]);
        let pause = (time / 40).clamp(Duration::from_secs(1), Duration::from_secs(10));
        for turn in 0.. {
            if began.elapsed() >= time {
                break;
            }
            let kind = turn % counts.len();
            match kind {
                0 => self.kill_worker().await,
                1 => self.kill_server().await,
                2 => self.world.database().server().lock().await.restart().await.unwrap(),
                3 => self.seal().await,
                _ => self.replace_worker().await,
            }
            counts[kind] += 1;
            memory.look("server", began.elapsed(), self.servers[0].id());
            memory.look("worker", began.elapsed(), self.workers[0].id());
            sleep(pause).await;
        }
        let [killed, servers, databases, seals, replaced] = counts;
        format!(
            "killed: {killed} workers, {servers} servers, {databases} times PostgreSQL; sealed \
             {seals} times; {replaced} workers replaced in order"
        )
    }

    async fn kill_worker(&mut self) {
        let index = rand::rng().random_range(1..self.workers.len());
        self.workers.remove(index).kill();
        self.workers.push(self.world.work().await.unwrap());
    }

    async fn kill_server(&mut self) {
        self.servers.remove(1).kill();
        let server = self.world.serve().await.unwrap();
        let client = self.world.client(&server).unwrap();
        self.servers.push(server);
        self.clients.write().await[1] = client;
    }

    async fn seal(&mut self) {
        self.vault.bao.seal().await.unwrap();
        sleep(Duration::from_secs(2)).await;
        self.vault.bao.unseal().await.unwrap();
    }

    async fn replace_worker(&mut self) {
        self.workers.push(self.world.work().await.unwrap());
        self.workers.remove(1).stop().await.unwrap();
    }

    /// Waits until every release has ended; how long that took.
    async fn drain(&self) -> Duration {
        let began = Instant::now();
        let none = async || {
            let open: i64 =
                sqlx::query_scalar("SELECT count(*) FROM release WHERE ended_at IS NULL")
                    .fetch_one(self.world.database().pool())
                    .await
                    .ok()?;
            (open == 0).then_some(())
        };
        let drained = wait_until("every release has ended", PATIENCE * 5, none).await;
        drained.unwrap_or_else(|error| panic!("{error}\n{}", self.logs()));
        began.elapsed()
    }

    /// How the releases ended.
    async fn ends(&self) -> Vec<(String, i64)> {
        sqlx::query_as(
            "SELECT state || COALESCE(' ' || state_reason, ''), count(*) FROM release GROUP BY 1 ORDER BY 1",
        )
        .fetch_all(self.world.database().pool())
        .await
        .unwrap()
    }

    fn logs(&self) -> String {
        self.servers.iter().chain(&self.workers).map(Node::log).collect()
    }
}

/// A release of some build.
fn request(builds: &[(String, String)], key: &str, unique: bool) -> Value {
    let (repository, source) = builds.choose(&mut rand::rng()).unwrap();
    json!({
        "source": source,
        "targets": [{
            "repository": repository,
            "uniqueTags": if unique { vec![key] } else { vec![] },
            "floatingTags": ["1", "latest"],
        }],
        "idempotencyKey": key,
    })
}

/// Sends a request until somebody accepts it, as a caller does that wants its release.
async fn insist(clients: Arc<RwLock<Vec<Client>>>, request: Value, again: Arc<AtomicUsize>) {
    let began = Instant::now();
    loop {
        let client = clients.read().await.choose(&mut rand::rng()).unwrap().clone();
        match client.create(&request).await {
            Ok(answer) if answer.status.is_success() => return,
            Ok(answer) if !matches!(answer.status.as_u16(), 429 | 503 | 504) => {
                panic!("{}: {}", answer.status, answer.body)
            }
            Ok(_) | Err(_) => {
                assert!(began.elapsed() < PATIENCE * 2, "nobody accepts {request}");
                again.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
