//! Places for requests at the same time. Whose turn it is among those who wait for the next one that
//! is free, `line.rs` says. How many there are may change while they are taken.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use colophon_domain::Urgency;
use tokio::{sync::oneshot, time::Instant};

use crate::line::Line;

/// A number of places.
pub(crate) struct Places(Mutex<State>);

struct State {
    /// Below zero while more are taken than there should be.
    free: isize,
    size: usize,
    waiting: Line<oneshot::Sender<Place>>,
}

/// One of the places, given back when dropped.
pub(crate) struct Place(Option<Arc<Places>>);

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").finish_non_exhaustive()
    }
}

impl Places {
    pub(crate) fn new(size: usize) -> Arc<Self> {
        let free = size.cast_signed();
        Arc::new(Self(Mutex::new(State { free, size, waiting: Line::default() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place. Who stops waiting leaves nothing behind.
    pub(crate) async fn take(self: &Arc<Self>, urgency: Urgency) -> Place {
        let begun = Instant::now();
        loop {
            let place = {
                let mut state = self.state();
                if state.free > 0 {
                    state.free -= 1;
                    return Place(Some(Arc::clone(self)));
                }
                let (sender, place) = oneshot::channel();
                state.waiting.join(urgency, begun, sender);
                place
            };
            // The other end is only dropped with a place in it.
            if let Ok(place) = place.await {
                return place;
            }
        }
    }

    /// A place if one is free.
    pub(crate) fn try_take(self: &Arc<Self>) -> Option<Place> {
        let mut state = self.state();
        (state.free > 0).then(|| {
            state.free -= 1;
            Place(Some(Arc::clone(self)))
        })
    }

    /// Makes them more or fewer; fewer as those that are taken come back.
    pub(crate) fn resize(self: &Arc<Self>, size: usize) {
        let more = {
            let mut state = self.state();
            let change = size.cast_signed() - state.size.cast_signed();
            state.size = size;
            // Those that are new come back one by one, to whoever waits.
            state.free += change.min(0);
            change.max(0)
        };
        for _ in 0..more {
            self.give_back();
        }
    }

    fn give_back(self: &Arc<Self>) {
        loop {
            let next = {
                let mut state = self.state();
                state.waiting.grow_urgent();
                let next = if state.free < 0 { None } else { state.waiting.next() };
                if next.is_none() {
                    state.free += 1;
                }
                next
            };
            let Some(sender) = next else { return };
            match sender.send(Place(Some(Arc::clone(self)))) {
                Ok(()) => return,
                // Nobody waits there any more; it is not given back twice.
                Err(mut place) => drop(place.0.take()),
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(places) = self.0.take() {
            places.give_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn the_most_urgent_comes_first_and_who_left_is_passed_over() {
        let places = Places::new(1);
        let held = places.take(Urgency::Bulk).await;
        assert!(places.try_take().is_none());
        let mut first = Box::pin(places.take(Urgency::Bulk));
        let mut second = Box::pin(places.take(Urgency::Bulk));
        let mut left = Box::pin(places.take(Urgency::Urgent));
        let mut urgent = Box::pin(places.take(Urgency::Urgent));
        for waiting in [&mut first, &mut second, &mut left, &mut urgent] {
            assert!(waiting.now_or_never().is_none());
        }
        drop(left);
        drop(held);
        assert!((&mut first).now_or_never().is_none());
        let place = urgent.now_or_never().unwrap();
        drop(place);
        assert!((&mut second).now_or_never().is_none());
        let place = first.now_or_never().unwrap();
        // Given to somebody who leaves without having looked.
        drop(place);
        drop(second);
        assert!(places.take(Urgency::Bulk).now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_gets_a_place_however_many_are_more_urgent() {
        let places = Places::new(1);
        let held = places.take(Urgency::Urgent).await;
        let mut bulk = Box::pin(places.take(Urgency::Bulk));
        assert!((&mut bulk).now_or_never().is_none());
        let urgent = Arc::clone(&places);
        let flood = tokio::spawn(async move {
            let each = || async {
                for _ in 0..200 {
                    let _place = urgent.take(Urgency::Urgent).await;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            };
            tokio::join!(each(), each())
        });
        tokio::task::yield_now().await;
        drop(held);
        let begun = Instant::now();
        drop(bulk.await);
        let waited = begun.elapsed();
        assert!(waited >= Duration::from_secs(20), "what is urgent comes first: {waited:?}");
        assert!(waited <= Duration::from_mins(1), "{waited:?}");
        flood.await.unwrap();
    }

    #[tokio::test]
    async fn they_become_more_for_those_who_wait_and_fewer_as_they_come_back() {
        let places = Places::new(2);
        let held = [places.take(Urgency::Normal).await, places.take(Urgency::Normal).await];
        let mut waits = Box::pin(places.take(Urgency::Normal));
        assert!((&mut waits).now_or_never().is_none());
        places.resize(3);
        let third = waits.now_or_never().unwrap();
        places.resize(1);
        drop(third);
        drop(held);
        let one = places.try_take();
        assert!(one.is_some() && places.try_take().is_none());
    }

    #[tokio::test]
    async fn no_place_is_lost_among_many_who_come_and_go() {
        let places = Places::new(3);
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..200_u64 {
            let places = Arc::clone(&places);
            tasks.spawn(async move {
                let patience = Duration::from_micros(number * 37 % 900);
                let urgency = if number % 3 == 0 { Urgency::Urgent } else { Urgency::Bulk };
                if let Ok(place) = tokio::time::timeout(patience, places.take(urgency)).await {
                    tokio::time::sleep(Duration::from_micros(50)).await;
                    drop(place);
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        let all: Vec<_> = std::iter::from_fn(|| places.try_take()).collect();
        assert_eq!(all.len(), 3);
    }
}
