//! Checks CreateOrder of the resilience article with the example config: user and stock are looked up together, the
//! payment is made once, and never without both.

use std::fs;
use std::path::Path;

use fixtures::fleet::{Behaviour, Fleet, Handle, Keep, Spec, demo};
use serde_json::{Value, json};
use tests::{Answer, Gateway, eventually};

use crate::SOON;

const ORDER: &str = r#"{ "user_id": "7", "product_id": "lamp", "amount": 54.50 }"#;

struct Shop {
    fleet: Fleet,
    gateway: Gateway,
}

impl Shop {
    /// The example config before the demo's services, open to everyone.
    async fn open() -> Self {
        let specs = demo::specs()
            .into_iter()
            .map(|spec| spec.behaviour(Behaviour::default()).keep(Keep::default()));
        let fleet = Fleet::start(specs.collect::<Vec<Spec>>())
            .await
            .expect("ports are free");
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/configs/create-order.yaml");
        let mut config = fs::read_to_string(file).expect("it can be read");
        for (written, meant) in [
            ("0.0.0.0:8080", "127.0.0.1:0".to_owned()),
            (
                "api_keys: { file: keys.yaml }",
                "anonymous: { by: client_address }".to_owned(),
            ),
            (
                "methods: [POST] }",
                "methods: [POST] }\n    access: { any_of: [anonymous] }".to_owned(),
            ),
            ("10.0.0.11:8080", fleet.address("users").to_string()),
            ("10.0.0.14:8080", fleet.address("inventory").to_string()),
            ("10.0.0.13:8080", fleet.address("payments").to_string()),
        ] {
            assert!(config.contains(written), "{written} is not in the example");
            config = config.replace(written, &meant);
        }
        config.push_str("admin: { address: \"127.0.0.1:0\" }\n");
        let gateway = Gateway::start(config).await;
        Self { fleet, gateway }
    }

    fn backend(&self, name: &str) -> Handle {
        self.fleet.backend(name)
    }

    async fn order(&self, body: &'static str) -> Answer {
        self.gateway.post("/orders").body(body).send().await
    }

    fn charges(&self) -> u64 {
        self.backend("payments").counts().requests
    }
}

fn json_answer(body: &str) -> Behaviour {
    let length = body.len();
    Behaviour::raw(format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    ))
}

