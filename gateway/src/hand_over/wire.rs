//! Sends and receives the messages of a hand-over, and passes descriptors.
//!
//! A message is a frame: its length in four bytes, most significant first; the length of its kind in one byte; the kind,
//! a word; and the body, in JSON. A message of an unknown kind is read to its end, so a receiver can refuse or skip it.
//! Descriptors follow the message that announces them, at most [`AT_ONCE`] with each byte.
//!
//! Invariant: no message is longer than [`MOST`], and each has to be complete within a time limit.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::clock;
use crate::json;

/// Longest frame, in bytes.
const MOST: usize = 4 << 20;

/// Number of descriptors that are passed with one byte. Linux allows 253.
const AT_ONCE: usize = 64;

/// A received message.
pub(super) struct Message {
    pub(super) kind: String,
    body: Vec<u8>,
}

/// A connection between the two processes.
#[derive(Debug)]
pub(super) struct Wire {
    stream: UnixStream,
}

impl Message {
    /// Returns the body.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn body<T: DeserializeOwned>(&self) -> io::Result<T> {
        json::typed(&self.body, MOST).map_err(|error| io::Error::other(format!("message `{}`: {error}", self.kind)))
    }
}

impl Wire {
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        Ok(Self { stream })
    }

    pub(super) fn peer(&self) -> io::Result<rustix::net::UCred> {
        Ok(rustix::net::sockopt::socket_peercred(&self.stream)?)
    }

    /// Sends a message within the limit.
    ///
    /// # Errors
    /// Fails if the other process has gone or does not read.
    pub(super) fn send(&mut self, kind: &str, body: &impl Serialize, limit: Duration) -> io::Result<()> {
        let body = serde_json::to_vec(body)?;
        let length = 1 + kind.len() + body.len();
        let (Ok(whole), Ok(of_kind)) = (u32::try_from(length), u8::try_from(kind.len())) else {
            return Err(io::Error::other("a message is too long"));
        };
        if length > MOST {
            return Err(io::Error::other(format!("the message `{kind}` is too long")));
        }
        let mut frame = Vec::with_capacity(4 + length);
        frame.extend(whole.to_be_bytes());
        frame.push(of_kind);
        frame.extend(kind.as_bytes());
        frame.extend(body);
        let deadline = Deadline::after(limit);
        let mut rest = &frame[..];
        while !rest.is_empty() {
            self.stream.set_write_timeout(Some(deadline.left()?))?;
            match self.stream.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => rest = &rest[written..],
                Err(error) => deadline.check(error)?,
            }
        }
        Ok(())
    }

    /// Receives a message within the limit.
    ///
    /// # Errors
    /// Fails if the other process has gone, sends nothing, or sends something else.
    pub(super) fn receive(&mut self, limit: Duration) -> io::Result<Message> {
        let deadline = Deadline::after(limit);
        let mut length = [0; 4];
        self.read(&mut length, &deadline)?;
        let length = u32::from_be_bytes(length) as usize;
        if !(1..=MOST).contains(&length) {
            return Err(io::Error::other("what it sends is no message of a hand-over"));
        }
        let mut frame = Vec::new();
        // Memory grows only with what has arrived.
        while frame.len() < length {
            let from = frame.len();
            frame.resize(length.min(from + (64 << 10)), 0);
            self.read(&mut frame[from..], &deadline)?;
        }
        let kind = usize::from(frame[0]);
        let kind = frame.get(1..=kind).and_then(|kind| std::str::from_utf8(kind).ok());
        let Some(kind) = kind.filter(|kind| kind.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')) else {
            return Err(io::Error::other("what it sends is no message of a hand-over"));
        };
        Ok(Message {
            kind: kind.to_owned(),
            body: frame[1 + kind.len()..].to_vec(),
        })
    }

    fn read(&mut self, mut bytes: &mut [u8], deadline: &Deadline) -> io::Result<()> {
        while !bytes.is_empty() {
            self.stream.set_read_timeout(Some(deadline.left()?))?;
            match self.stream.read(bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => bytes = &mut bytes[read..],
                Err(error) => deadline.check(error)?,
            }
        }
        Ok(())
    }

    /// Passes descriptors; the other process gets its own of the same sockets and files.
    ///
    /// # Errors
    /// Fails if the other process has gone or does not read.
    pub(super) fn pass(&mut self, descriptors: &[BorrowedFd<'_>], limit: Duration) -> io::Result<()> {
        let deadline = Deadline::after(limit);
        for some in descriptors.chunks(AT_ONCE) {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !control.push(SendAncillaryMessage::ScmRights(some)) {
                return Err(io::Error::other("too many descriptors at once"));
            }
            loop {
                self.stream.set_write_timeout(Some(deadline.left()?))?;
                let sent = rustix::net::sendmsg(&self.stream, &[IoSlice::new(b"#")], &mut control, SendFlags::NOSIGNAL);
                match sent {
                    Ok(_) => break,
                    Err(error) => deadline.check(error.into())?,
                }
            }
        }
        Ok(())
    }

    /// Receives `count` descriptors.
    ///
    /// # Errors
    /// Fails if they do not come within the limit, or others do.
    pub(super) fn take(&mut self, count: usize, limit: Duration) -> io::Result<Vec<OwnedFd>> {
        let deadline = Deadline::after(limit);
        let mut all = Vec::new();
        while all.len() < count {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut byte = [0];
            self.stream.set_read_timeout(Some(deadline.left()?))?;
            let received = rustix::net::recvmsg(
                &self.stream,
                &mut [IoSliceMut::new(&mut byte)],
                &mut control,
                RecvFlags::CMSG_CLOEXEC,
            );
            let received = match received {
                Ok(received) => received,
                Err(error) => {
                    deadline.check(error.into())?;
                    continue;
                }
            };
            if received.bytes == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if received.flags.contains(ReturnFlags::CTRUNC) {
                return Err(io::Error::other(
                    "not all descriptors can be opened here: raise LimitNOFILE",
                ));
            }
            let before = all.len();
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                    all.extend(descriptors);
                }
            }
            if all.len() == before || all.len() > count {
                return Err(io::Error::other("other descriptors were announced"));
            }
        }
        Ok(all)
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// End of the time in which a message has to be complete, in nanoseconds since the machine was started. The clock of the
/// process cannot be read yet when the first messages come: they say where it begins.
struct Deadline(i64);

