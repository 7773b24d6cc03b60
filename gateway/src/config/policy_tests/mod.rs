//! The file of policy tests: requests on virtual time, scripted backends, and what is expected of the config.
//!
//! Names of backends, routes and tiers are not resolved here: the config under test has them.

mod expect;
mod script;
mod send;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use self::expect::{Expect, ReasonWord, SentTo};
pub use self::script::{BackendScript, Behaviour, Lasts, PathPattern, Phase};
pub use self::send::{MOST_REQUESTS, Requests};
use super::keys::Timestamp;
use super::mistake::{Code, Mistake, Mistakes};
use super::named::NamedMap;
use super::reader::{Read, any_name, keyed, read_as};
use super::scalar::{Scalar, Wrong};
use super::single::Single;
use super::sources::{Invalid, Sources};
use super::span::{At, Span};
use super::value::Value;
use crate::files::FileReader;
use crate::json::Document;

/// Latest time of a step. Longer periods are tested from a `starts` near their end.
const LONGEST: Duration = Duration::from_secs(32 * 24 * 3600);

/// Policy tests of one config.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyTests {
    /// Config under test, relative to the folder of this file. Default: `gateway.yaml`.
    pub config: At<PathBuf>,
    /// Time of day at which each test begins. Left out, it is that of the run.
    pub starts: Option<At<Timestamp>>,
    /// Callers, by the name that `as` uses.
    pub callers: NamedMap<TestCaller>,
    /// What backends answer in every test, by the name of the backend, or `NAME/2` for its second endpoint. A backend
    /// that is not named answers 200 with an empty JSON object at once.
    pub backends: NamedMap<BackendScript>,
    /// Tests by name; each begins with nothing counted.
    pub tests: NamedMap<Vec<Step>>,
}

/// A caller: a credential, or what one would say.
#[derive(Debug, Clone, PartialEq)]
pub struct TestCaller {
    /// API key, sent where the config takes it.
    pub key: Option<At<String>>,
    /// Tenant, in place of a credential. The caller may do what the route asks for. `{n}` is the number of the request
    /// within its step, from 1, so that each comes from another tenant.
    pub tenant: Option<At<String>>,
    /// Tier that the credential of the tenant names.
    pub tier: Option<At<String>>,
    /// Claims of a token whose signature is good; missing `iss`, `aud` and `exp` are filled in.
    pub claims: Option<At<Document>>,
    /// Client address; default: 127.0.0.1.
    pub from: Option<At<IpAddr>>,
    /// Header fields of each request.
    pub headers: NamedMap<At<String>>,
}

/// Requests at one time, and what is to become of them. Or a change of what backends answer. Or both.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Place of the step.
    pub place: Span,
    /// Time of the step from the start of the test. Default: that of the step before.
    pub at: Option<At<Duration>>,
    /// The requests, such as `25 GET /users/7 at 0s as NAME`.
    pub send: Option<At<Requests>>,
    /// Header fields of each request.
    pub headers: NamedMap<At<String>>,
    /// JSON body of each request.
    pub body: Option<At<Document>>,
    /// What backends answer from the time of the step on.
    pub backends: NamedMap<BackendScript>,
    /// What must hold for the requests of the step.
    pub expect: Option<Expect>,
}

/// A file of policy tests without mistakes, and the sources that are needed to report later ones.
pub struct LoadedTests {
    pub tests: PolicyTests,
    pub sources: Sources,
}

/// Reads a file of policy tests.
///
/// # Errors
/// Every mistake in it.
pub fn load(path: &Path) -> Result<LoadedTests, Box<Invalid>> {
    let mut sources = Sources::read_by(FileReader::default());
    let base_dir = path.parent().unwrap_or(Path::new("."));
    let read = match sources.read(path) {
        Ok(source) => super::read(source, &sources, base_dir, &super::environment),
        Err(mistake) => Err(Mistakes::from(mistake)),
    };
    match read {
        Ok((tests, _)) => Ok(LoadedTests { tests, sources }),
        Err(mistakes) => Err(Box::new(Invalid { sources, mistakes })),
    }
}

impl Read for PolicyTests {
    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let config = f.path("config");
            let starts = f.optional("starts");
            let callers = f.optional("callers").unwrap_or_default();
            let backends = f
                .value("backends")
                .map_or_else(Default::default, |value| scripts(&value));
            let mut tests = NamedMap::default();
            match f.value("tests") {
                Some(value) => {
                    keyed(&value, &mut tests, any_name, |_, steps| read_as::<Vec<Step>>(steps))?;
                    if value.entries("a map keyed by name").is_some_and(<[_]>::is_empty) {
                        let message = "`tests` must have at least one entry";
                        f.push(Mistake::new(Code::OutOfRange, value.key, message));
                    }
                }
                None => f.push(Mistake::new(Code::MissingKey, f.at, "the file needs the key `tests`")),
            }
            let known = |caller: &str| NamedMap::<TestCaller>::contains(&callers, caller);
            for step in tests.iter().flat_map(|(_, steps): (_, &Vec<Step>)| steps) {
                let Some(send) = &step.send else { continue };
                if let Some(caller) = &send.caller
                    && !known(caller)
                {
                    let wanted = At::written(caller.clone(), step.send_place());
                    f.push(callers.unknown("caller", &wanted));
                }
            }
            let default = || At::unwritten(f.cx.base_dir.join("gateway.yaml"));
            Some(Self {
                config: config.unwrap_or_else(default),
                starts,
                callers,
                backends,
                tests,
            })
        })?
    }
}

