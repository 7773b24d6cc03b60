//! Checks that an aggregate's answer has an entity tag of its own bytes, and that a caller that sends the tag gets 304.

use fixtures::fleet::{Behaviour, Fleet, Keep, Spec};
use http::Method;
use tests::configs::Config;
use tests::{Answer, Gateway};

/// `/all`: the parts `one` and `two`, of which the second may be missing; `top` is the rest of the aggregate's mapping.
async fn start(top: &str) -> (Fleet, Gateway) {
    let fleet = Fleet::start(["first", "second"].map(|name| Spec::new(name).keep(Keep::default())))
        .await
        .expect("ports are free");
    let config = Config::default()
        .backend(
            "first",
            fleet.address("first"),
            "retry: off, breaker: off, ejection: off",
        )
        .backend(
            "second",
            fleet.address("second"),
            "retry: off, breaker: off, ejection: off",
        )
        .route(
            "all",
            &format!(
                "{{ match: {{ path: /all }}, access: {{ any_of: [anonymous] }}, time_limit: 4s, \
                 aggregate: {{ partial: allow{top}, parts: {{ one: {{ backend: first, path: /a, required: true }}, \
                 two: {{ backend: second, path: /b }} }} }} }}"
            ),
        );
    let gateway = Gateway::start(config.to_string()).await;
    (fleet, gateway)
}

fn says(fields: &str, body: &str) -> Behaviour {
    let length = body.len();
    Behaviour::raw(format!(
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n{fields}\r\n{body}"
    ))
}

fn tag(answer: &Answer) -> String {
    let tags: Vec<_> = answer.headers.get_all("etag").iter().collect();
    assert_eq!(tags.len(), 1, "{answer:#?}");
    let tag = answer.header("etag").expect("it has a tag").to_owned();
    assert!(
        tag.starts_with('"') && tag.ends_with('"') && tag.len() > 20,
        "a strong one: {tag}"
    );
    tag
}

#[tokio::test]
async fn other_documents_have_other_tags_whatever_their_parts_say() {
    let (fleet, gateway) = start(", headers: { etag: one, last-modified: one, set-cookie: one }").await;
    let (first, second) = (fleet.backend("first"), fleet.backend("second"));
    let fields = "etag: \"7\"\r\nlast-modified: Sun, 06 Nov 1994 08:49:47 GMT\r\nset-cookie: a=1\r\n";
    first.behave(says(fields, "{\"n\":1.0}")).await;
    let mut tags = Vec::new();
    for body in ["{}", "{\"n\":1}", "{\"n\":1.0}", "{\"n\":1e0}", "[]", "{}"] {
        second.behave(says("etag: \"7\"\r\n", body)).await;
        let answer = gateway.get("/all").send().await.expect(200);
        assert_eq!(
            (answer.header("last-modified"), answer.header("set-cookie")),
            (None, Some("a=1"))
        );
        tags.push(tag(&answer));
    }
    assert_eq!(tags.first(), tags.last(), "the same bytes");
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), 5, "{tags:?}");
}

#[tokio::test]
async fn who_has_it_is_told_that_nothing_has_changed() {
    let (fleet, gateway) = start(", headers: { content-language: one, set-cookie: one }").await;
    let fields = "cache-control: max-age=60\r\nvary: accept-language\r\ncontent-language: de\r\nset-cookie: a=1\r\n";
    fleet.backend("first").behave(says(fields, "{\"n\":1}")).await;
    fleet
        .backend("second")
        .behave(says("cache-control: max-age=9\r\n", "[]"))
        .await;
    let whole = gateway.get("/all").send().await.expect(200);
    let own = tag(&whole);
    let head = gateway.client().ask(Method::HEAD, "/all").send().await.expect(200);
    assert_eq!((tag(&head), head.body.len()), (own.clone(), 0));
    assert_eq!(head.header("content-length"), whole.header("content-length"));

    for method in [Method::GET, Method::HEAD] {
        for lines in [
            vec![own.clone()],
            vec![format!("W/{own}")],
            vec!["*".to_owned()],
            vec![format!("\"a,b\" , W/\"x\",{own}")],
            vec!["\"x\"".to_owned(), own.clone()],
        ] {
            let ask = gateway.client().ask(method.clone(), "/all");
            let ask = lines.iter().fold(ask, |ask, line| ask.header("if-none-match", line));
            let answer = ask.send().await.expect(304);
            assert_eq!((tag(&answer), answer.body.len()), (own.clone(), 0), "{lines:?}");
            for (name, expected) in [
                ("cache-control", Some("max-age=9")),
                ("vary", Some("accept-language")),
                ("x-gateway-complete", Some("true")),
                ("set-cookie", Some("a=1")),
                ("content-type", None),
                ("content-length", None),
                ("content-language", None),
                ("transfer-encoding", None),
                ("x-gateway-reason", None),
            ] {
                assert_eq!(answer.header(name), expected, "{name} of {lines:?}");
            }
            assert!(
                answer.header("date").is_some() && answer.header("ratelimit").is_some(),
                "{answer:#?}"
            );
        }
    }
    for line in [
        "\"x\"",
        &own[1..],
        &own.to_uppercase(),
        &format!("w/{own}"),
        &format!("\"x\" {own}"),
        "",
    ] {
        let answer = gateway
            .get("/all")
            .header("if-none-match", line)
            .send()
            .await
            .expect(200);
        assert_eq!(answer.text(), whole.text(), "{line}");
    }
    // It is asked for by whole documents, and no part hears of it.
    let requests = fleet.backend("first").requests();
    assert!(requests.iter().all(|request| request.header("if-none-match").is_none()));
}

#[tokio::test]
async fn what_is_missing_or_changes_something_has_no_tag() {
    let (fleet, gateway) = start("").await;
    let whole = gateway.get("/all").send().await.expect(200);
    let own = tag(&whole);
    let posted = gateway
        .post("/all")
        .header("if-none-match", &own)
        .send()
        .await
        .expect(200);
    assert_eq!(posted.header("etag"), None);
    let posted = gateway
        .post("/all")
        .header("if-none-match", "*")
        .send()
        .await
        .expect(200);
    assert_eq!(posted.header("etag"), None);

    let second = fleet.backend("second");
    for missing in [Behaviour::status(500), Behaviour::status(404), says("", "<html>")] {
        second.behave(missing).await;
        for wanted in ["*", &own] {
            let answer = gateway
                .get("/all")
                .header("if-none-match", wanted)
                .send()
                .await
                .expect(200);
            assert_eq!(answer.header("x-gateway-complete"), Some("false"));
            assert_eq!(answer.header("etag"), None, "{answer:#?}");
        }
    }
    fleet.backend("first").behave(Behaviour::status(404)).await;
    let answer = gateway.get("/all").header("if-none-match", "*").send().await;
    answer.refusal(404, "backend_status");
    assert_eq!(answer.header("etag"), None);
}

#[tokio::test]
async fn a_long_document_has_a_tag_as_well() {
    let (fleet, gateway) = start("").await;
    let long = format!("\"{}\"", "x".repeat(300_000));
    fleet.backend("first").behave(says("", &long)).await;
    fleet.backend("second").behave(says("", "[]")).await;
    let own = tag(&gateway.get("/all").send().await.expect(200));
    gateway
        .get("/all")
        .header("if-none-match", &own)
        .send()
        .await
        .expect(304);
}
