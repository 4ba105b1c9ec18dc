//! Random walks: releases, retries, cancels, foreign moves, dead and stalled workers, lost and
//! late PUTs in any order. Afterwards everything has ended, and the ledger explains it.

use colophon_ledger::verify_chain;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use sqlx::Row;

use crate::{base::Base, world::World};

/// Steps of one walk. `COLOPHON_WALK_STEPS` asks for a longer one, `COLOPHON_WALK_SEED` for
/// the walk that failed.
const STEPS: usize = 700;

async fn walk(seed: u64) {
    println!("walk with COLOPHON_WALK_SEED={seed}");
    let steps = std::env::var("COLOPHON_WALK_STEPS")
        .map_or(STEPS, |steps| steps.parse().expect("COLOPHON_WALK_STEPS is a number"));
    let mut world = World::new(Base::new().await, SmallRng::seed_from_u64(seed));
    for _ in 0..steps {
        world.step().await;
    }
    world.settle().await;
    check(&world).await;
}

async fn check(world: &World) {
    let base = &world.base;
    let none = |what: &'static str, statement: &'static str| async move {
        assert_eq!(base.count(statement).await, 0, "{what}");
    };
    none("open intents", "SELECT count(*) FROM open_intent").await;
    none("jobs left", "SELECT count(*) FROM job WHERE state IN ('queued', 'running')").await;
    none("tags left", "SELECT count(*) FROM tag_move WHERE ended_at IS NULL").await;
    none(
        "intents without exactly one outcome",
        "SELECT count(*) FROM audit_entry i WHERE kind = 'intent' AND 1 <> (
            SELECT count(*) FROM audit_entry o WHERE o.intent_id = i.id
              AND o.kind IN ('confirmed', 'recovered', 'not_applied', 'conflict'))",
    )
    .await;
    none(
        "floating tags on an older ticket",
        "WITH moved AS (
            SELECT m.ticket, lag(m.ticket) OVER (
                PARTITION BY e.registry, e.repository, e.tag ORDER BY e.tag_seq) AS before
            FROM audit_entry e
            JOIN publication p ON p.release_id = e.release_id
                AND p.registry = e.registry AND p.repository = e.repository
            JOIN tag_move m ON m.publication_id = p.id AND m.tag = e.tag AND m.kind = 'floating'
            WHERE e.kind IN ('confirmed', 'recovered', 'unchanged'))
         SELECT count(*) FROM moved WHERE before >= ticket",
    )
    .await;
    none(
        "cancelled releases with an intent",
        "SELECT count(*) FROM release r JOIN audit_entry e ON e.release_id = r.id
         WHERE r.state = 'CANCELLED' AND e.kind = 'intent'",
    )
    .await;
    none(
        "releases that succeeded without all of their tags",
        "SELECT count(*) FROM release r JOIN tag_move m ON m.release_id = r.id
         WHERE (r.state = 'SUCCEEDED') <> (m.state IN ('MOVED', 'UNCHANGED'))
           AND r.state = 'SUCCEEDED'",
    )
    .await;
    for intent in &world.delivered {
        let known: i64 = sqlx::query_scalar("SELECT count(*) FROM audit_entry WHERE id = $1")
            .bind(intent)
            .fetch_one(&base.pool)
            .await
            .unwrap();
        assert_eq!(known, 1, "a PUT without an intent");
    }
    chains(world).await;
}

/// Every tag's chain holds by its bytes alone, and says what the registry serves.
async fn chains(world: &World) {
    let heads = "SELECT registry, repository, tag, digest FROM tag_head";
    for head in sqlx::query(heads).fetch_all(&world.base.pool).await.unwrap() {
        let (registry, name, tag): (String, String, String) =
            (head.get("registry"), head.get("repository"), head.get("tag"));
        let bodies: Vec<Vec<u8>> = sqlx::query_scalar(
            "SELECT body FROM audit_entry WHERE registry = $1 AND repository = $2 AND tag = $3
             ORDER BY tag_seq",
        )
        .bind(&registry)
        .bind(&name)
        .bind(&tag)
        .fetch_all(&world.base.pool)
        .await
        .unwrap();
        verify_chain(&bodies).unwrap_or_else(|error| panic!("{registry}/{name}:{tag}: {error}"));
        let repository = colophon_domain::Repository::from_parts(&registry, &name).unwrap();
        let key = (repository, tag.parse().unwrap());
        if !world.touched.contains(&key) {
            let served = world.registry.get(&key).map(ToString::to_string);
            let written: Option<String> = head.get("digest");
            assert_eq!(served, written, "{registry}/{name}:{tag}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_known_by_its_seed() {
    walk(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_walk_known_by_its_seed() {
    walk(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_nobody_has_seen() {
    let seed = std::env::var("COLOPHON_WALK_SEED")
        .map_or_else(|_| rand::rng().random(), |seed| seed.parse().expect("a number"));
    walk(seed).await;
}
