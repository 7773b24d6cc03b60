//! Writes the banner of the demo: its addresses, routes, tiers and keys, and commands to paste.
//!
//! Routes and tiers are read from the running config, so the banner cannot differ from what is in force.

use std::fmt::Write as _;

use fixtures::api_keys::DEMO_KEYS;

use super::running::Running;
use super::tour::Step;
use crate::config::{Access, Config, Credential, Per, Route, Target, duration_text};

/// Returns the whole text. `notes` lists what differs from the usual start.
pub(super) fn banner(demo: &Running, config: &Config, steps: &[Step], notes: &[String], colour: bool) -> String {
    let paint = Paint { colour };
    let Running {
        public,
        admin,
        folder,
        pid,
        ..
    } = demo;
    let folder = folder.display();
    let mut out = format!(
        "{}: a gateway in front of five pretend services. Its keys are public.\n",
        paint.bold("gateway demo")
    );
    for note in notes {
        let _ = writeln!(out, "  Note: {note}.");
    }
    let _ = writeln!(
        out,
        "  serves  http://{public}    admin  http://{admin}    stop  Ctrl-C"
    );
    let _ = writeln!(out, "  config  {folder}/gateway.yaml    after an edit: kill -HUP {pid}");
    let _ = writeln!(
        out,
        "  tokens  {folder}/demo.env    tenants  {folder}/tenants.yaml    requests  tail -f {folder}/access.log\n"
    );

    let mut rows = vec![["ROUTE", "WHO", "LIMITS", "TIME", "TARGET"].map(str::to_owned)];
    let routes = &config.routes;
    rows.extend(routes.iter().map(|(_, route)| {
        let most = config.time_limits.request.saturating_sub(*config.time_limits.reserve);
        let time = route.time_limit.as_ref().map_or(most, |limit| **limit);
        [
            asked(route),
            who(&route.access),
            limits(route),
            duration_text(time),
            target(route),
        ]
    }));
    table(&mut out, &rows, &paint);

    let mut rows = vec![["TIER", "KEY (x-api-key)", "LIMIT"].map(str::to_owned)];
    rows.extend(DEMO_KEYS.iter().filter_map(|key| {
        let tier = config.tiers.get(key.tier)?;
        Some([key.tier.to_owned(), key.presented.to_owned(), tier.rate.to_string()])
    }));
    table(&mut out, &rows, &paint);

    let _ = writeln!(
        out,
        "{}",
        paint.bold("PASTE THESE into another terminal, from the same folder")
    );
    for (number, step) in (1..).zip(steps) {
        let _ = writeln!(out, "{number:>3} {}\n    {}", step.label, paint.cyan(&step.command));
    }
    out
}

fn asked(route: &Route) -> String {
    let methods: Vec<&str> = route.matches.methods.iter().map(|method| method.as_str()).collect();
    let all = route.matches.paths.iter().chain(&route.matches.prefixes);
    let paths: Vec<&str> = all.map(|path| path.as_str()).collect();
    format!("{:<4} {}", methods.join(","), paths.join(", "))
}

fn who(access: &Access) -> String {
    let Some(any_of) = &access.any_of else {
        return "key or token".to_owned();
    };
    let kinds: Vec<&str> = any_of
        .iter()
        .map(|credential| match &credential.value {
            Credential::ApiKey => "key",
            Credential::Jwt | Credential::JwtFrom(_) => "token",
            Credential::Mtls => "certificate",
            Credential::Basic => "password",
            Credential::External => "credential of the external service",
            Credential::Anonymous => "anyone",
        })
        .collect();
    let tiers: Vec<&str> = access.tiers.iter().map(|tier| tier.as_str()).collect();
    if tiers.is_empty() {
        kinds.join(" or ")
    } else {
        tiers.join(", ")
    }
}

fn limits(route: &Route) -> String {
    let of_the_tier = if route.cost.get() == 1 {
        "tier's".to_owned()
    } else {
        format!("tier's, {} tokens each", route.cost)
    };
    let own = route.limits.iter().map(|(name, limit)| {
        let per = match limit.per.value {
            Per::Tenant => "",
            other => &format!(" per {}", other.as_str()),
        };
        format!("{name} {}{per}", limit.measure)
    });
    std::iter::once(of_the_tier).chain(own).collect::<Vec<_>>().join(" + ")
}

