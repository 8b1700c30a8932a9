//! Ctrl-C and SIGTERM as two tokens: the first signal asks for an orderly end, the second for a quick one. Decides
//! nothing about what that means.

use tokio_util::sync::CancellationToken;

/// What the person at the keyboard, or the service manager, wants.
#[derive(Clone, Debug)]
pub(crate) struct Signals {
    /// Cancelled by the first signal: finish what runs, then leave.
    pub(crate) drain: CancellationToken,
    /// Cancelled by the second: leave now.
    pub(crate) abort: CancellationToken,
}

/// Starts to listen. From here on the signals no longer end the process by themselves.
///
/// # Errors
/// The operating system refuses the handler.
pub(crate) fn listen() -> std::io::Result<Signals> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let signals = Signals { drain: CancellationToken::new(), abort: CancellationToken::new() };
    let told = signals.clone();
    tokio::spawn(async move {
        for token in [told.drain, told.abort] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            token.cancel();
        }
    });
    Ok(signals)
}
