//! Checks that what is made of KrakenD configurations answers as KrakenD itself did, or differs as it says.
//!
//! Each file of `fixtures/import/krakend` has a configuration that uses what one of KrakenD's examples uses, the pages
//! of its backends, requests, and what KrakenD answered to them. Where we differ on purpose, it says how and why.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use http::Method;
use serde_json::{Map, Value, json};
use tests::{Answer, Gateway, Setup, cli};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

macro_rules! replays {
    ($($name:ident: $file:literal,)*) => {
        const FILES: &[&str] = &[$($file),*];
        $(#[tokio::test] async fn $name() { replay($file).await; })*
    };
}

replays! {
    plain_routes_answer_as_there: "plain",
    queries_pass_as_there: "query",
    aggregates_answer_as_there: "dashboard",
    limits_and_breakers_answer_as_there: "throttle",
    fields_of_martian_are_sent_as_there: "credentials",
    details_of_errors_are_told: "error-details",
    cross_origin_rules_answer_as_there: "service",
    features_answer_as_there: "features",
    combinations_answer_as_there: "combination",
    groups_answer_as_there: "front",
    the_playground_answers_as_there: "playground",
    the_core_answers_as_there: "core",
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures/import/krakend")
}

#[test]
fn every_recording_is_replayed() {
    let files = fs::read_dir(folder()).expect("it is there");
    let stem = |entry: fs::DirEntry| entry.path().file_stem()?.to_str().map(str::to_owned);
    let found: BTreeSet<_> = files.filter_map(|entry| stem(entry.ok()?)).collect();
    assert_eq!(found, FILES.iter().map(|file| (*file).to_owned()).collect());
}

async fn replay(name: &str) {
    let text = fs::read_to_string(folder().join(format!("{name}.json"))).expect("it is there");
    let recording: Value = serde_json::from_str(&text).expect("it is JSON");
    let pages = Pages::serve().await;
    let config = recording["config"].to_string();
    let mut config: Value = serde_json::from_str(
        &config
            .replace("backend.example", &pages.address.to_string())
            .replace("dead.example", "127.0.0.1:1"),
    )
    .expect("it is JSON still");
    config["listen_ip"] = json!("127.0.0.1");
    config["port"] = json!(0);
    let setup = Setup::default().file("krakend.json", config.to_string());
    let made = cli(&["import", "krakend", "krakend.json"], &setup);
    assert_eq!(made.code, Some(0), "{made:?}");
    let own_admin = format!("{}\nadmin: {{ address: \"127.0.0.1:0\" }}\n", made.stdout);
    let gateway = Setup::new(own_admin).start().await;
    for exchange in recording["exchanges"].as_array().expect("there are some") {
        let mut now = recording["pages"].as_object().expect("a map").clone();
        if let Some(changed) = exchange["pages"].as_object() {
            now.extend(changed.clone());
        }
        *pages.now.lock().expect("nobody panicked") = now;
        let answer = ask(&gateway, exchange).await;
        compare(exchange, &answer).unwrap_or_else(|difference| {
            panic!(
                "{name}: {exchange}\n{difference}: we answered {} {:?} {}\n{}",
                answer.status,
                answer.headers,
                answer.text(),
                gateway.log()
            )
        });
    }
}

async fn ask(gateway: &Gateway, exchange: &Value) -> Answer {
    let (method, target) = exchange["request"]
        .as_str()
        .and_then(|request| request.split_once(' '))
        .expect("a method and a target");
    let method: Method = method.parse().expect("a method");
    let mut ask = gateway.client().ask(method, target);
    for (name, value) in exchange["headers"].as_object().into_iter().flatten() {
        ask = ask.header(name, value.as_str().expect("a text"));
    }
    if let Some(body) = exchange.get("body") {
        ask = ask.header("content-type", "application/json").body(body.to_string());
    }
    ask.send().await
}

/// Compares an answer with KrakenD's, or with what is written of ours where it differs.
fn compare(exchange: &Value, answer: &Answer) -> Result<(), &'static str> {
    let (theirs, ours) = (&exchange["krakend"], &exchange["ours"]);
    let differs = ours.get("status").is_some();
    let wanted = if differs { ours } else { theirs };
    if wanted["status"] != answer.status {
        return Err("another status");
    }
    if let Some(reason) = ours.get("reason") {
        return if answer.reason() == reason.as_str() {
            Ok(())
        } else {
            Err("another reason")
        };
    }
    let is_same = match (wanted.get("json"), wanted.get("text")) {
        (Some(json), _) => serde_json::from_slice::<Value>(&answer.body).is_ok_and(|body| body == *json),
        (None, Some(text)) => answer.text() == *text,
        (None, None) => answer.body.is_empty(),
    };
    if !is_same {
        return Err("another body");
    }
    let complete = ours
        .get("complete")
        .or_else(|| theirs.get("complete"))
        .filter(|_| !differs);
    if let (Some(wanted), Some(found)) = (complete, answer.header("x-gateway-complete"))
        && wanted.as_bool() != found.parse().ok()
    {
        return Err("another completeness");
    }
    for (name, value) in theirs["headers"].as_object().into_iter().flatten() {
        if answer.header(name) != value.as_str() {
            return Err("another header field");
        }
    }
    Ok(())
}

