//! Makes a config of a KrakenD configuration, version 2 or 3 of its format, in JSON.
//!
//! What has no counterpart becomes a comment with its path. A guard without one (a check of tokens or of expressions)
//! closes its route to everybody, so that nothing is open that was not.

mod aggregate;
mod backend;
mod closed;
mod cors;
mod duration;
mod endpoint;
mod flatmap;
mod left_out;
mod limits;
mod martian;
mod object;
mod path;
mod service;
mod shape;
mod single;
mod static_data;
mod tokens;

use std::collections::{BTreeSet, HashMap};

use serde_json::{Map as Object, Value};

use self::left_out::LeftOut;
use super::Imported;
use super::yaml::{Map, Yaml};

/// Longest time of a request and of a call here, unless the config says otherwise; in milliseconds.
const USUAL_MOST: f64 = 28_000.0;
const USUAL_CALL: f64 = 10_000.0;
/// Tier of all callers: KrakenD knows none.
const TIER: &str = "unlimited";

/// Makes a config of a configuration.
///
/// # Errors
/// A sentence that says why it cannot be read.
pub fn import(root: &Value) -> Result<Imported, String> {
    let root = root
        .as_object()
        .ok_or("this is not a KrakenD configuration: it is no map")?;
    let endpoints = root.get("endpoints").and_then(Value::as_array);
    let endpoints = endpoints.ok_or("this is not a KrakenD configuration: it has no `endpoints`")?;
    if !endpoints.iter().any(|endpoint| endpoint.get("endpoint").is_some()) {
        return Err("this is not a KrakenD configuration: its `endpoints` have no `endpoint`".to_owned());
    }
    let mut importer = Importer::new(root);
    for (number, endpoint) in endpoints.iter().enumerate() {
        match endpoint.as_object() {
            Some(endpoint) => importer.endpoint(number, endpoint),
            None => return Err(format!("endpoints[{number}] is no map")),
        }
    }
    Ok(importer.finish())
}

struct Importer<'a> {
    root: &'a Object<String, Value>,
    /// Comments at the top.
    notes: Vec<String>,
    left_out: usize,
    backends: Map,
    /// Names of backends by all that makes them.
    known: HashMap<String, String>,
    issuers: Map,
    known_issuers: HashMap<String, String>,
    routes: Map,
    names: BTreeSet<String>,
    /// Longest time of an endpoint, in milliseconds.
    longest: f64,
}

impl<'a> Importer<'a> {
    fn new(root: &'a Object<String, Value>) -> Self {
        Self {
            root,
            notes: Vec::new(),
            left_out: 0,
            backends: Map::default(),
            known: HashMap::new(),
            issuers: Map::default(),
            known_issuers: HashMap::new(),
            routes: Map::default(),
            names: BTreeSet::new(),
            longest: 0.0,
        }
    }

    fn finish(mut self) -> Imported {
        let mut left = LeftOut::default();
        let mut top = Map::default();
        self.top(&mut top, &mut left);
        left.note("parts are merged in the order in which they stand here, whichever answer came first");
        left.note(
            "of plain routes, header fields pass without being listed in input_headers, but credentials; parts of aggregates get those that are listed",
        );
        left.note(
            "a plain route passes on what its backend says, where KrakenD answers 500 to all but JSON with 200 or 201",
        );
        left.note(
            "errors of the gateway itself are problem documents with a reason; docs/import.md lists the differences",
        );
        self.left_out += left.1;
        let mut config =
            String::from("# yaml-language-server: $schema=gateway.schema.json\n# Made of a KrakenD configuration.\n");
        for note in self.notes.iter().chain(&left.0) {
            let note: String = note.chars().filter(|c| !c.is_control()).collect();
            config.push_str(&format!("# {note}\n"));
        }
        config.push('\n');
        let mut callers = Map::default();
        if !self.issuers.is_empty() {
            callers.put("jwt", self.issuers);
        }
        callers.put("anonymous", Map::default().with("by", Yaml::plain("client_address")));
        top.put("callers", callers);
        let rates = Map::default()
            .with("rate", Yaml::plain("1000000/s"))
            .with("burst", Yaml::plain(1_000_000));
        top.put_noted(
            "tiers",
            Map::default().with(TIER, rates),
            vec!["KrakenD has no tiers: this one limits nobody.".to_owned()],
        );
        top.put("default_tier", Yaml::plain(TIER));
        if !self.backends.is_empty() {
            let mut backends = Map::default();
            for (name, backend) in self.backends.into_entries() {
                backends.put(
                    &name,
                    match backend {
                        Yaml::Map(backend) if self.longest > USUAL_CALL => backend
                            .with("time_limit", Yaml::plain(format!("{}ms", self.longest)))
                            .into(),
                        backend => backend,
                    },
                );
            }
            top.put("backends", backends);
        }
        top.put("routes", self.routes);
        config.push_str(&top.document());
        Imported {
            config,
            left_out: self.left_out,
        }
    }
}
