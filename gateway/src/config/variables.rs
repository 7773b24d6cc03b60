//! Replaces `${NAME}` in a value by a variable of the environment.
//!
//! It works on single values after the YAML is parsed, so the environment cannot change the structure of a config.
//! `${NAME:-default}` has a default, and `$${` is a literal `${`. All other text stays as it is.

use super::mistake::Mistake;

/// Reason why a text could not be expanded.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Problem {
    Unset(String),
    /// `${` without an end or without a name.
    Malformed,
}

/// Replaces the variables in a text. Returns `None` if there are none.
pub(super) fn expand(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Option<String>, Problem> {
    if !text.contains("${") {
        return Ok(None);
    }
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        if rest[..start].ends_with('$') {
            expanded.push_str(&rest[..start]);
            expanded.push('{');
            rest = &rest[start + 2..];
            continue;
        }
        expanded.push_str(&rest[..start]);
        let inside = &rest[start + 2..];
        let end = inside.find('}').ok_or(Problem::Malformed)?;
        let (name, default) = match inside[..end].split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (&inside[..end], None),
        };
        if !is_name(name) {
            return Err(Problem::Malformed);
        }
        let value = env(name).filter(|value| default.is_none() || !value.is_empty());
        let value = value
            .or_else(|| default.map(str::to_owned))
            .ok_or_else(|| Problem::Unset(name.to_owned()))?;
        expanded.push_str(&value);
        rest = &inside[end + 1..];
    }
    expanded.push_str(rest);
    Ok(Some(expanded))
}

/// Adds to the hint of a mistake about a variable in a place where it cannot stand that it is not set either.
pub(super) fn tell_unset(mistake: &mut Mistake, text: &str, env: &dyn Fn(&str) -> Option<String>) {
    let Some(hint) = mistake.hint.as_mut().filter(|hint| hint.contains("${VARIABLE}")) else {
        return;
    };
    // The mistake is at the brace.
    let start = mistake.at.map(|at| at.start as usize).and_then(|at| at.checked_sub(1));
    let variable = start.and_then(|start| find(text.get(start..)?.lines().next()?));
    if let Some(unset) = variable.and_then(|variable| unset_in(variable, env)) {
        hint.push_str(&unset);
    }
}

/// Returns the end of a hint for a text with a variable that is not set; `None` if all are set or have a default.
pub(super) fn unset_in(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    match expand(text, env) {
        Err(Problem::Unset(name)) => Some(format!(
            "; `{name}` is not set either: set it, or give it a default, `${{{name}:-...}}`"
        )),
        _ => None,
    }
}

/// Returns a hint for a text that is a variable in the form of a shell, such as `$TIER`.
pub(super) fn meant(text: &str) -> Option<String> {
    let name = text.strip_prefix('$')?;
    let is_name = name.bytes().next()?.is_ascii_alphabetic()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_name.then(|| format!("a variable is `${{{name}}}`, without quotes and outside of `{{ }}`, on a line of its own"))
}

/// Returns the first part of a quoted text that would be a variable without the quotes.
pub(super) fn find(text: &str) -> Option<&str> {
    let mut from = 0;
    while let Some(start) = text[from..].find("${").map(|start| start + from) {
        let end = text[start..].find('}').map(|end| start + end);
        let is_variable = |inside: &str| is_name(inside.split_once(":-").map_or(inside, |(name, _)| name));
        if let Some(end) = end.filter(|end| !text[..start].ends_with('$') && is_variable(&text[start + 2..*end])) {
            return Some(&text[start..=end]);
        }
        from = start + 2;
    }
    None
}

/// Replaces `$${` in a quoted text by `${`.
pub(super) fn unescape(text: &str) -> String {
    text.replace("$${", "${")
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expands() {
        let env = |name: &str| match name {
            "HOST" => Some("example.com".to_owned()),
            "EMPTY" => Some(String::new()),
            "TRICK" => Some("${HOST}".to_owned()),
            _ => None,
        };
        let check = |text: &str, expected: Result<Option<&str>, Problem>| {
            assert_eq!(
                expand(text, &env),
                expected.map(|value| value.map(str::to_owned)),
                "{text}"
            );
        };
        check("plain $HOME", Ok(None));
        check("http://${HOST}:80", Ok(Some("http://example.com:80")));
        check("${HOST}${HOST}", Ok(Some("example.comexample.com")));
        check("${EMPTY}", Ok(Some("")));
        check("${EMPTY:-x}", Ok(Some("x")));
        check("${NONE:-x}", Ok(Some("x")));
        check("${TRICK}", Ok(Some("${HOST}")));
        check("$${HOST}", Ok(Some("${HOST}")));
        check("$${HOST} ${HOST}", Ok(Some("${HOST} example.com")));
        check("${NONE}", Err(Problem::Unset("NONE".to_owned())));
        check("${HOST", Err(Problem::Malformed));
        check("${}", Err(Problem::Malformed));
        check("${not a name}", Err(Problem::Malformed));
    }

    #[test]
    fn finds_what_quotes_keep_from_expanding() {
        assert_eq!(find("Bearer ${TOKEN}"), Some("${TOKEN}"));
        assert_eq!(find("Bearer ${TOKEN:-none}"), Some("${TOKEN:-none}"));
        assert_eq!(find("$${TOKEN}"), None);
        assert_eq!(find("${ x }"), None);
        assert_eq!(find("${ ${X}"), Some("${X}"));
        assert_eq!(find("$5"), None);
        assert_eq!(unescape("$${TOKEN}"), "${TOKEN}");
    }
}
