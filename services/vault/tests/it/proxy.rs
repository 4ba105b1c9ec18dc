//! A proxy before Vault that counts requests, holds them back, or answers in Vault's place.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

const PATIENCE: Duration = Duration::from_secs(30);

/// What happens to a request.
#[derive(Debug, Clone)]
pub enum Mode {
    /// It goes on to Vault.
    Forward,
    /// It waits until the mode is another one.
    Hold,
    /// It gets this answer, a whole HTTP message.
    Answer(String),
}

/// A running proxy. Dropping it ends it.
pub struct Proxy {
    pub address: String,
    seen: Arc<Mutex<Vec<String>>>,
    mode: watch::Sender<Mode>,
    _work: JoinSet<()>,
}

impl Proxy {
    /// Starts a proxy before `vault` (`http://host:port`).
    pub async fn start(vault: &str) -> Self {
        let vault = vault.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mode = watch::Sender::new(Mode::Forward);
        let (log, modes) = (seen.clone(), mode.subscribe());
        let mut work = JoinSet::new();
        work.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                connections.spawn(serve(client, vault.clone(), log.clone(), modes.clone()));
            }
        });
        Self { address, seen, mode, _work: work }
    }

    /// From now on requests are treated like this.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// How many requests for a path with this text arrived.
    pub fn count(&self, text: &str) -> usize {
        self.seen.lock().unwrap().iter().filter(|head| head.contains(text)).count()
    }

    /// Whether a request carried this text in its head.
    pub fn saw(&self, text: &str) -> bool {
        self.count(text) > 0
    }

    /// Waits until that many requests with this text arrived.
    pub async fn until(&self, text: &str, count: usize) {
        let since = Instant::now();
        while self.count(text) < count {
            assert!(since.elapsed() < PATIENCE, "{text} came {} times", self.count(text));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// One connection: requests one after the other, each with its head and its whole body.
async fn serve(
    mut client: TcpStream,
    vault: String,
    seen: Arc<Mutex<Vec<String>>>,
    mut modes: watch::Receiver<Mode>,
) {
    let mut upstream = None;
    while let Some(request) = message(&mut client).await {
        let head = String::from_utf8_lossy(&request).into_owned();
        seen.lock().unwrap().push(head);
        let free =
            modes.wait_for(|mode| !matches!(mode, Mode::Hold)).await.map(|mode| mode.clone());
        let answer = match free {
            Ok(Mode::Answer(answer)) => answer.into_bytes(),
            Ok(_) => {
                if upstream.is_none() {
                    upstream = TcpStream::connect(&vault).await.ok();
                }
                let Some(vault) = upstream.as_mut() else { return };
                if vault.write_all(&request).await.is_err() {
                    return;
                }
                let Some(answer) = message(vault).await else { return };
                answer
            }
            Err(_) => return,
        };
        if client.write_all(&answer).await.is_err() {
            return;
        }
    }
}

/// Reads one HTTP message with a `Content-Length`, or without a body.
async fn message(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|part| part == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .map_or(0, |length| length.trim().parse::<usize>().unwrap());
    assert!(!text.contains("transfer-encoding"), "this proxy knows no chunks: {text}");
    while bytes.len() < head + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    Some(bytes)
}
