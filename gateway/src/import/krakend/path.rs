//! Rewrites path patterns into those of this gateway.

use std::collections::HashMap;

use super::endpoint::Endpoint;
use super::left_out::LeftOut;
use super::shape::Shape;

/// A path pattern of ours.
pub(super) struct Pattern {
    pub(super) text: String,
    /// Names here by names there.
    names: HashMap<String, String>,
}

pub(super) fn pattern(path: &str) -> Pattern {
    let mut names = HashMap::new();
    let segments = path
        .trim_start_matches('/')
        .split('/')
        .enumerate()
        .map(|(place, segment)| {
            let named = segment
                .strip_prefix('{')
                .and_then(|rest| rest.strip_suffix('}'))
                .or_else(|| segment.strip_prefix(':'));
            if segment == "*" {
                return "{*rest}".to_owned();
            }
            let Some(name) = named else {
                return segment.replace('{', "{{").replace('}', "}}");
            };
            let mut ours: String = name
                .chars()
                .map(|c| {
                    if c.is_ascii_alphanumeric() || matches!(c, '_' | '-') {
                        c
                    } else {
                        '_'
                    }
                })
                .collect();
            if !ours.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
                ours = format!("p{place}_{ours}");
            }
            names.insert(name.to_owned(), ours.clone());
            format!("{{{ours}}}")
        });
    let text = format!("/{}", segments.collect::<Vec<_>>().join("/"));
    Pattern { text, names }
}

impl Endpoint<'_> {
    /// Returns the path that a backend gets, and the parts whose answers it names.
    pub(super) fn path(&self, pattern: &str, before: &[Shape], left: &mut LeftOut, at: &str) -> (String, Vec<String>) {
        let (mut path, mut needs) = (String::new(), Vec::new());
        let mut rest = pattern;
        if !pattern.starts_with('/') {
            path.push('/');
        }
        while let Some((text, after)) = rest.split_once('{') {
            path.push_str(text);
            let Some((name, after)) = after.split_once('}') else {
                path.push_str("{{");
                rest = after;
                continue;
            };
            match self.placeholder(name, before, &mut needs) {
                Some(placeholder) => path.push_str(&placeholder),
                None => {
                    left.add(&format!("{at}.url_pattern {{{name}}}"), "nothing has this name");
                    path.push_str(&escaped(name));
                }
            }
            rest = after;
        }
        path.push_str(rest);
        // A fragment is never sent.
        (path.replace(' ', "%20"), needs)
    }

    fn placeholder(&self, name: &str, before: &[Shape], needs: &mut Vec<String>) -> Option<String> {
        if let Some(renamed) = self.pattern.names.get(name) {
            return Some(format!("{{path.{renamed}}}"));
        }
        if let Some(claim) = name.strip_prefix("JWT.") {
            // A claim whose name is a URL cannot be told from a path into claims.
            return (!claim.contains("://")).then(|| format!("{{claim.{claim}}}"));
        }
        let rest = name.strip_prefix("resp")?;
        let end = rest.find('_')?;
        let shape = before.get(rest[..end].parse::<usize>().ok()?)?;
        needs.push(shape.name.clone());
        Some(format!("{{part.{}.{}}}", shape.name, shape.raw(&rest[end + 1..])))
    }
}

/// Returns the bytes of a name in braces, as a path has them.
fn escaped(name: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    format!("%7B{}%7D", name.bytes().map(byte).collect::<String>())
}
