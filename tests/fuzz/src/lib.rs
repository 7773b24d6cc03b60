//! Checks what must hold for any input, however hostile: each module takes bytes, makes an input of them, and panics if
//! the gateway breaks a promise.
//!
//! `make fuzz` runs each with libFuzzer for a bounded time. `tests/cases.rs` replays `cases/TARGET/*`; an input that
//! was found belongs there once it is understood.

pub mod client_address;
pub mod config;
pub mod headers;
pub mod http1;
pub mod json;
pub mod merge;
pub mod metering;
pub mod path;
pub mod proxy_protocol;
pub mod splice;

/// Fuzz target: its name, which is also its folder under `cases`, and its check.
pub type Target = (&'static str, fn(&[u8]));

pub const TARGETS: [Target; 10] = [
    ("client_address", client_address::check),
    ("config", config::check),
    ("headers", headers::check),
    ("http1", http1::check),
    ("json", json::check),
    ("merge", merge::check),
    ("metering", metering::check),
    ("path", path::check),
    ("proxy_protocol", proxy_protocol::check),
    ("splice", splice::check),
];

/// Splits off the first byte, whose bits select how the rest is used.
fn split_flags(data: &[u8]) -> Option<(u8, &[u8])> {
    data.split_first().map(|(flags, rest)| (*flags, rest))
}

/// Returns `name: value` lines as fields; lines that the `http` crate refuses are left out.
fn header_lines(text: &[u8]) -> gateway::message::FieldMap {
    let mut headers = gateway::message::FieldMap::new();
    for line in text.split(|byte| *byte == b'\n').take(64) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let name = http::HeaderName::from_bytes(&line[..colon]);
        let value = http::HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    headers
}
