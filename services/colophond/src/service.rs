//! Puts the floors together and runs them until the process is told to stop.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context, Result};
use colophon_domain::{
    Access, Credential, CredentialSource, Repository, SystemClock, SystemEntropy, TagRules,
};
use colophon_engine::{Engine, Worker};
use colophon_registry::Registries;
use colophon_server::{Callers, ConnectionLimits, ServerSettings};
use colophon_store::Store;
use colophon_vault::Vault;
use secrecy::ExposeSecret;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{config::Config, releases::Service};

/// Everything that a process is made of.
pub(crate) struct Parts {
    store: Store,
    engine: Engine,
    callers: Callers,
    listen: std::net::SocketAddr,
    address_file: Option<PathBuf>,
    limits: ServerSettings,
    connections: ConnectionLimits,
}

impl Parts {
    /// Builds everything from the configuration; nothing is connected yet.
    pub(crate) fn build(mut config: Config) -> Result<Self> {
        let store = Store::connect(
            config.database.address()?.expose_secret(),
            config.database.max_connections,
            Arc::new(SystemEntropy),
        )?;
        let (registries, rules) = config.take_registries()?;
        let credentials: Arc<dyn CredentialSource> = match config.vault {
            Some(vault) => Vault::new(vault, rules)?,
            None if rules.values().any(|rules| !rules.is_empty()) => {
                anyhow::bail!(
                    "a registry has credentials, and there is no [vault] to read them from"
                )
            }
            None => Arc::new(Anonymous),
        };
        let registries = Registries::new(registries, credentials)?;
        let engine = Engine::new(
            store.clone(),
            registries,
            (Arc::new(SystemClock), Arc::new(SystemEntropy)),
            TagRules::new(config.repositories)?,
            config.worker,
        );
        Ok(Self {
            store,
            engine,
            callers: Callers::new(config.callers)?,
            listen: config.server.listen,
            address_file: config.server.address_file,
            limits: config.server.limits,
            connections: config.server.connections,
        })
    }

    /// Brings the schema up to date.
    pub(crate) async fn migrate(self) -> Result<()> {
        self.store.migrate().await?;
        tracing::info!("the schema is up to date");
        Ok(())
    }

    /// Runs the API, the worker, or both, until SIGTERM or SIGINT.
    pub(crate) async fn run(self, serve: bool, work: bool) -> Result<()> {
        self.store.migrate().await?;
        let shutdown = CancellationToken::new();
        let mut tasks = JoinSet::new();
        if serve {
            let listener = TcpListener::bind(self.listen)
                .await
                .with_context(|| format!("server.listen {} cannot be bound", self.listen))?;
            let address = listener.local_addr()?;
            if let Some(file) = &self.address_file {
                write_whole(file, &address.to_string())?;
            }
            let router = colophon_server::router(
                Arc::new(Service(self.engine.clone())),
                self.callers,
                Arc::new(SystemClock),
                self.limits,
            );
            tracing::info!(%address, "serving gRPC and REST");
            let (token, limits) = (shutdown.clone(), self.connections);
            tasks.spawn(async move {
                let until = async move { token.cancelled().await };
                colophon_server::serve_within(limits, listener, router, until)
                    .await
                    .context("the server ended")
            });
            let (engine, token) = (self.engine.clone(), shutdown.clone());
            tasks.spawn(async move {
                engine.announce(token).await;
                Ok(())
            });
        }
        if work {
            let worker = Worker::new(self.engine.clone(), worker_name());
            let token = shutdown.clone();
            tracing::info!("working on the queue");
            tasks.spawn(async move {
                worker.run(token).await;
                Ok(())
            });
        }
        let ended = tokio::select! {
            ended = tasks.join_next() => ended.map(|ended| ended.context("a part broke down")?),
            signal = stop_signal() => signal.map(|()| None)?,
        };
        tracing::info!("stopping");
        shutdown.cancel();
        while tasks.join_next().await.is_some() {}
        self.store.close().await;
        ended.transpose().map(|_| ())
    }
}

/// Waits for SIGTERM or SIGINT.
pub(crate) async fn stop_signal() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        result = tokio::signal::ctrl_c() => Ok(result?),
    }
}

/// Who tried, in the list of attempts: the host and the process.
fn worker_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    format!("{}/{}", if host.is_empty() { "worker" } else { host }, std::process::id())
}

/// Writes a file so that a reader sees all of it or nothing.
fn write_whole(path: &std::path::Path, text: &str) -> Result<()> {
    let draft = path.with_extension("draft");
    std::fs::write(&draft, text)
        .and_then(|()| std::fs::rename(&draft, path))
        .with_context(|| format!("server.address_file {} cannot be written", path.display()))
}

/// Where no Vault is configured every registry is anonymous.
struct Anonymous;

impl CredentialSource for Anonymous {
    fn credential<'a>(
        &'a self,
        _repository: &'a Repository,
        _access: Access,
        _refused: Option<u64>,
    ) -> futures_util::future::BoxFuture<'a, colophon_domain::Result<Option<Credential>>> {
        Box::pin(async { Ok(None) })
    }
}
