//! Workers die and come back at random times while releases of several tags and targets run.
//! A failure prints the seed; `COLOPHON_TEST_SEED` runs it again.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use colophon_testkit::{
    image::ImageSpec,
    proxy::{Action, Exchange, Fault, Rule},
    wait::wait_until,
};
use colophon_tests::{PATIENCE, Site, SiteOptions};
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
    let seed = seed();
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

/// PUTs get lost before and after the registry obeyed, and some land when nobody waits for them
/// any more. Releases may fail over that, with a reason; the ledger must tell all of it.
#[tokio::test]
async fn the_ledger_explains_every_tag_however_puts_arrive() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let mut crew = Crew::new(2).await;
    let (mut releases, mut losses) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let action = match random.random_range(0..4) {
            0 => Action::DropBefore,
            1 => Action::DropAfter,
            _ => Action::Delay(Duration::from_millis(random.random_range(0..4_000))),
        };
        let lost = matches!(action, Action::DropBefore);
        let rule = Rule::new(action).when(moves_a_tag).nth(random.random_range(1..3));
        let fault = crew.target.proxy().add(rule);
        if lost {
            losses.push(fault);
        }
        releases.push(publish_to(&crew, &[&crew.target], &mut random, round).await);
        sleep(Duration::from_millis(random.random_range(0..600))).await;
        if random.random_bool(0.3) {
            let index = random.random_range(0..crew.workers.len());
            crew.kill(index);
            crew.hire().await;
        }
    }
    let mut ends = BTreeMap::<String, usize>::new();
    for id in &releases {
        let ended = crew.client.wait_end(id).await;
        let ended = ended.unwrap_or_else(|error| panic!("seed {seed}: {error}\n{}", crew.logs()));
        *ends.entry(state(&ended)).or_default() += 1;
    }
    println!("{} releases: {ends:?}", releases.len());
    let known = ["SUCCEEDED", "FAILED SUPERSEDED", "FAILED TAG_MOVED"];
    assert!(ends.keys().all(|end| known.contains(&end.as_str())), "seed {seed}: {ends:?}");

    // What is still under way lands, and one more release of each tag sees what there is.
    crew.target.proxy().clear();
    let landed = async || {
        let lost: usize = losses.iter().map(Fault::hits).sum();
        let puts = crew.target.proxy().log();
        let waits = |put: &&Exchange| moves_a_tag(put) && put.answered.is_none();
        (puts.iter().filter(waits).count() == lost).then_some(())
    };
    wait_until("every PUT has landed", PATIENCE, landed).await.unwrap();
    for repository in REPOSITORIES {
        let source = crew.image(&ImageSpec::tiny(format!("{repository} last")), repository).await;
        crew.publish_well(&source, repository, &["last"], &["1", "latest"]).await;
    }
    ledger_check::check(&crew.world, &crew.source, &[&crew.target]).await;
}

fn moves_a_tag(exchange: &Exchange) -> bool {
    exchange.is_manifest_put() && !exchange.reference().starts_with("sha256:")
}

fn seed() -> u64 {
    let seed = match std::env::var("COLOPHON_TEST_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => rand::random(),
    };
    println!("COLOPHON_TEST_SEED={seed}");
    seed
}

/// A release of a new image to one or both targets.
async fn publish(crew: &Crew, second: &Site, random: &mut StdRng, number: usize) -> String {
    let mut targets = vec![&crew.target, second];
    if random.random_bool(0.5) {
        targets.remove(random.random_range(0..2));
    }
    publish_to(crew, &targets, random, number).await
}

async fn publish_to(crew: &Crew, sites: &[&Site], random: &mut StdRng, number: usize) -> String {
    let repository = *REPOSITORIES.choose(random).unwrap();
    let mut image = ImageSpec::tiny(format!("{repository} {number}"));
    if random.random_bool(0.3) {
        image = ImageSpec::new(image.seed).layer(300_000);
    }
    let source = crew.image(&image, repository).await;
    let unique = format!("1.0.{number}");
    let unique = [unique.as_str()];
    let floating: &[&str] = if random.random_bool(0.5) { &["1", "latest"] } else { &["1"] };
    let targets: Vec<String> = sites.iter().map(|site| site.repository(repository)).collect();
    let targets: Vec<_> =
        targets.iter().map(|target| (target.as_str(), &unique[..], floating)).collect();
    crew.client.publish(&source, &targets).await.unwrap()
}
