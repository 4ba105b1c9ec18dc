//! Accepts connections, HTTP/1 and HTTP/2 without TLS on one port, within limits, and lets them
//! end in peace when the process stops.

use std::{future::Future, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{Extension, Router};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};
use tokio_io_timeout::TimeoutStream;

use crate::{health::Stopping, settings::ConnectionLimits};

/// How long to wait when the process has no file descriptor left for another connection.
const BREATH: Duration = Duration::from_millis(100);

/// What an HTTP/2 connection begins with (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// So many failures in a row mean that the socket will not recover: a minute of them.
const FAILURES_MOST: u32 = 600;

/// Serves within the usual limits until `shutdown` completes; see [`serve_within`].
///
/// # Errors
/// The socket's error, if it has given nothing else for a minute.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    serve_within(ConnectionLimits::default(), listener, router, shutdown).await
}

/// Serves until `shutdown` completes; then no connection is accepted any more, the probes say
/// no, open connections finish their calls, and what is left after `limits.grace` is dropped.
///
/// # Errors
/// The socket's error, if it has given nothing else for a minute.
pub async fn serve_within(
    limits: ConnectionLimits,
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let stopping = Stopping::default();
    let router = router.layer(Extension(stopping.clone()));
    let builder = Arc::new(builder(&limits));
    let places = Arc::new(Semaphore::new(limits.most));
    let graceful = GracefulShutdown::new();
    let (mut open, mut failures) = (JoinSet::new(), 0_u32);
    let mut shutdown = pin!(shutdown);
    let ended = loop {
        let (place, accepted) = tokio::select! {
            () = &mut shutdown => break Ok(()),
            next = next(&places, &listener) => next,
            Some(_) = open.join_next() => continue,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) if failures == FAILURES_MOST => break Err(error),
            Err(error) => {
                failures += u32::from(breathe(&error).await);
                continue;
            }
        };
        failures = 0;
        let (builder, watcher) = (builder.clone(), graceful.watcher());
        let service = TowerToHyperService::new(router.clone());
        let stopping = stopping.0.clone();
        open.spawn(async move {
            let _place = place;
            let opening = tokio::time::timeout(limits.header_timeout, opening(stream));
            let Some(Ok(Ok(stream))) = stopping.run_until_cancelled(opening).await else {
                // It has not said in time which HTTP it speaks; no call of ours was lost.
                return;
            };
            let mut stream = TimeoutStream::new(stream);
            stream.set_write_timeout(Some(limits.write_timeout));
            let stream = Box::pin(stream);
            let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
            if let Err(error) = watcher.watch(connection).await {
                // The client went away or does not speak HTTP; no call of ours failed.
                tracing::debug!(error, "connection ended");
            }
        });
    };
    drop(listener);
    stopping.0.cancel();
    if tokio::time::timeout(limits.grace, graceful.shutdown()).await.is_err() {
        tracing::warn!(connections = open.len(), "connections were still open and are dropped");
    }
    open.shutdown().await;
    ended
}

/// A place and a connection. The place is taken first: who finds none waits in the kernel's
/// queue and costs nothing.
async fn next(
    places: &Arc<Semaphore>,
    listener: &TcpListener,
) -> (Option<OwnedSemaphorePermit>, io::Result<(TcpStream, SocketAddr)>) {
    // The semaphore is never closed, which is the one way in which this could fail.
    let place = places.clone().acquire_owned().await.ok();
    (place, listener.accept().await)
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

/// Reads until the version of HTTP is clear, and gives the stream back with nothing missing.
/// The server tells the versions apart by the same bytes, but would wait for them without end.
///
/// # Errors
/// The stream's error, and its end before the version was clear.
async fn opening(mut stream: TcpStream) -> io::Result<impl AsyncRead + AsyncWrite + Unpin> {
    let mut begin = Vec::with_capacity(PREFACE.len());
    while begin.len() < PREFACE.len() && PREFACE.starts_with(&begin) {
        let missing = PREFACE.len() - begin.len();
        if (&mut stream).take(missing as u64).read_buf(&mut begin).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let (rest, answers) = stream.into_split();
    Ok(tokio::io::join(io::Cursor::new(begin).chain(rest), answers))
}

/// An error of one connection is nothing; without descriptors, trying again at once would spin.
/// Says whether the error is one of the socket.
async fn breathe(error: &io::Error) -> bool {
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
    !of_one_connection
}
