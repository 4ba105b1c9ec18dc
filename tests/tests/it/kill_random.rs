//! Workers die and come back at random times while releases of several tags and targets run.
//! A failure prints the seed; `COLOPHON_TEST_SEED` runs it again.

use std::time::{Duration, Instant};

use colophon_testkit::image::ImageSpec;
use colophon_tests::{Site, SiteOptions};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use tokio::time::sleep;

use crate::{
    kill::{Crew, seconds},
    ledger_check,
    release_scene::state,
};

const ROUNDS: usize = 12;
const REPOSITORIES: [&str; 2] = ["app", "tool"];

#[tokio::test]
async fn nothing_is_lost_however_workers_die() {
    let seed = match std::env::var("COLOPHON_TEST_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => rand::random(),
    };
    println!("COLOPHON_TEST_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut crew = Crew::new(0).await;
    let second = crew.world.site(SiteOptions::proxied()).await.unwrap();
    // The API does not know the second target yet.
    crew.api = crew.world.serve().await.unwrap();
    crew.client = crew.world.client(&crew.api).unwrap();
    crew.hire().await;
    crew.hire().await;

    let began = Instant::now();
    let mut releases = Vec::new();
    let mut deaths = 0;
    for round in 0..ROUNDS {
        releases.push(publish(&crew, &second, &mut random, round).await);
        if random.random_bool(0.5) {
            releases.push(publish(&crew, &second, &mut random, round + 100).await);
        }
        // Somewhere within the few hundred milliseconds that a release takes.
        sleep(Duration::from_millis(random.random_range(0..400))).await;
        if random.random_bool(0.8) {
            let index = random.random_range(0..crew.workers.len());
            crew.kill(index);
            crew.hire().await;
            deaths += 1;
        }
    }
    let mut superseded = 0;
    for id in &releases {
        let ended = crew.client.wait_end(id).await;
        let ended = ended.unwrap_or_else(|error| panic!("seed {seed}: {error}\n{}", crew.logs()));
        match state(&ended).as_str() {
            "SUCCEEDED" => {}
            "FAILED SUPERSEDED" => superseded += 1,
            other => panic!("seed {seed}: {other}: {ended:#}\n{}", crew.logs()),
        }
    }
    println!(
        "{} releases through {deaths} deaths in {} s; {superseded} were superseded",
        releases.len(),
        seconds(began.elapsed())
    );
    ledger_check::check(&crew.world, &crew.source, &[&crew.target, &second]).await;
    for site in [&crew.target, &second] {
        ledger_check::puts_never_overlap(site);
    }
}

/// A release of a new image to one or both targets.
async fn publish(crew: &Crew, second: &Site, random: &mut StdRng, number: usize) -> String {
    let repository = *REPOSITORIES.choose(random).unwrap();
    let mut image = ImageSpec::tiny(format!("{repository} {number}"));
    if random.random_bool(0.3) {
        image = ImageSpec::new(image.seed).layer(300_000);
    }
    let source = crew.image(&image, repository).await;
    let unique = format!("1.0.{number}");
    let floating: &[&str] = if random.random_bool(0.5) { &["1", "latest"] } else { &["1"] };
    let mut targets = vec![crew.target.repository(repository), second.repository(repository)];
    if random.random_bool(0.5) {
        targets.remove(random.random_range(0..2));
    }
    let unique = [unique.as_str()];
    let targets: Vec<_> =
        targets.iter().map(|target| (target.as_str(), &unique[..], floating)).collect();
    crew.client.publish(&source, &targets).await.unwrap()
}
