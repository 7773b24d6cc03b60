//! Tests the admin API over a real socket. The workers of the gateway are not started; the tests record by hand what
//! requests would leave behind.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use policies::breaker::ForcedState;
use policies::bulkhead::{Entrant, Entry};
use policies::{Deadline, Moment};
use reqwest::Response;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Gateway, bind};
use crate::auth::jwt::key_fetch;
use crate::config::{Admin, At};
use crate::control::reload::{self, Reloader};
use crate::observe::{Decided, Observer, Outcome, RequestRecord, Target};
use crate::plan::{LivePlan, State};
use crate::rejection::{Reason, Setting};
use crate::server::{Lifecycle, Phase};
use crate::setting::SettingId;
use crate::{clock, limits};

const TOKEN: &str = "correct-horse-battery";
const SECRET: &str = "0123456789abcdef0123456789abcdef";
const DIGEST: &str = "385ec044fbb260818dd8f202383d4fabfa9eab8f7e269ba3d60bc92dfd8ddd2e";

const CONFIG: &str = r#"listeners:
  public: { address: 127.0.0.1:0 }
callers:
  api_keys: { file: keys.yaml }
  jwt:
    internal: { issuer: internal, audience: [edge], algorithms: HS256, keys: { secret_file: jwt.secret }, tenant: /tenant }
tenants:
  globex: { tier: premium, burst: 500, quotas: { monthly: { limit: 2000, every: month } } }
backends:
  users:
    endpoints: [{ url: "http://127.0.0.1:9" }]
    bulkhead: { limit: 2, queue: 1, wait: 5s, tenant_share: 0.5 }
    breaker: { min_calls: 4 }
  orders:
    endpoints: [{ url: "http://127.0.0.1:10" }]
    breaker: off
routes:
  users:
    match: { host: api.example.com, path: "/users/{id}", methods: [GET] }
    access: { any_of: [api_key] }
    limits: { search: { rate: 5/s, burst: 10 }, daily: { limit: 50, every: day, per: tenant } }
    time_limit: 5s
    backend: users
  page:
    match: { path: /page }
    aggregate: { partial: allow, parts: { orders: { backend: orders, path: /orders } } }
"#;

/// A gateway in its own folder, with its admin API served.
struct Bench {
    folder: TempDir,
    address: std::net::SocketAddr,
    health_address: std::net::SocketAddr,
    client: reqwest::Client,
    live: Arc<LivePlan>,
    state: Arc<State>,
    lifecycle: Arc<Lifecycle>,
}

impl Bench {
    async fn start() -> Self {
        Self::start_with(Some(TOKEN)).await
    }

    async fn start_with(token: Option<&str>) -> Self {
        Self::start_on(CONFIG, token).await
    }

    async fn start_on(config: &str, token: Option<&str>) -> Self {
        Self::start_with_tokens(config, token, None).await
    }

