//! Checks the dashboard in a browser: what is in trouble shows first, buttons change the gateway for those who have the
//! token, and it can be read and used on a phone, in the dark and by keyboard.

use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Fleet, Handle};
use serde_json::{Value, json};
use tests::configs::Config;
use tests::{Gateway, Setup};

use crate::browser::Page;
use crate::{backends, one_backend};

const TOKEN: &str = "correct-horse-battery-staple";
const TOP: &str = r#"
listeners: { public: { address: "127.0.0.1:0" } }
admin: { address: "127.0.0.1:0", token_file: admin.token }
overload: off
tiers:
  open: { rate: 1000000/s, burst: 1000000 }
  poor: { rate: 1000/s, burst: 1000, quotas: { monthly: { limit: 2, every: month } } }
callers: { api_keys: { file: keys.yaml }, anonymous: { by: client_address, tier: open } }
"#;
const NAMES: [&str; 3] = ["users", "orders", "payments"];

async fn start() -> (Fleet, [Handle; 3], Gateway) {
    let (fleet, handles) = backends(NAMES).await;
    let mut config = Config::with(TOP).mapped("keyed", "users", "access: { any_of: [api_key] }");
    for (name, handle) in NAMES.iter().zip(&handles) {
        config = config.open(name, handle.address(), "");
    }
    (fleet, handles, serve(config).await)
}

async fn serve(config: Config) -> Gateway {
    let keys = [KeyLine::new("poor-1", "poor-co", "key-poor").tier("poor")];
    Setup::new(config.to_string())
        .file("admin.token", TOKEN)
        .file("keys.yaml", key_file(&keys))
        .start()
        .await
}

fn address(gateway: &Gateway) -> String {
    format!("http://{}/", gateway.admin_address())
}

async fn force(gateway: &Gateway, backend: &str, state: &str) {
    let change = tests::Client::to(gateway.admin_address()).post(&format!("/api/v1/backends/{backend}/breaker"));
    let body = json!({ "state": state }).to_string();
    change.bearer(TOKEN).body(body).send().await.expect(200);
}

async fn breaker(gateway: &Gateway, backend: &str) -> Value {
    let listed = gateway.admin_json(&format!("/api/v1/backends?q={backend}")).await;
    listed["backends"][0]["breaker"]["state"].clone()
}

#[tokio::test]
async fn an_open_breaker_shows_in_the_title_the_head_and_the_first_card() {
    let (_fleet, _handles, gateway) = start().await;
    let Some(mut page) = Page::open(&address(&gateway), 1280).await else {
        return;
    };
    page.until("document.title === 'gateway' && document.querySelectorAll('#backends .card').length === 3")
        .await;
    assert_eq!(
        page.eval("document.querySelector('#backends h3').textContent").await,
        "users"
    );
    force(&gateway, "payments", "open").await;
    page.until("document.title === '1 breaker open · gateway'").await;
    assert_eq!(
        page.eval("document.getElementById('alerts').innerText").await,
        "1 breaker open: payments"
    );
    assert_eq!(
        page.eval("document.getElementById('phase').textContent").await,
        "serving, 1 breaker open"
    );
    let first = page.eval(
        "[...document.querySelectorAll('#backends .card')].map((card) => [card.dataset.backend, card.className])",
    );
    assert_eq!(first.await[0], json!(["payments", "card bad"]));
    let first = page.eval("document.querySelector('#routes tr').dataset.route").await;
    assert_eq!(first, "payments", "routes of a backend in trouble come first");
    force(&gateway, "orders", "open").await;
    page.until("document.title === '2 breakers open · gateway'").await;
    for backend in ["orders", "payments"] {
        force(&gateway, backend, "auto").await;
    }
    page.until("document.title === 'gateway' && document.getElementById('alerts').hidden")
        .await;
    // A snapshot comes each second, and the title follows the first one that tells of it: so in two seconds at most.
    let titles = page.eval("titles").await;
    for shown in titles.as_array().expect("a list") {
        let expected = match shown[0].as_u64() {
            Some(0) => "gateway",
            Some(1) => "1 breaker open · gateway",
            _ => "2 breakers open · gateway",
        };
        assert_eq!(shown[1], expected, "{titles}");
    }
    page.expect_nothing_wrong().await;
}

