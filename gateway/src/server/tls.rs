//! Serves a caller's connection that begins with a TLS handshake.
//!
//! The reaper limits the handshake as it limits a head. It also ends a connection that waits too long for a slot or a
//! turn (see [`super::handshakes`]). Each handshake is counted once, by its outcome. The caller's certificate is read
//! here once, for all requests of the connection.

use std::future::poll_fn;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::{AlertDescription, HandshakeKind, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};

use super::connection_guard::ConnectionGuard;
use super::early_refusal::{self, EarlyRefusal};
use super::guarded_io::GuardedIo;
use super::last_words::LastWords;
use super::worker::Worker;
use super::{http1, http2};
use crate::auth::mtls::caller_certificate::CallerCertificate;
use crate::client::address;
use crate::headers::Scheme;
use crate::observe::{Family, Handshake, HandshakeDelay, Observer};
use crate::pipeline::Peer;
use crate::tls::listener::Tls;
use crate::wire::http1::Refusal;

/// Bytes that are read and discarded after a caller of plain HTTP was refused.
const LEFT_OF_PLAIN: usize = 64 * 1024;

/// TLS settings of a listener, and the listener's place in the plan.
pub(crate) struct Terms {
    pub(crate) tls: Tls,
    pub(crate) listener: usize,
}

/// Completes the handshake, and serves requests until either side closes the connection.
pub(crate) async fn serve(stream: TcpStream, address: SocketAddr, terms: Terms, guard: ConnectionGuard) {
    let io = GuardedIo::new(stream, Arc::clone(guard.activity()));
    let counted = Counted {
        observer: Arc::clone(&guard.worker().live.load().observer),
        outcome: Handshake::TimedOut,
    };
    let Terms { tls, listener } = terms;
    let Some(mut stream) = shake(io, address, tls.config, &guard, counted).await else {
        return;
    };
    let session = stream.0.get_ref().1;
    let certificate = session.peer_certificates().and_then(|chain| {
        let authorities = tls.client_authorities.as_ref()?;
        CallerCertificate::read(chain, listener, authorities).map(Arc::new)
    });
    if let Some(certificate) = &certificate {
        guard.activity().shows(Arc::clone(certificate));
    }
    let peer = Peer {
        certificate,
        ..guard.peer(address, Scheme::Https)
    };
    let is_http2 = session.alpn_protocol() == Some(b"h2");
    // The connection now waits for its first HTTP byte.
    guard.activity().reset_to_new();
    if is_http2 {
        Box::pin(http2::serve(stream, peer, guard)).await;
    } else {
        http1::serve(&mut stream, &peer, &guard).await;
    }
}

async fn shake(
    io: GuardedIo,
    address: SocketAddr,
    config: Arc<ServerConfig>,
    guard: &ConnectionGuard,
    mut counted: Counted,
) -> Option<CloseNotifyStream> {
    // A connection that sends nothing takes no slot.
    let mut first = [0];
    if io.peek(&mut first).await.is_err() {
        counted.outcome = Handshake::Abandoned;
        return None;
    }
    let worker = guard.worker();
    if first[0].is_ascii_alphabetic() {
        counted.outcome = Handshake::Failed;
        // Boxed, because this is rare.
        let _ = Box::pin(refuse_plain(io, address, worker)).await;
        return None;
    }
    let (most, key) = {
        let edge = &worker.live.load().edge;
        let key = address::key(address.ip(), edge.ipv6_prefix);
        (edge.most_handshakes_per_address, key)
    };
    counted.outcome = Handshake::Overloaded;
    let waits = || {
        counted
            .observer
            .registry
            .process
            .add(Family::TlsHandshakeDelays, HandshakeDelay::Address)
    };
    let _slot = worker.handshake_slots.enter(key, most, waits).await;
    let accepted = in_turns(TlsAcceptor::from(config).accept(io), worker, &mut counted).await;
    match accepted {
        Ok(stream) => {
            counted.outcome = match stream.get_ref().1.handshake_kind() {
                Some(HandshakeKind::Resumed) => Handshake::Resumed,
                _ => Handshake::Full,
            };
            Some(CloseNotifyStream(stream))
        }
        Err(error) => {
            counted.outcome = outcome(&error);
            tracing::debug!(%error, outcome = counted.outcome.as_str(), "a TLS handshake failed");
            None
        }
    }
}

