//! Checks the charge of an aggregate: it is given back only if no request was sent to a backend and the caller did not
//! cause that.

use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Fleet, Handle, Spec};
use tests::configs::Config;
use tests::{Answer, Gateway, Setup};

use crate::SOON;

const TOP: &str = r#"
listeners: { public: { address: "127.0.0.1:0" } }
admin: { address: "127.0.0.1:0" }
tiers: { trickle: { rate: 1/h, burst: 10 } }
default_tier: trickle
callers: { api_keys: { file: keys.yaml } }
"#;

/// `/one`: a part of `narrow`, which has one slot; `/both`: a part of `wide` beside it. `/hold/...` takes the slot.
async fn start() -> (Fleet, Handle, Handle, Gateway) {
    let fleet = Fleet::start(["wide", "narrow"].map(Spec::new))
        .await
        .expect("ports are free");
    let (wide, narrow) = (fleet.backend("wide"), fleet.backend("narrow"));
    let aggregate = |name: &str, parts: &str| {
        format!(
            "{{ match: {{ path: \"/{name}\" }}, time_limit: 4s, aggregate: {{ partial: allow, parts: {{ {parts} }} }} }}"
        )
    };
    let slot = "slot: { backend: narrow, path: /echo, required: true }";
    let other = "other: { backend: wide, path: /echo }";
    let wanted = r#"wanted: { backend: wide, path: /echo, when: { value: "{query.x}", is: 1 } }"#;
    let lacks = r#"lacks: { backend: wide, path: "/echo/{body.x}", required: true }"#;
    let config = Config::with(TOP)
        .backend("wide", wide.address(), "retry: off")
        .backend(
            "narrow",
            narrow.address(),
            "retry: off, bulkhead: { limit: 1, queue: 1, wait: 3s }",
        )
        .mapped("hold", "narrow", "")
        .route("one", &aggregate("one", slot))
        .route("both", &aggregate("both", &format!("{other}, {slot}")))
        .route("wanted", &aggregate("wanted", wanted))
        .route("lacks", &aggregate("lacks", lacks));
    let keys = key_file(&[KeyLine::new("a", "a", "a-key"), KeyLine::new("b", "b", "b-key")]);
    let gateway = Setup::new(config.to_string()).file("keys.yaml", keys).start().await;
    (fleet, wide, narrow, gateway)
}

fn left(answer: &Answer) -> Option<&str> {
    let line = answer.header("ratelimit")?;
    line.split(';').find_map(|field| field.strip_prefix("r="))
}

#[tokio::test]
async fn what_was_sent_is_paid_for_though_it_was_cancelled() {
    let (_fleet, wide, narrow, gateway) = start().await;
    narrow.close_gate();
    wide.close_gate();
    let held = tokio::spawn(gateway.get("/hold/echo").key("b-key").send());
    let waits = narrow.wait_for(|counts| counts.at_gate == 1, SOON);
    waits.await.expect("the slot is taken");

    // The request waits for the slot; the part that was sent waits at the gate.
    let both = tokio::spawn(gateway.get("/both").key("a-key").send());
    let waits = wide.wait_for(|counts| counts.at_gate == 1, SOON);
    waits.await.expect("it is asked");
    let refused = gateway.get("/one").key("a-key").send().await;
    refused.refusal(503, "bulkhead_full");
    assert_eq!(
        left(&refused),
        Some("9"),
        "of its own charge nothing is left: {refused:#?}"
    );
    let refused = both.await.expect("no panic");
    refused.refusal(503, "bulkhead_timeout");
    assert_eq!(left(&refused), Some("9"), "one was asked: {refused:#?}");
    narrow.open_gate();
    held.await.expect("no panic").expect(200);
}

#[tokio::test]
async fn nobody_asks_for_nothing_free_of_charge() {
    let (_fleet, wide, _narrow, gateway) = start().await;
    let nothing = gateway.get("/wanted").key("a-key").send().await.expect(200);
    assert_eq!(nothing.header("x-gateway-skipped"), Some("wanted"));
    assert_eq!(left(&nothing), Some("9"), "{nothing:#?}");
    let impossible = gateway.post("/lacks").key("a-key").body("{}").send().await;
    impossible.refusal(400, "value_missing");
    assert_eq!(left(&impossible), Some("8"), "{impossible:#?}");
    assert_eq!(wide.counts().requests, 0);
}