#[tokio::test]
async fn user_and_stock_are_looked_up_together_and_then_the_payment_is_made() {
    let shop = Shop::open().await;
    let (users, inventory) = (shop.backend("users"), shop.backend("inventory"));
    users.close_gate();
    inventory.close_gate();
    let order = shop
        .gateway
        .post("/orders")
        .body(ORDER)
        .header("idempotency-key", "order-1");
    let asked = tokio::spawn(order.send());
    for backend in [&users, &inventory] {
        let waits = backend.wait_for(|counts| counts.at_gate == 1, SOON);
        waits.await.expect("both are asked before either answers");
    }
    users.open_gate();
    assert_eq!(shop.charges(), 0, "the stock is not known yet");
    inventory.open_gate();
    let answer = asked.await.expect("no panic").expect(200);
    assert_eq!(answer.header("x-gateway-complete"), Some("true"));
    assert_eq!(answer.header("x-gateway-skipped"), None);
    let document = answer.json();
    assert_eq!(document["user"], json!({ "id": "7", "name": document["user"]["name"] }));
    assert_eq!(document["stock"]["sku"], "lamp");
    assert_eq!(document["payment"]["state"], "captured");
    assert_eq!(document["payment"]["idempotency_key"], "order-1:payment");

    let charges = shop.backend("payments").requests();
    let [charge] = &charges[..] else {
        panic!("one charge, not {charges:#?}")
    };
    assert_eq!((charge.method.as_str(), charge.target.as_str()), ("POST", "/charges"));
    assert_eq!(charge.header("content-type"), Some("application/json"));
    let text = String::from_utf8_lossy(&charge.body);
    assert!(text.contains(r#""amount":54.50"#), "digits are kept: {text}");
    let sent: Value = serde_json::from_slice(&charge.body).expect("JSON");
    assert_eq!(sent["user"], "7");
    let name = document["user"]["name"].as_str().expect("a name");
    assert_eq!(sent["text"], format!("Order of lamp for {name}"));
    for lookup in [&users, &inventory] {
        let requests = lookup.requests();
        assert_eq!(requests[0].header("idempotency-key"), None, "a lookup needs none");
        assert_eq!((requests[0].method.as_str(), requests[0].body_length), ("GET", 0));
    }
    let received = format!("\"bytes_in\":{},", ORDER.len());
    eventually(SOON, "the log says what came in", || async {
        shop.gateway.stdout().contains(&received).then_some(())
    })
    .await;
}

#[tokio::test]
async fn nobody_pays_for_what_is_out_of_stock() {
    let shop = Shop::open().await;
    for stock in [r#"{"in_stock":false}"#, r#"{"in_stock":"yes"}"#, "{}", "[]"] {
        shop.backend("inventory").behave(json_answer(stock)).await;
        let answer = shop.order(ORDER).await.expect(200);
        assert_eq!(answer.header("x-gateway-skipped"), Some("payment"), "{stock}");
        assert_eq!(answer.header("x-gateway-complete"), Some("true"), "{stock}");
        assert_eq!(answer.json().get("payment"), None, "{stock}");
    }
    assert_eq!(shop.charges(), 0);
}

#[tokio::test]
async fn without_user_or_stock_there_is_no_payment() {
    let shop = Shop::open().await;
    for (part, backend) in [("user", "users"), ("stock", "inventory")] {
        for (status, mapped) in [(404, 404), (409, 409), (500, 502)] {
            shop.backend(backend).behave(Behaviour::status(status)).await;
            let answer = shop.order(ORDER).await;
            assert_eq!(answer.status, mapped, "{part} {status}: {answer:#?}");
            assert!(answer.text().contains(part), "{answer:#?}");
        }
        shop.backend(backend).heal().await;
    }
    assert_eq!(shop.charges(), 0);
}

#[tokio::test]
async fn a_payment_that_fails_is_no_order() {
    let shop = Shop::open().await;
    let payments = shop.backend("payments");
    for (status, mapped) in [(409, 409), (402, 402), (412, 412), (500, 502)] {
        payments.next([Behaviour::status(status)]);
        let answer = shop.order(ORDER).await;
        assert_eq!(answer.status, mapped, "{status}: {answer:#?}");
        assert_eq!(answer.header("x-gateway-complete"), Some("false"));
        assert!(answer.text().contains("payment"), "{answer:#?}");
    }
    payments.behave(json_answer("charged, I think")).await;
    let answer = shop.order(ORDER).await;
    assert_eq!(answer.status, 502, "{answer:#?}");
}

#[tokio::test]
async fn a_charge_is_tried_again_with_its_own_key_and_never_without_one() {
    let shop = Shop::open().await;
    let payments = shop.backend("payments");
    payments.next([Behaviour::status(503)]);
    let answer = shop.order(ORDER).await;
    assert_eq!(answer.status, 502, "{answer:#?}");
    assert_eq!(shop.charges(), 1, "without a key there is one attempt");

    payments.next([Behaviour::status(503)]);
    let keyed = shop.gateway.post("/orders").body(ORDER);
    let answer = keyed.header("idempotency-key", "\"k 1\"").send().await.expect(200);
    assert_eq!(answer.json()["payment"]["state"], "captured");
    let charges = payments.requests();
    let keys: Vec<_> = charges.iter().map(|charge| charge.header("idempotency-key")).collect();
    assert_eq!(keys, [None, Some("\"k 1:payment\""), Some("\"k 1:payment\"")]);
    assert_eq!(charges[1].body, charges[2].body);
}

#[tokio::test]
async fn an_order_that_cannot_be_read_reaches_nobody() {
    let shop = Shop::open().await;
    let rejected = [
        "",
        "user_id=7",
        r#"{ "user_id": "7", "#,
        r#"{ "user_id": "7", "user_id": "8", "product_id": "lamp", "amount": 1 }"#,
    ];
    for body in rejected {
        let answer = shop.order(body).await;
        assert_eq!(answer.status, 400, "{body}: {answer:#?}");
    }
    // A value that could leave its place in the path is as good as none.
    for user in ["..", "a/../b", ""] {
        let order = json!({ "user_id": user, "product_id": "lamp", "amount": 1 });
        let answer = shop.gateway.post("/orders").body(order.to_string()).send().await;
        assert_eq!(answer.status, 400, "{user}: {answer:#?}");
    }
    assert_eq!(shop.backend("users").counts().requests, 0);
    let large = format!("{{ \"user_id\": \"{}\" }}", "7".repeat(70_000));
    let answer = shop.gateway.post("/orders").body(large).send().await;
    answer.refusal(413, "body_too_large");
    assert_eq!(shop.charges(), 0);
}

#[tokio::test]
async fn an_amount_that_is_missing_is_never_charged_as_null() {
    let shop = Shop::open().await;
    let answer = shop.order(r#"{ "user_id": "7", "product_id": "lamp" }"#).await;
    assert_eq!(answer.status, 400, "{answer:#?}");
    assert_eq!(shop.charges(), 0);
    let lacking = "part payment: body.amount: there is no such value";
    eventually(SOON, "the log names the value", || async {
        shop.gateway.stdout().contains(lacking).then_some(())
    })
    .await;
}
