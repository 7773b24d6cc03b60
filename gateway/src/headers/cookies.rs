//! Reads single cookies of a request (RFC 6265 section 4.2.1).

use http::header::COOKIE;

use crate::message::FieldMap;

/// Returns the value of the first cookie with this name, without the quotes that may stand around it.
pub fn cookie<'h>(headers: &'h FieldMap, name: &str) -> Option<&'h [u8]> {
    let lines = headers.get_all(COOKIE).iter();
    let mut pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    pairs.find_map(|pair| {
        let pair = pair.trim_ascii();
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        let (found, value) = (pair[..equals].trim_ascii(), pair[equals + 1..].trim_ascii());
        let quoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
        (found == name.as_bytes()).then_some(quoted.unwrap_or(value))
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        let check = |lines: &[&'static str], expected: Option<&str>| {
            let mut headers = FieldMap::new();
            for line in lines {
                headers.append(COOKIE, HeaderValue::from_static(line));
            }
            let found = cookie(&headers, "sid");
            assert_eq!(found, expected.map(str::as_bytes), "{lines:?}");
        };
        check(&["sid=1"], Some("1"));
        check(&["a=b; sid=1; sid=2"], Some("1"));
        check(&["a=b;sid = 1 ;c=d"], Some("1"));
        check(&["sid=\"x y\""], Some("x y"));
        check(&["sid=a=b"], Some("a=b"));
        check(&["a=b", "sid=1"], Some("1"));
        check(&["sid="], Some(""));
        check(&["sid"], None);
        check(&["SID=1; xsid=2; sidx=3; a=sid=4"], None);
        check(&[], None);
    }
}