    async fn start_with_tokens(config: &str, token: Option<&str>, read_token: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| -> PathBuf {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        write("jwt.secret", SECRET);
        write(
            "keys.yaml",
            &format!("keys:\n  - {{ id: acme-1, tenant: acme, digest: \"sha256:{DIGEST}\" }}\n"),
        );
        let path = write("gateway.yaml", config);
        let token_file = token.map(|token| write("admin.token", &format!("{token}\n")));
        let read_token_file = read_token.map(|token| write("read.token", token));

        let state = Arc::new(State::new(Observer::start(&Target::Off).unwrap()));
        let (compiled, _) = reload::read(&path, &state, 1).unwrap();
        reload::take_effect(&compiled.plan, &state);
        let live = Arc::new(LivePlan::new(Arc::new(compiled.plan)));
        let lifecycle = Arc::new(Lifecycle::default());
        let bound = bind(&Admin {
            address: At::unwritten(([127, 0, 0, 1], 0).into()),
            token_file: token_file.map(At::unwritten),
            read_token_file: read_token_file.map(At::unwritten),
            health_address: Some(At::unwritten(([127, 0, 0, 1], 0).into())),
        })
        .unwrap();
        let address = bound.address();
        let health_address = bound.health_address().unwrap();
        tokio::spawn(bound.serve(Gateway {
            live: Arc::clone(&live),
            state: Arc::clone(&state),
            lifecycle: Arc::clone(&lifecycle),
            reloader: Arc::new(Reloader::new(path, Arc::clone(&live), Arc::clone(&state))),
            listeners: vec![("public".to_owned(), ([127, 0, 0, 1], 8080).into())],
        }));
        key_fetch::install_crypto();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self {
            folder,
            address,
            health_address,
            client,
            live,
            state,
            lifecycle,
        }
    }

    async fn ask(&self, method: Method, path: &str) -> Response {
        self.client
            .request(method, format!("http://{}{path}", self.address))
            .send()
            .await
            .unwrap()
    }

    async fn get(&self, path: &str) -> Value {
        let response = self.ask(Method::GET, path).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response.json().await.unwrap()
    }

    async fn change(&self, path: &str, body: &'static str) -> Response {
        let request = self
            .client
            .post(format!("http://{}{path}", self.address))
            .bearer_auth(TOKEN);
        request.body(body).send().await.unwrap()
    }

    async fn page(&self) -> String {
        self.ask(Method::GET, "/metrics").await.text().await.unwrap()
    }

    /// Records a request of acme that is rejected for `reason`.
    fn refuse(&self, id: &str, reason: Reason) {
        self.refuse_by(id, reason, None);
    }

    /// Records a request of acme that is rejected for `reason`, decided by `setting`.
    fn refuse_by(&self, id: &str, reason: Reason, setting: Option<Setting>) {
        let (plan, observer) = (self.live.load(), &self.state.observer);
        let route = plan.listed.iter().find(|route| &*route.name == "users").unwrap();
        let presented = [("x-api-key", "example-acme-1")];
        let headers: HeaderMap = presented
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
            .into_iter()
            .collect();
        let known = plan.authenticator.identify(
            &headers,
            &route.access,
            std::net::IpAddr::from([127, 0, 0, 1]),
            clock::unix_seconds(),
        );
        let known = known.unwrap();
        let now = clock::Now::read();
        let charges = known.holds().iter().map(|hold| hold.charge(1)).collect();
        // A failed charge of an empty bucket does not matter here.
        let _ = limits::take(charges, now, Duration::ZERO);
        let record = RequestRecord::begin(clock::now(), clock::unix_time(), id, Method::GET, "/users/1");
        let mut watch = observer.watch(record);
        watch.route = Some(Arc::clone(&route.metrics));
        watch.tenant = Some(Arc::clone(&known.metrics));
        watch.backend = Some("users".into());
        watch.limit = (reason == Reason::RateLimited).then(|| "search".into());
        watch.refused(reason);
        let of_limit = (reason == Reason::RateLimited).then(|| Setting::At(route.limits[0].limit.setting));
        let decided = Decided::by(setting.or(of_limit), Arc::clone(&plan.outline) as _);
        watch.decided = Some(Box::new(decided));
        watch.end();
    }
}

async fn problem(response: Response, status: u16, reason: &str) -> Value {
    assert_eq!(response.status().as_u16(), status, "{reason}");
    assert_eq!(
        response.headers()["content-type"],
        "application/problem+json",
        "{reason}"
    );
    let document: Value = response.json().await.unwrap();
    assert_eq!(
        (&document["status"], &document["reason"]),
        (&json!(status), &json!(reason)),
        "{document}"
    );
    assert!(
        document["detail"].as_str().is_some_and(|detail| detail.len() > 10),
        "{document}"
    );
    document
}

/// Returns the number of the line that holds `text`, from 1.
fn line_of(text: &str) -> Value {
    json!(CONFIG.lines().position(|line| line.contains(text)).unwrap() + 1)
}

#[tokio::test]
async fn health_follows_the_phase() {
    let bench = Bench::start().await;
    let check = async |path: &str, status: u16, says: &str| {
        let response = bench.ask(Method::GET, path).await;
        assert_eq!(response.status().as_u16(), status, "{path}");
        let text = response.text().await.unwrap();
        assert!(text.contains(says), "{path}: {text}");
    };
    check("/livez", 200, "live").await;
    check("/readyz", 200, "ready").await;
    bench.lifecycle.advance(Phase::Noticed);
    check("/readyz", 503, "stopping soon").await;
    bench.lifecycle.advance(Phase::Draining);
    check("/readyz", 503, "no new connections").await;
    check("/livez", 200, "live").await;
}

#[tokio::test]
async fn status_says_what_runs() {
    let bench = Bench::start().await;
    let status = bench.get("/api/v1/status").await;
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&status["phase"], &status["ready"]), (&json!("serving"), &json!(true)));
    assert_eq!(
        status["listeners"],
        json!([{ "name": "public", "address": "127.0.0.1:8080", "certificates": [] }])
    );
    assert_eq!(
        status["admin"],
        json!({
            "address": bench.address.to_string(),
            "health": bench.health_address.to_string(),
            "changes": true,
            "read_token": false,
        })
    );
    assert_eq!(status["config"]["generation"], 1);
    assert_eq!(status["config"]["last_reload"]["successful"], true);
    assert!(status["config"]["path"].as_str().unwrap().ends_with("gateway.yaml"));
    assert_eq!(status["issuers"][0]["name"], "internal");
    assert_eq!(status["issuers"][0]["keys"][0]["algorithm"], "HS256");
}

#[tokio::test]
async fn routes_stand_in_the_order_and_on_the_lines_of_the_config() {
    let bench = Bench::start().await;
    bench.refuse("one", Reason::BreakerOpen);
    let listed = bench.get("/api/v1/routes").await;
    let [users, page] = listed["routes"].as_array().unwrap().as_slice() else {
        panic!("two routes: {listed}")
    };
    assert_eq!(
        (&users["name"], &page["name"], &listed["total"]),
        (&json!("users"), &json!("page"), &json!(2))
    );
    assert_eq!(
        CONFIG.lines().nth(users["at"]["line"].as_u64().unwrap() as usize - 1),
        Some("  users:")
    );
    assert_eq!(users["match"]["paths"], json!(["/users/{id}"]));
    assert_eq!(users["access"]["any_of"], json!(["api_key"]));
    assert_eq!(
        page["access"]["any_of"],
        json!(["api_key", "jwt"]),
        "left out, it is what is configured"
    );
    assert_eq!(users["limits"][0]["terms"], "5/s, burst 10");
    assert_eq!(
        (&users["time_limit_ms"], &page["time_limit_ms"]),
        (&json!(5000), &json!(28_000))
    );
    assert_eq!(
        (&users["worst_case_ms"], &page["worst_case_ms"]),
        (&json!(5000), &json!(10_000))
    );
    assert_eq!(
        users["time_budget"],
        json!({
            "limit": { "setting": "routes.users.time_limit", "limit_ms": 5000 },
            "turn": null,
            "uses": { "call": {
                "backend": "users",
                "protocol": "http1",
                "limit": { "setting": "backends.users.time_limit", "limit_ms": 10_000 },
                "queue_ms": 5000,
                "attempt": { "setting": "backends.users.attempt_limit", "limit_ms": 10_000 },
                "backoffs_ms": [110],
                "heeds_retry_after": true,
            } },
            "worst": { "worst_case_ms": 5000, "decided_by": "routes.users.time_limit", "uncut_ms": 25_110 },
        })
    );
    assert_eq!(
        page["time_budget"]["uses"]["parts"][0]["setting"],
        "backends.orders.time_limit"
    );
    assert_eq!(
        users["target"],
        json!({ "backend": { "name": "users", "rewrite": null } })
    );
    assert_eq!(page["target"]["aggregate"]["parts"][0]["backend"], "orders");
    assert_eq!(
        page["edge"],
        json!({
            "allow": null, "deny": [], "origins": null, "security_headers": "off",
            "request_fields": [], "response_fields": [], "method_override": "reject",
            "path_policy": {
                "dot_segments": "reject", "double_slash": "reject", "encoded_slash": "reject", "backslash": "reject",
            },
            "upgrade": "off",
        })
    );
    assert_eq!(
        (&users["requests"]["5xx"], &users["requests"]["2xx"]),
        (&json!(1), &json!(0))
    );
    assert_eq!(users["rejections"], json!({ "breaker_open": 1 }));
    assert_eq!(users["duration"]["count"], 1);
    let one = bench.get("/api/v1/routes?limit=1").await;
    assert_eq!((one["routes"].as_array().unwrap().len(), &one["total"]), (1, &json!(2)));
}

