//! The header by which a load balancer says who has connected to it: PROXY protocol, versions 1 and 2
//! (<https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>).
//!
//! Invariant: the first wrong byte is told at once, and nothing is asked for beyond [`LONGEST`]. Whether the sender may
//! be believed is for whoever accepts the connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// Bytes of a header at most. Version 2 may carry up to 64 KiB of extras; senders in the field write a few hundred.
pub const LONGEST: usize = 16 + 4096;

/// Bytes of a header of version 1 at most, its line's end included (section 2.1).
const LONGEST_V1: usize = 107;

const V1: &[u8] = b"PROXY ";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// For whom a connection was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Client(SocketAddr),
    /// The sender itself, to see whether we are well; or it does not know.
    Sender,
}

/// Not a header of either version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// The header at the start of `bytes` with its length, or `None` if it has not come whole.
///
/// # Errors
/// What has come cannot become a header.
pub fn read(bytes: &[u8]) -> Result<Option<(Origin, usize)>, Malformed> {
    if begins(bytes, V2) {
        version_2(bytes)
    } else if begins(bytes, V1) {
        version_1(bytes)
    } else {
        Err(Malformed)
    }
}

/// As far as it has come.
fn begins(bytes: &[u8], with: &[u8]) -> bool {
    let both = bytes.len().min(with.len());
    bytes[..both] == with[..both]
}

fn version_1(bytes: &[u8]) -> Result<Option<(Origin, usize)>, Malformed> {
    let within = &bytes[..bytes.len().min(LONGEST_V1)];
    let Some(end) = within.iter().position(|&byte| byte == b'\n') else {
        return if bytes.len() < LONGEST_V1 {
            Ok(None)
        } else {
            Err(Malformed)
        };
    };
    let line = within[..end].strip_suffix(b"\r").ok_or(Malformed)?;
    let line = line.strip_prefix(V1).ok_or(Malformed)?;
    let line = std::str::from_utf8(line).map_err(|_| Malformed)?;
    let length = end + 1;
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return Ok(Some((Origin::Sender, length)));
    }
    let fields: Vec<_> = line.split(' ').collect();
    let [family, source, destination, source_port, destination_port] = fields[..] else {
        return Err(Malformed);
    };
    let (source, _) = match family {
        "TCP4" => both::<Ipv4Addr>(source, destination)?,
        "TCP6" => both::<Ipv6Addr>(source, destination)?,
        _ => return Err(Malformed),
    };
    let (port, _) = (port(source_port)?, port(destination_port)?);
    Ok(Some((Origin::Client(SocketAddr::new(source, port)), length)))
}

fn both<A: FromStr + Into<IpAddr>>(source: &str, destination: &str) -> Result<(IpAddr, IpAddr), Malformed> {
    let read = |text: &str| text.parse::<A>().map(Into::into).map_err(|_| Malformed);
    Ok((read(source)?, read(destination)?))
}

fn port(text: &str) -> Result<u16, Malformed> {
    let leading_zero = text.len() > 1 && text.starts_with('0');
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit()) && !leading_zero;
    text.parse().ok().filter(|_| is_number).ok_or(Malformed)
}

fn version_2(bytes: &[u8]) -> Result<Option<(Origin, usize)>, Malformed> {
    /// Signature, command, family, length.
    const FIXED: usize = 16;
    let (command, family) = (bytes.get(12), bytes.get(13));
    if command.is_some_and(|command| !matches!(command, 0x20 | 0x21)) {
        return Err(Malformed);
    }
    let Some((&[high, low], rest)) = bytes.get(14..).and_then(|rest| rest.split_first_chunk()) else {
        return Ok(None);
    };
    let length = FIXED + usize::from(u16::from_be_bytes([high, low]));
    if length > LONGEST {
        return Err(Malformed);
    }
    let Some(block) = rest.get(..length - FIXED) else {
        return Ok(None);
    };
    let origin = match (command, family) {
        // Whatever addresses come with it are to be skipped (section 2.2).
        (Some(0x20), _) | (_, Some(0x00)) => Origin::Sender,
        (_, Some(0x11)) => {
            let block: &[u8; 12] = block.first_chunk().ok_or(Malformed)?;
            let [a, b, c, d, _, _, _, _, high, low, ..] = *block;
            client(Ipv4Addr::new(a, b, c, d).into(), high, low)
        }
        (_, Some(0x21)) => {
            let block: &[u8; 36] = block.first_chunk().ok_or(Malformed)?;
            let source: &[u8; 16] = block.first_chunk().ok_or(Malformed)?;
            client(Ipv6Addr::from(*source).into(), block[32], block[33])
        }
        // A local socket of the sender's; it has no address that could be told.
        (_, Some(0x31)) if block.len() >= 216 => Origin::Sender,
        _ => return Err(Malformed),
    };
    Ok(Some((origin, length)))
}

