//! Translates path patterns of other products into this gateway's: `/users/:id` is `/users/{id}`, and `/files/*` is
//! `/files/{*rest}`.
//!
//! Most foreign patterns are valid here too, as literal text that no request has. So the operator is asked whether the
//! translation was meant.

use super::pattern::Pattern;

/// Returns the translation of a foreign pattern; `None` if the text is not foreign or cannot be expressed here.
pub fn pattern_meant(text: &str) -> Option<String> {
    let path = without_operators(text);
    let path = path.strip_suffix('$').unwrap_or(path);
    let mut names = Names::default();
    let segments: Vec<_> = split(path.strip_prefix('/').unwrap_or(path));
    let last = segments.len() - 1;
    let mut meant = String::new();
    for (place, segment) in segments.iter().enumerate() {
        let segment = names.segment(segment, place == last)?;
        if segment.is_empty() && place > 0 && place < last {
            return None;
        }
        meant.push('/');
        meant.push_str(&segment);
        if segment.starts_with("{*") {
            break;
        }
    }
    (meant != text && Pattern::parse(&meant).is_ok()).then_some(meant)
}

/// Returns the path without the prefix that other products allow: a method, a scheme and host, or a sign for a regular
/// expression.
fn without_operators(text: &str) -> &str {
    let text = text.trim();
    let text = match text.split_once(' ') {
        Some((word, rest)) if !word.contains('/') => rest.trim_start(),
        _ => text,
    };
    let text = match text.split_once("://") {
        Some((_, rest)) => &rest[rest.find('/').unwrap_or(rest.len())..],
        None => text,
    };
    text.trim_start_matches(['~', '=', '^'])
}

