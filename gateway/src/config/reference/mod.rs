//! Generates the reference of the config language from the keys that reading asks for and the comments of the model.
//!
//! Tests compare `gateway/docs/config.md` and `gateway/docs/config.schema.json` with the generated text. After a change
//! `make docs` writes them.

mod comments;
mod page;
mod schema;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::asked::{Asked, Key, Shape};
use super::reader::Read;
use super::sources::Sources;
use super::span::Span;
use super::value::{Context, Value};
use super::{endpoint_file, keys, model, revocations, tree, users};
use crate::generated::hold;
use comments::Comments;

/// A kind of file that the gateway reads.
pub(super) struct Language {
    pub title: &'static str,
    pub sections: Vec<Section>,
}

/// Keys of one map.
pub(super) struct Section {
    /// Path with `NAME` for a name that the operator chooses and `[]` for an item of a list; empty for the whole file.
    pub path: String,
    pub comment: String,
    pub keys: Vec<Entry>,
}

/// A key and its properties.
pub(super) struct Entry {
    pub name: &'static str,
    pub meaning: String,
    pub shape: Option<Shape>,
    /// Several defaults if another key decides which of them is used.
    pub defaults: Vec<String>,
    pub range: Option<(String, String)>,
    pub required: bool,
    pub off: bool,
}

/// Keys without a field of the same name in the struct of their section: struct, key, and the type and field that have
/// the comment.
const ELSEWHERE: [(&str, &str, &str, &str); 44] = [
    ("StoreTls", "cert_file", "model::limits_store::StoreTls", "certificate"),
    ("StoreTls", "key_file", "model::limits_store::StoreTls", "certificate"),
    ("ApiKeys", "in", "", "places"),
    ("JwtKeys", "refresh", "model::callers::KeysUrl", "refresh"),
    ("JwtKeys", "max_age", "model::callers::KeysUrl", "max_age"),
    ("JwtKeys", "cool_down", "model::callers::KeysUrl", "cool_down"),
    ("JwtKeys", "time_limit", "model::callers::KeysUrl", "time_limit"),
    ("Identity", "uri", "model::mtls::CertificateName", "uri"),
    ("Identity", "dns", "model::mtls::CertificateName", "dns"),
    ("Identity", "subject", "model::mtls::CertificateName", "subject"),
    ("Tier", "rate", "model::limit::RateLimit", "rate"),
    ("Tier", "kind", "model::limit::RateLimit", "kind"),
    ("Tier", "burst", "model::limit::RateLimit", "burst"),
    ("Tier", "wait", "model::limit::RateLimit", "wait"),
    ("Limit", "rate", "model::limit::RateLimit", "rate"),
    ("Limit", "kind", "model::limit::RateLimit", "kind"),
    ("Limit", "burst", "model::limit::RateLimit", "burst"),
    ("Limit", "wait", "model::limit::RateLimit", "wait"),
    ("Limit", "limit", "model::limit::Quota", "limit"),
    ("Limit", "every", "model::limit::Quota", "every"),
    ("Limit", "in_flight", "model::limit::Measure", "in_flight"),
    ("Retry", "preset", "model::retry::Preset", ""),
    ("Overload", "for", "", "period"),
    ("Route", "match", "", "matches"),
    ("Route", "backend", "model::route::Target", "backend"),
    ("Route", "split", "model::route::Target", "split"),
    ("Route", "rewrite", "model::route::Target", "rewrite"),
    ("Route", "aggregate", "model::route::Target", "aggregate"),
    ("Route", "respond", "model::route::Target", "respond"),
    ("Route", "redirect", "model::route::Target", "redirect"),
    ("Match", "host", "", "hosts"),
    ("Match", "path", "", "paths"),
    ("Match", "prefix", "", "prefixes"),
    ("ForEach", "in", "", "over"),
    ("Part", "move", "", "moves"),
    ("ElementShape", "move", "", "moves"),
    ("When", "value", "model::part::Subject", "value"),
    ("When", "status", "model::part::Subject", "status"),
    ("When", "exists", "model::part::Test", "exists"),
    ("When", "is", "model::part::Test", "is"),
    ("When", "is_not", "model::part::Test", "is_not"),
    ("When", "in", "model::part::Test", "in"),
    ("BackendTls", "cert_file", "model::tls::CertificateFiles", "cert_file"),
    ("BackendTls", "key_file", "model::tls::CertificateFiles", "key_file"),
];
fn languages() -> Vec<Language> {
    vec![
        language::<model::Config>("The config", "everything.yaml"),
        language::<keys::KeyFile>("The file of API keys", "keys.yaml"),
        language::<users::UserFile>("The file of users", "users.yaml"),
        language::<revocations::RevocationFile>("The file of revocations", "revoked.yaml"),
        language::<endpoint_file::EndpointFile>("The file of endpoints", "endpoints.yaml"),
    ]
}

/// Collects the keys that a reading of an example asks for, by section.
fn language<T: Read>(title: &'static str, example: &str) -> Language {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/configs");
    let text = std::fs::read_to_string(folder.join(example)).expect("the example is there");
    let asked = asked::<T>(&folder, &text);
    let mut sections: BTreeMap<String, Vec<Key>> = BTreeMap::new();
    let mut order = Vec::new();
    for key in &asked.keys {
        let path = general(&key.section, &asked);
        if !sections.contains_key(&path) {
            order.push(path.clone());
        }
        sections.entry(path).or_default().push(key.clone());
    }
    let sections = order
        .into_iter()
        .map(|path| section(path.clone(), &sections[&path]))
        .collect();
    Language { title, sections }
}

