//! The server's limits, with defaults that suit a service behind a load balancer.

use std::{sync::Arc, time::Duration};

use colophon_domain::{Entropy, SystemEntropy};
use tokio_util::sync::CancellationToken;

/// The largest request body and the largest gRPC message, in bytes.
pub const MESSAGE_LIMIT_BYTES: usize = 1 << 20;

/// The limits of one server.
#[derive(Clone)]
pub struct ServerSettings {
    /// How long one call may take, the reading of its body included. A gRPC caller may ask for
    /// less (`grpc-timeout`), never for more.
    pub call_timeout: Duration,
    /// How long an answer of [`crate::Releases::ready`] is used again, so that probes without
    /// a token cannot load the database.
    pub ready_max_age: Duration,
    /// Where request ids come from.
    pub entropy: Arc<dyn Entropy>,
    /// Cancelled when the process begins to stop: the probes say so from then on, and streams
    /// of `grpc.health.v1` end, so that they do not hold up [`crate::serve`].
    pub stopping: CancellationToken,
    /// The limits on connections.
    pub connections: ConnectionLimits,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            call_timeout: Duration::from_mins(1),
            ready_max_age: Duration::from_secs(1),
            entropy: Arc::new(SystemEntropy),
            stopping: CancellationToken::new(),
            connections: ConnectionLimits::default(),
        }
    }
}

/// The limits on connections, for [`crate::serve`].
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// So many connections are open at once; more wait in the kernel's queue.
    pub most: usize,
    /// So many HTTP/2 streams are open at once on one connection.
    pub streams: u32,
    /// A client that has not sent its first byte or an HTTP/1 header by then is dropped.
    pub header_timeout: Duration,
    /// Connections that are still open so long after the stop are dropped.
    pub grace: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            most: 4_096,
            streams: 256,
            header_timeout: Duration::from_secs(30),
            grace: Duration::from_secs(20),
        }
    }
}
