//! Looks a name up again and again by the resolver of the system. Each address is an endpoint.
//!
//! The resolver of the system does not tell how long an answer holds, so a lookup is repeated at fixed times, with jitter.
//! A connection that could not be made may mean that the addresses are others by now, so it brings the next lookup
//! forward.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::Notify;

use super::{Found, slow_lookup};
use crate::call::endpoints::{DnsSettings, MOST_ADDRESSES, Member};
use crate::clock;

/// Minimum time between two lookups of a name.
const PAUSE: Duration = Duration::from_secs(1);
/// Share of the time between two lookups by which it varies, so that many gateways do not ask at the same time.
const JITTER: f64 = 0.1;

/// Returns the addresses of a host by the resolver of the system.
pub(super) async fn of_system(host: String, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok(tokio::net::lookup_host((host, port)).await?.collect())
}

/// Looks the name up by `lookup`, forever.
pub(super) async fn follow<F>(
    settings: &DnsSettings,
    wake: &Notify,
    lookup: impl Fn(String, u16) -> F,
    mut report: impl FnMut(Found),
) where
    F: Future<Output = io::Result<Vec<SocketAddr>>>,
{
    let host = &settings.naming.host;
    loop {
        let late = || {
            let limit = slow_lookup::LIMIT.as_secs();
            report(Found::Failed(format!("no answer about {host} within {limit} s")));
        };
        let answer = slow_lookup::wait_for(lookup(host.to_string(), settings.port), late).await;
        let looked = clock::now();
        report(match answer {
            Ok(addresses) => members(settings, addresses),
            Err(error) => Found::Failed(format!("cannot look up {host}: {error}")),
        });
        let varied = 1.0 + JITTER * (2.0 * fastrand::f64() - 1.0);
        tokio::select! {
            () = clock::wait_until(looked + settings.refresh.mul_f64(varied)) => {}
            () = wake.notified() => clock::wait_until(looked + PAUSE.min(settings.refresh)).await,
        }
    }
}

/// Returns a member for each address. They are sorted, because resolvers change their order with each answer.
fn members(settings: &DnsSettings, mut addresses: Vec<SocketAddr>) -> Found {
    addresses.sort_unstable();
    addresses.dedup();
    addresses.truncate(MOST_ADDRESSES);
    let Some(origin) = settings.naming.origin(settings.port) else {
        return Found::Failed(format!("{} is no part of a URL", settings.naming.host));
    };
    let member = |address| Member::new(std::sync::Arc::clone(&origin), address, 1);
    Found::Members(addresses.into_iter().map(member).collect())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::pin::pin;

    use policies::Moment;

    use super::*;
    use crate::call::endpoints::Naming;

    fn settings(refresh: Duration) -> DnsSettings {
        let naming = Naming {
            host: "users.internal".into(),
            server_name: None,
        };
        DnsSettings {
            naming,
            port: 8080,
            refresh,
        }
    }

    const REFRESH: Duration = Duration::from_secs(10);

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 8080))
    }

    /// Runs the source for a time, with an event at the end of each of `waits`. Returns the times of the lookups in
    /// seconds since the start.
    async fn lookups(refresh: Duration, waits: &[Duration], event: impl Fn(&Notify)) -> Vec<f64> {
        let (wake, began, at) = (Notify::new(), clock::now(), RefCell::new(Vec::new()));
        let settings = settings(refresh);
        let lookup = |_, _| {
            at.borrow_mut().push(clock::now().since(began).as_secs_f64());
            std::future::ready(Ok(vec![address(1)]))
        };
        let mut following = pin!(follow(&settings, &wake, lookup, |_| {}));
        for wait in waits {
            let _ = tokio::time::timeout(*wait, &mut following).await;
            event(&wake);
        }
        at.borrow().clone()
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_looked_up_again_after_its_time_ten_percent_more_or_less() {
        let at = lookups(REFRESH, &[REFRESH * 200], |_| {}).await;
        let pauses: Vec<_> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!((180..=222).contains(&at.len()), "{}", at.len());
        assert!(pauses.iter().all(|pause| (8.99..=11.01).contains(pause)), "{pauses:?}");
        let spread = |from: f64, to: f64| pauses.iter().filter(|pause| (from..to).contains(*pause)).count();
        assert!(spread(8.99, 9.7) > 20 && spread(10.3, 11.01) > 20, "{pauses:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_dial_has_it_looked_up_at_once_but_once_a_second_at_most() {
        let tenth = Duration::from_millis(100);
        // Connections fail ten times a second, for five seconds.
        let at = lookups(REFRESH, &[tenth; 50], |wake| wake.notify_one()).await;
        assert!((5..=6).contains(&at.len()), "{at:?}");
        assert!(at.windows(2).all(|pair| pair[1] - pair[0] > 0.99), "{at:?}");
        // After a pause one failure is enough.
        let at = lookups(REFRESH, &[Duration::from_secs(5), tenth], |wake| wake.notify_one()).await;
        assert!(at.len() == 2 && at[1] < 5.1, "{at:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn every_address_is_an_endpoint_and_a_failure_says_what_failed() {
        let answers = RefCell::new(vec![
            Ok(vec![]),
            Err(io::Error::other("SERVFAIL")),
            Ok(vec![address(7), address(3), address(7)]),
        ]);
        let lookup = |_, _| {
            let next = answers.borrow_mut().pop();
            async {
                match next {
                    Some(answer) => answer,
                    None => std::future::pending().await,
                }
            }
        };
        let (wake, seen) = (Notify::new(), RefCell::new(Vec::new()));
        let settings = settings(REFRESH);
        let report = |found| {
            seen.borrow_mut().push(match found {
                Found::Members(members) => {
                    let shown = members
                        .iter()
                        .map(|member| format!("{} {}", member.origin.url, member.address));
                    Ok(shown.collect::<Vec<_>>())
                }
                Found::Failed(error) => Err(error),
            });
        };
        let following = follow(&settings, &wake, lookup, report);
        let _ = tokio::time::timeout(Duration::from_secs(60), following).await;
        let url = "http://users.internal:8080";
        let expected = [
            Ok(vec![format!("{url} 10.0.0.3:8080"), format!("{url} 10.0.0.7:8080")]),
            Err("cannot look up users.internal: SERVFAIL".to_owned()),
            Ok(vec![]),
            // The resolver says nothing any more: this is told, and no other lookup begins.
            Err("no answer about users.internal within 5 s".to_owned()),
        ];
        assert_eq!(*seen.borrow(), expected);
        assert!(clock::now() > Moment::ZERO);
    }
}
