//! Where blobs are known to be: what is told, in which order, what is forgotten, and that many who
//! write at once do not wait for each other in a circle.

use std::time::{Duration, Instant};

use colophon_domain::{BlobPlaces as _, Digest, Repository};
use futures_util::future::try_join_all;

use crate::base::{Base, CIRCLE, digest, repository};

/// The names of the repositories that a blob is told to be in.
async fn told(base: &Base, target: &str, blob: &Digest) -> Vec<String> {
    let found = base.store.holders(&repository(target), std::slice::from_ref(blob)).await.unwrap();
    assert!(found.iter().all(|(known, _)| known == blob));
    found.iter().map(|(_, place)| place.name().to_owned()).collect()
}

#[tokio::test]
async fn those_beside_the_target_come_first_and_then_the_newest() {
    let base = Base::new().await;
    let (one, other) = (digest(1), digest(2));
    for name in ["team-a/old", "team-b/old", "team-b/new", "team-bb/x", "newest"] {
        base.store.seen(&[&repository(name)], std::slice::from_ref(&one)).await.unwrap();
        base.pass(Duration::from_secs(1)).await;
    }
    let elsewhere = Repository::parse("other.test/team-b/app").unwrap();
    base.store
        .seen(&[&elsewhere, &repository("team-c/app")], std::slice::from_ref(&other))
        .await
        .unwrap();
    let expected = ["team-b/new", "team-b/old", "newest", "team-bb/x", "team-a/old"];
    assert_eq!(told(&base, "team-b/app", &one).await, expected);
    assert_eq!(told(&base, "team-b/app", &other).await, ["team-c/app"], "of this registry only");
    let both = base.store.holders(&repository("x"), &[other.clone(), one.clone(), digest(3)]).await;
    let both = both.unwrap();
    assert_eq!((both.len(), &both[0].0, &both[5].0), (6, &other, &one));
    base.store.gone(&repository("team-b/new"), &one).await.unwrap();
    base.store.gone(&repository("team-b/new"), &other).await.unwrap();
    assert_eq!(
        told(&base, "team-b/app", &one).await,
        ["team-b/old", "newest", "team-bb/x", "team-a/old"]
    );
}

#[tokio::test]
async fn of_a_blob_that_everybody_has_some_places_are_told() {
    let base = Base::new().await;
    for number in 0..40 {
        base.store.seen(&[&repository(&format!("r{number}/app"))], &[digest(1)]).await.unwrap();
        base.pass(Duration::from_secs(1)).await;
    }
    let told = told(&base, "r3/web", &digest(1)).await;
    assert_eq!((told.len(), told[0].as_str(), told[1].as_str()), (32, "r3/app", "r39/app"));
}

#[tokio::test]
async fn what_was_seen_again_is_new_again_and_what_is_old_is_forgotten() {
    let base = Base::new().await;
    let (kept, left) = (repository("kept"), repository("left"));
    let blobs: Vec<Digest> = (0..7).map(digest).collect();
    base.store.seen(&[&kept, &left], &blobs).await.unwrap();
    let versions = "SELECT count(DISTINCT xmin::text) FROM blob_location";
    base.pass(Duration::from_mins(10)).await;
    base.store.seen(&[&kept, &left], &blobs).await.unwrap();
    assert_eq!(base.count(versions).await, 1, "what is fresh is not written again");
    base.pass(Duration::from_hours(2)).await;
    base.store.seen(&[&kept, &kept], &blobs[..5]).await.unwrap();
    assert_eq!(base.count(versions).await, 2);
    let age = Duration::from_hours(1);
    assert_eq!(base.store.forget_places(age, 4).await.unwrap(), Some(4), "in small steps");
    assert_eq!(base.store.forget_places(age, 100).await.unwrap(), Some(5));
    assert_eq!(base.store.forget_places(age, 100).await.unwrap(), Some(0));
    assert_eq!(base.count("SELECT count(*) FROM blob_location").await, 5);
    assert_eq!(told(&base, "x", &blobs[0]).await, ["kept"]);
    assert!(told(&base, "x", &blobs[6]).await.is_empty());
}

#[tokio::test]
async fn many_copies_of_the_same_do_not_wait_for_each_other_in_a_circle() {
    let base = Base::new().await;
    let mut blobs: Vec<Digest> = (0..=255).map(digest).collect();
    let names: Vec<Repository> = (0..4).map(|n| repository(&format!("r{n}"))).collect();
    for _ in 0..3 {
        base.pass(Duration::from_hours(2)).await;
        let since = Instant::now();
        let writers = (0..8).map(|writer| {
            blobs.rotate_left(31 * writer);
            let (blobs, store, names) = (blobs.clone(), base.store.clone(), &names);
            async move {
                let places = [&names[writer % 4], &names[(writer + 1) % 4]];
                store.seen(&places, &blobs).await?;
                store.forget_places(Duration::from_hours(1), 50).await?;
                store.gone(places[0], &blobs[writer]).await
            }
        });
        try_join_all(writers.collect::<Vec<_>>()).await.unwrap();
        assert!(since.elapsed() < CIRCLE, "{:?}", since.elapsed());
    }
    assert!(base.count("SELECT count(*) FROM blob_location").await > 900);
}