#[tokio::test]
async fn buttons_change_the_gateway_for_those_who_have_the_token() {
    let (_fleet, handles, gateway) = start().await;
    let Some(mut page) = Page::open(&address(&gateway), 1280).await else {
        return;
    };
    let opens = "#backends [data-backend=orders] [data-force=open]";
    page.until("!!document.querySelector('#backends [data-backend=orders] [data-force=open]')")
        .await;

    // Without the token, and with a wrong one, nothing changes.
    page.click(opens).await;
    page.until("document.getElementById('change').open").await;
    assert_eq!(
        page.eval("document.getElementById('change-title').textContent").await,
        "Open the breaker of orders"
    );
    page.press("Enter").await;
    page.until("document.getElementById('change-problem').textContent === 'A change needs the admin token.'")
        .await;
    page.write("not-the-token-of-this-one").await;
    page.press("Enter").await;
    page.until("document.getElementById('change-problem').textContent.includes('admin.token_file')")
        .await;
    assert_eq!(breaker(&gateway, "orders").await, "closed");

    // The rejected token is selected, so that it is typed over.
    page.write(TOKEN).await;
    page.press("Enter").await;
    page.until("!document.getElementById('change').open").await;
    assert_eq!(breaker(&gateway, "orders").await, "forced_open");
    page.until("document.title === '1 breaker open · gateway'").await;

    // The token is remembered, but only by the page.
    page.click("#backends [data-backend=users] .drain").await;
    page.until("document.getElementById('change').open && document.getElementById('change-token-field').hidden")
        .await;
    page.press("Enter").await;
    page.until("!document.getElementById('change').open").await;
    page.until("document.querySelector('#backends [data-backend=users] .drain').textContent === 'use again'")
        .await;
    let users = gateway.admin_json("/api/v1/backends?q=users").await;
    assert_eq!(users["backends"][0]["endpoints"][0]["state"], "drained");
    gateway.get("/users/x").send().await.refusal(503, "no_endpoint");
    assert_eq!(handles[0].counts().requests, 0);
    page.click("#reload-button").await;
    page.press("Enter").await;
    page.until("document.getElementById('generation').textContent === '2'")
        .await;
    let kept = "[localStorage.length, sessionStorage.length, document.cookie, document.body.innerHTML.includes('correct-horse')]";
    assert_eq!(page.eval(kept).await, json!([0, 0, "", false]));

    page.visit(&address(&gateway)).await;
    page.click(opens.replace("open]", "auto]").as_str()).await;
    page.until("document.getElementById('change').open && !document.getElementById('change-token-field').hidden")
        .await;
    page.write(TOKEN).await;
    page.press("Enter").await;
    page.until("document.title === 'gateway'").await;
    assert_eq!(breaker(&gateway, "orders").await, "closed");
    page.click("#reload-button").await;
    page.click("#change-forget").await;
    page.until("!document.getElementById('change-token-field').hidden")
        .await;

    // A config with a mistake changes nothing, and the mistake is shown.
    gateway.rewrite_config("listeners: {}\n");
    page.eval("document.getElementById('change-token').focus()").await;
    page.write(TOKEN).await;
    page.press("Enter").await;
    page.until("document.getElementById('change-problem').textContent.includes('gateway.yaml')")
        .await;
    page.press("Escape").await;
    page.until("!document.getElementById('reload-error').hidden").await;
    page.expect_nothing_wrong().await;
}

