//! `gateway check`: checks a config, and shows how long requests may take with it.

mod against;
mod compression;
mod forwarded;
mod key_tiers;
mod precedence;
mod shared_limits;
mod sources;
mod time_tree;
mod wrapped;

use std::fmt::Write as _;
use std::io::{IsTerminal, Write, stderr, stdout};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use super::{ConfigFile, FAILED, INVALID_CONFIG, OK};
use crate::clock;
use crate::config::Loaded;
use crate::control::reload;
use crate::observe::{Observer, Target};
use crate::plan::{Plan, State};

#[derive(clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    pub(super) file: ConfigFile,
    /// Print only whether the config is good, not what it means.
    #[arg(short, long)]
    quiet: bool,
    /// Number of replicas for which shared limits are shown; 1, 3 and 10 if it is left out.
    #[arg(long, value_name = "NUMBER")]
    replicas: Option<NonZeroU32>,
    /// Compare the routes with the operations of an OpenAPI description, in YAML or JSON.
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
}

pub(super) fn check(options: &Options) -> u8 {
    let Ok(observer) = Observer::start(&Target::Off) else {
        return FAILED;
    };
    let state = State::new(observer);
    let path = options.file.path();
    match reload::read(path, &state, 1) {
        Ok((compiled, loaded)) => {
            let warnings = loaded
                .sources
                .render_warnings(&compiled.warnings, stderr().is_terminal());
            // Writing fails if the reader has closed the output.
            let _ = stderr().write_all(warnings.as_bytes());
            let page = page(path, &compiled.plan, &loaded, options.quiet, options.replicas);
            let _ = stdout().write_all(page.as_bytes());
            let compared = options
                .against
                .as_ref()
                .map(|file| against::compare(file, &compiled.plan));
            let code = match compared {
                None => OK,
                Some(Ok((text, is_same))) => {
                    let _ = stdout().write_all(text.as_bytes());
                    if is_same { OK } else { FAILED }
                }
                Some(Err(why)) => {
                    let _ = writeln!(stderr(), "gateway check: {why}");
                    FAILED
                }
            };
            // The process ends. To free a large config value by value would only take time.
            std::mem::forget((compiled, loaded, state));
            code
        }
        Err(invalid) => {
            let _ = stderr().write_all(invalid.render(stderr().is_terminal()).as_bytes());
            INVALID_CONFIG
        }
    }
}

