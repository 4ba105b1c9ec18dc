//! The whole service between two registries that do something wrong now and then, in both directions.
//! Each release ends right or says why not; no tag ever shows a wrong byte, the ledger explains every
//! one, and no credential goes elsewhere. A failure prints the seed; `COLOPHON_CHAOS_SEED` runs it again.

use std::{collections::BTreeMap, time::Duration};

use colophon_testkit::{
    image::ImageSpec,
    proxy::{Action, Chaos, Exchange, Rule},
};
use colophon_tests::{Site, SiteOptions, World};

use crate::{
    kill::TIMES,
    ledger_check,
    release_scene::{login, state},
    secrets_echo::Echo,
};

const REPOSITORIES: [&str; 4] = ["team/app", "team/tool", "team/proxy", "team/base"];
const ROUNDS: usize = 6;
/// Of a hundred requests so many meet a fault.
const FAULTS: u64 = 10;

const CREDENTIALS: &str = "[[registry.credentials]]\npush = \"registries/robot\"";

/// How a release may end; the reasons are those of what is done to it here.
const ENDS: &[&str] = &[
    "SUCCEEDED",
    "FAILED SUPERSEDED",
    "FAILED TAG_MOVED",
    "FAILED ADDRESS_REFUSED",
    "FAILED DIGEST_MISMATCH",
    "FAILED REGISTRY_PROTOCOL",
    "FAILED SOURCE_GONE",
    "FAILED UNSUPPORTED_MANIFEST",
    "ERRORED ATTEMPTS_EXHAUSTED",
];

fn seed() -> u64 {
    let set = std::env::var("COLOPHON_CHAOS_SEED").ok().and_then(|text| text.parse().ok());
    set.unwrap_or(1)
}

/// Asking where a tag is. A registry that lies about that cannot be found out by who asks it only, so
/// these requests are left alone.
fn asks_for_a_tag(exchange: &Exchange) -> bool {
    exchange.method == "HEAD"
        && exchange.path.contains("/manifests/")
        && !exchange.reference().contains(':')
}

fn disturb(site: &Site, seed: u64, elsewhere: &str) {
    site.proxy().add(Rule::new(Action::Delay(Duration::ZERO)).when(asks_for_a_tag).always());
    site.proxy().chaos(Some(Chaos::new(seed, FAULTS, elsewhere)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_tagged_is_right_whatever_goes_wrong_on_the_way() {
    let seed = seed();
    println!("chaos from COLOPHON_CHAOS_SEED={seed}");
    let mut world = World::new().await.unwrap();
    TIMES.clone_into(&mut world.worker);
    let vault = world.vault("").await.unwrap();
    let robot = login("robot");
    vault.put_login("robot", &robot).await.unwrap();
    let guarded = || SiteOptions::proxied().login(&robot).settings(CREDENTIALS);
    let source = world.site(guarded()).await.unwrap();
    let target = world.site(guarded()).await.unwrap();
    let api = world.serve().await.unwrap();
    let _workers = [world.work().await.unwrap(), world.work().await.unwrap()];
    let client = world.client(&api).unwrap();

    let thief = Echo::start("Basic realm=\"elsewhere\"").await;
    let elsewhere = format!("http://{}", thief.host());
    let mut releases = Vec::new();
    let mut newest = BTreeMap::new();
    disturb(&target, 2 * seed, &elsewhere);
    for round in 0..ROUNDS {
        for name in REPOSITORIES {
            let spec = ImageSpec::new(format!("{name}-{round}"));
            let image = source.push(&spec, name, &format!("r{round}")).await.unwrap();
            let from = format!("{}@{}", source.repository(name), image.digest());
            let unique = format!("1.0.{round}");
            let to = target.repository(name);
            let tags: (&str, &[&str], &[&str]) = (&to, &[&unique], &["latest"]);
            releases.push(client.publish(&from, &[tags]).await.unwrap());
            newest.insert(name, from);
        }
        // A few are on their way at once; then the source is disturbed as well.
        if round == 0 {
            disturb(&source, 2 * seed + 1, &elsewhere);
        }
    }
    let mut ends = BTreeMap::<String, usize>::new();
    for id in &releases {
        let ended =
            client.wait_end(id).await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let end = state(&ended);
        assert!(ENDS.contains(&end.as_str()), "seed {seed}: {ended:#}");
        *ends.entry(end).or_default() += 1;
    }
    let operations = source.proxy().log().len() + target.proxy().log().len();
    println!("{} releases, {operations} requests: {ends:?}", releases.len());

    // With everything well again, one more release of each sees what there is.
    for site in [&source, &target] {
        site.proxy().chaos(None);
    }
    for (name, from) in newest {
        let to = target.repository(name);
        let id = client.publish(&from, &[(&to, &["final"], &["latest"])]).await.unwrap();
        let ended = client.wait_end(&id).await.unwrap();
        assert_eq!(state(&ended), "SUCCEEDED", "seed {seed}: {ended:#}");
    }
    ledger_check::check(&world, &source, &[&target]).await;
    assert_eq!(thief.shown(), [""; 0], "seed {seed}: a credential went elsewhere");
}
