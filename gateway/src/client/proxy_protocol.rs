//! Reads the PROXY protocol header, versions 1 and 2, in which a load balancer names its client
//! (<https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>).
//!
//! Invariant: the first wrong byte is an error at once, and no more than [`LONGEST`] bytes are needed. The code that
//! accepts the connection decides whether the sender is trusted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// Maximum length of a header in bytes. Version 2 allows 64 KiB of extras; senders in practice write a few hundred
/// bytes.
pub const LONGEST: usize = 16 + 4096;

/// Maximum length of a version 1 header in bytes, with the end of its line (section 2.1).
const LONGEST_V1: usize = 107;

const V1: &[u8] = b"PROXY ";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Origin of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Client(SocketAddr),
    /// The sender itself, for a health check (`LOCAL`).
    Sender,
    /// A client whose address the sender does not know or cannot write, such as a local socket.
    Unknown,
}

/// The bytes are not a header of either version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// Returns the origin and the length of the header at the start of `bytes`. `None` if the header is incomplete.
///
/// # Errors
/// If the bytes cannot become a valid header.
pub fn read(bytes: &[u8]) -> Result<Option<(Origin, usize)>, Malformed> {
    if begins(bytes, V2) {
        version_2(bytes)
    } else if begins(bytes, V1) {
        version_1(bytes)
    } else {
        Err(Malformed)
    }
}

/// Whether the bytes received so far match the start.
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
        return Ok(Some((Origin::Unknown, length)));
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
    /// Length in bytes of signature, command, family and length.
    const FIXED: usize = 16;
    /// Length in bytes of the addresses and ports of each family.
    const TCP4: usize = 12;
    const TCP6: usize = 36;
    const UNIX: usize = 216;
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
    let (origin, extras) = match (command, family) {
        // The addresses of a `LOCAL` connection are skipped (section 2.2).
        (Some(0x20), _) => (Origin::Sender, &[][..]),
        (_, Some(0x00)) => (Origin::Unknown, &[][..]),
        (_, Some(0x11)) => {
            let (addresses, extras) = block.split_first_chunk::<TCP4>().ok_or(Malformed)?;
            let [a, b, c, d, _, _, _, _, high, low, ..] = *addresses;
            (client(Ipv4Addr::new(a, b, c, d).into(), high, low), extras)
        }
        (_, Some(0x21)) => {
            let (addresses, extras) = block.split_first_chunk::<TCP6>().ok_or(Malformed)?;
            let source: &[u8; 16] = addresses.first_chunk().ok_or(Malformed)?;
            (
                client(Ipv6Addr::from(*source).into(), addresses[32], addresses[33]),
                extras,
            )
        }
        // A local socket of the sender, which has no network address.
        (_, Some(0x31)) => {
            let (_, extras) = block.split_first_chunk::<UNIX>().ok_or(Malformed)?;
            (Origin::Unknown, extras)
        }
        _ => return Err(Malformed),
    };
    check_extras(&bytes[..length], extras)?;
    Ok(Some((origin, length)))
}

/// Checks that the bytes after the addresses are complete type-length-value fields, and that the checksum among them,
/// if present, is right (section 2.2.4). All other fields are ignored.
fn check_extras(header: &[u8], mut extras: &[u8]) -> Result<(), Malformed> {
    const CRC32C: u8 = 3;
    while let Some((&[kind, high, low], rest)) = extras.split_first_chunk() {
        let (value, rest) = rest
            .split_at_checked(usize::from(u16::from_be_bytes([high, low])))
            .ok_or(Malformed)?;
        if kind == CRC32C {
            let stated: [u8; 4] = value.try_into().map_err(|_| Malformed)?;
            let end = header.len() - rest.len();
            // The checksum field itself counts as zero.
            let parts = [&header[..end - stated.len()], &[0; 4], rest];
            if crc32c(parts.into_iter().flatten()) != u32::from_be_bytes(stated) {
                return Err(Malformed);
            }
        }
        extras = rest;
    }
    if extras.is_empty() { Ok(()) } else { Err(Malformed) }
}