#[tokio::test]
async fn without_a_token_file_there_are_no_buttons() {
    let (_fleet, api) = one_backend("api").await;
    let config = Config::default().open("api", api.address(), "");
    let gateway = Gateway::start(config.to_string()).await;
    let Some(mut page) = Page::open(&address(&gateway), 1280).await else {
        return;
    };
    page.until("document.querySelectorAll('#backends .card').length === 1")
        .await;
    let shown = "[...document.querySelectorAll('#reload-button, .drain, [data-force]')].filter((button) => button.offsetParent).length";
    assert_eq!(page.eval(shown).await, 0);
    assert_eq!(
        page.eval("document.getElementById('foot').innerText.includes('admin.token_file')")
            .await,
        true
    );
}

#[tokio::test]
async fn refusals_are_grouped_and_an_exhausted_quota_is_red() {
    let (_fleet, _handles, gateway) = start().await;
    for status in [200, 200, 429, 429, 429] {
        gateway.get("/keyed/x").key("key-poor").send().await.expect(status);
    }
    gateway.get("/nowhere").send().await.refusal(404, "no_route");
    let Some(mut page) = Page::open(&address(&gateway), 1280).await else {
        return;
    };
    page.until("document.querySelectorAll('#groups tr').length === 2").await;
    let first = page
        .eval("[...document.querySelectorAll('#groups tr:first-child td')].map((cell) => cell.innerText)")
        .await;
    assert_eq!(
        (&first[0], &first[1], &first[3], &first[4]),
        (
            &json!("429 quota_exhausted"),
            &json!("poor-co"),
            &json!("3"),
            &json!("3")
        )
    );
    assert!(first[2].as_str().expect("a text").contains("gateway.yaml:7"), "{first}");
    page.until("document.querySelector('#tenants tr.exhausted .badge')?.textContent === 'quota exhausted'")
        .await;
    let red = "getComputedStyle(document.querySelector('#tenants tr.exhausted b')).color";
    assert_eq!(
        page.eval(red).await,
        page.eval("getComputedStyle(document.querySelector('#tenants .value.bad')).color")
            .await
    );

    page.click("#groups .why").await;
    page.until(
        "document.getElementById('explain').open && !!document.querySelector('#explain-result .outcome.refused')",
    )
    .await;
    page.until("document.getElementById('explain-result').innerText.includes('gateway.yaml:')")
        .await;
    page.press("Escape").await;
    page.until("!document.getElementById('explain').open").await;
    page.expect_nothing_wrong().await;
}

#[tokio::test]
async fn a_search_finds_what_stands_on_other_pages() {
    let (_fleet, api) = one_backend("api").await;
    let mut config = Config::default().backend("api", api.address(), "");
    for number in 100..160 {
        config = config.open_route(&format!("route-{number}"), "api", "");
    }
    let gateway = Gateway::start(config.to_string()).await;
    let Some(mut page) = Page::open(&address(&gateway), 1280).await else {
        return;
    };
    let names = "[...document.querySelectorAll('#routes tr')].map((row) => row.dataset.route)";
    page.until(&format!("{names}.length === 25")).await;
    assert_eq!(
        page.eval("document.querySelector('#routes-pager span').textContent")
            .await,
        "1 to 25 of 60"
    );
    for (first, count) in [(125, 25), (150, 10)] {
        page.click("#routes-pager button:last-child").await;
        page.until(&format!("{names}.length === {count} && {names}[0] === 'route-{first}'"))
            .await;
    }
    assert_eq!(
        page.eval("document.querySelector('#routes-pager button:last-child').disabled")
            .await,
        true
    );

    page.press("/").await;
    page.write("ROUTE-107").await;
    page.until(&format!("{names}.join() === 'route-107'")).await;
    assert_eq!(page.eval("document.activeElement.id").await, "search");
    page.eval("document.getElementById('search').select()").await;
    page.write("nothing-of-that-name").await;
    page.until("!document.getElementById('routes-none').hidden && !document.getElementById('backends-none').hidden")
        .await;
    page.press("Escape").await;
    page.until(&format!("{names}.length === 25")).await;
    page.expect_nothing_wrong().await;
}

