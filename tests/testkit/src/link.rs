//! A network link to PostgreSQL that a test can break: a loopback port whose connections lead to
//! the cluster's socket. Stalled, it carries nothing while connections stay open; with answers
//! held, the server still obeys (a COMMIT happens whose answer never comes); severed, all
//! connections close.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use colophon_launcher::Postgres;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use crate::error::{Result, While as _};

/// What a link carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carries {
    /// Everything.
    All,
    /// What clients say; the answers wait.
    Requests,
    /// Nothing; bytes wait on both sides.
    Nothing,
}

/// A breakable way to a cluster. Dropping it severs it.
pub struct Link {
    address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

struct State {
    carries: watch::Sender<Carries>,
    severed: watch::Sender<u64>,
}

impl Link {
    /// A link that carries everything.
    pub async fn to(postgres: &Postgres) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.doing("listening")?;
        let address = listener.local_addr().doing("listening")?;
        let state = Arc::new(State {
            carries: watch::Sender::new(Carries::All),
            severed: watch::Sender::new(0),
        });
        let socket = postgres.socket_folder().join(".s.PGSQL.5432");
        let task = tokio::spawn(accept(listener, socket, Arc::clone(&state)));
        Ok(Self { address, state, task })
    }

    /// The URL of a database of the cluster, through this link.
    pub fn url_of(&self, database: &str) -> String {
        // The cluster has no TLS, and asking for it would take a round trip of its own.
        format!("postgres://postgres@{}/{database}?sslmode=disable", self.address)
    }

    /// Changes what it carries from now on, on all connections. What waited goes on when it may.
    pub fn carry(&self, what: Carries) {
        self.state.carries.send_replace(what);
    }

    /// Closes all connections; what waited in them is lost. New ones are accepted.
    pub fn sever(&self) {
        self.state.severed.send_modify(|times| *times += 1);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, socket: PathBuf, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { return };
                connections.spawn(connect(client, socket.clone(), Arc::clone(&state)));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connect(mut client: TcpStream, socket: PathBuf, state: Arc<State>) {
    let mut severed = state.severed.subscribe();
    let _best_effort = client.set_nodelay(true);
    let carried = carry(&mut client, &socket, &state);
    tokio::select! {
        // Either side may close, and a server that is down closes at once.
        _closed = carried => {}
        _ = severed.changed() => {}
    }
}

async fn carry(client: &mut TcpStream, socket: &Path, state: &State) -> io::Result<()> {
    let mut server = UnixStream::connect(socket).await?;
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let requests = |carries: Carries| carries != Carries::Nothing;
    let answers = |carries: Carries| carries == Carries::All;
    tokio::select! {
        ended = copy(from_client, to_server, state.carries.subscribe(), requests) => ended,
        ended = copy(from_server, to_client, state.carries.subscribe(), answers) => ended,
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut carries: watch::Receiver<Carries>,
    passes: impl Fn(Carries) -> bool,
) -> io::Result<()> {
    let mut buffer = vec![0_u8; 16 * 1024];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        let passing = carries.wait_for(|carries| passes(*carries)).await;
        passing.map_err(io::Error::other)?;
        to.write_all(buffer.get(..count).unwrap_or_default()).await?;
    }
}

#[cfg(test)]
mod tests {
    use std::{process::Stdio, time::Duration};

    use colophon_launcher::PostgresOptions;
    use tokio::process::{Child, Command};

    use super::*;
    use crate::wait::wait_until;

    const SOON: Duration = Duration::from_secs(30);

    fn psql(url: &str, statement: &str) -> Child {
        let mut command = Command::new("psql");
        command.args(["-X", "-A", "-t", url, "-c", statement]).kill_on_drop(true);
        command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
    }

    #[tokio::test]
    async fn a_commit_happens_although_its_answer_is_lost() {
        let postgres = Postgres::start(PostgresOptions::default()).await.unwrap();
        postgres.sql("postgres", "CREATE TABLE t (n int)").await.unwrap();
        let link = Link::to(&postgres).await.unwrap();
        let url = link.url_of("postgres");
        let asked = psql(&url, "SELECT 1").wait_with_output().await.unwrap();
        assert!(asked.status.success() && asked.stdout == b"1\n");

        // The connection is up before the answers stop: the advisory lock shows that.
        let script = "SELECT pg_advisory_lock(7); SELECT pg_sleep(0.2); INSERT INTO t VALUES (1)";
        let client = psql(&url, script);
        let count = async |query: &str| postgres.sql("postgres", query).await.unwrap();
        let locked = async || {
            let locks = count("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").await;
            (locks.trim() == "1").then_some(())
        };
        wait_until("the lock is held", SOON, locked).await.unwrap();
        link.carry(Carries::Requests);
        let inserted = async || (count("SELECT count(*) FROM t").await.trim() == "1").then_some(());
        wait_until("the row is there", SOON, inserted).await.unwrap();
        link.sever();
        assert!(!client.wait_with_output().await.unwrap().status.success());

        link.carry(Carries::Nothing);
        let mut stalled = psql(&url, "SELECT 1");
        let early = tokio::time::timeout(Duration::from_millis(300), stalled.wait()).await;
        assert!(early.is_err(), "a stalled link gives no answer");
        link.carry(Carries::All);
        assert!(stalled.wait().await.unwrap().success());
    }
}