fn target(route: &Route) -> String {
    match &route.target {
        Target::Backend { name, .. } => name.to_string(),
        Target::Split { entries, .. } => {
            let names: Vec<&str> = entries.iter().map(|entry| entry.backend.as_str()).collect();
            names.join(" or ")
        }
        Target::Aggregate(aggregate) => {
            let parts: Vec<String> = aggregate
                .parts
                .iter()
                .map(|(_, part)| format!("{}{}", part.backend, if *part.required { "" } else { "?" }))
                .collect();
            parts.join(" + ")
        }
        Target::Respond(_) => "fixed answer".to_owned(),
        Target::Redirect(redirect) => format!("redirect to {}", redirect.to),
    }
}

/// Appends a table whose columns are as wide as their widest cell, with the first row as its head, and an empty line.
fn table<const N: usize>(out: &mut String, rows: &[[String; N]], paint: &Paint) {
    let widths: [usize; N] = std::array::from_fn(|column| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or_default()
    });
    for (index, row) in rows.iter().enumerate() {
        let cells: Vec<String> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        let line = cells.join("  ");
        let line = line.trim_end();
        let _ = writeln!(out, "{}", if index == 0 { paint.bold(line) } else { line.to_owned() });
    }
    out.push('\n');
}

struct Paint {
    colour: bool,
}

impl Paint {
    fn bold(&self, text: &str) -> String {
        self.with("1", text)
    }

    fn cyan(&self, text: &str) -> String {
        self.with("36", text)
    }

    /// Returns the text between an ANSI sequence that sets its style (ECMA-48 SGR) and one that resets it.
    fn with(&self, rendition: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{rendition}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::banner;
    use crate::cli::demo::files::{self, Ports};
    use crate::cli::demo::folder::Folder;
    use crate::cli::demo::tour;
    use crate::config;

    fn shown(colour: bool) -> (String, Vec<tour::Step>) {
        let demo = tour::tests::some_demo();
        let folder = Folder::create().expect("a temporary folder can be written to");
        let nobody = std::iter::empty::<(&str, std::net::SocketAddr)>();
        let path = files::write(
            &folder,
            &Ports {
                public: 8080,
                admin: 9900,
            },
            nobody,
        )
        .expect("written");
        let config = config::load(&path)
            .unwrap_or_else(|invalid| panic!("{}", invalid.render(false)))
            .config;
        let steps = tour::steps(&demo, "target/demo/gateway");
        (
            banner(&demo, &config, &steps, &["port 8080 is taken".to_owned()], colour),
            steps,
        )
    }

    #[test]
    fn it_shows_every_line_of_the_tour_and_no_other() {
        let (text, steps) = shown(false);
        let pasted = text.split_once("PASTE THESE").expect("there is something to paste").1;
        let lines: Vec<&str> = pasted.lines().skip(1).collect();
        assert_eq!(lines.len(), 2 * steps.len(), "{pasted}");
        for (number, (pair, step)) in lines.chunks(2).zip(&steps).enumerate() {
            assert_eq!(pair[0], format!("{:>3} {}", number + 1, step.label));
            assert_eq!(pair[1], format!("    {}", step.command));
        }
    }

    #[test]
    fn it_fits_a_screen_and_tells_what_runs() {
        let (text, _) = shown(false);
        assert!(text.lines().count() <= 73, "{} lines", text.lines().count());
        assert!(!text.contains('\x1b'));
        for said in [
            "Note: port 8080 is taken.",
            "/tmp/gateway-demo-0/gateway.yaml",
            "POST /orders",
            "premium, enterprise",
            "tier's + search 1/s, burst 3",
            "users + orders? + payments?",
            "demo-enterprise  1000/s",
        ] {
            assert!(text.contains(said), "{said:?} is not in\n{text}");
        }
    }

    #[test]
    fn colour_changes_nothing_but_the_looks() {
        let (coloured, plain) = (shown(true).0, shown(false).0);
        let stripped = ["\x1b[1m", "\x1b[36m", "\x1b[0m"]
            .iter()
            .fold(coloured, |text, code| text.replace(code, ""));
        assert_eq!(stripped, plain);
    }
}