fn asked<T: Read>(folder: &Path, text: &str) -> Asked {
    let mut sources = Sources::default();
    let source = sources.add("example", text).expect("the example is short enough");
    let mut mistakes = super::Mistakes::default();
    let root = tree::parse(source, text, &mut mistakes).expect("the example is YAML");
    let start = Span {
        source,
        start: 0,
        end: 0,
    };
    let env = |_: &str| Some("a-secret-that-is-long-enough-for-HS256".to_owned());
    let cx = Context {
        asked: Some(std::cell::RefCell::default()),
        ..Context::new(folder, &env, mistakes)
    };
    assert!(T::read(&Value::new(&root, start, String::new(), &cx)).is_some());
    cx.asked.unwrap_or_default().into_inner()
}

/// Returns the path with `NAME` for each name that the operator chose, and without the positions in lists.
fn general(path: &str, asked: &Asked) -> String {
    let mut general: Vec<String> = Vec::new();
    let mut so_far = String::new();
    for step in path.split('.').filter(|step| !step.is_empty()) {
        let is_name = asked.named.contains(&so_far);
        if !so_far.is_empty() {
            so_far.push('.');
        }
        so_far.push_str(step);
        let (step, item) = step.split_once('[').map_or((step, ""), |(step, _)| (step, "[]"));
        general.push(format!("{}{item}", if is_name { "NAME" } else { step }));
    }
    general.join(".")
}

fn section(path: String, asked: &[Key]) -> Section {
    let model = asked[0].model;
    let begin = model
        .rfind("gateway::config::")
        .expect("a section is read into a type of the config")
        + 17;
    let model = model[begin..].trim_end_matches('>');
    let item = model.rsplit("::").next().expect("a type has a name");
    let comments = Comments::of(model);
    let mut entries: Vec<Entry> = Vec::new();
    let readings: BTreeSet<&str> = asked.iter().map(|key| key.section.as_str()).collect();
    let always = |name: &str| {
        let required = asked.iter().filter(|key| key.required && key.name == name);
        required.map(|key| key.section.as_str()).collect::<BTreeSet<_>>() == readings
    };
    for key in asked {
        let place = entries.iter().position(|entry| entry.name == key.name);
        let place = place.unwrap_or_else(|| {
            entries.push(Entry {
                name: key.name,
                meaning: meaning(&comments, item, key.name),
                shape: None,
                defaults: Vec::new(),
                range: None,
                required: always(key.name),
                off: false,
            });
            entries.len() - 1
        });
        let entry = &mut entries[place];
        entry.shape = entry.shape.or(key.shape);
        entry.range = entry.range.take().or_else(|| key.range.clone());
        entry.off |= key.off;
        if let Some(default) = key.default.as_ref().filter(|default| !entry.defaults.contains(default)) {
            entry.defaults.push(default.clone());
        }
    }
    let fields = comments.item(item).map_or(&[][..], |item| &item.fields);
    let place = |name: &str| fields.iter().position(|(field, _)| field == name).unwrap_or(usize::MAX);
    entries.sort_by_key(|entry| place(field_of(item, entry.name)));
    Section {
        path,
        comment: comments.item(item).map(|item| item.comment.clone()).unwrap_or_default(),
        keys: entries,
    }
}

/// Returns the field that a key is read into.
fn field_of<'k>(item: &str, key: &'k str) -> &'k str {
    let elsewhere = ELSEWHERE.iter().find(|(of, name, ..)| *of == item && *name == key);
    elsewhere.map_or(key, |(.., field)| field)
}

fn meaning(comments: &Comments, item: &str, key: &str) -> String {
    if let Some((.., file, field)) = ELSEWHERE.iter().find(|(of, name, ..)| *of == item && *name == key)
        && !file.is_empty()
    {
        let item = file.rsplit("::").next().expect("a type has a name");
        let comments = Comments::of(file);
        let whole = || {
            comments
                .item(item)
                .map(|item| item.comment.as_str())
                .filter(|_| field.is_empty())
        };
        return comments
            .field(item, field)
            .or_else(whole)
            .unwrap_or_default()
            .to_owned();
    }
    let own = comments.field(item, field_of(item, key));
    let named = || comments.field("What", key).filter(|_| item == "Revocation");
    own.or_else(named).unwrap_or_default().to_owned()
}

#[test]
fn every_key_has_a_meaning_and_a_kind() {
    let mut bare = Vec::new();
    for language in languages() {
        for section in &language.sections {
            for key in &section.keys {
                if key.meaning.is_empty() || key.shape.is_none() {
                    bare.push(format!("{}.{}", section.path, key.name));
                }
            }
        }
    }
    assert!(
        bare.is_empty(),
        "without a doc comment in the model, or read by hand without a shape: {bare:#?}"
    );
}

#[test]
fn the_reference_is_what_the_reader_asks_for() {
    hold("config.md", &page::page(&languages()));
}

#[test]
fn the_schema_is_what_the_reader_asks_for() {
    hold("config.schema.json", &schema::schema(&languages()[0]));
}
