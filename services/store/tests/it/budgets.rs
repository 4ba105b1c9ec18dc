//! The rate budgets of registries: the row does what the domain's arithmetic says, and processes that
//! ask at once never get the same slot.

use std::{sync::Arc, time::Duration};

use colophon_domain::{
    BudgetEvent, HostBudget, RateBudget as _, RegistryHost, SlotAsk, Slots, Urgency, spacing,
};
use colophon_store::Hint;
use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};

use crate::base::Base;

fn host() -> RegistryHost {
    "r.corp.lan:5000".parse().unwrap()
}

fn close(one: Duration, other: Duration) -> bool {
    one.abs_diff(other) < Duration::from_micros(5)
}

#[tokio::test]
async fn reservations_are_what_the_arithmetic_says() {
    let base = Base::new().await;
    let mut rng = SmallRng::seed_from_u64(7);
    let (mut now, mut next_at) = (Duration::ZERO, Duration::ZERO);
    for step in 0..200 {
        let passed = Duration::from_millis(rng.random_range(0..120));
        base.pass(passed).await;
        now += passed;
        let urgency = [Urgency::Bulk, Urgency::Normal, Urgency::Urgent][rng.random_range(0..3)];
        let every = spacing(f64::from(rng.random_range(1..400)));
        let ask = SlotAsk { every, count: rng.random_range(1..20), ahead: urgency.reach() };
        let (expected, next_in) = ask.grant(next_at.saturating_sub(now));
        let found = base.store.reserve(&host(), ask).await.unwrap();
        match (found, expected) {
            (
                Slots::Granted { first_in, count },
                Slots::Granted { first_in: expected, count: expected_count },
            ) => {
                assert!(close(first_in, expected), "{step}: {first_in:?} {expected:?}");
                assert_eq!(count, expected_count, "{step}: {ask:?}");
                next_at = now + next_in;
            }
            (Slots::Later(found), Slots::Later(expected)) => assert!(close(found, expected)),
            other => panic!("{step}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn processes_that_ask_at_once_share_no_slot() {
    let base = Base::new().await;
    let every = Duration::from_millis(10);
    let store = Arc::new(base.store.clone());
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let mut slots = Vec::new();
            for count in 1..=10 {
                let ask = SlotAsk { every, count, ahead: Duration::from_hours(1) };
                match store.reserve(&host(), ask).await.unwrap() {
                    Slots::Granted { first_in, count } => {
                        slots.extend((0..count).map(|number| first_in + every * number));
                    }
                    Slots::Later(wait) => panic!("{wait:?}"),
                }
            }
            slots
        });
    }
    let mut slots = tasks.join_all().await.concat();
    slots.sort_unstable();
    // The clock stands still: each 10 ms has one, and none was lost.
    assert_eq!(slots.len(), 8 * 55);
    for (number, slot) in (0_u32..).zip(&slots) {
        assert!(close(*slot, every * number), "{number}: {slot:?}");
    }
    // A process that dies with what it has reserved costs these slots and nothing else.
    base.pass(Duration::from_secs(5)).await;
    let ask = SlotAsk { every, count: 1, ahead: Duration::ZERO };
    let next = base.store.reserve(&host(), ask).await.unwrap();
    assert_eq!(next, Slots::Granted { first_in: Duration::ZERO, count: 1 });
}

#[tokio::test]
async fn a_clock_that_was_set_back_stops_nobody() {
    let base = Base::new().await;
    let ask =
        SlotAsk { every: Duration::from_millis(100), count: 1, ahead: Urgency::Urgent.reach() };
    base.store.reserve(&host(), ask).await.unwrap();
    sqlx::query("UPDATE registry_budget SET next_at = colophon_now() + interval '1 hour'")
        .execute(&base.pool)
        .await
        .unwrap();
    let free = Slots::Granted { first_in: Duration::ZERO, count: 1 };
    assert_eq!(base.store.reserve(&host(), ask).await.unwrap(), free);
    let next = base.store.reserve(&host(), ask).await.unwrap();
    assert_eq!(next, Slots::Granted { first_in: ask.every, count: 1 });
}

#[tokio::test]
async fn a_pause_and_a_limit_are_everybodys_and_others_are_told() {
    let base = Base::new().await;
    assert_eq!(base.store.look(&host()).await.unwrap(), HostBudget::default());
    let mut hints = base.store.wakeups().await.unwrap();
    let refused = BudgetEvent::Refused {
        pause: Some(Duration::from_millis(2500)),
        accepted: 12.0,
        under: None,
        seen: 0,
    };
    let noted = base.store.note(&host(), &refused).await.unwrap();
    assert_eq!(noted, HostBudget::default().after(&refused));
    assert_eq!(hints.next().await.unwrap(), Hint::Budget(host()));
    assert_eq!(base.store.look(&host()).await.unwrap(), noted);
    base.pass(Duration::from_secs(1)).await;
    let later = base.store.look(&host()).await.unwrap();
    assert_eq!(later, noted.aged(Duration::from_secs(1)));
    let ask =
        SlotAsk { every: Duration::from_millis(100), count: 1, ahead: Duration::from_secs(1) };
    let in_the_pause = base.store.reserve(&host(), ask).await.unwrap();
    assert_eq!(in_the_pause, Slots::Later(Duration::from_millis(500)));
    base.pass(Duration::from_millis(1600)).await;
    let after = base.store.reserve(&host(), ask).await.unwrap();
    assert_eq!(after, Slots::Granted { first_in: Duration::ZERO, count: 1 });
    for event in [
        BudgetEvent::Advised(50.0),
        BudgetEvent::Refused { pause: None, accepted: 0.0, under: None, seen: 0 },
        BudgetEvent::Answered,
        BudgetEvent::Advised(f64::NAN),
        BudgetEvent::Paused(Duration::MAX),
    ] {
        let expected = base.store.look(&host()).await.unwrap().after(&event);
        let noted = base.store.note(&host(), &event).await.unwrap();
        assert_eq!(noted, expected, "{event:?}");
        assert_eq!(base.store.look(&host()).await.unwrap(), expected, "{event:?}");
    }
}

#[tokio::test]
async fn processes_that_are_refused_at_once_are_all_counted() {
    let base = Base::new().await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let store = base.store.clone();
        tasks.spawn(async move {
            let refused = BudgetEvent::Refused {
                pause: Some(Duration::from_secs(1)),
                accepted: 6.0,
                under: None,
                seen: 0,
            };
            store.note(&host(), &refused).await.unwrap();
        });
    }
    tasks.join_all().await;
    let known = base.store.look(&host()).await.unwrap();
    assert_eq!(known.per_second(), Some(36.0));
    assert_eq!(known.paused_for, Duration::from_secs(1));
}
