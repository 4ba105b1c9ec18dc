//! Puts the floors together and runs them until the process is told to stop.

use std::{
    net::{SocketAddr, TcpListener as StdListener},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use colophon_domain::{Clock, Reason, SystemClock, SystemEntropy};
use colophon_engine::{Engine, Worker};
use colophon_launcher::write_private;
use colophon_registry::Registries;
use colophon_server::{ConnectionLimits, Probe, Router, ServerSettings};
use colophon_store::Store;
use secrecy::ExposeSecret;
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    live::{Fresh, Live},
    releases::Service,
    reload::Reload,
    say,
    telemetry::{Gauges, Telemetry},
};

/// How often a database that is away at the start is tried.
const DATABASE_PAUSE: Duration = Duration::from_secs(1);

/// Everything that a process is made of.
pub(crate) struct Parts {
    store: Store,
    live: Live,
    listen: SocketAddr,
    address_file: Option<PathBuf>,
    health_listen: Option<SocketAddr>,
    health_address_file: Option<PathBuf>,
    limits: ServerSettings,
    connections: ConnectionLimits,
    watch_interval: Option<Duration>,
    source: String,
}

impl Parts {
    /// Builds everything from the configuration; nothing is connected yet.
    pub(crate) fn build(mut config: Config) -> Result<Self> {
        let store = Store::connect(
            config.database.address()?.expose_secret(),
            config.database.max_connections,
            Arc::new(SystemEntropy),
        )?;
        let budget = Arc::new(store.clone());
        let join = |configs, credentials| Registries::sharing(configs, credentials, budget);
        let fresh = Fresh::build(&mut config, join)?;
        let limits = config.queue_limits();
        let health_listen = config.worker.health_listen;
        let health_address_file = config.worker.health_address_file.clone();
        let engine = Engine::new(
            store.clone(),
            // What is replaced at a reload keeps both.
            fresh
                .registries
                .with_places(Arc::new(store.clone()))
                .with_flights(Arc::new(store.clone())),
            (Arc::new(SystemClock), Arc::new(SystemEntropy)),
            fresh.rules,
            config.worker,
        )
        .limited(limits, config.retention)
        .with_uploads(config.upload);
        Ok(Self {
            store,
            live: Live::new(engine, fresh.callers, fresh.vault),
            health_listen,
            health_address_file,
            listen: config.server.listen,
            address_file: config.server.address_file,
            limits: config.server.limits,
            connections: config.server.connections,
            watch_interval: config.reload.watch_interval,
            source: config.source,
        })
    }

    /// Asks the database and Vault how they are, and prints it.
    pub(crate) async fn look(&self) -> Result<()> {
        let mut away = 0;
        for part in self.live.parts() {
            match part.look.await {
                Ok(()) => say(format_args!("{}: ok", part.name))?,
                Err(failure) => {
                    say(format_args!("{}: {failure}", part.name))?;
                    away += 1;
                }
            }
        }
        if away > 0 {
            bail!("not everything is as it should be");
        }
        Ok(())
    }

    /// The use cases, for commands that end by themselves.
    pub(crate) fn engine(&self) -> &Engine {
        &self.live.engine
    }

    /// Brings the schema up to date.
    pub(crate) async fn migrate(&self) -> Result<()> {
        self.store.migrate().await?;
        tracing::info!("the schema is up to date");
        Ok(())
    }

    /// Runs the API, the worker, or both, until told to stop. On SIGHUP the file at `path` is read
    /// again.
    pub(crate) async fn run(
        self,
        path: &Path,
        serve: bool,
        work: bool,
        telemetry: &Telemetry,
        mut stop: StopSignal,
    ) -> Result<()> {
        let mut serving = Serving::default();
        let (path, text) = (path.to_owned(), self.source.clone());
        let reload = Reload::new(path, self.live.clone(), self.watch_interval, text)?;
        tokio::spawn(reload.run(serving.stopping.clone()));
        self.show_metrics(serve, telemetry, &mut serving).await?;
        let ended = tokio::select! {
            ended = self.go_on(serve, work, &mut serving) => ended,
            () = stop.arrives() => Ok(()),
        };
        tracing::info!("stopping");
        serving.stop().await;
        self.store.close().await;
        tracing::info!("stopped");
        ended
    }