#[tokio::test]
async fn it_can_be_read_on_a_phone_in_the_dark_and_used_by_keyboard() {
    let (_fleet, handles, gateway) = start().await;
    handles[1].next([fixtures::fleet::Behaviour::status(503)]);
    for _ in 0..3 {
        gateway.get("/keyed/x").key("key-poor").send().await;
        gateway.get("/orders/x").send().await;
    }
    force(&gateway, "payments", "open").await;
    gateway.get("/payments/x").send().await.refusal(503, "breaker_open");
    let Some(mut page) = Page::open(&address(&gateway), 375).await else {
        return;
    };
    page.until("document.querySelectorAll('#groups tr').length > 1 && document.title.startsWith('1 breaker')")
        .await;
    for (width, is_dark) in [(375, false), (375, true), (768, false), (1280, true)] {
        page.resize(width, is_dark).await;
        let widest = page.eval("document.documentElement.scrollWidth").await;
        assert!(
            widest.as_u64().expect("a number") <= u64::from(width),
            "{widest} of {width} pixels"
        );
        // WCAG 2: text of ordinary size has a contrast of 4.5.
        assert_eq!(page.eval(FAINT).await, json!([]), "{width} pixels, dark: {is_dark}");
    }
    page.resize(1280, false).await;

    // The focus stays with a button whose card moves.
    let button = "#backends [data-backend=users] [data-force=open]";
    page.eval(&format!("document.querySelector({button:?}).focus()")).await;
    force(&gateway, "payments", "auto").await;
    force(&gateway, "users", "closed").await;
    page.until("document.querySelector('#backends .card').dataset.backend === 'users'")
        .await;
    assert_eq!(
        page.eval(&format!(
            "document.activeElement === document.querySelector({button:?})"
        ))
        .await,
        true
    );

    // Whatever can be clicked can be reached with the key for the next one.
    page.eval("document.activeElement.blur(), scrollTo(0, 0)").await;
    let mut reached = Vec::new();
    for _ in 0..80 {
        page.press("Tab").await;
        let name = page.eval("document.activeElement.id || document.activeElement.className || document.activeElement.dataset.force || document.activeElement.innerText").await;
        reached.push(name.as_str().unwrap_or_default().to_owned());
    }
    for wanted in [
        "skip",
        "metrics",
        "explain-open",
        "reload-button",
        "search",
        "hour",
        "open",
        "drain",
        "why",
        "reason",
    ] {
        assert!(
            reached.iter().any(|name| name == wanted),
            "{wanted} is not among {reached:?}"
        );
    }
    page.expect_nothing_wrong().await;
}

/// Texts that can be seen and whose contrast with what is behind them is below 4.5, by WCAG 2.
const FAINT: &str = r"(() => {
    const parse = (color) => {
        const [r, g, b, a = 1] = color.match(/[\d.]+/g).map(Number);
        return color.startsWith('color(srgb') ? [r * 255, g * 255, b * 255, a] : [r, g, b, a];
    };
    const over = ([r, g, b, a], below) => [r, g, b].map((part, at) => part * a + below[at] * (1 - a));
    const behind = (element) => {
        if (!element) return [255, 255, 255];
        const style = getComputedStyle(element);
        const below = () => behind(element.parentElement);
        const color = parse(style.backgroundColor);
        return color[3] === 1 ? color.slice(0, 3) : over(color, below());
    };
    const light = (color) => {
        const [r, g, b] = color.map((part) => (part / 255 <= 0.03928 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const faint = [];
    for (const element of document.querySelectorAll('body *')) {
        const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
        if (!own || !element.checkVisibility() || element.disabled || element.closest('.hidden, .skip')) continue;
        const back = behind(element);
        const [one, other] = [light(over(parse(getComputedStyle(element).color), back)), light(back)];
        const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
        if (contrast < 4.5) faint.push(`${contrast.toFixed(2)} ${element.className} ${element.textContent.trim().slice(0, 40)}`);
    }
    return faint;
})()";
