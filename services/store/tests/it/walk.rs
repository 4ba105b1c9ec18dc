//! Random walks: releases, rollbacks, retries, cancels, put-backs, freezes, foreign moves, dead and
//! stalled workers, lost and late PUTs in any order. Afterwards everything has ended, and the ledger explains it.

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
    tell(&world).await;
    check(&world).await;
}

/// What the walk came through, so that one that tries nothing is seen.
async fn tell(world: &World) {
    let mut tally: Vec<_> = world.tally.iter().collect();
    tally.sort_unstable();
    println!("{} releases; {tally:?}", world.releases.len());
    let ends = "SELECT string_agg(concat_ws(' ', n, k, s), ', ' ORDER BY k, s) FROM (
                    SELECT count(*) AS n, 'releases' AS k, state AS s FROM release GROUP BY state
                    UNION ALL SELECT count(*), 'tags', state FROM tag_move GROUP BY state) ends";
    println!("{}", world.base.text(ends).await.unwrap_or_default());
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
        "releases that succeeded without all of their tags",
        "SELECT count(*) FROM release r JOIN tag_move m ON m.release_id = r.id
         WHERE r.state = 'SUCCEEDED' AND m.state NOT IN ('MOVED', 'UNCHANGED', 'KEPT')",
    )
    .await;
    none(
        "releases that did not succeed although all of their tags did",
        "SELECT count(*) FROM release r
         WHERE r.state IN ('FAILED', 'ERRORED') AND r.failing_reason IS NULL
           AND NOT EXISTS (SELECT FROM tag_move m WHERE m.release_id = r.id
                             AND m.state NOT IN ('MOVED', 'UNCHANGED', 'KEPT'))",
    )
    .await;
    // A release that was only overtaken is no broken one: what it moved elsewhere is right.
    none(
        "tags that were neither put back nor say why",
        "SELECT count(*) FROM release r JOIN tag_move m ON m.release_id = r.id
         WHERE r.state IN ('FAILED', 'CANCELLED', 'ERRORED') AND r.on_failure = 'restore'
           AND m.kind = 'floating' AND m.state = 'MOVED' AND m.message = ''
           AND (r.cancel_requested_at IS NOT NULL OR r.failing_reason IS NOT NULL
                OR EXISTS (SELECT FROM tag_move o WHERE o.release_id = r.id
                             AND o.state IN ('REFUSED', 'FAILED')))",
    )
    .await;
    none(
        "tags put back that were to be kept, or of releases that succeeded",
        "SELECT count(*) FROM release r JOIN tag_move m ON m.release_id = r.id
         WHERE m.state = 'RESTORED' AND (r.on_failure = 'keep' OR r.state = 'SUCCEEDED')",
    )
    .await;
    none(
        "tags whose last entry is not their state",
        "SELECT count(*) FROM tag_move m JOIN publication p ON p.id = m.publication_id
         WHERE m.state IN ('MOVED', 'UNCHANGED', 'RESTORED') AND NOT EXISTS (
            SELECT FROM audit_entry e
            WHERE e.release_id = m.release_id AND e.repository = p.repository AND e.tag = m.tag
              AND e.kind IN ('confirmed', 'recovered', 'unchanged')
              AND (e.purpose = 'restore') = (m.state = 'RESTORED'))",
    )
    .await;
    crate::replay::check(&base.pool).await;
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
