//! Ctrl-C and a request to end: a waiting command says what goes on without it before it leaves.

use crate::exit::{Exit, Problem};

/// Listens for SIGINT and SIGTERM from its making on. From then on they no longer end the
/// program by themselves, so every wait has to listen; one that comes between two waits is kept.
pub struct Interrupt {
    #[cfg(unix)]
    signals: [tokio::signal::unix::Signal; 2],
}

impl Interrupt {
    /// Begins to listen.
    pub fn new() -> Result<Self, Problem> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let listen = |kind| {
                signal(kind).map_err(|error| {
                    Problem::new(Exit::Usage, format!("signals cannot be received: {error}"))
                })
            };
            Ok(Self {
                signals: [listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?],
            })
        }
        #[cfg(not(unix))]
        Ok(Self {})
    }

    /// Returns when a signal has come.
    pub async fn wait(&mut self) {
        #[cfg(unix)]
        {
            let [interrupt, terminate] = &mut self.signals;
            tokio::select! {
                _ = interrupt.recv() => (),
                _ = terminate.recv() => (),
            }
        }
        #[cfg(not(unix))]
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
