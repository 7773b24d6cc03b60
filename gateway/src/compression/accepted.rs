//! Reads which codings a caller accepts, and chooses one (RFC 9110 section 12.5.3).
//!
//! Elements that do not fit the grammar are ignored. Where a coding is listed twice, the first one counts.

use http::header::ACCEPT_ENCODING;

use super::Coding;
use crate::message::FieldMap;

/// Weight of an element without one, in thousandths.
const FULL: u16 = 1000;

/// How much a caller wants each coding, in thousandths (RFC 9110 section 12.4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcceptedCodings {
    /// By coding; 0 is not at all.
    weights: [u16; Coding::ALL.len()],
    /// Weight of an answer as it is. `None`: it is accepted, but any coding that is accepted is as good.
    identity: Option<u16>,
}

impl AcceptedCodings {
    /// Reads `Accept-Encoding`. A request without the field may come from a client that knows no coding, so an answer
    /// stays as it is there.
    pub fn read(headers: &FieldMap) -> Self {
        let (mut named, mut identity, mut others) = ([None; Coding::ALL.len()], None, None);
        for line in headers.get_all(ACCEPT_ENCODING) {
            for (name, weight) in line.as_bytes().split(|byte| *byte == b',').filter_map(element) {
                let place = match Coding::named(name) {
                    Some(coding) => &mut named[coding as usize],
                    None if name.eq_ignore_ascii_case(b"identity") => &mut identity,
                    None if name == b"*" => &mut others,
                    None => continue,
                };
                place.get_or_insert(weight);
            }
        }
        Self {
            weights: named.map(|weight| weight.or(others).unwrap_or(0)),
            identity: identity.or(others),
        }
    }

    /// Returns the coding that the caller wants most; the first of `offered` among equals. `None` leaves the answer as
    /// it is, also where nothing on offer is acceptable.
    pub fn choose(&self, offered: &[Coding]) -> Option<Coding> {
        let weight = |coding: Coding| self.weights[coding as usize];
        let best = offered.iter().copied().rev().max_by_key(|coding| weight(*coding))?;
        let is_wanted = weight(best) > 0 && self.identity.is_none_or(|identity| weight(best) >= identity);
        is_wanted.then_some(best)
    }

    /// Whether the caller does not accept an answer as it is, as by `identity;q=0` or `*;q=0`.
    pub fn refuses_identity(&self) -> bool {
        self.identity == Some(0)
    }
}

/// Returns the name and the weight of a list element. `None` for an empty or malformed one.
fn element(element: &[u8]) -> Option<(&[u8], u16)> {
    let mut halves = element.splitn(2, |byte| *byte == b';');
    let name = halves.next()?.trim_ascii();
    let weight = match halves.next() {
        None => FULL,
        Some(parameter) => match parameter.trim_ascii() {
            [b'q' | b'Q', b'=', weight @ ..] => thousandths(weight)?,
            _ => return None,
        },
    };
    (!name.is_empty()).then_some((name, weight))
}

/// Parses `0`, `1`, or either with up to three decimals, at most 1.
fn thousandths(text: &[u8]) -> Option<u16> {
    let (whole, decimals) = match text {
        [whole @ (b'0' | b'1')] => (*whole, &[][..]),
        [whole @ (b'0' | b'1'), b'.', decimals @ ..] if decimals.len() <= 3 => (*whole, decimals),
        _ => return None,
    };
    let mut number = u16::from(whole - b'0');
    for place in 0..3 {
        let digit = decimals.get(place).copied().unwrap_or(b'0');
        number = 10 * number + u16::from(digit.is_ascii_digit().then(|| digit - b'0')?);
    }
    (number <= FULL).then_some(number)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use Coding::{Brotli, Gzip, Zstd};

    fn read(lines: &[&str]) -> AcceptedCodings {
        let mut headers = FieldMap::new();
        for line in lines {
            headers.append(ACCEPT_ENCODING, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        AcceptedCodings::read(&headers)
    }

    #[test]
    fn the_most_wanted_coding_is_chosen() {
        let offered = [Zstd, Gzip, Brotli];
        let check =
            |line: &str, expected: Option<Coding>| assert_eq!(read(&[line]).choose(&offered), expected, "{line}");
        check("gzip", Some(Gzip));
        check("GZip", Some(Gzip));
        check("x-gzip", Some(Gzip));
        check("br", Some(Brotli));
        check("gzip, deflate, br, zstd", Some(Zstd));
        check("gzip, deflate, br", Some(Gzip));
        check("gzip;q=0.8, br", Some(Brotli));
        check("gzip;q=0.8,br ; Q=0.9,zstd;q=0.1", Some(Brotli));
        check("gzip;q=0.001, br;q=0", Some(Gzip));
        check("gzip;q=1.000", Some(Gzip));
        check("gzip;q=0.", None);
        check("gzip;q=0", None);
        check("gzip;q=0.000", None);
        // The star stands for what is not listed.
        check("*", Some(Zstd));
        check("*;q=0.5, zstd;q=0", Some(Gzip));
        check("*;q=0, gzip", Some(Gzip));
        check("*;q=0", None);
        check("gzip;q=0.5, *;q=0.4", Some(Gzip));
        // An answer as it is has no weight unless it is listed.
        check("gzip;q=0.1", Some(Gzip));
        check("identity, gzip", Some(Gzip));
        check("identity, gzip;q=0.9", None);
        check("identity;q=0.5, gzip;q=0.6", Some(Gzip));
        check("identity;q=0, gzip;q=0.1", Some(Gzip));
        check("gzip;q=0.2, *;q=0.8", Some(Zstd));
        // The first of two counts.
        check("gzip;q=0, gzip", None);
        check("gzip, gzip;q=0", Some(Gzip));
        // What does not fit the grammar is no element.
        for line in [
            "",
            ",",
            "identity",
            "deflate",
            "compress, exi",
            "gzip;q=2",
            "gzip;q=1.001",
            "gzip;q=0.1234",
            "gzip;q=",
            "gzip;q=-1",
            "gzip;level=1",
            "gzip;q=0.5;x=1",
            "gzip q=1",
            "gz ip",
            "\"gzip\"",
            ";q=1",
            "gzip;q=0x1",
            "gzip;q=.5",
            "gzip; q = 1",
        ] {
            check(line, None);
        }
    }

    #[test]
    fn lines_are_one_list() {
        assert_eq!(read(&["br;q=0.5", "gzip"]).choose(&[Brotli, Gzip]), Some(Gzip));
        assert_eq!(read(&[]).choose(&Coding::ALL), None);
        assert_eq!(read(&["gzip"]).choose(&[Brotli]), None);
        assert_eq!(read(&["gzip"]).choose(&[]), None);
    }

    #[test]
    fn the_order_on_offer_decides_between_equals() {
        let all = read(&["gzip, br, zstd"]);
        assert_eq!(all.choose(&[Brotli, Zstd, Gzip]), Some(Brotli));
        assert_eq!(all.choose(&[Gzip, Zstd]), Some(Gzip));
        assert_eq!(read(&["gzip, br;q=0.9"]).choose(&[Brotli, Gzip]), Some(Gzip));
    }

    #[test]
    fn an_answer_as_it_is_can_be_refused() {
        for (line, expected) in [
            ("gzip, identity;q=0", true),
            ("gzip, *;q=0", true),
            ("*;q=0, identity;q=0.1", false),
            ("identity;q=0.001", false),
            ("gzip", false),
            ("", false),
        ] {
            assert_eq!(read(&[line]).refuses_identity(), expected, "{line}");
        }
    }
}