/// Numbers of routes and of backends in a large installation.
const MANY: (usize, usize) = (10_000, 600);

fn many_routes() -> String {
    let mut config = String::from(
        "listeners:\n  public: { address: 127.0.0.1:0 }\ncallers: { anonymous: { by: client_address } }\nbackends:\n",
    );
    for number in 0..MANY.1 {
        config += &format!(
            "  service-{number}: {{ endpoints: [{{ url: \"http://127.0.0.1:{}\" }}] }}\n",
            1000 + number
        );
    }
    config += "routes:\n";
    for number in 0..MANY.0 {
        let backend = number % MANY.1;
        config += &format!(
            "  route-{number}: {{ match: {{ path: \"/path-{number}/{{*rest}}\" }}, access: {{ any_of: [anonymous] }}, backend: service-{backend} }}\n"
        );
    }
    config
}

#[tokio::test]
async fn a_large_config_shows_its_trouble_first_and_has_a_short_metrics_page() {
    let bench = Bench::start_on(&many_routes(), None).await;
    let (plan, observer) = (bench.live.load(), &bench.state.observer);
    let names = |list: &Value, of: &str| -> Vec<String> {
        let entries = list[of].as_array().unwrap().iter();
        entries
            .map(|entry| entry["name"].as_str().unwrap().to_owned())
            .collect()
    };

    let page = bench.page().await;
    let (size, most) = (page.len(), 2 << 20);
    assert!(size < most, "{} KiB before the first request", size >> 10);
    for route in &plan.listed {
        let mut record = RequestRecord::default();
        record.status = 200;
        record.route = Some(Arc::clone(&route.metrics));
        observer.finish(record);
    }
    let (used, most) = (bench.page().await.len(), 16 << 20);
    assert!(used < most, "{} KiB with all routes in use", used >> 10);

    // Without trouble, the order is that of the config.
    let all = bench.get("/api/v1/backends?limit=3").await;
    assert_eq!(names(&all, "backends"), ["service-0", "service-1", "service-2"]);
    assert_eq!((&all["total"], &all["next_offset"]), (&json!(600), &json!(3)));

    plan.backends[500].guards.breaker.force(ForcedState::Open, clock::now());
    plan.backends[501]
        .guards
        .breaker
        .force(ForcedState::Closed, clock::now());
    plan.backends[300].metrics.called(Outcome::Answered, Duration::ZERO);
    let busy = &plan.listed[9_999].metrics;
    for status in [500, 200, 200] {
        let mut record = RequestRecord::default();
        (record.status, record.route) = (status, Some(Arc::clone(busy)));
        observer.finish(record);
    }
    let backends = bench.get("/api/v1/backends").await;
    assert_eq!(
        names(&backends, "backends")[..4],
        ["service-500", "service-501", "service-300", "service-0"]
    );
    let routes = bench.get("/api/v1/routes?limit=35").await;
    let shown = names(&routes, "routes");
    assert_eq!(
        shown[..2],
        ["route-500", "route-1100"],
        "those of the backend that is not called"
    );
    // Each of the two backends has 16 or 17 routes; the failed route comes after them.
    assert_eq!((&*shown[32], &*shown[33]), ("route-9999", "route-0"));
    assert_eq!(
        (
            &routes["total"],
            &routes["next_offset"],
            &routes["totals"]["requests"]["2xx"]
        ),
        (&json!(10_000), &json!(35), &json!(10_002))
    );

    let check = async |query: &str, total: usize, first: &str, next: Value| {
        let found = bench.get(&format!("/api/v1/routes?{query}")).await;
        assert_eq!(
            (&found["total"], &found["next_offset"]),
            (&json!(total), &next),
            "{query}"
        );
        assert_eq!(
            names(&found, "routes").first().map(String::as_str),
            Some(first),
            "{query}"
        );
    };
    check("q=PATH-1234%2F", 1, "route-1234", Value::Null).await;
    check("q=route-99&limit=10", 111, "route-9999", json!(10)).await;
    check("q=service-7", 17 + 10 * 17, "route-7", json!(100)).await;
    check("offset=9999", 10_000, "route-9998", Value::Null).await;
    assert_eq!(bench.get("/api/v1/routes?q=nothing").await["routes"], json!([]));
    let found = bench.get("/api/v1/backends?q=127.0.0.1%3A1123").await;
    assert_eq!(names(&found, "backends"), ["service-123"]);
}

