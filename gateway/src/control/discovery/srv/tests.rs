use std::net::{Ipv4Addr, Ipv6Addr};

use fixtures::name_server::{Data, Failure, Kind, NameServer, SERVFAIL};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;

use super::*;

/// Limit for what takes a second or two.
const SOON: Duration = Duration::from_secs(20);
/// Limit for what takes several looks.
const LONG: Duration = Duration::from_secs(60);
const NAME: &str = "_http._tcp.users.test";

/// Source that is followed, with what it reports.
struct Followed {
    found: UnboundedReceiver<Found>,
    wake: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Followed {
    fn start(server: &NameServer) -> Self {
        let settings = SrvSettings {
            name: NAME.into(),
            naming: Naming {
                host: "users.test".into(),
                server_name: None,
            },
            name_server: Some(server.address()),
        };
        let (report, found) = unbounded_channel();
        let wake = Arc::new(Notify::new());
        let theirs = Arc::clone(&wake);
        let task = tokio::spawn(async move {
            follow(&settings, None, &theirs, |found| {
                let _ = report.send(found);
            })
            .await;
        });
        Self { found, wake, task }
    }

    /// Returns the next report: the members as `address x weight`, or the reason of the failure.
    async fn next(&mut self) -> Result<Vec<String>, String> {
        let next = tokio::time::timeout(SOON, self.found.recv()).await;
        match next.expect("it looks soon").expect("it is followed forever") {
            Found::Failed(why) => Err(why),
            Found::Members(members) => Ok(members
                .iter()
                .map(|member| format!("{} x{}", member.address, member.weight))
                .collect()),
        }
    }

    /// Waits until the members are these.
    async fn until(&mut self, expected: &[&str]) {
        let mut seen = Vec::new();
        let waiting = async {
            loop {
                match self.next().await {
                    Ok(members) if members == expected => return,
                    other => seen.push(other),
                }
            }
        };
        let waited = tokio::time::timeout(LONG, waiting).await;
        assert!(waited.is_ok(), "{expected:?}: {seen:?}");
    }
}

async fn server() -> NameServer {
    NameServer::start().await.unwrap()
}

fn v4(last: u8) -> Data {
    Data::A(Ipv4Addr::new(10, 0, 0, last))
}

fn v6(last: u16) -> Data {
    Data::Aaaa(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last))
}

fn target(priority: u16, weight: u16, target: &str) -> Data {
    Data::Srv {
        priority,
        weight,
        port: 8080,
        target: target.to_owned(),
    }
}

#[tokio::test]
async fn targets_of_the_lowest_priority_are_in_use_with_their_weights() {
    let server = server().await;
    server.set(
        NAME,
        60,
        [
            target(20, 1, "c.test."),
            target(10, 30, "a.test."),
            target(10, 0, "B.test."),
        ],
    );
    server.set("a.test", 60, [v4(2), v4(1), v6(1)]);
    server.set("b.test", 60, [v4(3)]);
    server.set("c.test", 60, [v4(4)]);
    let mut followed = Followed::start(&server);
    let expected = [
        "10.0.0.1:8080 x30",
        "10.0.0.2:8080 x30",
        "[fd00::1]:8080 x30",
        "10.0.0.3:8080 x1",
    ];
    assert_eq!(followed.next().await.unwrap(), expected);
    let asked = server.questions();
    assert!(!asked.iter().any(|(name, _)| name == "c.test"), "not needed: {asked:?}");
}

#[tokio::test]
async fn the_next_priority_is_used_if_no_target_of_the_first_has_an_address() {
    let server = server().await;
    let all = ["gone.test", "empty.test", "failing.test"].map(|name| target(10, 1, name));
    server.set(NAME, 1, all.into_iter().chain([target(20, 1, "spare.test")]));
    server.set("empty.test", 60, []);
    server.fail("failing.test", Kind::A, Failure::Code(SERVFAIL));
    server.set("spare.test", 60, [v4(9)]);
    let mut followed = Followed::start(&server);
    followed.until(&["10.0.0.9:8080 x1"]).await;
    server.set("empty.test", 60, [v4(1)]);
    followed.until(&["10.0.0.1:8080 x1"]).await;
}

#[tokio::test]
async fn answers_hold_for_their_time_to_live() {
    let server = server().await;
    server.set(NAME, 60, [target(0, 1, "a.test")]);
    server.set("a.test", 1, [v4(1), v4(2)]);
    let mut followed = Followed::start(&server);
    let [first, second] = [1, 2].map(|last| format!("10.0.0.{last}:8080 x1"));
    followed.until(&[&first, &second]).await;
    server.set("a.test", 1, [v4(2)]);
    followed.until(&[&second]).await;
}

#[tokio::test]
async fn a_failed_dial_brings_the_next_look_forward_and_nothing_is_cached() {
    let server = server().await;
    server.set(NAME, 60, [target(0, 1, "a.test")]);
    server.set("a.test", 60, [v4(1)]);
    let mut followed = Followed::start(&server);
    followed.until(&["10.0.0.1:8080 x1"]).await;
    server.set("a.test", 60, [v4(2)]);
    // Without it, the next look would be in 54 seconds or more.
    followed.wake.notify_one();
    followed.until(&["10.0.0.2:8080 x1"]).await;
}