impl Deadline {
    fn after(limit: Duration) -> Self {
        let limit = i64::try_from(limit.as_nanos()).unwrap_or(i64::MAX);
        Self(clock::since_boot().saturating_add(limit))
    }

    /// Returns the time left.
    fn left(&self) -> io::Result<Duration> {
        match u64::try_from(self.0 - clock::since_boot()) {
            Ok(left) if left > 0 => Ok(Duration::from_nanos(left)),
            Ok(_) | Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the other process took too long",
            )),
        }
    }

    /// Returns the error, unless it only says that nothing could be done yet.
    fn check(&self, error: io::Error) -> io::Result<()> {
        match error.kind() {
            io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock => self.left().map(|_| ()),
            _ => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn pair() -> (Wire, Wire) {
        let (one, other) = UnixStream::pair().unwrap();
        (Wire::new(one).unwrap(), Wire::new(other).unwrap())
    }

    #[test]
    fn messages_and_descriptors_arrive_in_their_order() {
        let (mut one, mut other) = pair();
        let sockets: Vec<_> = (0..150).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        one.send("first", &1, SOON).unwrap();
        let descriptors: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
        one.pass(&descriptors, SOON).unwrap();
        one.send("second", &"two", SOON).unwrap();
        let first = other.receive(SOON).unwrap();
        assert_eq!((first.kind.as_str(), first.body::<u32>().unwrap()), ("first", 1));
        let taken = other.take(sockets.len(), SOON).unwrap();
        for (sent, taken) in sockets.iter().zip(taken) {
            assert_ne!(sent.as_raw_fd(), taken.as_raw_fd());
            let taken = TcpListener::from(taken);
            assert_eq!(taken.local_addr().unwrap(), sent.local_addr().unwrap());
        }
        assert_eq!(other.receive(SOON).unwrap().body::<String>().unwrap(), "two");
        drop(one);
        let gone = other.receive(SOON).err().map(|error| error.kind());
        assert_eq!(gone, Some(io::ErrorKind::UnexpectedEof));
    }

    #[test]
    fn other_descriptors_than_were_announced_are_an_error() {
        let (mut one, mut other) = pair();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        one.pass(&[socket.as_fd(), socket.as_fd()], SOON).unwrap();
        assert!(other.take(1, SOON).is_err());
        one.send("word", &(), SOON).unwrap();
        assert!(other.take(1, SOON).is_err(), "a message without descriptors");
    }

    #[test]
    fn what_is_no_message_or_comes_too_late_is_an_error() {
        let check = |bytes: &[u8], expected: &str| {
            let (mut one, mut other) = pair();
            one.stream.write_all(bytes).unwrap();
            let error = other
                .receive(Duration::from_millis(20))
                .err()
                .map(|error| error.to_string());
            assert!(
                error.as_ref().is_some_and(|error| error.contains(expected)),
                "{bytes:?}: {error:?}"
            );
        };
        check(b"GET / HTTP/1.1\r\n", "no message");
        check(&[0, 0, 0, 0], "no message");
        check(&[0, 0, 0, 2, 3, b'a'], "no message");
        check(&[0, 0, 0, 3, 1, b' ', b'1'], "no message");
        check(&[0, 0, 1, 0, 1, b'a'], "too long");
        check(&[0, 0], "too long");
        let (mut one, _other) = pair();
        let long = "x".repeat(MOST);
        assert!(one.send("word", &long, SOON).is_err());
    }

    #[test]
    fn a_peer_that_does_not_read_does_not_hold_up_the_sender() {
        let (mut one, _other) = pair();
        let long = "x".repeat(MOST / 2);
        let error = one.send("word", &long, Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
