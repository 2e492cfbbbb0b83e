//! SIGTERM and SIGINT: whoever stops a program sends one of them.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Catches both signals from its making on.
#[derive(Debug)]
pub struct Shutdown {
    term: Signal,
    int: Signal,
}

impl Shutdown {
    /// Catches the signals; call it inside a tokio runtime, before the first part starts.
    ///
    /// # Errors
    /// If the system lets no signals be caught.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
        })
    }

    /// Returns when one of them has come; cancel-safe.
    pub async fn requested(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::time::Duration;

    #[test]
    fn a_signal_between_listening_and_asking_is_not_lost() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut shutdown = Shutdown::listen().unwrap();
            for name in ["TERM", "INT"] {
                let me = std::process::id().to_string();
                let sent = Command::new("kill").args(["-s", name, &me]).status();
                assert!(sent.unwrap().success());
                tokio::time::timeout(Duration::from_secs(10), shutdown.requested())
                    .await
                    .expect(name);
            }
        });
    }
}
