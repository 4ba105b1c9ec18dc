//! Accepts connections, HTTP/1 and HTTP/2 without TLS on one port, within limits, and lets them
//! end in peace when the process stops.

use std::{future::Future, io, sync::Arc, time::Duration};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

use crate::settings::ConnectionLimits;

/// How long to wait when the process has no file descriptor left for another connection.
const BREATH: Duration = Duration::from_millis(100);

/// Serves until `shutdown` completes; then no connection is accepted any more, those that are
/// open finish their calls, and what is left after `limits.grace` is dropped.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: ConnectionLimits,
    shutdown: impl Future<Output = ()> + Send,
) {
    let builder = Arc::new(builder(&limits));
    let places = Arc::new(Semaphore::new(limits.most));
    let graceful = GracefulShutdown::new();
    let mut open = tokio::task::JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let next = async {
            // The place is taken before the connection is accepted: who finds none waits in the
            // kernel's queue and costs nothing. The semaphore is never closed.
            let place = places.clone().acquire_owned().await.ok();
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            () = &mut shutdown => break,
            next = next => next,
            Some(_) = open.join_next() => continue,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                breathe(&error).await;
                continue;
            }
        };
        let (builder, watcher) = (builder.clone(), graceful.watcher());
        let service = TowerToHyperService::new(router.clone());
        open.spawn(async move {
            let _place = place;
            if !speaks(&stream, limits.header_timeout).await {
                return;
            }
            let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
            if let Err(error) = watcher.watch(connection).await {
                // The client went away or does not speak HTTP; no call of ours failed.
                tracing::debug!(error, "connection ended");
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(limits.grace, graceful.shutdown()).await.is_err() {
        tracing::warn!(connections = open.len(), "connections were still open and are dropped");
    }
    open.shutdown().await;
}

fn builder(limits: &ConnectionLimits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.header_timeout);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        // A peer that vanished without a word is noticed, and its place given to another.
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

/// Whether the client says anything at all in time.
async fn speaks(stream: &TcpStream, limit: Duration) -> bool {
    let mut first = [0];
    matches!(tokio::time::timeout(limit, stream.peek(&mut first)).await, Ok(Ok(1..)))
}

/// An error of one connection is nothing; without descriptors, trying again at once would spin.
async fn breathe(error: &io::Error) {
    let of_one_connection = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    );
    if !of_one_connection {
        tracing::error!(%error, "no connection can be accepted");
        tokio::time::sleep(BREATH).await;
    }
}