/// Reads what backends answer, by their names.
fn scripts(value: &Value<'_>) -> NamedMap<BackendScript> {
    let mut scripts = NamedMap::default();
    let _ = keyed(value, &mut scripts, any_name, |_, script| BackendScript::read(script));
    scripts
}

impl Read for TestCaller {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ key: $ }"],
        sample: "{ tenant: NAME, tier: NAME }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let caller = Self {
                key: f.optional("key"),
                tenant: f.optional("tenant"),
                tier: f.optional("tier"),
                claims: f.optional("claims"),
                from: f.optional("from"),
                headers: f.optional("headers").unwrap_or_default(),
            };
            let named = [
                ("key", caller.key.as_ref().and_then(At::span)),
                ("tenant", caller.tenant.as_ref().and_then(At::span)),
                ("claims", caller.claims.as_ref().and_then(At::span)),
            ];
            let mut written = named.iter().filter_map(|(name, at)| Some((name, (*at)?)));
            if let Some((first, at)) = written.next() {
                for (other, place) in written {
                    let message = format!("`{}` cannot have both `{first}` and `{other}`", f.path);
                    f.push(Mistake::new(Code::Conflict, place, message).related(at, "and this one"));
                }
            }
            if let (Some(tier), None) = (&caller.tier, &caller.tenant) {
                let message = format!("`{}.tier` needs a `tenant`", f.path);
                f.push(
                    Mistake::new(Code::Conflict, tier.span(), message)
                        .hint("a key and claims name their tier themselves"),
                );
            }
            if let Some(claims) = caller
                .claims
                .as_ref()
                .filter(|claims| !claims.bytes().starts_with(b"{"))
            {
                let message = format!("`{}.claims` must be a map", f.path);
                f.push(Mistake::new(Code::WrongType, claims.span(), message));
            }
            Some(caller)
        })?
    }
}

impl Read for Step {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ send: $ }"],
        sample: "{ send: 25 GET /users/7 at 0s, expect: { allowed: 20 } }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        let place = value.key;
        value.fields(|f| {
            let (at, send): (Option<At<Duration>>, Option<At<Requests>>) = (f.optional("at"), f.optional("send"));
            let backends = f
                .value("backends")
                .map_or_else(Default::default, |value| scripts(&value));
            let has_send = f.value("send").is_some();
            if !has_send && f.value("backends").is_none() {
                let message = format!("`{}` needs `send` or `backends`", f.path);
                f.push(Mistake::new(Code::MissingKey, f.at, message));
            }
            for name in ["headers", "body", "expect"] {
                if let (Some(stray), false) = (f.value(name), has_send) {
                    let message = format!("`{}` needs a `send`", stray.path);
                    f.push(Mistake::new(Code::Conflict, stray.key, message));
                }
            }
            let of_send = send.as_ref().and_then(|send| send.at);
            if let (Some(at), Some(_)) = (&at, of_send) {
                let message = format!("`{}` has two times", f.path);
                f.push(Mistake::new(Code::Conflict, at.span(), message).hint("leave one of them out"));
            }
            if let Some(late) = at.as_ref().map(|at| at.value).into_iter().chain(of_send).max()
                && late > LONGEST
            {
                let span = at.as_ref().and_then(At::span).or(send.as_ref().and_then(At::span));
                let message = format!("`{}` is later than 32 days", f.path);
                f.push(
                    Mistake::new(Code::OutOfRange, span, message)
                        .hint("to test a longer period, write a `starts` near its end"),
                );
            }
            Some(Self {
                place,
                at,
                send,
                headers: f.optional("headers").unwrap_or_default(),
                body: f.optional("body"),
                backends,
                expect: f.optional("expect"),
            })
        })?
    }
}

impl Step {
    /// Returns the place of the requests.
    pub fn send_place(&self) -> Span {
        self.send.as_ref().and_then(At::span).unwrap_or(self.place)
    }

    /// Returns the time of the step, if it is written.
    pub fn time(&self) -> Option<Duration> {
        let of_send = self.send.as_ref().and_then(|send| send.at);
        self.at.as_ref().map(|at| at.value).or(of_send)
    }
}

impl Scalar for IpAddr {
    const EXPECTED: &'static str = "an address such as `192.0.2.1` or `2001:db8::1`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        text.parse()
            .map_err(|_| Wrong::new(Code::BadValue, "is not an address"))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

#[cfg(test)]
mod tests;
