//! The simulation by seeds: 20,000 steps and more, and the same steps from the same seed.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, RandomState},
    io::Write as _,
    sync::Mutex,
};

use colophon_domain::TagRules;

use crate::{
    base::Base,
    keeping::keeping_rules,
    world::{APP, BUILD, COPY, World},
};

/// Seeds that always run.
const SEEDS: u64 = 8;
/// Steps of each.
const STEPS: usize = 2_600;
/// Seeds beyond the fixed ones, of which each run takes one.
const FRESH: u64 = 1_000_000_000;
/// Simulations at the same time; each waits for its database most of the time.
const AT_ONCE: usize = 4;
/// Steps that are taken twice.
const TWICE: usize = 400;

/// What must have happened for the simulation to have tried anything.
const SEEN: &[&str] = &[
    "confirmed publish",
    "confirmed restore",
    "confirmed rollback",
    "recovered publish",
    "not_applied publish",
    "conflict publish",
    "unchanged publish",
    "confirmed retention",
    "intent prune",
    "recovered restore",
    "recovered rollback",
    "recovered retention",
    "RESTORED RESTORED",
    "REFUSED ORDER_REGRESSION",
    "REFUSED ORDER_KEY_MISMATCH",
    "REFUSED TAG_MOVED",
    "REFUSED PLAN_CHANGED",
    "REFUSED TAG_IMMUTABLE",
    "SUPERSEDED SUPERSEDED",
    "KEPT NOT_HIGHEST",
    "KEPT PRE_RELEASE",
    "FAILED TAG_MOVED",
    "FAILED TAG_IMMUTABLE",
    "NOT_ATTEMPTED CANCELLED",
    "hidden",
    "drift observation",
    "deleted observation",
    "arrives",
    "crash",
    "settle",
    "freeze",
    "plan",
    "again",
    "retried",
];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Under every second seed what floating tags leave is kept; under every eighth the registries
/// delete no tags.
async fn of_seed(seed: u64) -> World {
    let keeps = seed.is_multiple_of(2);
    let rules = if keeps { keeping_rules() } else { TagRules::default() };
    let world = World::ruled(seed, rules).await;
    for place in [APP, COPY, BUILD] {
        world.registry.within(place, |content| content.deletes = !seed.is_multiple_of(8));
    }
    world
}

/// What a fresh seed happens to see does not count as seen.
fn fixed(seed: u64) -> bool {
    seed <= SEEDS || number("COLOPHON_SIM_SEEDS").is_some() || number("COLOPHON_SIM_SEED").is_some()
}

/// Takes so many steps by chance and then lets everything come to its end.
async fn simulate(seed: u64, steps: usize) -> World {
    let mut world = of_seed(seed).await;
    for _ in 0..steps {
        world.step().await;
    }
    world.settle_all().await;
    world.check_ends().await;
    world.observe_all().await;
    world.check_ends().await;
    world.check_observed();
    world
}

fn blocking<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(work)
}

/// Says it where it is seen also if the test passes: what is printed is caught by the harness, what
/// is written is not.
fn tell(text: &str) {
    let mut out = std::io::stderr().lock();
    writeln!(out, "simulation: {text}").unwrap();
}

/// A seed that nobody has tried.
fn fresh_seed() -> u64 {
    // The keys of a new hash map are the standard library's only source of chance.
    let state = RandomState::new();
    state.hash_one("seed") % FRESH + SEEDS + 1
}

/// Tries each seed, several at a time, and counts what happened in all of them.
fn try_all(seeds: &[u64], steps: usize) -> BTreeMap<String, usize> {
    let next = Mutex::new(seeds.iter().copied());
    let totals = Mutex::new(BTreeMap::<String, usize>::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let seed = next.lock().unwrap().next();
                    let Some(seed) = seed else { return };
                    let world = blocking(simulate(seed, steps));
                    let mut totals = totals.lock().unwrap();
                    if fixed(seed) {
                        for (name, count) in world.counts.iter().chain(&world.model.kinds) {
                            *totals.entry(name.clone()).or_default() += count;
                        }
                    }
                }
            });
        }
    });
    totals.into_inner().unwrap()
}

#[test]
fn whatever_happens_the_tags_and_the_ledger_agree() {
    let only = number("COLOPHON_SIM_SEED");
    let steps = number("COLOPHON_SIM_STEPS").map_or(STEPS, |steps| steps.try_into().unwrap());
    let seeds: Vec<u64> = match (only, number("COLOPHON_SIM_SEEDS")) {
        (Some(seed), _) => vec![seed],
        (None, Some(most)) => (1..=most).collect(),
        // One that is new each time may find what the others never will.
        (None, None) => (1..=SEEDS).chain([fresh_seed()]).collect(),
    };
    tell(&format!("seeds {seeds:?}, {steps} steps each"));
    // The cluster lives as long as somebody uses it.
    let held = blocking(Base::new());
    let begun = std::time::Instant::now();
    let totals = try_all(&seeds, steps);
    drop(held);
    let (all, time) = (steps * seeds.len(), begun.elapsed().as_secs_f64());
    tell(&format!("{all} steps in {time:.1} s; {totals:?}"));
    if only.is_none() && steps >= STEPS {
        for kind in SEEN {
            assert!(totals.contains_key(*kind), "there was no {kind}: what was tried?");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_steps() {
    let seed = number("COLOPHON_SIM_SEED").unwrap_or(77);
    let trace = || {
        let world = blocking(simulate(seed, TWICE));
        world.trace.clone()
    };
    let held = blocking(Base::new());
    let (first, second) = (trace(), trace());
    drop(held);
    for (number, (one, other)) in first.iter().zip(&second).enumerate() {
        assert_eq!(one, other, "line {number}");
    }
    assert_eq!(first.len(), second.len());
}
