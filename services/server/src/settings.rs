//! The server's limits, with defaults that suit a service behind a load balancer.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

/// The largest request body and the largest gRPC message, in bytes.
pub const MESSAGE_LIMIT_BYTES: usize = 1 << 20;

/// The largest manifest that a client sends, in bytes.
pub(crate) const MANIFEST_LIMIT_BYTES: usize = 4 << 20;

/// The largest body and the largest gRPC message with a manifest in it, as base64 on REST, in bytes.
pub(crate) const LARGE_LIMIT_BYTES: usize = 6 << 20;

/// The limits of calls.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ServerSettings {
    /// How long one call may take, the reading of its body included. A gRPC caller may ask for
    /// less (`grpc-timeout`), never for more.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub call_timeout: Duration,
    /// How long a look at the parts of a [`crate::Probe`] is used again, so that probes without
    /// a token cannot load the database.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub ready_max_age: Duration,
    /// So many calls of one caller are under way at once, until their answers are sent; more are
    /// refused. Streams count as long as they live.
    pub max_calls_per_caller: usize,
    /// So many releases may have been accepted and not have ended; rollbacks are taken all the same.
    /// The server leaves this to the engine.
    pub max_waiting_releases: u32,
    /// The same of each caller.
    pub max_waiting_releases_per_caller: u32,
    /// So many calls of one caller wait for releases at once: streams, and `wait` of a release.
    pub watchers_per_caller: usize,
    /// How often a stream of events that has nothing to say gets a comment, so that nobody on the
    /// way takes it for dead.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub watch_keep_alive: Duration,
    /// How long a stream lives at most: whoever goes on watching calls again and shows its token
    /// again. No setting of the file, so that nobody makes a removed caller's streams endless.
    #[serde(skip)]
    pub watch_life: Duration,
    /// Content of a blob of which nothing comes for so long has broken off.
    #[serde(skip)]
    pub content_pause: Duration,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            call_timeout: Duration::from_mins(1),
            ready_max_age: Duration::from_secs(1),
            max_calls_per_caller: 256,
            max_waiting_releases: 20_000,
            max_waiting_releases_per_caller: 10_000,
            watchers_per_caller: 64,
            watch_keep_alive: Duration::from_secs(15),
            watch_life: Duration::from_mins(15),
            content_pause: Duration::from_secs(30),
        }
    }
}

/// The limits of connections.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ConnectionLimits {
    /// So many connections are open at once; more wait in the kernel's queue.
    pub most: usize,
    /// So many HTTP/2 streams are open at once on one connection.
    pub streams: u32,
    /// A client that has not said which HTTP it speaks, or not sent an HTTP/1 header, by then is
    /// dropped; also one that keeps its connection for a next request. More than the idle time of the load balancer
    /// in front, or that one sends into connections which have just been closed.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub header_timeout: Duration,
    /// A client that takes nothing of its answer for so long is dropped.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub write_timeout: Duration,
    /// Connections that are still open so long after the stop are dropped.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub grace: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            most: 4_096,
            streams: 256,
            header_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_secs(30),
            grace: Duration::from_secs(20),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_with_their_units_and_typing_errors_are_refused() {
        let read = toml::from_str::<ServerSettings>;
        assert_eq!(read("call_timeout = \"5s\"").unwrap().call_timeout, Duration::from_secs(5));
        assert_eq!(read("").unwrap().ready_max_age, Duration::from_secs(1));
        assert!(read("call_timout = \"5s\"").is_err());
        assert_eq!(read("").unwrap().watch_life, Duration::from_mins(15));
        assert!(read("watch_life = \"1h\"").is_err());
        let limits: ConnectionLimits = toml::from_str("most = 7\ngrace = \"2m\"").unwrap();
        assert_eq!((limits.most, limits.grace), (7, Duration::from_mins(2)));
    }
}