const fn client(ip: IpAddr, high: u8, low: u8) -> Origin {
    Origin::Client(SocketAddr::new(ip, u16::from_be_bytes([high, low])))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn client(text: &str) -> Origin {
        Origin::Client(text.parse().unwrap())
    }

    fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        [V2, &[command, family], &length, block].concat()
    }

    #[track_caller]
    fn good(header: &[u8], origin: Origin) {
        for rest in ["", "GET / HTTP/1.1\r\n"] {
            let whole = [header, rest.as_bytes()].concat();
            assert_eq!(read(&whole), Ok(Some((origin, header.len()))));
        }
        for end in 0..header.len() {
            assert_eq!(read(&header[..end]), Ok(None), "{end} bytes of it");
        }
    }

    #[test]
    fn headers_of_version_1() {
        good(
            b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n",
            client("192.0.2.1:56324"),
        );
        good(
            b"PROXY TCP6 2001:db8::1 2001:db8::2 0 65535\r\n",
            client("[2001:db8::1]:0"),
        );
        let longest = [b"PROXY TCP6".as_slice(), &[b' '; 0]].concat();
        let ip = "ffff:f...f:ffff:ffff:ffff:ffff:ffff:ffff".replace("f...f", "ffff");
        let longest = [longest, format!(" {ip} {ip} 65535 65535\r\n").into_bytes()].concat();
        assert!(longest.len() <= LONGEST_V1);
        good(&longest, client(&format!("[{ip}]:65535")));
        good(b"PROXY UNKNOWN\r\n", Origin::Sender);
        good(b"PROXY UNKNOWN ffff::1 whatever 1 2\r\n", Origin::Sender);
    }

    #[test]
    fn headers_of_version_2() {
        let tcp4 = [192, 0, 2, 1, 198, 51, 100, 7, 0xdc, 0x04, 0x01, 0xbb];
        good(&v2(0x21, 0x11, &tcp4), client("192.0.2.1:56324"));
        good(
            &v2(0x21, 0x11, &[&tcp4[..], &[0x04; 300]].concat()),
            client("192.0.2.1:56324"),
        );
        let mut tcp6 = [0; 36];
        (tcp6[15], tcp6[33]) = (1, 80);
        good(&v2(0x21, 0x21, &tcp6), client("[::1]:80"));
        good(&v2(0x20, 0x00, &[]), Origin::Sender);
        good(&v2(0x20, 0x11, &tcp4), Origin::Sender);
        good(&v2(0x21, 0x00, &[1, 2, 3]), Origin::Sender);
        good(&v2(0x21, 0x31, &[b'a'; 216]), Origin::Sender);
        good(&v2(0x20, 0x00, &[0; 4096]), Origin::Sender);
    }

    #[test]
    fn what_is_no_header_is_told_at_its_first_wrong_byte() {
        let check = |bytes: &[u8]| assert_eq!(read(bytes), Err(Malformed), "{:?}", String::from_utf8_lossy(bytes));
        check(b"G");
        check(b"\x16\x03\x01");
        check(b"proxy");
        check(b"PROXY\t");
        check(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        for line in [
            "",
            "TCP4",
            "tcp4 192.0.2.1 192.0.2.2 1 2",
            "TCP4 192.0.2.1 192.0.2.2 1",
            "TCP4 192.0.2.1 192.0.2.2 1 2 3",
            "TCP4  192.0.2.1 192.0.2.2 1 2",
            "TCP4 192.0.2.1 192.0.2.2 1 2 ",
            "TCP4 192.0.2.01 192.0.2.2 1 2",
            "TCP4 192.0.2.1 192.0.2 1 2",
            "TCP4 ::1 ::2 1 2",
            "TCP6 192.0.2.1 192.0.2.2 1 2",
            "TCP4 192.0.2.1 192.0.2.2 +1 2",
            "TCP4 192.0.2.1 192.0.2.2 01 2",
            "TCP4 192.0.2.1 192.0.2.2 65536 2",
            "TCP4 192.0.2.1 192.0.2.2 1 ",
            "UNKNOWNS",
            "UDP4 192.0.2.1 192.0.2.2 1 2",
        ] {
            check(format!("PROXY {line}\r\n").as_bytes());
        }
        check(b"PROXY UNKNOWN\n");
        check(&[b"PROXY UNKNOWN ".as_slice(), &[b'x'; 100]].concat());
        check(&v2(0x11, 0x11, &[0; 12])[..13]);
        check(&v2(0x22, 0x11, &[0; 12])[..13]);
        check(&v2(0x21, 0x12, &[0; 12]));
        check(&v2(0x21, 0x22, &[0; 36]));
        check(&v2(0x21, 0x11, &[0; 11]));
        check(&v2(0x21, 0x21, &[0; 35]));
        check(&v2(0x21, 0x31, &[0; 215]));
        check(&v2(0x21, 0x41, &[0; 40]));
        check(&v2(0x21, 0x11, &[0; 4097])[..16]);
    }

    proptest! {
        #![proptest_config(cases::counted())]
        #[test]
        fn nothing_makes_it_panic_or_read_on(prefix in 0..3_usize, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let bytes = [[&[], V1, V2][prefix], &bytes].concat();
            if let Ok(Some((_, length))) = read(&bytes) {
                prop_assert!(length <= bytes.len() && length <= LONGEST);
            }
        }
    }
}
