//! Maps placeholders of other products to the ones used here: `{id}` and `:id` become `{path.id}`, `$arg_q` becomes
//! `{query.q}`.

use super::{Placeholder, TemplateError, Why};

impl TemplateError {
    /// Returns the whole text with the placeholder that was probably intended, if there is one. `parameters` are the
    /// parameters of the route's path.
    pub fn meant(&self, text: &str, parameters: &[&str]) -> Option<String> {
        match &self.why {
            Why::Unknown(name) => {
                let ours = placeholder_meant(name, parameters)?;
                Some(text.replacen(&format!("{{{name}}}"), &format!("{{{ours}}}"), 1))
            }
            // `{{name}}`, which here means literal braces.
            Why::Unencoded if text.contains("{{") => {
                let inner = text.split_once("{{")?.1.split_once("}}")?.0;
                let name = inner.trim();
                let ours = Placeholder::parse(name).map(|_| name.to_owned());
                let ours = ours.or_else(|| placeholder_meant(name, parameters))?;
                Some(text.replacen(&format!("{{{{{inner}}}}}"), &format!("{{{ours}}}"), 1))
            }
            _ => None,
        }
    }
}

/// Returns a piece of the text that was probably intended as a placeholder but is sent literally, and its placeholder
/// here.
pub fn taken_literally(text: &str, parameters: &[&str]) -> Option<(String, String)> {
    for piece in text.split(['/', '?', '&', '=', ' ', ',', ';', '"']) {
        let named = piece.strip_prefix(':').or_else(|| piece.strip_prefix('$'));
        let Some(name) = named.filter(|name| !name.is_empty()) else {
            if piece == "*" && parameters.len() == 1 {
                return Some((piece.to_owned(), format!("{{path.{}}}", parameters[0])));
            }
            continue;
        };
        let known = parameters.iter().find(|known| **known == name);
        if let Some(name) = known {
            return Some((piece.to_owned(), format!("{{path.{name}}}")));
        }
        let Some(name) = piece.strip_prefix('$') else { continue };
        if name.bytes().all(|byte| byte.is_ascii_digit()) {
            let place = name.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
            let known = place.and_then(|place| parameters.get(place)).copied().unwrap_or("NAME");
            return Some((piece.to_owned(), format!("{{path.{known}}}")));
        }
        // Variables of nginx.
        let ours = [("arg_", "query"), ("http_", "header")];
        for (prefix, source) in ours {
            if let Some(name) = name.strip_prefix(prefix).filter(|name| !name.is_empty()) {
                return Some((piece.to_owned(), format!("{{{source}.{}}}", name.replace('_', "-"))));
            }
        }
    }
    // Doubled braces are literal. With a placeholder name between them, a placeholder was intended.
    let inner = text.split_once("{{")?.1.split_once("}}")?.0;
    let ours = Placeholder::parse(inner.trim()).map(|_| inner.trim().to_owned());
    let ours = ours.or_else(|| placeholder_meant(inner.trim(), parameters))?;
    Some((format!("{{{{{inner}}}}}"), format!("{{{ours}}}")))
}

/// Translates another product's placeholder name, without braces, to the name used here.
fn placeholder_meant(name: &str, parameters: &[&str]) -> Option<String> {
    let name = name.trim().trim_start_matches(['$', '*', ':', '.']);
    if parameters.contains(&name) {
        return Some(format!("path.{name}"));
    }
    let written = name;
    let name = name
        .strip_prefix("request.")
        .or_else(|| name.strip_prefix("req."))
        .unwrap_or(name);
    let (source, rest) = name.split_once(['.', ':', '_'])?;
    let source = match source.to_ascii_lowercase().as_str() {
        "path" | "params" | "param" | "vars" | "var" | "uri" | "captures" | "capture" | "url" => "path",
        "query" | "queries" | "args" | "arg" | "querystring" | "qs" => "query",
        "header" | "headers" | "http" => "header",
        "claim" | "claims" | "jwt" | "token" | "auth" | "identity" => "claim",
        "part" | "parts" | "resp" | "response" | "responses" => "part",
        "body" | "json" | "payload" => "body",
        "item" | "element" | "each" => "item",
        _ => return None,
    };
    let rest = rest
        .strip_prefix("params.")
        .or_else(|| rest.strip_prefix("query."))
        .unwrap_or(rest);
    let rest = match source {
        "header" => rest.replace('_', "-"),
        _ => rest.to_owned(),
    };
    let ours = format!("{source}.{rest}");
    let fits = source != "path" || parameters.is_empty() || parameters.contains(&rest.as_str());
    (fits && Placeholder::parse(&ours).is_some() && ours != written).then_some(ours)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::{Syntax, Template};

    #[test]
    fn a_placeholder_of_others_is_one_of_ours() {
        let check = |text: &str, expected: Option<&str>| {
            let error = Template::parse(text, Syntax::Path).expect_err(text);
            assert_eq!(error.meant(text, &["id", "rest"]).as_deref(), expected, "{text}");
            if let Some(meant) = expected {
                assert!(Template::parse(meant, Syntax::Path).is_ok(), "{meant}");
            }
        };
        check("/v1/{id}", Some("/v1/{path.id}"));
        check("/v1/{params.id}", Some("/v1/{path.id}"));
        check("/v1/{request.path.id}", Some("/v1/{path.id}"));
        check("/v1/{vars:id}", Some("/v1/{path.id}"));
        check("/v1/{*rest}", Some("/v1/{path.rest}"));
        check("/v1/{{id}}", Some("/v1/{path.id}"));
        check("/v1/{{ path.id }}", Some("/v1/{path.id}"));
        check("/v1?q={args.q}", Some("/v1?q={query.q}"));
        check("/v1?q={querystring.q}", Some("/v1?q={query.q}"));
        check(
            "/v1?l={headers.accept_language}",
            Some("/v1?l={header.accept-language}"),
        );
        check("/v1/{jwt.sub}", Some("/v1/{claim.sub}"));
        check("/v1/{claims.org.id}", Some("/v1/{claim.org.id}"));
        check("/v1/{other}", None);
        check("/v1/{x.y}", None);
        check("/v1/{id", None);
    }

    #[test]
    fn what_is_sent_as_it_stands_is_noticed() {
        let check = |text: &str, expected: Option<(&str, &str)>| {
            let found = taken_literally(text, &["id"]);
            let expected = expected.map(|(piece, ours)| (piece.to_owned(), ours.to_owned()));
            assert_eq!(found, expected, "{text}");
        };
        check("/v1/:id", Some((":id", "{path.id}")));
        check("/v1/$id/x", Some(("$id", "{path.id}")));
        check("/v1/$1", Some(("$1", "{path.id}")));
        check("/v1/$2", Some(("$2", "{path.NAME}")));
        check("/v1/*", Some(("*", "{path.id}")));
        check("/v1?q=$arg_q", Some(("$arg_q", "{query.q}")));
        check(
            "/v1?l=$http_accept_language",
            Some(("$http_accept_language", "{header.accept-language}")),
        );
        check("{{claim.sub}}", Some(("{{claim.sub}}", "{claim.sub}")));
        check("Bearer {{ id }}", Some(("{{ id }}", "{path.id}")));
        check("/v1/{path.id}", None);
        check("/v1/:other", None);
        check("/v1/$metadata", None);
        check("{{\"group\": 1}}", None);
        check("/v1/things:batchGet", None);
    }
}