/// Answers a caller that speaks plain HTTP, whose first byte is a letter; no record of TLS begins with one.
async fn refuse_plain(mut io: GuardedIo, address: SocketAddr, worker: &Worker) -> io::Result<()> {
    const PLAIN: Refusal = Refusal::Malformed("this port speaks HTTPS: send the request over TLS");
    let mut head = [0; 1024];
    let count = io.read(&mut head).await?;
    let refused = EarlyRefusal::Refused(PLAIN);
    let answer = early_refusal::answer(worker, address, &head[..count], refused, None);
    io.write_all(&answer).await?;
    io.shutdown().await?;
    io.activity().start_closing();
    // Closing with unread bytes would reset the connection, and the answer would be lost. The reaper limits the time.
    let mut left = LEFT_OF_PLAIN;
    while left > 0 {
        match io.read(&mut head).await? {
            0 => break,
            count => left = left.saturating_sub(count),
        }
    }
    Ok(())
}

/// Advances the handshake, each step in its turn.
async fn in_turns(
    accept: Accept<GuardedIo>,
    worker: &Worker,
    counted: &mut Counted,
) -> io::Result<TlsStream<GuardedIo>> {
    let mut accept = pin!(accept);
    loop {
        let share = worker.live.load().edge.handshake_share;
        counted.outcome = Handshake::Overloaded;
        let waits = || {
            counted
                .observer
                .registry
                .process
                .add(Family::TlsHandshakeDelays, HandshakeDelay::Workers)
        };
        let turn = worker.handshake_time.turn(share, waits).await;
        counted.outcome = Handshake::TimedOut;
        let mut turn = Some(turn);
        // The turn ends after one step; the next one waits until the handshake is woken.
        let done = poll_fn(|cx| {
            let Some(turn) = turn.take() else {
                return Poll::Ready(None);
            };
            let (polled, took) = turn.step(accept.as_mut(), cx);
            counted.observer.registry.note_handshake_time(took);
            polled.map(Some)
        });
        if let Some(accepted) = done.await {
            return accepted;
        }
    }
}

fn outcome(error: &io::Error) -> Handshake {
    use rustls::Error;
    let of_tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match of_tls {
        Some(Error::NoCertificatesPresented | Error::InvalidCertificate(_)) => Handshake::CertificateRefused,
        Some(Error::AlertReceived(
            AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired
            | AlertDescription::UnsupportedCertificate,
        )) => Handshake::RefusedByCaller,
        Some(_) => Handshake::Failed,
        None => Handshake::Abandoned,
    }
}

/// Counts a handshake on drop. If the task is aborted, the handshake was too slow.
struct Counted {
    observer: Arc<Observer>,
    outcome: Handshake,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.observer.registry.process.add(Family::TlsHandshakes, self.outcome);
    }
}

/// A stream that sends `close_notify` also when the reaper ends it between two requests; otherwise the caller could not
/// tell an orderly end from a broken connection. Within an answer it sends none, because that end *is* a break.
struct CloseNotifyStream(TlsStream<GuardedIo>);

impl CloseNotifyStream {
    fn take_leave(&mut self) {
        /// Writes what the socket accepts at once.
        struct AtOnce<'a>(&'a GuardedIo);
        impl Write for AtOnce<'_> {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.try_write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (io, session) = self.0.get_mut();
        session.send_close_notify();
        // A full socket means that the caller does not read, so it would not read this either.
        while session.wants_write() && session.write_tls(&mut AtOnce(io)).is_ok_and(|count| count > 0) {}
    }
}

impl LastWords for CloseNotifyStream {
    fn say(&mut self, bytes: &[u8]) {
        let session = self.0.get_mut().1;
        // The session's buffer has room for so few bytes.
        let _ = session.writer().write_all(bytes);
        self.take_leave();
    }
}

impl Drop for CloseNotifyStream {
    fn drop(&mut self) {
        if self.0.get_ref().0.activity().is_dismissed() {
            self.take_leave();
        }
    }
}

impl AsyncRead for CloseNotifyStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for CloseNotifyStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
