//! What a registry's limits outlive, and what counts for them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use colophon_domain::{Access, Reason, Urgency};
use colophon_registry::RegistryConfig;

use crate::{
    fake::{Fake, with},
    support::{Keys, copy, descriptor, image, registries, tag},
};

fn limited(fake: &Fake, per_second: f64) -> RegistryConfig {
    RegistryConfig { max_requests_per_second: Some(per_second), ..fake.config() }
}

#[tokio::test]
async fn a_pause_outlives_a_reload() {
    let fake = Fake::start().await;
    fake.hook(|_| Some(with(429, &[("retry-after", "600")], "")));
    let before = registries([fake.config()], Keys::none());
    let repository = fake.repository("a/b");
    let failure = before.session(&repository, Access::Pull).unwrap().head(&tag("v1")).await;
    assert_eq!(failure.unwrap_err().reason(), Reason::RateLimited);
    let after = before.replaced(vec![limited(&fake, 50.0)], Keys::none()).unwrap();
    let failure = after.session(&repository, Access::Pull).unwrap().head(&tag("v1")).await;
    assert_eq!(failure.unwrap_err().reason(), Reason::RateLimited);
    assert_eq!(fake.seen().len(), 1, "nothing was sent after the reload");
}

#[tokio::test]
async fn a_configured_limit_holds_for_tokens_and_challenges_as_well() {
    let fake = Fake::start().await;
    let challenge = format!(r#"Bearer realm="{}""#, fake.url("/token"));
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    fake.hook(move |seen| {
        counted.fetch_add(1, Ordering::SeqCst);
        if seen.path == "/token" {
            return Some(with(200, &[], r#"{"token":"t"}"#));
        }
        let known = seen.header("authorization") == "Bearer t";
        (!known).then(|| with(401, &[("www-authenticate", &challenge)], ""))
    });
    let registries = registries([limited(&fake, 10.0)], Keys::none());
    let begun = Instant::now();
    for number in 0..3 {
        let repository = fake.repository(&format!("a/b{number}"));
        let session = registries.session(&repository, Access::Pull).unwrap();
        assert_eq!(session.manifest(&tag("v1")).await.unwrap(), None);
    }
    let requests = asked.load(Ordering::SeqCst);
    assert!(requests >= 7, "{requests}");
    let least = Duration::from_millis(100) * u32::try_from(requests - 1).unwrap();
    assert!(begun.elapsed() >= least, "{requests} in {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_copy_keeps_to_the_limit_and_what_is_urgent_goes_before_it() {
    let (source, target) = (Fake::start().await, Fake::start().await);
    let layers: Vec<_> = (0..12_u8)
        .map(|number| {
            let digest = source.add_blob("a/src", &[number]);
            descriptor("l", &digest, 1)
        })
        .collect();
    let image = image(&layers);
    source.add_manifest("a/src", "v1", &image);
    let registries = registries([source.config(), limited(&target, 20.0)], Keys::none());
    let from = registries.session(&source.repository("a/src"), Access::Pull).unwrap();
    let to = registries.session(&target.repository("a/dst"), Access::Push).unwrap();
    let urgent = to.urgent(Urgency::Urgent);
    let to = to.urgent(Urgency::Bulk);
    let begun = Instant::now();
    let (copied, waited) = tokio::join!(copy(&from, &to, &image.digest), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let mut waited = Vec::new();
        for _ in 0..5 {
            let begun = Instant::now();
            urgent.observe(&tag("v1")).await.unwrap();
            waited.push(begun.elapsed());
        }
        waited
    });
    copied.unwrap();
    let requests = u32::try_from(target.seen().len()).unwrap();
    assert!(requests >= 40, "{requests}");
    let rate = f64::from(requests - 1) / begun.elapsed().as_secs_f64();
    println!("{requests} requests, {rate:.1} in a second; the urgent ones waited {waited:?}");
    assert!(rate <= 20.0, "{rate}");
    // Each is two requests (there is no such tag), in the midst of dozens that wait.
    assert!(waited.iter().all(|time| *time < Duration::from_secs(1)), "{waited:?}");
}