/// Returns the report on a good config.
fn page(path: &Path, plan: &Plan, loaded: &Loaded, quiet: bool, replicas: Option<NonZeroU32>) -> String {
    let (routes, backends) = (loaded.config.routes.len(), plan.backends.len());
    let counted = |count: usize, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
    let mut page = format!(
        "{}: good: {}, {}\n",
        path.display(),
        counted(routes, "route"),
        counted(backends, "backend")
    );
    if quiet {
        return page;
    }
    page.push_str("\nWhich route takes a request: of those that fit, the first\n\n");
    precedence::draw(&mut page, &plan.routes.by_precedence());
    let sources = sources::lines(plan);
    if !sources.is_empty() {
        page.push_str("\nWhere endpoints are looked up while the gateway runs\n\n");
    }
    for line in sources {
        let _ = writeln!(page, "  {line}");
    }
    let compressed = compression::lines(plan);
    if !compressed.is_empty() {
        page.push_str("\nWhich answers are compressed for callers that accept it\n\n");
    }
    for line in compressed {
        let _ = writeln!(page, "  {line}");
    }
    let forwarded = forwarded::lines(plan);
    if !forwarded.is_empty() {
        page.push_str("\nWhat the parts of aggregates get of a caller's header fields\n\n");
    }
    for line in forwarded {
        let _ = writeln!(page, "  {line}");
    }
    if routes > 0 {
        page.push_str("\nHow long a caller may have to wait for an answer, at worst\n");
    }
    for route in &plan.outline.routes {
        page.push('\n');
        time_tree::draw(&mut page, route, &plan.outline);
    }
    let shared = shared_limits::lines(plan, replicas);
    if !shared.is_empty() {
        page.push_str(
            "\nWhat replicas hold of the limits that they share: in any stretch of time they admit at most that much more\n\n",
        );
    }
    for line in shared {
        let _ = writeln!(page, "  {line}");
    }
    let keys = plan.authenticator.api_keys();
    let keys = keys.as_ref().map_or(&[][..], |keys| keys.all());
    let several = key_tiers::in_several(keys, &loaded.config, clock::unix_seconds());
    if !several.is_empty() {
        page.push_str("\nTenants with keys in several tiers hold a bucket in each\n\n");
    }
    for line in several {
        let _ = writeln!(page, "  {line}");
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::plan::compile::compile;

    const CONFIG: &str = r#"listeners: { public: { address: "127.0.0.1:0" } }
callers: { anonymous: { by: client_address } }
backends:
  once:
    endpoints: [{ url: "http://127.0.0.1:1" }]
    time_limit: 3s
    bulkhead: { limit: 1, queue: 0 }
    retry: off
  within:
    endpoints: [{ url: "http://127.0.0.1:2" }]
    attempt_limit: 1s
    bulkhead: { limit: 1, wait: 250ms }
    retry: { on: [timed_out], backoff: 10ms..10ms, jitter: 0.0 }
  patient:
    endpoints: [{ url: "http://127.0.0.1:3" }]
    attempt_limit: 1s
    bulkhead: { limit: 1, queue: 0 }
routes:
  once: { match: { host: [a.example, b.example], path: /once, methods: [GET, POST] }, access: { any_of: [anonymous] }, backend: once }
  within: { match: { path: /within }, access: { any_of: [anonymous] }, backend: within }
  patient: { match: { path: /patient }, access: { any_of: [anonymous] }, stream: true, backend: patient }
  here: { match: { path: /here }, access: { any_of: [anonymous] }, limits: { all: { rate: 1/s, burst: 1, wait: 20ms } }, respond: { status: 204 } }
  cut:
    match: { path: /cut }
    access: { any_of: [anonymous] }
    time_limit: 4s
    aggregate: { parts: { a: { backend: once, path: /a }, b: { backend: within, path: /b, needs: [a], time_limit: 2s } } }
"#;

    const PAGE: &str = "gateway.yaml: good: 5 routes, 3 backends

Which route takes a request: of those that fit, the first

  GET,HEAD,POST  a.example/once  once
  GET,HEAD,POST  b.example/once  once
  any            /cut            cut
  any            /here           here
  any            /patient        patient
  any            /within         within

What the parts of aggregates get of a caller's header fields

  routes.cut: all but Cookie and credentials that are not taken; for a (backend once),
      b (backend within)

How long a caller may have to wait for an answer, at worst

routes.once  GET,POST a.example/once and others
  route                     28s  time_limits.request less reserve (default)
    call once                3s  backends.once.time_limit, gateway.yaml:6
      attempt 1              3s  backends.once.attempt_limit (default)
  worst case                 3s  nothing is cut

routes.within  /within
  route                     28s  time_limits.request less reserve (default)
    call within             10s  backends.within.time_limit (default)
      queue               250ms  backends.within.bulkhead.wait, gateway.yaml:12
      attempt 1              1s  backends.within.attempt_limit, gateway.yaml:11
      backoff              10ms
      attempt 2              1s
  worst case              2.26s  nothing is cut

routes.patient  /patient
  route                     28s  time_limits.request less reserve (default)
    call patient            10s  backends.patient.time_limit (default)
      attempt 1              1s  backends.patient.attempt_limit, gateway.yaml:16
      backoff             110ms  or what Retry-After asks for, if it fits
      attempt 2              1s
  worst case                10s  if Retry-After asks for it, up to backends.patient.time_limit; 2.11s otherwise
  stream                         goes on after its head, time_limits.idle_stream between two pieces, stream_limit in all

routes.here  /here
  route                     28s  time_limits.request less reserve (default)
    rate limit             20ms  routes.here.limits.all.wait, gateway.yaml:22
  worst case               20ms  answered by the gateway itself

routes.cut  /cut
  route                      4s  routes.cut.time_limit, gateway.yaml:26
    part a                   3s  backends.once.time_limit, gateway.yaml:6
      call once              3s  1 attempt of 3s
    part b                   2s  its time_limit, gateway.yaml:27
      after a                3s  at the latest
      call within           10s  queue 250ms, 2 attempts of 1s, backoff 10ms
  worst case                 4s  cut by routes.cut.time_limit; uncut it could take 5s: a, then b
  calls a request             2  3 with all retries; by backend, and of a caller at full rate
    to once                   1  free 10/s, basic 50/s, premium 200/s, enterprise 1000/s
    to within                 1  free 10/s, basic 50/s, premium 200/s, enterprise 1000/s
";

    #[test]
    fn every_route_is_told_with_what_decides_it() {
        let mut loaded = config::parse("gateway.yaml", CONFIG, Path::new("."), &|_| None).unwrap();
        let state = State::new(Observer::start(&Target::Off).unwrap());
        let Ok(compiled) = compile(&mut loaded, &state, 1) else {
            panic!("the config is good")
        };
        let page = page(Path::new("gateway.yaml"), &compiled.plan, &loaded, false, None);
        assert_eq!(page, PAGE);
    }
}