#[tokio::test]
async fn a_parameter_that_is_not_known_is_refused() {
    let bench = Bench::start().await;
    for path in ["routes", "backends", "tenants", "keys", "rejections", "revocations"] {
        for query in [
            "page=2",
            "limit=5&name=users",
            "Limit=5",
            "limit=1&limit=2",
            "offset=ten",
            "q=a&q=b",
        ] {
            let response = bench.ask(Method::GET, &format!("/api/v1/{path}?{query}")).await;
            let told = problem(response, 400, "bad_value").await;
            let detail = told["detail"].as_str().unwrap();
            let named = query
                .rsplit('&')
                .next()
                .and_then(|pair| pair.split('=').next())
                .unwrap();
            assert!(detail.contains(named), "{path}?{query}: {detail}");
        }
        let listed = bench
            .get(&format!("/api/v1/{path}?q=%20nobody%20&offset=1&limit=1"))
            .await;
        assert_eq!(
            (&listed["total"], &listed["next_offset"]),
            (&json!(0), &Value::Null),
            "{path}"
        );
    }
    assert_eq!(bench.get("/api/v1/keys?tenant=acme").await["total"], 1);
    assert_eq!(bench.get("/api/v1/keys?tenant=nobody").await["total"], 0);
    for path in ["status?x", "events?limit=1"] {
        problem(
            bench.ask(Method::GET, &format!("/api/v1/{path}")).await,
            400,
            "bad_value",
        )
        .await;
    }
    for path in ["reload?dry=1", "drain?in=5m", "backends/users/breaker?for=1s"] {
        let response = bench.change(&format!("/api/v1/{path}"), r#"{"state":"open"}"#).await;
        problem(response, 400, "bad_value").await;
    }
    assert_eq!(bench.lifecycle.phase(), Phase::Serving);
}

#[tokio::test]
async fn backends_show_their_guards() {
    let bench = Bench::start().await;
    let plan = bench.live.load();
    let entrant = Entrant {
        tenant: 1,
        tier: 1,
        weight: 1,
        deadline: Moment::MAX,
    };
    let entry = plan.backends[0]
        .guards
        .bulkhead
        .enter(clock::now(), entrant, || unreachable!("it is empty"));
    let Entry::Admitted(_slot) = entry else {
        panic!("there are two slots")
    };
    let listed = bench.get("/api/v1/backends").await;
    let (users, orders) = (&listed["backends"][0], &listed["backends"][1]);
    let bulkhead = &users["bulkhead"];
    assert_eq!(
        (
            &bulkhead["in_use"],
            &bulkhead["limit"],
            &bulkhead["tenant_cap"],
            &bulkhead["waiting"],
            &bulkhead["queue"],
            &bulkhead["wait_ms"]
        ),
        (&json!(1), &json!(2), &json!(1), &json!(0), &json!(1), &json!(5000))
    );
    assert_eq!(
        bulkhead["outcomes"],
        json!({ "admitted": 1, "full": 0, "timeout": 0, "left": 0 })
    );
    assert_eq!(bulkhead["at"]["line"], line_of("bulkhead:"));
    assert_eq!(users["breaker"]["state"], "closed");
    assert_eq!(
        (&users["breaker"]["settings"]["min_calls"], &orders["breaker"]),
        (&json!(4), &Value::Null)
    );
    assert_eq!(users["breaker_at"]["line"], line_of("min_calls"));
    assert_eq!(users["breaker"]["settings"]["open_for_max_ms"], 300_000);
    assert_eq!(
        users["ejection"],
        json!({ "consecutive": 5, "eject_for_ms": 30_000, "growth": 2.0, "eject_for_max_ms": 300_000, "share": 0.5 })
    );
    assert_eq!(users["retry"]["budget"]["balance"], 20);
    assert_eq!(users["retry"]["stopped"]["exhausted"], 0);
    assert_eq!(
        users["endpoints"],
        json!([{ "url": "http://127.0.0.1:9", "address": "127.0.0.1:9", "weight": 1, "readiness": "ready", "in_flight": 0, "latency_ms": null, "warm": 1.0, "returns_in_ms": null, "connections": { "active": 0, "idle": 0, "exchanges": 0 } }])
    );
    assert_eq!(users["calls"]["answered"], 0);
}

#[tokio::test]
async fn tenants_show_what_they_have_left() {
    let bench = Bench::start().await;
    bench.refuse("one", Reason::RateLimited);
    bench.refuse("two", Reason::BreakerOpen);
    let listed = bench.get("/api/v1/tenants").await;
    let [acme, globex] = listed["tenants"].as_array().unwrap().as_slice() else {
        panic!("two tenants: {listed}")
    };
    assert_eq!(
        (&acme["name"], &globex["name"]),
        (&json!("acme"), &json!("globex")),
        "the busier one first"
    );
    assert_eq!(
        (&acme["tiers"], &globex["tiers"]),
        (&json!(["free"]), &json!(["premium"]))
    );
    assert_eq!(acme["requests"], json!({ "total": 2, "limited": 1, "rejected": 1 }));
    assert_eq!((&acme["api_keys"], &globex["api_keys"]), (&json!(1), &json!(0)));
    assert!(acme["at"]["file"].as_str().unwrap().ends_with("keys.yaml"), "{acme}");
    assert_eq!(globex["at"]["line"], line_of("globex:"));
    let [free, at_once, search, ..] = acme["limits"].as_array().unwrap().as_slice() else {
        panic!("three limits: {acme}")
    };
    assert_eq!(at_once["most"], 20);
    assert_eq!(
        (&free["name"], &free["most"], &free["per_second"], &free["at"]),
        (&json!("free"), &json!(20), &json!(10.0), &Value::Null)
    );
    assert!(free["balance"].as_u64().unwrap() < 20, "two were taken: {free}");
    assert_eq!(
        (&search["route"], &search["balance"], &search["at"]["line"]),
        (&json!("users"), &json!(10), &line_of("search:"))
    );
    let own = &globex["limits"][0];
    assert_eq!((&own["most"], &own["at"]["line"]), (&json!(500), &line_of("globex:")));
}

#[tokio::test]
async fn a_quota_can_be_set() {
    let bench = Bench::start().await;
    let set = async |path: &str, body: &'static str| bench.change(&format!("/api/v1/tenants/{path}"), body).await;
    let left = async |tenant: &str, quota: &str| {
        let listed = bench.get("/api/v1/tenants").await;
        let tenants = listed["tenants"].as_array().unwrap();
        let limits = tenants.iter().find(|entry| entry["name"] == tenant).unwrap()["limits"].clone();
        let limits = limits.as_array().unwrap().iter();
        limits.clone().find(|limit| limit["name"] == quota).unwrap()["balance"].clone()
    };
    for (tenant, path, name, most) in [
        ("globex", "quotas/monthly", "monthly", 2000),
        ("acme", "quotas/daily?route=users", "daily", 50),
    ] {
        let path = &format!("{tenant}/{path}");
        for (body, was, used, balance) in [
            (r#"{"used": 40}"#, 0, 40, most - 40),
            (r#"{"used": 5}"#, 40, 5, most - 5),
            (r#"{"used": 5000}"#, 5, 5000, 0),
            (r#"{"used": 0}"#, 5000, 0, most),
        ] {
            let answer: Value = set(path, body).await.json().await.unwrap();
            let shown = ["was_used", "used", "balance", "most"].map(|name| &answer[name]);
            assert_eq!(
                shown.map(|value| value.as_u64().unwrap()),
                [was, used, balance, most],
                "{answer}"
            );
            assert!((1..=31 * 86_400).contains(&answer["resets_in_seconds"].as_u64().unwrap()));
            assert_eq!(left(tenant, name).await, json!(balance), "{path} {body}");
        }
    }
    set("acme/quotas/daily?route=users", r#"{"used": 7}"#).await;
    assert_eq!(left("globex", "daily").await, json!(50), "another tenant's");

    for (path, body, status, reason) in [
        ("nobody/quotas/monthly", r#"{"used": 1}"#, 404, "no_such_tenant"),
        ("anonymous/quotas/monthly", r#"{"used": 1}"#, 404, "no_such_tenant"),
        ("acme/quotas/monthly", r#"{"used": 1}"#, 404, "no_such_quota"),
        ("globex/quotas/yearly", r#"{"used": 1}"#, 404, "no_such_quota"),
        ("acme/quotas/free", r#"{"used": 1}"#, 404, "no_such_quota"),
        ("acme/quotas/daily", r#"{"used": 1}"#, 404, "no_such_quota"),
        ("acme/quotas/daily?route=page", r#"{"used": 1}"#, 404, "no_such_quota"),
        ("acme/quotas/search?route=users", r#"{"used": 1}"#, 404, "no_such_quota"),
        ("globex/quotas/monthly", r#"{"used": -1}"#, 400, "bad_value"),
        ("globex/quotas/monthly", r#"{"used": 137438953472}"#, 400, "bad_value"),
        ("globex/quotas/monthly", r#"{"used": 1, "used": 2}"#, 400, "bad_value"),
        ("globex/quotas/monthly", r#"{"used": 1, "left": 2}"#, 400, "bad_value"),
        ("globex/quotas/monthly", "", 400, "bad_value"),
        ("globex/quotas/monthly?rout=users", r#"{"used": 1}"#, 400, "bad_value"),
        (
            "acme/quotas/daily?route=users&route=page",
            r#"{"used": 1}"#,
            400,
            "bad_value",
        ),
    ] {
        problem(set(path, body).await, status, reason).await;
    }
    assert_eq!(
        (left("acme", "daily").await, left("globex", "monthly").await),
        (json!(43), json!(2000)),
        "nothing was changed by mistake"
    );
    let unsigned = bench.ask(Method::POST, "/api/v1/tenants/acme/quotas/monthly").await;
    problem(unsigned, 401, "token_missing").await;
}

#[tokio::test]
async fn rejections_name_the_line_that_decided() {
    let bench = Bench::start().await;
    let by = |reason, setting| (reason, Some(setting));
    let expected = [
        (
            (Reason::RateLimited, None),
            "routes.users.limits.search",
            Some("search:"),
        ),
        ((Reason::BreakerOpen, None), "backends.users.breaker", Some("min_calls")),
        (
            (Reason::BulkheadTimeout, None),
            "backends.users.bulkhead.wait",
            Some("wait: 5s"),
        ),
        ((Reason::NotAllowed, None), "routes.users.access", Some("any_of:")),
        (
            (Reason::BackendUnreached, None),
            "backends.users.endpoints",
            Some("127.0.0.1:9\""),
        ),
        ((Reason::UriTooLong, None), "request_limits.uri", None),
        (
            by(Reason::BackendTimeout, Setting::CallTime),
            "backends.users.time_limit",
            Some("  users:"),
        ),
        (
            by(Reason::BackendTimeout, Setting::AttemptTime),
            "backends.users.attempt_limit",
            Some("  users:"),
        ),
        (
            by(Reason::OutOfTime, Setting::RouteTime),
            "routes.users.time_limit",
            Some("time_limit: 5s"),
        ),
        (
            by(Reason::OutOfTime, Setting::At(SettingId::REQUEST_TIME)),
            "time_limits.request",
            None,
        ),
        (
            by(Reason::RequestTimeout, Setting::At(SettingId::HEAD_TIME)),
            "time_limits.head",
            None,
        ),
        (
            by(Reason::RequestTimeout, Setting::At(SettingId::BODY_RATE)),
            "minimum_rates.body",
            None,
        ),
        (
            by(Reason::RequestTimeout, Setting::RouteTime),
            "routes.users.time_limit",
            Some("time_limit: 5s"),
        ),
        (
            by(Reason::HeadersTooLarge, Setting::At(SettingId::HEAD_BYTES)),
            "request_limits.head",
            None,
        ),
        (
            by(Reason::HeadersTooLarge, Setting::At(SettingId::HEAD_FIELDS)),
            "request_limits.headers",
            None,
        ),
        (
            by(Reason::Overloaded, Setting::At(SettingId::CONNECTIONS)),
            "connection_limits.total",
            None,
        ),
        (
            by(Reason::Overloaded, Setting::At(SettingId::CONNECTIONS_PER_ADDRESS)),
            "connection_limits.per_address",
            None,
        ),
        (
            by(Reason::Overloaded, Setting::At(SettingId::VERIFICATION_SHARE)),
            "callers.verifications.share",
            None,
        ),
        (
            by(Reason::Overloaded, Setting::At(SettingId::FAILED_VERIFICATIONS)),
            "callers.verifications.rate",
            None,
        ),
        (
            by(Reason::Overloaded, Setting::At(SettingId::JSON_TOTAL)),
            "request_limits.json_total",
            None,
        ),
        (
            by(Reason::Overloaded, Setting::At(SettingId::PARKED_TOTAL)),
            "request_limits.parked_total",
            None,
        ),
        (
            by(Reason::MalformedRequest, Setting::At(SettingId::ENCODED_SLASH)),
            "path_policy.encoded_slash",
            None,
        ),
    ];
    for ((reason, setting), ..) in expected {
        bench.refuse_by(reason.as_str(), reason, setting);
    }
    for (id, reason, setting) in [
        ("hurried", Reason::OutOfTime, Some(Setting::CallersWish)),
        ("full", Reason::Overloaded, None),
        ("last", Reason::NoRoute, None),
    ] {
        bench.refuse_by(id, reason, setting);
    }
    let shown = bench.get("/api/v1/rejections").await;
    let shown = shown["rejections"].as_array().unwrap();
    for (rejection, id) in shown.iter().zip(["last", "full", "hurried"]) {
        assert_eq!(
            (&rejection["request_id"], &rejection["decided_by"]),
            (&json!(id), &Value::Null),
            "newest first"
        );
    }
    for (((reason, _), setting, line), rejection) in expected.iter().rev().zip(&shown[3..]) {
        assert_eq!(
            (&rejection["reason"], &rejection["tenant"]),
            (&json!(reason.as_str()), &json!("acme"))
        );
        let decided = &rejection["decided_by"];
        assert_eq!(decided["setting"], *setting);
        match line {
            Some(text) => assert_eq!(decided["at"]["line"], line_of(text), "{setting}"),
            None => assert!(decided["at"].is_null(), "a default: {decided}"),
        }
    }
    assert_eq!(
        bench.get("/api/v1/rejections?limit=3").await["rejections"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
}

/// A rejection shows the setting that was in force, also after its line has moved and its limit has changed.
#[tokio::test]
async fn a_refusal_names_the_config_that_it_was_refused_by() {
    let bench = Bench::start().await;
    bench.refuse_by("before", Reason::OutOfTime, Some(Setting::RouteTime));
    let moved = CONFIG
        .replace("    time_limit: 5s\n", "")
        .replace("routes:\n", "# a line more\nroutes:\n");
    std::fs::write(bench.folder.path().join("gateway.yaml"), moved).unwrap();
    let reloaded = bench.change("/api/v1/reload", "").await;
    assert_eq!(reloaded.status(), StatusCode::OK);
    bench.refuse_by("after", Reason::OutOfTime, Some(Setting::RouteTime));
    let shown = bench.get("/api/v1/rejections").await;
    let [after, before] = shown["rejections"].as_array().unwrap().as_slice() else {
        panic!("two refusals: {shown}")
    };
    assert_eq!(before["decided_by"]["setting"], "routes.users.time_limit");
    assert_eq!(before["decided_by"]["at"]["line"], line_of("time_limit: 5s"));
    assert_eq!(
        after["decided_by"],
        json!({ "setting": "time_limits.request", "at": null })
    );
}

#[tokio::test]
async fn gauges_are_true_after_a_reload() {
    let bench = Bench::start().await;
    let page = bench.page().await;
    for line in [
        "gateway_bulkhead_limit{backend=\"users\"} 2\n",
        "gateway_bulkhead_in_use{backend=\"users\"} 0\n",
        "gateway_bulkhead_waiting{backend=\"users\"} 0\n",
        "gateway_breaker_state{backend=\"users\"} 0\n",
        "gateway_endpoints_ejected{backend=\"users\"} 0\n",
        "gateway_endpoint_ejections_total{backend=\"users\"} 0\n",
        "gateway_retry_budget_balance{backend=\"users\"} 20\n",
        "gateway_backend_connections{backend=\"users\",state=\"idle\"} 0\n",
        "gateway_limit_owners{limit=\"free\"} 0\n",
        "gateway_limit_overflow_total{limit=\"free\"} 0\n",
        "gateway_requests_in_flight 0\n",
        "gateway_connections 0\n",
        "gateway_connections_total 0\n",
        "gateway_malformed_connections_total 0\n",
        "gateway_config_generation 1\n",
    ] {
        assert!(page.contains(line), "{line} is missing in\n{page}");
    }
    let renamed = CONFIG
        .replace("  orders:\n", "  bills:\n")
        .replace("backend: orders", "backend: bills");
    let changed = renamed.replace("limit: 2, queue: 1", "limit: 7, queue: 1");
    std::fs::write(bench.folder.path().join("gateway.yaml"), changed).unwrap();
    let reloaded = bench.change("/api/v1/reload", "").await;
    assert_eq!(reloaded.json::<Value>().await.unwrap(), json!({ "generation": 2 }));
    let page = bench.page().await;
    assert!(page.contains("gateway_bulkhead_limit{backend=\"users\"} 7\n"), "{page}");
    assert!(page.contains("gateway_bulkhead_limit{backend=\"bills\"}") && !page.contains("limit{backend=\"orders\"}"));
    assert!(page.contains("gateway_config_generation 2\n"));
}

#[tokio::test]
async fn a_change_needs_the_token() {
    let bench = Bench::start().await;
    for path in ["/api/v1/reload", "/api/v1/drain", "/api/v1/backends/users/breaker"] {
        problem(bench.ask(Method::POST, path).await, 401, "token_missing").await;
        for wrong in [
            "Bearer wrong",
            "Bearer",
            "Bearer ",
            "Basic correct-horse-battery",
            TOKEN,
        ] {
            let request = bench.client.post(format!("http://{}{path}", bench.address));
            let response = request.header("authorization", wrong).send().await.unwrap();
            assert!(response.headers().contains_key("www-authenticate"));
            problem(response, 401, "token_invalid").await;
        }
    }
    assert_eq!(
        (bench.lifecycle.phase(), bench.live.load().generation),
        (Phase::Serving, 1)
    );
}

#[tokio::test]
async fn without_a_token_nothing_can_be_changed() {
    let bench = Bench::start_with(None).await;
    for path in ["/api/v1/reload", "/api/v1/drain", "/api/v1/backends/users/breaker"] {
        let told = problem(bench.change(path, "").await, 403, "changes_disabled").await;
        assert!(told["detail"].as_str().unwrap().contains("admin.token_file"), "{told}");
    }
    assert_eq!(bench.get("/api/v1/status").await["admin"]["changes"], false);
}

#[tokio::test]
async fn with_a_token_for_reading_nothing_but_probes_is_answered_without_one() {
    const READ: &str = "battery-horse-correct";
    let bench = Bench::start_with_tokens(CONFIG, Some(TOKEN), Some(READ)).await;
    let basic = |password: &str| {
        use base64::Engine as _;
        format!(
            "Basic {}",
            base64::engine::general_purpose::STANDARD.encode(format!("ada:{password}"))
        )
    };
    let get = async |path: &str, authorization: Option<&str>| {
        let mut request = bench.client.get(format!("http://{}{path}", bench.address));
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        request.send().await.unwrap()
    };
    for path in [
        "/",
        "/dashboard.js",
        "/metrics",
        "/api/v1/status",
        "/api/v1/keys",
        "/api/v1/events",
        "/nowhere",
    ] {
        let response = get(path, None).await;
        let schemes: Vec<_> = response.headers().get_all("www-authenticate").iter().collect();
        assert_eq!(schemes.len(), 2, "{path}");
        problem(response, 401, "read_token_missing").await;
        for wrong in [
            "Bearer wrong-horse-battery",
            "Bearer",
            "Digest x",
            "Basic x",
            &basic("x"),
            READ,
        ] {
            problem(get(path, Some(wrong)).await, 401, "read_token_invalid").await;
        }
        let right = [
            format!("Bearer {READ}"),
            format!("bearer  {TOKEN}"),
            basic(READ),
            basic(TOKEN),
        ];
        for authorization in right {
            let status = get(path, Some(&authorization)).await.status();
            let expected = if path == "/nowhere" {
                StatusCode::NOT_FOUND
            } else {
                StatusCode::OK
            };
            assert_eq!(status, expected, "{path} with {authorization}");
        }
    }
    for path in ["/livez", "/readyz"] {
        assert_eq!(get(path, None).await.status(), StatusCode::OK, "{path}");
        assert_eq!(get(path, Some("Bearer wrong")).await.status(), StatusCode::OK, "{path}");
    }
    // A token for reading allows no change, and nothing that a browser sends by itself does.
    for (authorization, status, reason) in [
        (format!("Bearer {READ}"), 401, "token_invalid"),
        (basic(READ), 401, "token_invalid"),
        (basic(TOKEN), 401, "token_invalid"),
        ("Bearer wrong".to_owned(), 401, "read_token_invalid"),
    ] {
        let request = bench.client.post(format!("http://{}/api/v1/reload", bench.address));
        let response = request.header("authorization", &authorization).send().await.unwrap();
        problem(response, status, reason).await;
    }
    assert_eq!(bench.change("/api/v1/reload", "").await.status(), StatusCode::OK);
    assert_eq!(
        get("/api/v1/status", Some(&basic(READ)))
            .await
            .json::<Value>()
            .await
            .unwrap()["admin"]["read_token"],
        true
    );
}

#[tokio::test]
async fn the_health_address_answers_probes_and_nothing_else() {
    let bench = Bench::start().await;
    let get = async |path: &str| {
        let request = bench.client.get(format!("http://{}{path}", bench.health_address));
        // A load balancer may use any host name.
        request.header("host", "gateway.example").send().await.unwrap()
    };
    assert_eq!(get("/livez").await.status(), StatusCode::OK);
    assert_eq!(get("/readyz").await.status(), StatusCode::OK);
    bench.lifecycle.advance(Phase::Draining);
    assert_eq!(get("/livez").await.status(), StatusCode::OK);
    assert_eq!(get("/readyz").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    for path in ["/", "/metrics", "/api/v1/status", "/api/v1/keys", "/livez/"] {
        problem(get(path).await, 404, "not_found").await;
    }
    let changed = bench
        .client
        .post(format!("http://{}/api/v1/drain", bench.health_address));
    problem(changed.bearer_auth(TOKEN).send().await.unwrap(), 404, "not_found").await;
}

#[tokio::test]
async fn a_short_token_is_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.token");
    std::fs::write(&path, " 123456789012345 \n").unwrap();
    let written = Admin {
        address: At::unwritten(([127, 0, 0, 1], 0).into()),
        token_file: Some(At::unwritten(path)),
        read_token_file: None,
        health_address: None,
    };
    let error = bind(&written).err().unwrap().to_string();
    assert!(
        error.contains("fewer than 16 characters") && !error.contains("12345"),
        "{error}"
    );
}

#[tokio::test]
async fn a_bad_config_changes_nothing_and_shows() {
    let bench = Bench::start().await;
    std::fs::write(bench.folder.path().join("gateway.yaml"), "listners: {}\n").unwrap();
    let told = problem(bench.change("/api/v1/reload", "").await, 422, "config_invalid").await;
    assert!(told["detail"].as_str().unwrap().contains("listners"), "{told}");
    let status = bench.get("/api/v1/status").await;
    let last = &status["config"]["last_reload"];
    assert_eq!(
        (&status["config"]["generation"], &last["successful"]),
        (&json!(1), &json!(false))
    );
    assert!(last["error"].as_str().unwrap().contains("listners"));
}

#[tokio::test]
async fn a_breaker_can_be_forced_and_freed() {
    let bench = Bench::start().await;
    let path = "/api/v1/backends/users/breaker";
    for (wanted, state) in [
        (r#"{"state":"open"}"#, "forced_open"),
        (r#"{"state":"closed"}"#, "forced_closed"),
        (r#"{"state":"auto"}"#, "closed"),
    ] {
        let shown: Value = bench.change(path, wanted).await.json().await.unwrap();
        assert_eq!(
            (&shown["backend"], &shown["breaker"]["state"]),
            (&json!("users"), &json!(state))
        );
    }
    for body in ["", "open", r#"{"state":"ajar"}"#, r#"{"state":"open","for":"1s"}"#] {
        problem(bench.change(path, body).await, 400, "bad_value").await;
    }
    let force = r#"{"state":"open"}"#;
    problem(
        bench.change("/api/v1/backends/nobody/breaker", force).await,
        404,
        "no_such_backend",
    )
    .await;
    problem(
        bench.change("/api/v1/backends/orders/breaker", force).await,
        409,
        "breaker_off",
    )
    .await;
}

#[tokio::test]
async fn a_drain_begins_as_a_signal_would_begin_it() {
    let bench = Bench::start().await;
    let response = bench.change("/api/v1/drain", "").await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    assert_eq!(response.json::<Value>().await.unwrap(), json!({ "phase": "noticed" }));
    assert_eq!(bench.lifecycle.phase(), Phase::Noticed);
}

#[tokio::test]
async fn a_rebound_name_is_refused_everywhere() {
    let bench = Bench::start().await;
    for path in [
        "/",
        "/livez",
        "/metrics",
        "/api/v1/status",
        "/api/v1/reload",
        "/nothing",
    ] {
        let request = bench
            .client
            .get(format!("http://{}{path}", bench.address))
            .header("host", "evil.example");
        problem(request.send().await.unwrap(), 421, "host_refused").await;
    }
    let request = bench
        .client
        .get(format!("http://{}/livez", bench.address))
        .header("host", "localhost:9900");
    assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn what_is_not_served_is_a_problem_too() {
    let bench = Bench::start().await;
    problem(bench.ask(Method::GET, "/api/v1/nothing").await, 404, "not_found").await;
    for (method, path, allow) in [
        (Method::POST, "/api/v1/status", "GET,HEAD"),
        (Method::DELETE, "/metrics", "GET,HEAD"),
        (Method::GET, "/api/v1/reload", "POST"),
        (Method::PUT, "/api/v1/backends/users/breaker", "POST"),
    ] {
        let response = bench.ask(method, path).await;
        assert_eq!(response.headers()["allow"], allow, "{path}");
        problem(response, 405, "method_not_allowed").await;
    }
    for path in ["routes", "backends", "tenants", "rejections"] {
        problem(
            bench.ask(Method::GET, &format!("/api/v1/{path}?limit=0")).await,
            400,
            "bad_value",
        )
        .await;
    }
    for path in [
        "/",
        "/livez",
        "/readyz",
        "/metrics",
        "/api/v1/status",
        "/api/v1/rejections",
    ] {
        let response = bench.ask(Method::HEAD, path).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        assert!(response.bytes().await.unwrap().is_empty(), "{path}");
    }
}

/// Reads the first event of a stream.
async fn event(stream: &mut Response) -> Value {
    let mut text = String::new();
    while !text.ends_with("\n\n") {
        text += std::str::from_utf8(&stream.chunk().await.unwrap().expect("the stream goes on")).unwrap();
    }
    let data = text
        .strip_prefix("event: snapshot\ndata: ")
        .unwrap_or_else(|| panic!("a snapshot: {text}"));
    serde_json::from_str(data).unwrap()
}

#[tokio::test]
async fn events_tell_everything_until_the_drain() {
    let bench = Bench::start().await;
    bench.refuse("one", Reason::BreakerOpen);
    let mut stream = bench.ask(Method::GET, "/api/v1/events").await;
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let snapshot = event(&mut stream).await;
    assert_eq!(snapshot["status"]["phase"], "serving");
    assert_eq!(snapshot["routes"]["routes"][0]["name"], "users");
    assert_eq!(snapshot["backends"]["backends"][0]["name"], "users");
    assert_eq!(snapshot["tenants"]["tenants"][0]["name"], "acme");
    assert_eq!(snapshot["rejections"][0]["request_id"], "one");
    bench.lifecycle.advance(Phase::Draining);
    let mut last = event(&mut stream).await;
    while last["status"]["phase"] == "serving" {
        last = event(&mut stream).await;
    }
    assert_eq!(last["status"]["phase"], "draining");
    assert_eq!(stream.chunk().await.unwrap(), None, "the stream has ended");
    problem(bench.ask(Method::GET, "/api/v1/events").await, 503, "draining").await;
}

#[tokio::test]
async fn streams_are_bounded_and_their_places_come_back() {
    let bench = Bench::start().await;
    let mut streams = Vec::new();
    for _ in 0..super::stream_slots::MOST_OF_PEER {
        let mut stream = bench.ask(Method::GET, "/api/v1/events").await;
        event(&mut stream).await;
        streams.push(stream);
    }
    problem(bench.ask(Method::GET, "/api/v1/events").await, 503, "too_many_streams").await;
    streams.clear();
    // The server notices at its next write or read.
    let until = clock::now() + Duration::from_secs(10);
    while bench.ask(Method::GET, "/api/v1/events").await.status() != StatusCode::OK {
        assert!(
            Deadline::at(until).allows(clock::now(), Duration::ZERO, Duration::ZERO),
            "no place came back"
        );
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_dashboard_is_served_and_runs_only_its_own_script() {
    let bench = Bench::start().await;
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/dashboard.css", "text/css; charset=utf-8"),
        ("/dashboard.js", "text/javascript; charset=utf-8"),
    ] {
        let response = bench.ask(Method::GET, path).await;
        assert_eq!(
            (response.status(), &response.headers()["content-type"]),
            (StatusCode::OK, &HeaderValue::from_static(kind))
        );
        let policy = response.headers()["content-security-policy"].to_str().unwrap();
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self';") && !policy.contains("unsafe"),
            "{policy}"
        );
    }
    let page = include_str!("dashboard/page.html");
    let script = include_str!("dashboard/script.js");
    for forbidden in ["style=", "onclick", "onload", "//cdn", "https://", "<script>"] {
        assert!(!page.contains(forbidden), "{forbidden} in the page");
    }
    for forbidden in [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "https://",
    ] {
        assert!(!script.contains(forbidden), "{forbidden} in the script");
    }
}

#[tokio::test]
async fn secrets_are_told_to_nobody() {
    let bench = Bench::start().await;
    bench.refuse("one", Reason::BreakerOpen);
    let mut told = String::new();
    for path in ["status", "routes", "backends", "tenants", "rejections"] {
        told += &bench.get(&format!("/api/v1/{path}")).await.to_string();
    }
    told += &event(&mut bench.ask(Method::GET, "/api/v1/events").await)
        .await
        .to_string();
    told += &bench.page().await;
    told += &bench.change("/api/v1/reload", "").await.text().await.unwrap();
    for secret in [TOKEN, SECRET, DIGEST, "example-acme-1"] {
        assert!(!told.contains(secret), "{secret} is told");
    }
}
