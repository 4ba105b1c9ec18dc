//! The client against scripted fakes, which show what each row of the table of known registry
//! behaviours is about, and against real registries where those show it.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "the helpers of a test may panic like the test itself"
)]

mod along;
mod authorization;
mod book;
mod budgets;
mod chaos;
mod chunks;
mod copying;
mod costs;
mod deleting;
mod fake;
mod gathering;
mod graph;
mod graphs;
mod known;
mod locations;
mod measuring;
mod mounts;
mod pauses;
mod personalities;
mod personality_along;
mod personality_refusals;
mod personality_tokens;
mod platforms;
mod puts;
mod reading;
mod real;
mod receiving;
mod resuming;
mod stage;
mod support;
mod tags;
mod tls;
mod transfers;
