//! One rate budget for each registry, shared by all replicas: four workers on two replicas against a
//! registry that lets 20 requests through in a second.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use colophon_testkit::{
    image::ImageSpec,
    proxy::{Action, Exchange, Rule},
};
use colophon_tests::{Client, Node, Site, SiteOptions, World, request};
use http::StatusCode;
use serde_json::{Value, json};

const PER_SECOND: u32 = 20;
const SECOND: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_mins(4);
/// What was on its way when the registry refused for the first time, or when a pause began.
const UNDER_WAY: Duration = Duration::from_millis(400);

/// A bucket that holds a second's tokens and gets so many in a second.
struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    fn refuses(&mut self) -> bool {
        let now = Instant::now();
        let limit = f64::from(PER_SECOND);
        let more = now.duration_since(self.filled).as_secs_f64() * limit;
        self.tokens = (self.tokens + more).min(limit);
        self.filled = now;
        if self.tokens < 1.0 {
            return true;
        }
        self.tokens -= 1.0;
        false
    }
}

fn throttle(site: &Site, headers: &[(&str, &str)]) {
    let mut all = vec![("retry-after".to_owned(), "1".to_owned())];
    all.extend(headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let bucket = Mutex::new(Bucket { tokens: PER_SECOND.into(), filled: Instant::now() });
    let refuse = Action::Status(StatusCode::TOO_MANY_REQUESTS, all, "slow down".to_owned());
    site.proxy().add(Rule::new(refuse).when(move |_| bucket.lock().unwrap().refuses()).always());
}

/// Two replicas with two workers each, a server, an image of several blobs, and the registry that it
/// goes to.
struct Scene {
    world: World,
    source: Site,
    target: Site,
    client: Client,
    _server: Node,
    replicas: [Node; 2],
}

impl Scene {
    async fn new(settings: &str) -> Self {
        let mut world = World::new().await.unwrap();
        // Long enough for whatever waits for its turn.
        let worker = "concurrency = 2\nlease = \"30s\"\npoll_interval = \"100ms\"\n";
        worker.clone_into(&mut world.worker);
        let source = world.site(SiteOptions::default()).await.unwrap();
        let target = world.site(SiteOptions::proxied().settings(settings)).await.unwrap();
        let image = (0..6).fold(ImageSpec::tiny("budget"), |image, _| image.layer(512));
        source.push(&image, "app", "1").await.unwrap();
        let server = world.serve().await.unwrap();
        let replicas = [world.work().await.unwrap(), world.work().await.unwrap()];
        let client = world.client(&server).unwrap();
        Self { world, source, target, client, _server: server, replicas }
    }

    async fn publish(&self, name: &str, priority: i32) -> String {
        let target = self.target.repository(name);
        let mut asked =
            request(&self.source.reference("app", "1"), &[(&target, &["1.0.0"], &["latest"])]);
        asked["priority"] = json!(priority);
        let release = self.client.create(&asked).await.unwrap().good().unwrap();
        release["id"].as_str().unwrap().to_owned()
    }

    async fn end(&self, id: &str) -> Value {
        let ended = self.client.wait_end_for(id, PATIENCE).await.unwrap();
        assert_eq!(ended["state"], "RELEASE_STATE_SUCCEEDED", "{ended:#}");
        ended
    }

    /// Publishes that many releases, one that is urgent in their midst, and says how it went.
    async fn flood(&self, releases: usize) -> Figures {
        let mut bulk = Vec::new();
        for number in 0..releases {
            bulk.push(self.publish(&format!("bulk{number}"), 0).await);
        }
        tokio::time::sleep(2 * SECOND).await;
        let urgent_at = Instant::now();
        let urgent = self.publish("urgent", 50).await;
        self.end(&urgent).await;
        let urgent_took = urgent_at.elapsed();
        let mut open = 0;
        for id in &bulk {
            open += usize::from(self.client.release(id).await.unwrap()["endTime"].is_null());
        }
        for id in &bulk {
            self.end(id).await;
        }
        Figures::of(&self.target.proxy().log(), urgent_took, open)
    }

    /// That both replicas have worked.
    async fn both_worked(&self) {
        let worked: Vec<String> = sqlx::query_scalar("SELECT DISTINCT worker FROM job")
            .fetch_all(self.world.database().pool())
            .await
            .unwrap();
        assert_eq!(worked.len(), self.replicas.len(), "{worked:?}");
    }
}

#[derive(Debug)]
struct Figures {
    refused: usize,
    /// Those that were sent after the first one had been answered.
    refused_later: usize,
    /// What was let through, of what could have been, from the first request or the end of the first
    /// pause on, and as long as there was enough to do: without the last tenth, the tags of the last
    /// releases, which come one after the other.
    used: f64,
    bulk_open: usize,
}

impl Figures {
    fn of(log: &[Exchange], urgent_took: Duration, bulk_open: usize) -> Self {
        let refused = |it: &&Exchange| it.status == Some(StatusCode::TOO_MANY_REQUESTS);
        let first = log.iter().filter(refused).filter_map(|it| it.answered).min();
        let begin = log.iter().map(|it| it.arrived).min().unwrap();
        let mut arrivals: Vec<_> = log.iter().map(|it| it.arrived).collect();
        arrivals.sort_unstable();
        let (end, last) = (arrivals[arrivals.len() * 9 / 10], *arrivals.last().unwrap());
        let later = log.iter().filter(refused);
        let later = later.filter(|it| first.is_some_and(|first| it.arrived > first + UNDER_WAY));
        let from = first.map_or(begin, |first| first + SECOND);
        let within = |it: &&Exchange| it.arrived >= from && it.arrived <= end;
        let through = log.iter().filter(within).filter(|it| !refused(it)).count();
        let through = f64::from(u32::try_from(through).unwrap());
        let figures = Self {
            refused: log.iter().filter(refused).count(),
            refused_later: later.count(),
            used: through / ((end - from).as_secs_f64() * f64::from(PER_SECOND)),
            bulk_open,
        };
        let (requests, took) = (log.len(), last - begin);
        println!(
            "{requests} requests in {took:?}, the urgent release in {urgent_took:?}: {figures:?}"
        );
        figures
    }

    fn urgent_came_first(&self, releases: usize) {
        assert!(self.bulk_open * 2 >= releases, "{self:?}");
    }
}

#[tokio::test]
async fn a_configured_limit_is_never_exceeded_and_used_in_full() {
    let scene = Scene::new("max_requests_per_second = 20").await;
    throttle(&scene.target, &[]);
    let figures = scene.flood(16).await;
    scene.both_worked().await;
    assert_eq!(figures.refused, 0, "{figures:?}");
    assert!(figures.used >= 0.9, "{figures:?}");
    figures.urgent_came_first(16);
}

#[tokio::test]
async fn a_limit_that_the_first_refusal_tells_is_not_exceeded_again() {
    let scene = Scene::new("").await;
    throttle(&scene.target, &[("ratelimit-policy", "\"requests\";q=20;w=1")]);
    let figures = scene.flood(16).await;
    scene.both_worked().await;
    assert!(figures.refused > 0 && figures.refused_later == 0, "{figures:?}");
    assert!(figures.used >= 0.9, "{figures:?}");
    figures.urgent_came_first(16);
}

#[tokio::test]
async fn a_limit_that_nobody_tells_is_found_in_a_few_refusals() {
    let scene = Scene::new("").await;
    throttle(&scene.target, &[]);
    let figures = scene.flood(16).await;
    assert!(figures.refused > 0, "{figures:?}");
    // Each lowers the limit by a tenth, from at most twice of what is right.
    assert!(figures.refused_later <= 24, "{figures:?}");
    assert!(figures.used >= 0.5, "{figures:?}");
}

#[tokio::test]
async fn a_pause_that_one_replica_is_asked_for_is_kept_by_both_to_the_second() {
    let scene = Scene::new("").await;
    let refuse = Action::Status(
        StatusCode::TOO_MANY_REQUESTS,
        vec![("retry-after".to_owned(), "3".to_owned())],
        String::new(),
    );
    let told = Arc::new(Mutex::new(None));
    let at = Arc::clone(&told);
    scene.target.proxy().add(
        Rule::new(refuse)
            .when(move |_| {
                at.lock().unwrap().get_or_insert_with(Instant::now);
                true
            })
            .nth(60),
    );
    let mut bulk = Vec::new();
    for number in 0..12 {
        bulk.push(scene.publish(&format!("bulk{number}"), 0).await);
    }
    for id in &bulk {
        scene.end(id).await;
    }
    scene.both_worked().await;
    let log = scene.target.proxy().log();
    let refused: Vec<_> =
        log.iter().filter(|it| it.status == Some(StatusCode::TOO_MANY_REQUESTS)).collect();
    assert_eq!(refused.len(), 1);
    let from = refused[0].answered.unwrap();
    let since = |it: &Exchange| it.arrived.saturating_duration_since(from);
    let late: Vec<_> =
        log.iter().map(since).filter(|at| !at.is_zero() && *at < 3 * SECOND).collect();
    let first = log.iter().map(since).filter(|at| *at >= 3 * SECOND).min().unwrap();
    println!("under way in the pause: {late:?}; the first after it: {first:?}");
    assert!(late.iter().all(|at| *at < UNDER_WAY), "{late:?}");
    assert!(first <= 4 * SECOND, "{first:?}");
}
