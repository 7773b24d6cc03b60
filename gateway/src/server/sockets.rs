//! Binds one socket per worker to the same address, so that the kernel spreads connections over the workers.
//!
//! Sockets may come from a service manager or from the process that this one replaces. Those are used as they are: each
//! has a queue of connections that wait to be accepted, and closing it resets them. With fewer sockets than workers, more
//! are bound beside them, or workers share one; with more, a worker serves several.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Number of connections that may wait for a worker to accept them.
const BACKLOG: i32 = 4096;

/// Unsent bytes in the kernel from which on it accepts no more of an answer.
///
/// By default the kernel accepts megabytes, and then nothing until a third of them is sent. A caller that reads
/// steadily would seem to read nothing for many seconds, and its connection would be cut.
#[cfg(target_os = "linux")]
const UNSENT: u32 = 32 * 1024;

/// Sockets of one listener, usually one for each worker.
pub struct Bound {
    pub name: String,
    /// Bound address, with the port that the kernel chose for port 0.
    pub address: SocketAddr,
    pub(crate) sockets: Vec<TcpListener>,
}

/// Listening socket that this process has not bound itself.
#[derive(Debug)]
pub struct Inherited {
    /// Name of a listener, if the socket came with one.
    pub name: Option<String>,
    pub address: SocketAddr,
    pub socket: TcpListener,
}

/// Socket that a worker accepts from, with the number of its listener.
pub(crate) struct ListenerSocket {
    pub(crate) listener: usize,
    pub(crate) socket: TcpListener,
}

/// Takes the sockets of a listener with this name and address out of those that are inherited. Sockets of its name at
/// another address are taken only if `by_name` is set.
pub fn take_inherited(
    inherited: &mut Vec<Inherited>,
    name: &str,
    address: SocketAddr,
    by_name: bool,
) -> Vec<TcpListener> {
    let fits = |socket: &Inherited| {
        let has_address = socket.address == address || (address.port() == 0 && socket.address.ip() == address.ip());
        let has_name = socket.name.as_deref() == Some(name);
        if by_name {
            has_name || (socket.name.is_none() && has_address)
        } else {
            socket.address == address || (has_name && has_address)
        }
    };
    let taken = inherited.extract_if(.., |socket| fits(socket));
    taken.map(|taken| taken.socket).collect()
}

impl Bound {
    /// Uses sockets that are bound already. Where the kernel allows it, more are bound beside them, so that every worker
    /// has its own.
    ///
    /// # Errors
    /// Fails if a socket does not tell its address.
    pub fn of(name: &str, mut sockets: Vec<TcpListener>, workers: usize) -> io::Result<Self> {
        let address = match sockets.first() {
            Some(first) => first.local_addr()?,
            None => return Err(io::Error::other("there is no socket")),
        };
        let is_shared = SockRef::from(&sockets[0]).reuse_port().unwrap_or_default();
        for own in &sockets {
            own.set_nonblocking(true)?;
        }
        while is_shared && sockets.len() < workers {
            match socket(address, true) {
                Ok(own) => sockets.push(own.into()),
                // The workers without a socket share one.
                Err(error) => {
                    tracing::debug!(listener = name, %error, "no further socket can be bound");
                    break;
                }
            }
        }
        Ok(Self {
            name: name.to_owned(),
            address,
            sockets,
        })
    }

    /// Returns more descriptors of the same sockets.
    ///
    /// # Errors
    /// Fails if no more descriptors may be open.
    pub fn descriptors(&self) -> io::Result<Vec<TcpListener>> {
        self.sockets.iter().map(TcpListener::try_clone).collect()
    }
}

/// Gives each worker its sockets of every listener.
pub(crate) fn spread(bound: Vec<Bound>, workers: usize) -> io::Result<Vec<Vec<ListenerSocket>>> {
    let mut spread: Vec<Vec<ListenerSocket>> = (0..workers).map(|_| Vec::new()).collect();
    for (listener, mut bound) in bound.into_iter().enumerate() {
        let own = bound.sockets.len();
        for worker in own..workers {
            bound.sockets.push(bound.sockets[worker % own].try_clone()?);
        }
        for (number, socket) in bound.sockets.into_iter().enumerate() {
            spread[number % workers].push(ListenerSocket { listener, socket });
        }
    }
    Ok(spread)
}

