//! Binding: one socket per worker on the same address, so that the kernel spreads connections over the workers.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that may wait for a worker to accept them.
const BACKLOG: i32 = 4096;

/// Bytes that may wait in the kernel before they are sent, beyond which it takes no more of an answer.
///
/// Left to itself it takes megabytes, and then nothing until a third of them has gone: whoever reads steadily seems to
/// take nothing for many seconds, and would be cut for it.
#[cfg(target_os = "linux")]
const UNSENT: u32 = 32 * 1024;

/// A listener's sockets, one for each worker.
pub struct Bound {
    pub name: String,
    /// With the port that was really taken.
    pub address: SocketAddr,
    pub(crate) sockets: Vec<TcpListener>,
}

/// Binds `address` once per worker.
///
/// # Errors
/// The address is taken or not ours. With `SO_REUSEPORT` the kernel would let a second gateway share a port
/// silently and serve half of the callers, so the address is tried without it first.
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
    // What is accepted inherits it. Where it is not to be had, steady readers have less time than they should.
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_notsent_lowat(UNSENT);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    // Only listening tells whether somebody else has the port.
    socket.listen(BACKLOG)?;
    Ok(socket)
}
