//! The simulation by seeds: 20,000 steps and more, and the same steps from the same seed.

use std::collections::BTreeMap;

use crate::{base::Base, world::World};

/// Seeds that always run.
const SEEDS: u64 = 8;
/// Steps of each.
const STEPS: usize = 2_600;
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
    "drift observation",
    "deleted observation",
    "arrives",
    "crash",
    "settle",
    "freeze",
    "plan",
    "again",
];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Takes so many steps by chance and then lets everything come to its end.
async fn simulate(seed: u64, steps: usize) -> World {
    let mut world = World::new(seed).await;
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

#[test]
fn whatever_happens_the_tags_and_the_ledger_agree() {
    let base = number("COLOPHON_SIM_SEED");
    let steps = number("COLOPHON_SIM_STEPS").map_or(STEPS, |steps| steps.try_into().unwrap());
    let seeds: Vec<u64> = match base {
        Some(seed) => vec![seed],
        None => (1..=number("COLOPHON_SIM_SEEDS").unwrap_or(SEEDS)).collect(),
    };
    println!("seeds {seeds:?}, {steps} steps each");
    // The cluster lives as long as somebody uses it.
    let held = blocking(Base::new());
    let begun = std::time::Instant::now();
    let next = std::sync::Mutex::new(seeds.iter().copied());
    let totals = std::sync::Mutex::new(BTreeMap::<String, usize>::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let seed = next.lock().unwrap().next();
                    let Some(seed) = seed else { return };
                    let world = blocking(simulate(seed, steps));
                    let mut totals = totals.lock().unwrap();
                    for (name, count) in world.counts.iter().chain(&world.model.kinds) {
                        *totals.entry(name.clone()).or_default() += count;
                    }
                }
            });
        }
    });
    drop(held);
    let (all, time) = (steps * seeds.len(), begun.elapsed().as_secs_f64());
    let totals = totals.into_inner().unwrap();
    println!("{all} steps in {time:.1} s; {totals:?}");
    if base.is_none() && steps >= STEPS {
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