    /// Runs until a part ends, which none should.
    async fn go_on(&self, serve: bool, work: bool, serving: &mut Serving) -> Result<()> {
        if work && let Some(listen) = self.health_listen {
            let file = self.health_address_file.as_deref();
            let listener = bind("worker.health_listen", listen, file).await?;
            tracing::info!(address = %listener.local_addr()?, "answering probes");
            let router = self.probes(colophon_server::probes, serving);
            // Until the last job has ended.
            serving.probes(listener, router, serving.worked.clone());
        }
        let api = if serve { Some(bind("server.listen", self.listen, None).await?) } else { None };
        tokio::select! {
            migrated = self.migrate_at_last() => migrated?,
            ended = self.answer_meanwhile(api.as_ref(), serving) => ended?,
        }
        if let Some(hold) = self.live.engine.look_for_restore().await? {
            tracing::warn!(by = hold.by, reason = hold.reason, "the service is on hold");
        }
        if let Some(listener) = api {
            self.serve_api(listener, serving)?;
        }
        if !work {
            // Workers hear of the others by themselves, and end uploads that nothing comes for.
            let (engine, token) = (self.live.engine.clone(), serving.stopping.clone());
            serving.tasks.spawn(async move {
                tokio::join!(engine.listen(token.clone()), engine.run_upload_janitor(token));
                Ok(())
            });
        }
        if work {
            let worker = Worker::new(self.live.engine.clone(), worker_name());
            let token = serving.stopping.clone();
            tracing::info!("working on the queue");
            serving.tasks.spawn(async move {
                worker.run(token).await;
                Ok(())
            });
        }
        match serving.tasks.join_next().await {
            Some(ended) => ended.context("a part broke down")?,
            None => Ok(()),
        }
    }

    /// Shows metrics to whoever scrapes, and keeps the gauges fresh for the collector. The queue is
    /// everybody's: those who serve say how it stands, and workers what they do.
    async fn show_metrics(
        &self,
        serve: bool,
        telemetry: &Telemetry,
        serving: &mut Serving,
    ) -> Result<()> {
        let gauges = (serve && telemetry.measures()).then(|| Gauges::new(self.store.clone()));
        if let Some((listen, router)) = telemetry.page(gauges.clone()) {
            let listener = bind("telemetry.prometheus_listen", listen, None).await?;
            tracing::info!(address = %listener.local_addr()?, "serving metrics");
            serving.probes(listener, router, serving.worked.clone());
        }
        if let (Some(rhythm), Some(gauges)) = (telemetry.rhythm(), gauges) {
            serving.tasks.spawn(gauges.keep_fresh(rhythm, serving.stopping.clone()));
        }
        Ok(())
    }

    /// Brings the schema up to date as soon as the database is there.
    async fn migrate_at_last(&self) -> Result<()> {
        let mut said = false;
        loop {
            let failure = match self.store.migrate().await {
                Ok(()) => return Ok(()),
                Err(failure) if failure.reason() != Reason::DatabaseUnavailable => {
                    return Err(failure.into());
                }
                Err(failure) => failure,
            };
            if !said {
                tracing::warn!(%failure, "waiting for the database");
                said = true;
            }
            tokio::time::sleep(DATABASE_PAUSE).await;
        }
    }

    /// Answers only probes at the address of the API, until this is dropped: a migration may take
    /// longer than those who probe are patient.
    async fn answer_meanwhile(&self, api: Option<&StdListener>, serving: &Serving) -> Result<()> {
        let Some(api) = api else { return std::future::pending().await };
        let router = self.probes(colophon_server::starting, serving);
        answer_probes(api.try_clone()?, router, CancellationToken::new()).await
    }