/// Splits at the slashes outside brackets.
fn split(path: &str) -> Vec<&str> {
    let (mut depth, mut begin, mut segments) = (0_u32, 0, Vec::new());
    for (at, byte) in path.bytes().enumerate() {
        match byte {
            b'(' | b'[' | b'{' | b'<' => depth += 1,
            b')' | b']' | b'}' | b'>' => depth = depth.saturating_sub(1),
            b'/' if depth == 0 => {
                segments.push(&path[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    segments.push(&path[begin..]);
    segments
}

/// Translates segments, and names the parameters that have no name.
#[derive(Default)]
struct Names {
    unnamed: u32,
}

impl Names {
    fn segment(&mut self, segment: &str, is_last: bool) -> Option<String> {
        let parameter = |name: &str, takes_all: bool| {
            let star = if takes_all && is_last { "*" } else { "" };
            let name = name.replace(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-', "_");
            (!name.is_empty()).then(|| format!("{{{star}{name}}}"))
        };
        if let Some(rest) = segment
            .strip_prefix(':')
            .filter(|rest| rest.starts_with(|c: char| c.is_alphabetic() || c == '_'))
        {
            let end = rest
                .find(|c: char| !c.is_alphanumeric() && c != '_' && c != '-')
                .unwrap_or(rest.len());
            let (name, how) = rest.split_at(end);
            return parameter(name, how.starts_with(['*', '+']) || how == "(.*)");
        }
        if let Some(inner) = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            let (name, how) = inner.split_once(':').unwrap_or((inner, ""));
            let takes_all = name.starts_with('*')
                || name.ends_with(['+', '*', '.'])
                || how.contains(".*")
                || matches!(how, "path" | ".+");
            let name = name.trim_matches(['*', '+', '.', '?', '=']);
            return parameter(name, takes_all).or_else(|| Some(self.unnamed(is_last && takes_all)));
        }
        if let Some(inner) = segment.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')) {
            let (kind, name) = inner.rsplit_once(':').unwrap_or(("", inner));
            return parameter(name, kind == "path");
        }
        if let Some(inner) = segment.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let inner = inner.trim_matches(['[', ']']);
            if inner
                .trim_start_matches('.')
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
                && !inner.contains("0-9")
                && !inner.contains("a-z")
            {
                return parameter(inner.trim_start_matches('.'), inner.starts_with("..."));
            }
        }
        let named = segment.strip_prefix("(?P<").or_else(|| segment.strip_prefix("(?<"));
        if let Some((name, how)) = named.and_then(|named| named.split_once('>')) {
            return parameter(name, how.starts_with(".*") || how.starts_with(".+"));
        }
        if let Some(name) = segment
            .trim_start_matches('*')
            .split('.')
            .next()
            .filter(|name| segment.starts_with('*') && is_word(name))
        {
            return Some(if segment.contains('.') {
                self.unnamed(false)
            } else {
                parameter(name, true)?
            });
        }
        let is_expression = segment.contains(['(', '[', '\\', '|']) || segment.contains(".+");
        if !segment.contains('*') && !is_expression {
            return Some(segment.to_owned());
        }
        if let Some(word) = segment
            .trim_end_matches('*')
            .strip_suffix('.')
            .or(Some(segment.trim_end_matches('*')))
            .filter(|word| is_word(word) && is_last)
        {
            // `/api*` elsewhere matches `/api` and everything below; here one pattern can only express what is below.
            return Some(format!("{word}/{{*rest}}"));
        }
        let takes_all = matches!(
            segment.trim_matches(['(', ')', '^', '$']),
            ".*" | ".+" | "*" | "**" | "/.*" | "/|$" | ""
        );
        let takes_all = takes_all || segment.contains(".*") || segment.contains("**") || (segment == "*" && is_last);
        Some(self.unnamed(is_last && takes_all))
    }

    fn unnamed(&mut self, takes_all: bool) -> String {
        if takes_all {
            return "{*rest}".to_owned();
        }
        self.unnamed += 1;
        match self.unnamed {
            1 => "{any}".to_owned(),
            number => format!("{{any{number}}}"),
        }
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-.~%".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_patterns_of_others_are_put_into_ours() {
        let check = |text: &str, expected: Option<&str>| assert_eq!(pattern_meant(text).as_deref(), expected, "{text}");
        // Patterns of this gateway, and plain paths.
        for ours in [
            "/",
            "/users",
            "/users/{id}",
            "/files/{*rest}",
            "/a:b/c",
            "/v1/things:batchGet",
            "/$metadata",
            "/a+b",
            "/x/",
        ] {
            check(ours, None);
        }
        // Express, Rails, Kong, Gin.
        check("/users/:id", Some("/users/{id}"));
        check("/users/:id/orders/:order_id", Some("/users/{id}/orders/{order_id}"));
        check("/users/:id?", Some("/users/{id}"));
        check("/users/:id(\\d+)", Some("/users/{id}"));
        check("/files/:path*", Some("/files/{*path}"));
        check("/files/:path+", Some("/files/{*path}"));
        check("/files/*path", Some("/files/{*path}"));
        // nginx, Traefik, AWS, Caddy, Spring.
        check("/files/*", Some("/files/{*rest}"));
        check("/files/**", Some("/files/{*rest}"));
        check("/*", Some("/{*rest}"));
        check("*", Some("/{*rest}"));
        check("/api*", Some("/api/{*rest}"));
        check("/api/**/x", Some("/api/{any}/x"));
        check("/a/*/b/*", Some("/a/{any}/b/{*rest}"));
        check("/a/*/b/*/c", Some("/a/{any}/b/{any2}/c"));
        check("/*.json", Some("/{any}"));
        check("/{proxy+}", Some("/{*proxy}"));
        check("/{rest...}", Some("/{*rest}"));
        check("/{**rest}", Some("/{*rest}"));
        check("/users/{id:[0-9]+}", Some("/users/{id}"));
        check("/files/{path:.*}", Some("/files/{*path}"));
        check("/files/{path:path}", Some("/files/{*path}"));
        check("/users/{id?}", Some("/users/{id}"));
        check("/users/{user.id}", Some("/users/{user_id}"));
        check("/users/{}", Some("/users/{any}"));
        // Flask, Django, Next.
        check("/users/<id>", Some("/users/{id}"));
        check("/users/<int:id>/x", Some("/users/{id}/x"));
        check("/files/<path:name>", Some("/files/{*name}"));
        check("/users/[id]", Some("/users/{id}"));
        check("/files/[...slug]", Some("/files/{*slug}"));
        check("/files/[[...slug]]", Some("/files/{*slug}"));
        // Regular expressions.
        check("^/users/([^/]+)$", Some("/users/{any}"));
        check("~ ^/users/(?<id>[0-9]+)$", Some("/users/{id}"));
        check("^/users/(?P<id>\\d+)/orders$", Some("/users/{id}/orders"));
        check("/users/[0-9]+", Some("/users/{any}"));
        check("/files/.*", Some("/files/{*rest}"));
        check("/files/(.*)", Some("/files/{*rest}"));
        check("/files(/|$)(.*)", Some("/{*rest}"));
        check("/users$", Some("/users"));
        check("= /users", Some("/users"));
        check("GET /users/{id}", Some("/users/{id}"));
        check("https://api.example.com/users/{id}", Some("/users/{id}"));
        check("users/{id}", Some("/users/{id}"));
    }
}
