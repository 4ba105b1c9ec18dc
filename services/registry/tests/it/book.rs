//! A book of flights in memory: what the database is to real processes. Whoever holds it plays the
//! queue, and says whose lease holds.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use colophon_domain::{
    Boarding, Digest, Failure, Flight, FlightBook, Lease, Reason, Repository, Result, Trail,
};
use futures_util::future::BoxFuture;

type Key = (Repository, Digest);

#[derive(Default)]
pub struct Book {
    rows: Mutex<BTreeMap<Key, (Plain, Option<Trail>)>>,
    live: Mutex<BTreeSet<Plain>>,
    arrived: Mutex<BTreeSet<Key>>,
    /// How often somebody was told to wait.
    pub waits: std::sync::atomic::AtomicUsize,
}

/// A lease in an order.
type Plain = (i64, u128);

fn plain(lease: Lease) -> Plain {
    (lease.job, lease.token.as_u128())
}

/// The lease of the nth attempt at a job.
pub fn lease(job: i64, attempt: u128) -> Lease {
    Lease { job, token: uuid::Uuid::from_u128(attempt) }
}

fn key(flight: &Flight<'_>) -> Key {
    (flight.repository.clone(), flight.digest.clone())
}

impl Book {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// A worker has claimed the job.
    pub fn begins(&self, lease: Lease) -> Lease {
        self.live.lock().unwrap().insert(plain(lease));
        lease
    }

    /// Its lease has run out.
    pub fn dies(&self, lease: Lease) {
        self.live.lock().unwrap().remove(&plain(lease));
    }

    /// What is written of the only blob that there is.
    pub fn trail(&self) -> Option<Trail> {
        self.rows.lock().unwrap().values().next()?.1.clone()
    }

    /// Changes that.
    pub fn garble(&self, change: impl Fn(&mut Trail)) {
        for (_, trail) in self.rows.lock().unwrap().values_mut() {
            change(trail.as_mut().unwrap());
        }
    }

    pub fn rows(&self) -> usize {
        self.rows.lock().unwrap().len()
    }

    fn holds(&self, lease: Lease) -> Result<()> {
        let live = self.live.lock().unwrap().contains(&plain(lease));
        if live { Ok(()) } else { Err(Failure::new(Reason::LeaseLost, "lost")) }
    }
}

impl FlightBook for Book {
    fn board<'a>(&'a self, flight: Flight<'a>) -> BoxFuture<'a, Result<Boarding>> {
        let board = || {
            self.holds(flight.lease)?;
            let own = plain(flight.lease);
            let mut rows = self.rows.lock().unwrap();
            let Some((holder, trail)) = rows.get_mut(&key(&flight)) else {
                rows.insert(key(&flight), (own, None));
                let arrived = self.arrived.lock().unwrap().contains(&key(&flight));
                return Ok(if arrived { Boarding::After(None) } else { Boarding::First });
            };
            if *holder != own && self.live.lock().unwrap().contains(holder) {
                self.waits.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                return Ok(Boarding::Taken);
            }
            *holder = own;
            Ok(Boarding::After(trail.clone()))
        };
        let boarded = board();
        Box::pin(async move { boarded })
    }

    fn mark<'a>(&'a self, flight: Flight<'a>, trail: &'a Trail) -> BoxFuture<'a, Result<()>> {
        let kept = self.holds(flight.lease).and_then(|()| {
            match self.rows.lock().unwrap().get_mut(&key(&flight)) {
                Some((holder, kept)) if *holder == plain(flight.lease) => {
                    *kept = Some(trail.clone());
                    Ok(())
                }
                _ => Err(Failure::new(Reason::LeaseLost, "lost")),
            }
        });
        Box::pin(async move { kept })
    }

    fn land<'a>(&'a self, flight: Flight<'a>, arrived: bool) -> BoxFuture<'a, Result<()>> {
        let own = plain(flight.lease);
        self.rows.lock().unwrap().retain(|at, (holder, _)| *at != key(&flight) || *holder != own);
        if arrived {
            self.arrived.lock().unwrap().insert(key(&flight));
        }
        Box::pin(async { Ok(()) })
    }
}
