//! Warns about patterns and placeholders in the syntax of other products. The gateway sends them as literal text.

use crate::config::{self, At, Code, Mistake, NamedMap, written};
use crate::routing::{Pattern, pattern_meant};
use crate::template;

/// Returns warnings for texts of a route that are probably not meant literally.
pub(super) fn doubts(name: &str, route: &config::Route) -> Vec<Mistake> {
    let (mut names, mut doubts): (Vec<Box<str>>, Vec<_>) = (Vec::new(), Vec::new());
    let prefixes = route
        .matches
        .prefixes
        .iter()
        .map(|text| (text, Pattern::of_prefix(text)));
    let prefixes = prefixes.map(|(text, patterns)| (text, patterns.ok().and_then(|all| all.into_iter().next())));
    let paths = route.matches.paths.iter().map(|text| (text, Pattern::parse(text).ok()));
    for (path, pattern) in paths.chain(prefixes) {
        let Some(pattern) = pattern else { continue };
        doubts.extend(pattern_meant(path).map(|meant| {
            let message = format!("`routes.{name}` takes the path `{}` literally", **path);
            Mistake::new(Code::Doubtful, path.span(), message)
                .label("is no pattern here")
                .hint(pattern_hint(&meant))
        }));
        names.extend(pattern.names().iter().cloned());
    }
    names.dedup();
    let names: Vec<&str> = names.iter().map(|name| &**name).collect();
    doubts.extend(unfilled(name, route));
    let texts = filled_texts(&format!("routes.{name}"), route);
    doubts.extend(texts.into_iter().filter_map(|(path, text)| {
        let (piece, ours) = template::taken_literally(text, &names)?;
        let message = format!("`{path}` sends `{piece}` as it stands");
        Some(Mistake::new(Code::Doubtful, text.span(), message).hint(format!("did you mean `{ours}`?")))
    }));
    doubts
}

/// Returns a hint with a pattern in the form of a config, and the prefix for all paths below one.
pub(super) fn pattern_hint(meant: &str) -> String {
    let above = meant.strip_suffix("/{*rest}").filter(|above| !above.contains('{'));
    let prefix = above.map(|above| if above.is_empty() { "/" } else { above });
    let prefix = prefix.map(|prefix| format!(", or `prefix: {prefix}`"));
    format!("did you mean `{}`{}?", written(meant), prefix.unwrap_or_default())
}

/// Warns about placeholders in the fields of a fixed response, which is the same for every request.
fn unfilled<'c>(name: &'c str, route: &'c config::Route) -> impl Iterator<Item = Mistake> + 'c {
    let fields = match &route.target {
        config::Target::Respond(respond) => Some(&respond.headers),
        config::Target::Backend { .. }
        | config::Target::Split { .. }
        | config::Target::Aggregate(_)
        | config::Target::Redirect(_) => None,
    };
    fields
        .into_iter()
        .flat_map(NamedMap::iter)
        .filter_map(move |(field, text)| {
            let template = template::Template::parse(text, template::Syntax::Header).ok()?;
            let placeholder = template.uses().next()?;
            let message = format!("`routes.{name}.respond.headers.{field}` sends `{{{placeholder}}}` as it stands");
            let hint = format!("`headers: {{ response: {{ set: {{ {field}: ... }} }} }}` of the route fills it in");
            Some(Mistake::new(Code::Doubtful, text.span(), message).hint(hint))
        })
}

/// Returns every text of a route that may hold placeholders, with its path in the config.
fn filled_texts<'c>(path: &str, route: &'c config::Route) -> Vec<(String, &'c At<String>)> {
    let rules = [
        ("request", &route.headers.request),
        ("response", &route.headers.response),
    ];
    let mut texts: Vec<_> = rules
        .into_iter()
        .flat_map(|(way, rules)| [(format!("{way}.set"), &rules.set), (format!("{way}.add"), &rules.add)])
        .flat_map(|(way, fields)| named(format!("{path}.headers.{way}"), fields))
        .collect();
    match &route.target {
        config::Target::Backend { rewrite, .. } | config::Target::Split { rewrite, .. } => {
            texts.extend(rewrite.iter().map(|text| (format!("{path}.rewrite"), text)));
        }
        config::Target::Aggregate(aggregate) => {
            for (part, written) in aggregate.parts.iter() {
                let path = format!("{path}.aggregate.parts.{part}");
                texts.push((format!("{path}.path"), &written.path));
                texts.extend(named(format!("{path}.query"), &written.query));
                texts.extend(named(format!("{path}.headers"), &written.headers));
            }
        }
        config::Target::Redirect(redirect) => texts.push((format!("{path}.redirect.to"), &redirect.to)),
        config::Target::Respond(respond) => texts.extend(named(format!("{path}.respond.headers"), &respond.headers)),
    }
    texts
}

fn named(path: String, texts: &NamedMap<At<String>>) -> impl Iterator<Item = (String, &At<String>)> {
    texts.iter().map(move |(name, text)| (format!("{path}.{name}"), text))
}
