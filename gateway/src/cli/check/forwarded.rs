//! Shows which of a caller's header fields the parts of aggregates get.

use super::wrapped;
use crate::plan::Plan;
use crate::plan::outline::{ForwardedOutline, PartOutline, TargetOutline};

/// Returns a line for each group of parts of an aggregate that get the same.
pub(super) fn lines(plan: &Plan) -> Vec<String> {
    let mut lines = Vec::new();
    for route in &plan.outline.routes {
        let TargetOutline::Aggregate { parts, .. } = &route.target else {
            continue;
        };
        let mut groups: Vec<(&ForwardedOutline, Vec<&PartOutline>)> = Vec::new();
        for part in parts {
            match groups.iter_mut().find(|(forwarded, _)| **forwarded == part.forward) {
                Some((_, all)) => all.push(part),
                None => groups.push((&part.forward, vec![part])),
            }
        }
        for (forwarded, group) in groups {
            let names: Vec<_> = group
                .iter()
                .map(|part| match part.backend == *part.name {
                    true => part.name.to_string(),
                    false => format!("{} (backend {})", part.name, part.backend),
                })
                .collect();
            let what = match forwarded {
                ForwardedOutline::Word("all") => "all, with Cookie and all credentials".to_owned(),
                ForwardedOutline::Word(_) => "all but Cookie and credentials that are not taken".to_owned(),
                ForwardedOutline::Names(names) if names.is_empty() => "none".to_owned(),
                ForwardedOutline::Names(names) => names.join(", "),
            };
            lines.extend(wrapped::lines(&format!("routes.{}: {what}; for", route.name), &names));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::compile::test_plan;

    const CONFIG: &str = r#"listeners: { public: { address: "127.0.0.1:0" } }
callers: { anonymous: { by: client_address } }
backends:
  users: { endpoints: [{ url: "http://127.0.0.1:1" }] }
  ads: { endpoints: [{ url: "http://127.0.0.1:2" }] }
routes:
  usual:
    match: { path: /a }
    access: { any_of: [anonymous] }
    aggregate: { parts: { users: { backend: users, path: /a }, b: { backend: ads, path: /b } } }
  own:
    match: { path: /b }
    access: { any_of: [anonymous] }
    aggregate:
      forward: [accept-language]
      parts:
        users: { backend: users, path: /a, forward: all }
        b: { backend: ads, path: /b }
        c: { backend: ads, path: /c, forward: [] }
  here: { match: { path: /c }, access: { any_of: [anonymous] }, respond: { status: 204 } }
"#;

    #[test]
    fn parts_with_the_same_fields_share_a_line() {
        assert_eq!(
            lines(&test_plan::plan(CONFIG, &test_plan::state())),
            [
                "routes.usual: all but Cookie and credentials that are not taken; for users, b (backend ads)",
                "routes.own: all, with Cookie and all credentials; for users",
                "routes.own: accept-language; for b (backend ads)",
                "routes.own: none; for c (backend ads)",
            ]
        );
    }
}