/// Computes the CRC32c of RFC 9260 appendix A.
fn crc32c<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    let after_byte =
        |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 * (crc & 1)));
    !bytes.fold(u32::MAX, after_byte)
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
        good(b"PROXY UNKNOWN\r\n", Origin::Unknown);
        good(b"PROXY UNKNOWN ffff::1 whatever 1 2\r\n", Origin::Unknown);
    }

    #[test]
    fn headers_of_version_2() {
        let tcp4 = [192, 0, 2, 1, 198, 51, 100, 7, 0xdc, 0x04, 0x01, 0xbb];
        good(&v2(0x21, 0x11, &tcp4), client("192.0.2.1:56324"));
        good(
            &v2(0x21, 0x11, &[&tcp4[..], &[0x04, 1, 41], &[0; 297]].concat()),
            client("192.0.2.1:56324"),
        );
        let mut tcp6 = [0; 36];
        (tcp6[15], tcp6[33]) = (1, 80);
        good(&v2(0x21, 0x21, &tcp6), client("[::1]:80"));
        good(&v2(0x20, 0x00, &[]), Origin::Sender);
        good(&v2(0x20, 0x11, &tcp4), Origin::Sender);
        good(&v2(0x21, 0x00, &[1, 2, 3]), Origin::Unknown);
        good(&v2(0x21, 0x31, &[b'a'; 216]), Origin::Unknown);
        good(&v2(0x20, 0x00, &[0; 4096]), Origin::Sender);
    }

    #[test]
    fn extras_are_whole() {
        let tcp4 = [192, 0, 2, 1, 198, 51, 100, 7, 0xdc, 0x04, 0x01, 0xbb];
        let with = |extras: &[u8]| v2(0x21, 0x11, &[&tcp4[..], extras].concat());
        for extras in [
            &[0x04, 0, 0][..],
            &[0x04, 0, 1, 9],
            &[0x04, 0, 3, 1, 2, 3, 0xee, 0, 0],
            b"\x01\0\x02h2\x02\0\x09edge.test",
        ] {
            good(&with(extras), client("192.0.2.1:56324"));
        }
        for extras in [
            &[0x04][..],
            &[0x04, 0],
            &[0x04, 0, 1],
            &[0x04, 0, 2, 9],
            &[0x04, 0xff, 0xff, 9],
            &[0x04, 0, 0, 0x04],
            &[0x04, 0, 0, 0x04, 0, 9, 1],
        ] {
            assert_eq!(read(&with(extras)), Err(Malformed), "{extras:?}");
            let unix = [&[b'a'; 216], extras].concat();
            assert_eq!(read(&v2(0x21, 0x31, &unix)), Err(Malformed), "{extras:?}");
            good(&v2(0x20, 0x11, &[&tcp4[..], extras].concat()), Origin::Sender);
        }
    }

    #[test]
    fn a_checksum_fits_or_nothing_is_believed() {
        // RFC 9260 appendix A gives the polynomial, RFC 3720 appendix B.4 these sums.
        assert_eq!(crc32c([0; 32].iter()), 0x8a91_36aa);
        assert_eq!(crc32c([0xff; 32].iter()), 0x62a8_ab43);
        assert_eq!(crc32c((0..32).collect::<Vec<u8>>().iter()), 0x46dd_794e);
        let header = |sum: [u8; 4], after: &[u8]| {
            let tcp4 = [192, 0, 2, 1, 198, 51, 100, 7, 0xdc, 0x04, 0x01, 0xbb];
            v2(0x21, 0x11, &[&tcp4[..], &[0x03, 0, 4], &sum, after].concat())
        };
        for after in [&[][..], &[0x04, 0, 2, 7, 7]] {
            let sum = crc32c(header([0; 4], after).iter());
            good(&header(sum.to_be_bytes(), after), client("192.0.2.1:56324"));
            assert_eq!(read(&header((sum ^ 1).to_be_bytes(), after)), Err(Malformed));
            let mut forged = header(sum.to_be_bytes(), after);
            forged[16] = 193;
            assert_eq!(read(&forged), Err(Malformed));
        }
        let short = v2(0x21, 0x11, &[&[0; 12][..], &[0x03, 0, 2, 0, 0]].concat());
        assert_eq!(read(&short), Err(Malformed));
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
        check(&v2(0x21, 0x10, &[0; 12]));
        check(&v2(0x21, 0x01, &[0; 12]));
        check(&v2(0x21, 0x32, &[0; 216]));
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
