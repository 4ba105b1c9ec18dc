//! Serves HTTP/1.1 on a free loopback port, plain or with TLS, until it is dropped. A handler may
//! fail, which closes the connection without an answer: that is how faults are made.

use std::{
    error::Error as StdError,
    future::Future,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::body::Body;
use colophon_launcher::Tls;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::TlsAcceptor;

use crate::{
    error::{Result, While as _},
    pki,
};

/// Why a handler gives no answer.
pub(crate) type NoAnswer = Box<dyn StdError + Send + Sync>;

/// A server of our own. Dropping it closes its port and its connections.
pub(crate) struct Server {
    address: SocketAddr,
    scheme: &'static str,
    connections: Arc<Connections>,
    task: JoinHandle<()>,
}

/// How many connections a server has, and had at most.
#[derive(Default)]
pub(crate) struct Connections {
    open: AtomicUsize,
    peak: AtomicUsize,
}

impl Connections {
    /// The most that were open at the same time.
    pub(crate) fn peak(&self) -> usize {
        self.peak.load(Ordering::SeqCst)
    }

    fn opened(self: &Arc<Self>) -> Open {
        let open = self.open.fetch_add(1, Ordering::SeqCst) + 1;
        self.peak.fetch_max(open, Ordering::SeqCst);
        Open(Arc::clone(self))
    }
}

/// One open connection; dropping it counts it as closed.
struct Open(Arc<Connections>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Server {
    /// Serves every request with `handle`.
    pub(crate) async fn start<H, F>(tls: Option<&Tls>, handle: H) -> Result<Self>
    where
        H: Fn(http::Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = std::result::Result<http::Response<Body>, NoAnswer>> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.doing("listening")?;
        let address = listener.local_addr().doing("listening")?;
        let acceptor = tls.map(pki::server_config).transpose()?.map(TlsAcceptor::from);
        let scheme = if acceptor.is_some() { "https" } else { "http" };
        let connections = Arc::new(Connections::default());
        let task = tokio::spawn(accept(listener, acceptor, Arc::clone(&connections), handle));
        Ok(Self { address, scheme, connections, task })
    }

    /// Its connections, counted.
    pub(crate) fn connections(&self) -> &Connections {
        &self.connections
    }

    /// `127.0.0.1:port`.
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    /// The URL, without a slash at its end.
    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept<H, F>(
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    counted: Arc<Connections>,
    handle: H,
) where
    H: Fn(http::Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = std::result::Result<http::Response<Body>, NoAnswer>> + Send + 'static,
{
    // The connections end with the task, since dropping the set aborts them.
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) if transient(&error) => continue,
                Err(_) => return,
            },
            Some(_) = connections.join_next() => continue,
        };
        let _best_effort = stream.set_nodelay(true);
        let (handle, acceptor, open) = (handle.clone(), acceptor.clone(), counted.opened());
        connections.spawn(async move {
            let _open = open;
            match acceptor {
                None => connection(stream, handle).await,
                // A client that refuses our certificate is part of many a test.
                Some(acceptor) => {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        connection(stream, handle).await;
                    }
                }
            }
        });
    }
}

async fn connection<S, H, F>(stream: S, handle: H)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(http::Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = std::result::Result<http::Response<Body>, NoAnswer>> + Send + 'static,
{
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service_fn(handle));
    // Clients go away, and faults close connections; neither is this server's failure.
    let _closed = served.await;
}

fn transient(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, WouldBlock};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | WouldBlock)
}