#[tokio::test]
async fn half_an_answer_takes_no_endpoint_away() {
    let server = server().await;
    server.set(NAME, 1, [target(0, 1, "a.test"), target(0, 1, "b.test")]);
    server.set("a.test", 1, [v4(1), v6(1)]);
    server.set("b.test", 1, [v4(2)]);
    let mut followed = Followed::start(&server);
    let a6 = "[fd00::1]:8080 x1";
    let (a1, a3) = ("10.0.0.1:8080 x1", "10.0.0.3:8080 x1");
    let b2 = "10.0.0.2:8080 x1";
    followed.until(&[a1, a6, b2]).await;
    server.fail("a.test", Kind::Aaaa, Failure::Code(SERVFAIL));
    server.fail("b.test", Kind::A, Failure::Code(SERVFAIL));
    server.set("a.test", 1, [v4(3)]);
    followed.until(&[a3, a6, b2]).await;
    server.heal();
    followed.until(&[a3, b2]).await;
}

#[tokio::test]
async fn a_failed_look_says_why_and_the_next_one_is_soon() {
    let server = server().await;
    let mut followed = Followed::start(&server);
    let mut check = async |expected: &str| {
        let mut seen = Vec::new();
        while seen.last() != Some(&format!("SRV {NAME}: {expected}")) {
            assert!(seen.len() < 5, "{expected}: {seen:?}");
            // Pauses grow with failures.
            followed.wake.notify_one();
            seen.push(followed.next().await.expect_err(expected));
        }
    };
    check("the name does not exist").await;
    server.set(NAME, 60, []);
    check("the name has no such record").await;
    server.fail(NAME, Kind::Srv, Failure::Code(SERVFAIL));
    check("the name server answered: Server Failure").await;
    server.heal();
    server.set(NAME, 60, [target(0, 0, ".")]);
    check("the service is not available at this name (its target is `.`)").await;
    server.set(NAME, 60, [target(0, 0, "a.test")]);
    check("no target has an address").await;
    server.fail("a.test", Kind::Aaaa, Failure::Code(5));
    check("no target has an address (a.test: the name server answered: Query Refused)").await;
    server.fail(NAME, Kind::Srv, Failure::Silence);
    check("no name server answered within the time limit").await;
    server.heal();
    server.set("a.test", 60, [v4(1)]);
    followed.wake.notify_one();
    followed.until(&["10.0.0.1:8080 x1"]).await;
}

#[tokio::test]
async fn aliases_are_followed() {
    let server = server().await;
    server.set(NAME, 60, [Data::Cname("_http._tcp.real.test".to_owned())]);
    server.set("_http._tcp.real.test", 60, [target(0, 1, "a.test")]);
    server.set("a.test", 60, [Data::Cname("b.test".to_owned())]);
    server.set("b.test", 60, [v4(1)]);
    let mut followed = Followed::start(&server);
    followed.until(&["10.0.0.1:8080 x1"]).await;
    server.set("_http._tcp.real.test", 60, [Data::Cname(NAME.to_owned())]);
    followed.wake.notify_one();
    let circle = followed.next().await;
    assert!(circle.is_err(), "a circle of aliases ends: {circle:?}");
}

#[tokio::test]
async fn an_answer_that_is_too_long_for_a_datagram_is_read_whole() {
    let server = server().await;
    let hosts: Vec<_> = (0..60)
        .map(|host| format!("a-rather-long-name-{host:02}.test"))
        .collect();
    server.set(NAME, 60, hosts.iter().map(|host| target(0, 1, host)));
    for (last, host) in (0..).zip(&hosts) {
        server.set(host, 60, [v4(last)]);
    }
    let members = Followed::start(&server).next().await.unwrap();
    assert_eq!(members.len(), 60, "{members:?}");
}

#[test]
fn addresses_that_are_not_confirmed_are_forgotten_in_time() {
    let at = |seconds| Moment::ZERO + Duration::from_secs(seconds);
    let keep = Some(Duration::from_secs(600));
    let targets = [Target {
        priority: 0,
        host: "a.test".to_owned(),
        port: 80,
        weight: 1,
    }];
    let answer = |last| {
        Ok(Answer {
            records: vec![IpAddr::from([10, 0, 0, last])],
            ttl: Duration::from_secs(7),
        })
    };
    let silent = || Err(NoAnswer::Silent);
    let mut known = Known::default();
    let noted = known.note(
        "a.test",
        Addresses {
            v4: answer(1),
            v6: Err(NoAnswer::NoRecord),
        },
        at(0),
    );
    assert_eq!((noted.ttl, noted.whys.len()), (Duration::from_secs(7), 0));
    let noted = known.note(
        "a.test",
        Addresses {
            v4: silent(),
            v6: silent(),
        },
        at(100),
    );
    assert_eq!((noted.ttl, noted.whys.len()), (Duration::MAX, 2));
    let check = |known: &mut Known, now, expected| {
        known.forget_others(targets.iter(), keep, at(now));
        assert_eq!(known.addresses("a.test").len(), expected, "{now}");
    };
    check(&mut known, 600, 1);
    // A clock that runs backwards forgets nothing.
    check(&mut known, 0, 1);
    check(&mut known, 601, 0);
    known.note(
        "a.test",
        Addresses {
            v4: answer(1),
            v6: answer(2),
        },
        at(700),
    );
    known.forget_others([].into_iter(), keep, at(700));
    assert!(known.addresses("a.test").is_empty(), "it is no target any more");
}