    /// gRPC and REST, and the hints to other processes that there is work.
    fn serve_api(&self, listener: StdListener, serving: &mut Serving) -> Result<()> {
        let service = Arc::new(Service(self.live.clone()));
        let router = colophon_server::router(
            service.clone(),
            service,
            self.live.callers.clone(),
            Arc::new(SystemClock),
            self.limits,
        );
        let address = listener.local_addr()?;
        tracing::info!(%address, "serving gRPC and REST");
        let listener = TcpListener::from_std(listener)?;
        let (token, limits) = (serving.stopping.clone(), self.connections);
        serving.tasks.spawn(async move {
            let until = async move { token.cancelled().await };
            colophon_server::serve_within(limits, listener, router, until)
                .await
                .context("the server ended")
        });
        let (engine, token) = (self.live.engine.clone(), serving.stopping.clone());
        serving.tasks.spawn(async move {
            engine.announce(token).await;
            Ok(())
        });
        if let Some(file) = &self.address_file {
            write_address(file, address)?;
        }
        Ok(())
    }

    /// A router of probes.
    fn probes(&self, router: ProbeRouter, serving: &Serving) -> Router {
        let clock = Arc::new(SystemClock);
        let max_age = self.limits.ready_max_age;
        router(Arc::new(self.live.clone()), clock, max_age, serving.stopping.clone())
    }
}

type ProbeRouter = fn(Arc<dyn Probe>, Arc<dyn Clock>, Duration, CancellationToken) -> Router;

/// What goes on in the process.
#[derive(Default)]
struct Serving {
    /// The API and the worker, until the stop.
    tasks: JoinSet<Result<()>>,
    /// The probes, which are answered for longer.
    probes: JoinSet<Result<()>>,
    stopping: CancellationToken,
    worked: CancellationToken,
}

impl Serving {
    /// Answers probes until a token says so.
    fn probes(&mut self, listener: StdListener, router: Router, until: CancellationToken) {
        self.probes.spawn(answer_probes(listener, router, until));
    }

    /// Lets calls and jobs end, then the probes.
    async fn stop(&mut self) {
        self.stopping.cancel();
        while self.tasks.join_next().await.is_some() {}
        self.worked.cancel();
        while self.probes.join_next().await.is_some() {}
    }
}

async fn answer_probes(
    listener: StdListener,
    router: Router,
    until: CancellationToken,
) -> Result<()> {
    // Nobody's work depends on a probe: none holds up the end.
    let limits = ConnectionLimits { grace: Duration::ZERO, ..ConnectionLimits::default() };
    let listener = TcpListener::from_std(listener)?;
    let until = async move { until.cancelled().await };
    Ok(colophon_server::serve_within(limits, listener, router, until).await?)
}

/// Binds an address of the configuration, and writes down which one it has become.
async fn bind(key: &str, listen: SocketAddr, file: Option<&Path>) -> Result<StdListener> {
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("{key} {listen} cannot be bound"))?
        .into_std()?;
    if let Some(file) = file {
        write_address(file, listener.local_addr()?)?;
    }
    Ok(listener)
}

/// The signals that end the process in order, SIGTERM and SIGINT. They are caught from the first of
/// these on, so a process has only one: what arrives while nobody waits is not lost.
pub(crate) struct StopSignal {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignal {
    pub(crate) fn new() -> Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        Ok(Self { terminate, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for one.
    pub(crate) async fn arrives(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Who tried, in the list of attempts: the host and the process.
pub(crate) fn worker_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    format!("{}/{}", if host.is_empty() { "worker" } else { host }, std::process::id())
}

fn write_address(file: &Path, address: SocketAddr) -> Result<()> {
    write_private(file, &address.to_string())
        .with_context(|| format!("the address file {} cannot be written", file.display()))
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal, getpid, kill_process};

    use super::*;

    #[tokio::test]
    async fn a_signal_that_arrives_while_nobody_waits_is_not_lost() {
        let mut stop = StopSignal::new().unwrap();
        for signal in [Signal::TERM, Signal::INT] {
            tokio::select! {
                biased;
                () = stop.arrives() => panic!("nobody has sent one"),
                () = std::future::ready(()) => {}
            }
            kill_process(getpid(), signal).unwrap();
            tokio::time::timeout(Duration::from_mins(1), stop.arrives()).await.unwrap();
        }
    }
}