/// Binds `address` once per worker.
///
/// # Errors
/// Fails if the address is in use or not local. With `SO_REUSEPORT` the kernel would let a second gateway
/// share the port silently and take half of the callers, so the address is first bound without it.
pub fn bind(name: &str, address: SocketAddr, workers: usize) -> io::Result<Bound> {
    let address = {
        let probe = socket(address, false)?;
        probe.local_addr()?.as_socket().unwrap_or(address)
    };
    let sockets = (0..workers)
        .map(|_| Ok(socket(address, true)?.into()))
        .collect::<io::Result<_>>()?;
    Ok(Bound {
        name: name.to_owned(),
        address,
        sockets,
    })
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    // Accepted sockets inherit this. Where it is not supported, steady readers have less time than they should.
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_notsent_lowat(UNSENT);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    // Only `listen` detects that another process uses the port.
    socket.listen(BACKLOG)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    fn loopback() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    /// Returns the listeners of each worker, by their numbers.
    fn served(bound: Vec<Bound>, workers: usize) -> Vec<Vec<usize>> {
        let spread = spread(bound, workers).unwrap();
        let of = |own: Vec<ListenerSocket>| own.into_iter().map(|socket| socket.listener).collect();
        spread.into_iter().map(of).collect()
    }

    #[test]
    fn every_worker_serves_every_listener_and_every_socket_is_served() {
        let two = || ["a", "b"].map(|name| bind(name, loopback(), 3).unwrap());
        assert_eq!(served(two().into(), 3), [[0, 1], [0, 1], [0, 1]]);
        assert_eq!(served(two().into(), 1), [[0, 0, 0, 1, 1, 1]]);
        assert_eq!(served(two().into(), 2), [vec![0, 0, 1, 1], vec![0, 1]]);
        let [a, _] = two();
        let more = Bound::of("a", a.sockets, 5).unwrap();
        assert_eq!((more.address, more.sockets.len()), (a.address, 5), "bound beside them");
        let single = TcpListener::bind(loopback()).unwrap();
        let shared = Bound::of("a", vec![single], 2).unwrap();
        assert_eq!(shared.sockets.len(), 1, "the kernel allows no other");
        assert_eq!(served(vec![shared], 2), [[0], [0]]);
    }

    #[test]
    fn what_waits_at_one_of_several_sockets_is_there_for_its_new_owner() {
        let bound = bind("a", loopback(), 3).unwrap();
        let callers: Vec<_> = (0..30).map(|_| TcpStream::connect(bound.address).unwrap()).collect();
        let passed = Bound::of("a", bound.descriptors().unwrap(), 1).unwrap();
        drop(bound);
        let accepted: Vec<_> = passed
            .sockets
            .iter()
            .flat_map(|socket| std::iter::from_fn(move || socket.accept().ok()))
            .collect();
        assert_eq!(accepted.len(), callers.len());
    }

    #[test]
    fn inherited_sockets_go_to_their_listener() {
        let inherited = |name: Option<&str>| {
            let socket = TcpListener::bind(loopback()).unwrap();
            let (name, address) = (name.map(str::to_owned), socket.local_addr().unwrap());
            Inherited { name, address, socket }
        };
        let check = |own: Option<&str>, name: &str, has_address: bool, by_name: bool, expected: usize| {
            let one = inherited(own);
            let address = if has_address {
                one.address
            } else {
                "127.0.0.1:1".parse().unwrap()
            };
            let mut all = vec![one];
            let taken = take_inherited(&mut all, name, address, by_name);
            assert_eq!(
                (taken.len(), all.len()),
                (expected, 1 - expected),
                "{own:?} {name} {has_address}"
            );
        };
        // Of a service manager: the name decides, else the address.
        check(Some("a"), "a", false, true, 1);
        check(Some("a"), "b", true, true, 0);
        check(None, "b", true, true, 1);
        check(None, "b", false, true, 0);
        // Of the process before: the address decides, also under another name.
        check(Some("a"), "a", false, false, 0);
        check(Some("a"), "b", true, false, 1);
        let one = inherited(Some("a"));
        let any_port = take_inherited(&mut vec![one], "a", loopback(), false);
        assert_eq!(any_port.len(), 1);
    }
}
