use std::fs;

use fixtures::kubernetes::{ApiServer, Gone, Slice};
use serde_json::json;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;

use super::lines::MAX_LINE;
use super::*;
use crate::call::endpoints::{KubernetesApi, Naming, Readiness, SlicePort};

/// Limit for what takes a second or two.
const SOON: Duration = Duration::from_secs(20);
/// Limit for what takes several reports.
const LONG: Duration = Duration::from_secs(60);

/// Source that is followed, with what it reports.
struct Followed {
    found: UnboundedReceiver<Found>,
    last: Option<Vec<String>>,
    task: JoinHandle<()>,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn settings(server: &str) -> KubernetesSettings {
    KubernetesSettings {
        namespace: "default".into(),
        service: "users".into(),
        port: SlicePort::Name("http".into()),
        naming: Naming {
            host: "users.default.svc".into(),
            server_name: None,
        },
        api: KubernetesApi {
            url: Some(server.into()),
            token_file: None,
            ca_file: None,
        },
    }
}

impl Followed {
    fn start(server: &ApiServer) -> Self {
        Self::with(settings(&format!("http://{}", server.address())))
    }

    fn with(settings: KubernetesSettings) -> Self {
        let (report, found) = unbounded_channel();
        let task = tokio::spawn(async move {
            follow(&settings, &Notify::new(), |found| {
                let _ = report.send(found);
            })
            .await;
        });
        Self {
            found,
            last: None,
            task,
        }
    }

    /// Returns the next report that is not of the same members as the last: the addresses, with a `*` behind those that
    /// only serve, or the reason of the failure.
    async fn next(&mut self) -> Result<Vec<String>, String> {
        loop {
            let next = tokio::time::timeout(SOON, self.found.recv()).await;
            let members = match next.expect("it reports soon").expect("it is followed forever") {
                Found::Failed(why) => {
                    self.last = None;
                    return Err(why);
                }
                Found::Members(members) => members,
            };
            let text = |member: &Member| match member.readiness {
                Readiness::Ready => member.address.to_string(),
                Readiness::Serving => format!("{}*", member.address),
            };
            let members = Some(members.iter().map(text).collect());
            if self.last != members {
                self.last = members;
                return Ok(self.last.clone().unwrap_or_default());
            }
        }
    }

    /// Waits until the members are these.
    async fn until(&mut self, expected: &[&str]) {
        let is_so = |next: &Result<Vec<String>, String>| next.as_ref().is_ok_and(|members| members == expected);
        self.becomes(is_so, &expected.join(" ")).await;
    }

    /// Waits until a look fails for this reason.
    async fn fails(&mut self, expected: &str) {
        self.becomes(|next| next.as_ref().is_err_and(|why| why == expected), expected)
            .await;
    }

    async fn becomes(&mut self, is_so: impl Fn(&Result<Vec<String>, String>) -> bool, expected: &str) {
        let mut seen = Vec::new();
        let waiting = async {
            while !seen.last().is_some_and(&is_so) {
                seen.push(self.next().await);
            }
        };
        let waited = tokio::time::timeout(LONG, waiting).await;
        assert!(waited.is_ok(), "{expected}: {seen:?}");
    }
}

async fn eventually(reason: &str, mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, waiting).await.expect(reason);
}

async fn watched(server: &ApiServer) {
    eventually("a watch is under way", || server.watches() == 1).await;
}

fn slice() -> Slice {
    Slice::new("users-1", "users").port("http", 8080)
}

/// Returns the number of lists and the versions from which watches began.
fn asked(server: &ApiServer) -> (usize, Vec<String>) {
    let requests = server.requests();
    let is_watch = |request: &&String| request.contains("watch=true");
    let lists = requests.iter().filter(|request| !is_watch(request)).count();
    let version = |request: &String| {
        let mut pairs = request.split(['?', '&']);
        let version = pairs.find_map(|pair| pair.strip_prefix("resourceVersion="));
        version.unwrap_or_default().to_owned()
    };
    (lists, requests.iter().filter(is_watch).map(version).collect())
}

