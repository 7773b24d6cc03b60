//! Serves the admin API over a real socket, for tests. The workers of the gateway are not started; the tests record by
//! hand what requests would leave behind.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderValue, Method, StatusCode};
use futures_util::FutureExt;
use reqwest::Response;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::admin::{Gateway, InheritedAdmin, bind};
use crate::auth::jwt::key_fetch;
use crate::config::{Admin, At};
use crate::control::reload;
use crate::control::reload::{Following, Reloader};
use crate::message::FieldMap;
use crate::observe::{Decided, Observer, RequestRecord, Target};
use crate::plan::{LivePlan, State};
use crate::rejection::{Reason, Rejection};
use crate::server::Lifecycle;
use crate::{clock, limits};

pub(super) const TOKEN: &str = "correct-horse-battery";

pub(super) const SECRET: &str = "0123456789abcdef0123456789abcdef";

pub(super) const DIGEST: &str = "385ec044fbb260818dd8f202383d4fabfa9eab8f7e269ba3d60bc92dfd8ddd2e";

pub(super) const CONFIG: &str = r#"listeners:
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
pub(super) struct Bench {
    pub(super) folder: TempDir,
    pub(super) address: std::net::SocketAddr,
    pub(super) health_address: std::net::SocketAddr,
    pub(super) client: reqwest::Client,
    pub(super) live: Arc<LivePlan>,
    pub(super) state: Arc<State>,
    pub(super) lifecycle: Arc<Lifecycle>,
}

impl Bench {
    pub(super) async fn start() -> Self {
        Self::start_with(Some(TOKEN)).await
    }

    pub(super) async fn start_with(token: Option<&str>) -> Self {
        Self::start_on(CONFIG, token).await
    }

    pub(super) async fn start_on(config: &str, token: Option<&str>) -> Self {
        Self::start_with_tokens(config, token, None).await
    }

    pub(super) async fn start_with_tokens(config: &str, token: Option<&str>, read_token: Option<&str>) -> Self {
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
        state.observer.registry.config_loaded(1);
        let live = Arc::new(LivePlan::new(Arc::new(compiled.plan)));
        let lifecycle = Arc::new(Lifecycle::default());
        let bound = bind(
            &Admin {
                address: At::unwritten(([127, 0, 0, 1], 0).into()),
                token_file: token_file.map(At::unwritten),
                read_token_file: read_token_file.map(At::unwritten),
                tokens_file: None,
                health_address: Some(At::unwritten(([127, 0, 0, 1], 0).into())),
            },
            InheritedAdmin::default(),
        )
        .unwrap();
        let address = bound.address();
        let health_address = bound.health_address().unwrap();
        tokio::spawn(bound.serve(Gateway {
            live: Arc::clone(&live),
            state: Arc::clone(&state),
            lifecycle: Arc::clone(&lifecycle),
            reloader: Arc::new(Reloader::new(
                path,
                Arc::clone(&live),
                Arc::clone(&state),
                Following::default(),
            )),
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

    pub(super) async fn ask(&self, method: Method, path: &str) -> Response {
        self.client
            .request(method, format!("http://{}{path}", self.address))
            .send()
            .await
            .unwrap()
    }

    pub(super) async fn get(&self, path: &str) -> Value {
        let response = self.ask(Method::GET, path).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response.json().await.unwrap()
    }

    pub(super) async fn change(&self, path: &str, body: &'static str) -> Response {
        let request = self
            .client
            .post(format!("http://{}{path}", self.address))
            .bearer_auth(TOKEN);
        request.body(body).send().await.unwrap()
    }

    pub(super) async fn page(&self) -> String {
        self.ask(Method::GET, "/metrics").await.text().await.unwrap()
    }

    /// Records a request of acme that is rejected for `reason`.
    pub(super) fn refuse(&self, id: &str, reason: Reason) {
        self.refuse_by(id, reason, None);
    }

    /// Records a request of acme that is rejected for `reason`, decided by `setting`.
    pub(super) fn refuse_by(&self, id: &str, reason: Reason, setting: Option<&str>) {
        let (plan, observer) = (self.live.load(), &self.state.observer);
        let route = plan.listed.iter().find(|route| &*route.name == "users").unwrap();
        let presented = [("x-api-key", "example-acme-1")];
        let headers: FieldMap = presented
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
            .into_iter()
            .collect();
        let address = std::net::IpAddr::from([127, 0, 0, 1]);
        let refuse = || Err(Rejection::Internal);
        let known = plan
            .authenticator
            .identify(&headers, &route.access, address, clock::unix_seconds(), refuse);
        let known = known.now_or_never().expect("a key is looked up").unwrap();
        let now = clock::Now::read();
        let charges = known.holds().iter().map(|hold| hold.charge(1)).collect();
        // A failed charge of an empty bucket does not matter here.
        let _ = limits::take(charges, now, Duration::ZERO);
        let record = RequestRecord::begin(clock::now(), clock::unix_time(), id, Method::GET, "/users/1");
        let mut request = observer.begin(record);
        request.route = Some(Arc::clone(&route.metrics));
        request.tenant = Some(Arc::clone(&known.metrics));
        request.backend = Some("users".into());
        request.limit = (reason == Reason::RateLimited).then(|| "search".into());
        request.refused(reason);
        let id = |wanted: &str| {
            let found = plan.settings.iter().find(|(_, setting)| *setting.path == *wanted);
            found.unwrap_or_else(|| panic!("{wanted} can decide")).0
        };
        request.decided = setting.map(|wanted| {
            Box::new(Decided {
                setting: id(wanted),
                settings: Arc::clone(&plan.settings),
            })
        });
        request.end();
    }
}

pub(super) async fn problem(response: Response, status: u16, reason: &str) -> Value {
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
pub(super) fn line_of(text: &str) -> Value {
    json!(CONFIG.lines().position(|line| line.contains(text)).unwrap() + 1)
}

/// Reads the first event of a stream.
pub(super) async fn event(stream: &mut Response) -> Value {
    let mut text = String::new();
    while !text.ends_with("\n\n") {
        text += std::str::from_utf8(&stream.chunk().await.unwrap().expect("the stream goes on")).unwrap();
    }
    let data = text
        .strip_prefix("event: snapshot\ndata: ")
        .unwrap_or_else(|| panic!("a snapshot: {text}"));
    serde_json::from_str(data).unwrap()
}