/// A backend that answers with pages of a table.
struct Pages {
    address: SocketAddr,
    now: Arc<Mutex<Map<String, Value>>>,
}

impl Pages {
    async fn serve() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let now = Arc::<Mutex<Map<String, Value>>>::default();
        let pages = Arc::clone(&now);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(Self::answer_all(stream, Arc::clone(&pages)));
            }
        });
        Self { address, now }
    }

    async fn answer_all(mut stream: TcpStream, pages: Arc<Mutex<Map<String, Value>>>) {
        let mut bytes = Vec::new();
        while let Some(end) = read_to(&mut stream, &mut bytes, |bytes| {
            bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
        })
        .await
        {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let fields: Vec<(String, &str)> = head
                .lines()
                .skip(1)
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_ascii_lowercase(), value))
                .collect();
            let length = fields.iter().find(|(name, _)| name == "content-length");
            let length = length.map_or(0, |(_, length)| length.parse().expect("a number"));
            let Some(all) = read_to(&mut stream, &mut bytes, |bytes| {
                (bytes.len() >= end + length).then_some(end + length)
            })
            .await
            else {
                return;
            };
            let body = String::from_utf8_lossy(&bytes[end..all]).into_owned();
            bytes.drain(..all);
            let mut words = head.split(' ');
            let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let page = find(&pages.lock().expect("nobody panicked"), target);
            if page.get("hang").is_some() {
                // Nothing is answered until the other side closes.
                let _ = read_to(&mut stream, &mut bytes, |_| None).await;
                return;
            }
            let answer = render(&page, method, target, &fields, &body);
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

/// Reads until `found` returns an index. Returns `None` if the other side closes before.
async fn read_to(stream: &mut TcpStream, bytes: &mut Vec<u8>, found: impl Fn(&[u8]) -> Option<usize>) -> Option<usize> {
    loop {
        if let Some(index) = found(bytes) {
            return Some(index);
        }
        let read = stream.read_buf(bytes).await.ok()?;
        if read == 0 {
            return None;
        }
    }
}

/// Returns the page of a target, of its path, or of the longest beginning that a name with `*` stands for.
fn find(pages: &Map<String, Value>, target: &str) -> Value {
    let path = target.split('?').next().unwrap_or_default();
    let begins = |name: &&String| name.strip_suffix('*').is_some_and(|start| path.starts_with(start));
    let found = pages.get(target).or_else(|| pages.get(path));
    let longest = || pages.keys().filter(begins).max_by_key(|name| name.len());
    let found = found.or_else(|| pages.get(longest()?));
    found
        .cloned()
        .unwrap_or_else(|| json!({ "status": 404, "body": { "error": "unknown" } }))
}

fn render(page: &Value, method: &str, target: &str, fields: &[(String, &str)], body: &str) -> String {
    let status = page["status"].as_u64().unwrap_or(200);
    if status == 204 {
        return "HTTP/1.1 204 No Content\r\n\r\n".to_owned();
    }
    let (text, kind) = if page.get("echo").is_some() {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let is_shown = |name: &str| matches!(name, "authorization" | "cookie") || name.starts_with("x-own");
        let fields = fields.iter().filter(|(name, _)| is_shown(name));
        let fields: Map<_, _> = fields.map(|(name, value)| (name.clone(), json!(value))).collect();
        let mut echo = json!({ "method": method, "path": path, "query": query, "fields": fields });
        if !body.is_empty() {
            echo["body"] = json!(body);
        }
        (echo.to_string(), "application/json")
    } else if let Some(text) = page["text"].as_str() {
        (text.to_owned(), page["type"].as_str().unwrap_or("text/plain"))
    } else {
        (page.get("body").unwrap_or(&json!({})).to_string(), "application/json")
    };
    let location = page["headers"]["location"].as_str();
    let location = location.map_or(String::new(), |to| format!("location: {to}\r\n"));
    format!(
        "HTTP/1.1 {status} As written\r\ncontent-type: {kind}\r\n{location}content-length: {}\r\n\r\n{text}",
        text.len()
    )
}
