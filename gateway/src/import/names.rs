//! Names that are made for what the other side does not name.

use std::collections::BTreeSet;

/// Longest name in characters, before the number that tells it from others.
const LONGEST: usize = 60;

/// Returns a name for the backend at this URL, which may lack its scheme.
pub(super) fn of_backend(url: &str) -> String {
    let host = url.split_once("://").map_or(url, |(_, host)| host);
    let sign = |char: char| match char.is_ascii_alphanumeric() {
        true => char.to_ascii_lowercase(),
        false => '_',
    };
    let name: String = host.chars().map(sign).collect();
    if name.starts_with(|char: char| char.is_ascii_alphabetic()) {
        name
    } else {
        format!("backend_{name}")
    }
}

/// Returns a name that is not in `used`, and adds it there.
pub(super) fn unused(name: &str, used: &mut BTreeSet<String>) -> String {
    let name: String = name.chars().take(LONGEST).collect();
    let mut candidate = name.clone();
    let mut number = 1;
    while !used.insert(candidate.clone()) {
        number += 1;
        candidate = format!("{name}_{number}");
    }
    candidate
}