#[tokio::test]
async fn slices_are_listed_and_then_watched() {
    let server = ApiServer::start().await.unwrap();
    server.put(slice().ready("10.0.0.1").ending("10.0.0.2").unready("10.0.0.3"));
    server.put(Slice::new("orders-1", "orders").port("http", 8080).ready("10.9.9.9"));
    let mut followed = Followed::start(&server);
    assert_eq!(followed.next().await.unwrap(), ["10.0.0.1:8080", "10.0.0.2:8080*"]);
    watched(&server).await;
    server.put(slice().ready("10.0.0.1").ready("10.0.0.3"));
    assert_eq!(followed.next().await.unwrap(), ["10.0.0.1:8080", "10.0.0.3:8080"]);
    server.put(
        Slice::new("users-2", "users")
            .family("IPv6")
            .port("http", 81)
            .ready("fd00::1"),
    );
    assert_eq!(
        followed.next().await.unwrap(),
        ["10.0.0.1:8080", "10.0.0.3:8080", "[fd00::1]:81"]
    );
    server.delete("users-1");
    assert_eq!(followed.next().await.unwrap(), ["[fd00::1]:81"]);
    server.delete("users-2");
    let none = followed.next().await.unwrap_err();
    assert_eq!(none, "there is no EndpointSlice of this service");
    let (lists, watches) = asked(&server);
    assert_eq!((lists, watches.len()), (1, 1));
    let requests = server.requests();
    let list = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices\
                ?labelSelector=kubernetes.io%2Fservice-name%3Dusers&limit=16";
    assert_eq!(requests[0], list);
    assert!(requests[1].contains("&allowWatchBookmarks=true&"), "{requests:?}");
    assert!(requests[1].contains("&timeoutSeconds="), "{requests:?}");
}

#[tokio::test]
async fn a_watch_that_ends_or_is_cut_goes_on_from_the_last_version() {
    let server = ApiServer::start().await.unwrap();
    server.put(slice().ready("10.0.0.1"));
    let mut followed = Followed::start(&server);
    followed.until(&["10.0.0.1:8080"]).await;
    watched(&server).await;
    server.put(slice().ready("10.0.0.2"));
    assert_eq!(followed.next().await.unwrap(), ["10.0.0.2:8080"]);
    server.cut();
    // Nobody watches now; the change is in the next watch.
    server.put(slice().ready("10.0.0.3"));
    assert_eq!(
        followed.next().await.unwrap(),
        ["10.0.0.3:8080"],
        "no failure in between"
    );
    watched(&server).await;
    server.bookmark();
    server.end();
    server.put(slice().ready("10.0.0.4"));
    assert_eq!(followed.next().await.unwrap(), ["10.0.0.4:8080"]);
    assert_eq!(
        asked(&server),
        (1, ["1001", "1002", "1004"].map(str::to_owned).to_vec())
    );
}

#[tokio::test]
async fn slices_are_listed_again_when_the_version_is_forgotten() {
    for gone in [Gone::Status, Gone::Event] {
        let server = ApiServer::start().await.unwrap();
        server.put(slice().ready("10.0.0.1"));
        server.put(Slice::new("users-2", "users").port("http", 8080).ready("10.0.0.2"));
        let mut followed = Followed::start(&server);
        followed.until(&["10.0.0.1:8080", "10.0.0.2:8080"]).await;
        watched(&server).await;
        server.cut();
        eventually("it is cut", || server.watches() == 0).await;
        server.delete("users-2");
        server.forget(gone);
        assert_eq!(
            followed.next().await.unwrap(),
            ["10.0.0.1:8080"],
            "{gone:?}: no failure in between"
        );
        watched(&server).await;
        assert_eq!(asked(&server).0, 2, "{gone:?}");
        server.put(slice().ready("10.0.0.3"));
        assert_eq!(followed.next().await.unwrap(), ["10.0.0.3:8080"], "{gone:?}");
    }
}

#[tokio::test]
async fn an_error_of_a_watch_is_said_and_slices_are_listed_again() {
    let server = ApiServer::start().await.unwrap();
    server.put(slice().ready("10.0.0.1"));
    let mut followed = Followed::start(&server);
    let mut check = async |line: String, expected: &str| {
        followed.until(&["10.0.0.1:8080"]).await;
        watched(&server).await;
        let (lists, _) = asked(&server);
        server.send_line(line);
        followed.fails(expected).await;
        eventually("it is listed again", || asked(&server).0 > lists).await;
    };
    let error = json!({ "type": "ERROR", "object": { "code": 500, "message": "etcd\nhas no leader" } });
    check(error.to_string(), "the API server answers 500: etcd has no leader").await;
    let unreadable = "the answer of the API server cannot be read: ";
    let nameless = json!({ "type": "ADDED", "object": { "metadata": {}, "addressType": "IPv4" } });
    check(nameless.to_string(), &format!("{unreadable}it has no `name`")).await;
    let long = format!("{unreadable}an event of the watch is longer than 1048576 bytes");
    check("x".repeat(MAX_LINE + 1), &long).await;
    followed.until(&["10.0.0.1:8080"]).await;
}

