//! Checks that a PROXY protocol header means the same however it is split, and that its address stays the same when it
//! is written and read again.

use std::net::SocketAddr;

use gateway::client::proxy_protocol::{LONGEST, Malformed, Origin, read};

const STARTS: [&[u8]; 3] = [b"", b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n"];

/// Checks a flag byte that selects how the bytes begin, and the rest of the bytes.
pub fn check(data: &[u8]) {
    let Some((flags, rest)) = crate::split_flags(data) else {
        return;
    };
    let bytes = [STARTS[usize::from(flags) % STARTS.len()], rest].concat();
    let whole = read(&bytes);
    for end in 0..bytes.len() {
        let so_far = read(&bytes[..end]);
        match whole {
            Ok(Some((_, length))) if end >= length => assert_eq!(so_far, whole, "{end} bytes"),
            Ok(_) => assert_eq!(so_far, Ok(None), "{end} bytes"),
            Err(Malformed) => assert!(matches!(so_far, Ok(None) | Err(Malformed)), "{end} bytes: {so_far:?}"),
        }
    }
    match whole {
        Ok(Some((origin, length))) => {
            assert!(length <= LONGEST && length <= bytes.len());
            let follows = [&bytes[..length], b"PROXY UNKNOWN\r\n"].concat();
            assert_eq!(read(&follows), whole, "what follows is not read");
            if let Origin::Client(address) = origin {
                assert_eq!(
                    read(said_anew(address).as_bytes()).map(|read| read.map(|(origin, _)| origin)),
                    Ok(Some(origin))
                );
            }
        }
        Ok(None) => assert!(bytes.len() < LONGEST, "more is asked for than a header has"),
        Err(Malformed) => {
            let more = [&bytes[..], b"\r\n"].concat();
            assert_eq!(read(&more), Err(Malformed), "more bytes mend nothing");
        }
    }
}

fn said_anew(address: SocketAddr) -> String {
    let (ip, port) = (address.ip(), address.port());
    let family = if ip.is_ipv4() { "TCP4" } else { "TCP6" };
    format!("PROXY {family} {ip} {ip} {port} 1\r\n")
}
