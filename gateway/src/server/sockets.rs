//! Binds one socket per worker to the same address, so that the kernel spreads connections over the workers.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Number of connections that may wait for a worker to accept them.
const BACKLOG: i32 = 4096;

/// Unsent bytes in the kernel from which on it accepts no more of an answer.
///
/// By default the kernel accepts megabytes, and then nothing until a third of them is sent. A caller that reads
/// steadily would seem to read nothing for many seconds, and its connection would be cut.
#[cfg(target_os = "linux")]
const UNSENT: u32 = 32 * 1024;

/// Sockets of one listener, one for each worker.
pub struct Bound {
    pub name: String,
    /// Bound address, with the port that the kernel chose for port 0.
    pub address: SocketAddr,
    pub(crate) sockets: Vec<TcpListener>,
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