#[tokio::test]
async fn a_refusal_is_said_and_a_replaced_token_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    let server = ApiServer::start().await.unwrap();
    server.put(slice().ready("10.0.0.1"));
    server.require("second");
    let mut with_token = settings(&format!("http://{}", server.address()));
    with_token.api.token_file = Some(token.clone());
    let mut followed = Followed::with(with_token);
    let absent = format!(
        "cannot read {}: No such file or directory (os error 2)",
        token.display()
    );
    followed.fails(&absent).await;
    fs::write(&token, "two words").unwrap();
    followed.fails(&format!("{} holds no token", token.display())).await;
    fs::write(&token, "first\n").unwrap();
    followed
        .fails("the API server answers 401: the token is not accepted: Unauthorized")
        .await;
    fs::write(&token, "second\n").unwrap();
    followed.until(&["10.0.0.1:8080"]).await;
    watched(&server).await;
    server.refuse(Some((403, "endpointslices is forbidden")));
    server.cut();
    followed
        .fails("the API server answers 403: endpointslices is forbidden")
        .await;
    server.refuse(None);
    followed.until(&["10.0.0.1:8080"]).await;
}

#[tokio::test]
async fn members_are_confirmed_after_the_api_server_was_away() {
    let server = ApiServer::start().await.unwrap();
    let address = server.address();
    server.put(slice().ready("10.0.0.1"));
    let mut followed = Followed::start(&server);
    followed.until(&["10.0.0.1:8080"]).await;
    watched(&server).await;
    drop(server);
    let why = followed.next().await.unwrap_err();
    assert!(
        why.starts_with("the API server is not reached: Connection refused"),
        "{why}"
    );
    let server = ApiServer::start_at(address).await.unwrap();
    // It has begun anew, with versions before those that are known, and with a slice of another name.
    server.put(Slice::new("users-9", "users").port("http", 8080).ready("10.0.0.9"));
    server.forget(Gone::Status);
    followed.until(&["10.0.0.9:8080"]).await;
}

#[tokio::test]
async fn a_list_of_several_pages_is_read_whole() {
    let server = ApiServer::start().await.unwrap();
    for number in 0..40 {
        let slice = Slice::new(&format!("users-{number}"), "users").port("http", 8080);
        server.put(slice.ready(&format!("10.0.0.{number}")));
    }
    let mut followed = Followed::start(&server);
    assert_eq!(followed.next().await.unwrap().len(), 40);
    watched(&server).await;
    assert_eq!(asked(&server), (3, vec!["1040".to_owned()]));
}

#[tokio::test]
async fn settings_that_cannot_work_are_said() {
    let folder = tempfile::tempdir().unwrap();
    let (token, ca) = (folder.path().join("token"), folder.path().join("ca.crt"));
    fs::write(&token, "secret").unwrap();
    fs::write(&ca, "no certificate").unwrap();
    let check = async |change: &dyn Fn(&mut KubernetesApi), expected: &str| {
        let mut settings = settings("https://10.0.0.1:6443");
        change(&mut settings.api);
        let why = Followed::with(settings).next().await.unwrap_err();
        assert!(why.starts_with(expected), "{why}");
        assert!(!why.contains("secret"), "{why}");
    };
    let plain = |api: &mut KubernetesApi| {
        api.url = Some("http://10.0.0.1:8001".into());
        api.token_file = Some(token.clone());
    };
    check(&plain, "a token is not sent to http://10.0.0.1:8001/ without TLS").await;
    let file = ca.display();
    let no_certificate = format!("{file} ");
    check(&|api| api.ca_file = Some(ca.clone()), &no_certificate).await;
    let absent = "cannot read /absent: No such file";
    check(&|api| api.ca_file = Some("/absent".into()), absent).await;
    check(&|api| api.url = Some("api".into()), "`api` is not a URL").await;
}
