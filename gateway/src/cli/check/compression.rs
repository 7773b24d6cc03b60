//! Shows which answers are compressed, route by route.

use super::wrapped;
use crate::config::size_text;
use crate::plan::Plan;
use crate::plan::outline::{CompressionOutline, RouteOutline};

/// Returns a line for each compression in use, with the routes that have it. None if nothing is compressed.
pub(super) fn lines(plan: &Plan) -> Vec<String> {
    let all = &plan.outline.routes;
    let mut found: Vec<(Option<&CompressionOutline>, Vec<&RouteOutline>)> = Vec::new();
    for route in all {
        let own = route.edge.compression.as_ref();
        match found.iter_mut().find(|(other, _)| *other == own) {
            Some((_, routes)) => routes.push(route),
            None => found.push((own, vec![route])),
        }
    }
    if found.iter().all(|(compression, _)| compression.is_none()) {
        return Vec::new();
    }
    let line = |(compression, routes): &(Option<&CompressionOutline>, Vec<&RouteOutline>)| {
        let names: Vec<_> = routes.iter().map(|route| &*route.name).collect();
        let names = match names.len() == all.len() {
            true => "every route".to_owned(),
            false => names.join(", "),
        };
        match compression {
            None => wrapped::lines(&format!("{names}: nothing"), [""; 0]),
            Some(compression) => {
                let codings = compression.codings.join(", ");
                let from = size_text(compression.minimum_bytes);
                wrapped::lines(&format!("{names}: {codings}, from {from} on;"), &compression.types)
            }
        }
    };
    found.iter().flat_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::compile::test_plan;

    fn shown(top: &str, own: &str) -> Vec<String> {
        let text = format!(
            "listeners: {{ public: {{ address: \"127.0.0.1:0\" }} }}\ncallers: {{ anonymous: {{ by: client_address }} }}\n\
             {top}\nroutes:\n  a: {{ match: {{ path: /a }}, access: {{ any_of: [anonymous] }}, respond: {{ status: 204 }} }}\n  \
             b: {{ match: {{ path: /b }}, access: {{ any_of: [anonymous] }}, {own} respond: {{ status: 204 }} }}\n"
        );
        lines(&test_plan::plan(&text, &test_plan::state()))
    }

    #[test]
    fn routes_with_the_same_rules_share_a_line() {
        let check = |top: &str, own: &str, expected: &[&str]| assert_eq!(shown(top, own), expected, "{top} {own}");
        check("", "", &[]);
        check("", "compression: off,", &[]);
        let top = "compression: { codings: [gzip], types: [text/*] }";
        check(top, "", &["every route: gzip, from 1KiB on; text/*"]);
        check(
            top,
            "compression: off,",
            &["a: gzip, from 1KiB on; text/*", "b: nothing"],
        );
        check(
            top,
            "compression: { types: [application/json, text/*], codings: [br, zstd], minimum: 100B },",
            &[
                "a: gzip, from 1KiB on; text/*",
                "b: br, zstd, from 100B on; application/json, text/*",
            ],
        );
    }
}
