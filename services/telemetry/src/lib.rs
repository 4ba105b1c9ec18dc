//! The trace that a call, a release and a job belong to, in the form of W3C Trace Context, and the
//! meter of all floors. Whether anything is exported is decided by whoever starts the process;
//! without that, everything here does nothing.
//!
//! A trace context is taken from callers and from our own tables, never sent to a registry: those
//! are foreign parties, and have no business with who called us.

mod context;
mod meter;

pub use context::{adopt, adopt_caller, current, ended, failed};
pub use meter::{BYTES, SECONDS, meter};
pub use opentelemetry::{
    KeyValue,
    metrics::{Counter, Histogram, Meter},
};
