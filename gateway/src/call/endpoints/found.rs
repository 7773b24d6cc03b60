//! Takes the results of a source over into the endpoints in force.
//!
//! Invariant: an answer without endpoints, or none at all, changes no endpoint before the time to keep them is over.

use std::sync::Arc;

use policies::Moment;

use super::discovery::{Discovery, Failing};
use super::member::Member;
use super::set::{EndpointSet, Replaced};

/// Result of a look at a source.
#[derive(Debug)]
pub enum Found {
    /// All endpoints that the source lists now.
    Members(Vec<Member>),
    /// The source did not answer, or not in a way that can be understood.
    Failed(String),
}

/// Change that a result has made.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing that is worth telling.
    None,
    /// Other endpoints are in force. `recovered` if the source had failed before.
    Replaced { replaced: Replaced, recovered: bool },
    /// The source fails with another error than before. `keeps` if its last endpoints are still in use.
    Failed { error: Arc<str>, keeps: bool },
}

impl EndpointSet {
    /// Takes over a result of the source, which must be that of the set.
    pub fn take(&self, discovery: &Discovery, found: Found, now: Moment) -> Change {
        let failed = match found {
            Found::Members(members) if !members.is_empty() => {
                let recovered = discovery.answer(now);
                let replaced = self.replace(members);
                if recovered || replaced != Replaced::default() {
                    return Change::Replaced { replaced, recovered };
                }
                return Change::None;
            }
            Found::Members(_) => discovery.fail("it lists no endpoint", now),
            Found::Failed(error) => discovery.fail(&error, now),
        };
        match failed {
            Some(Failing { error, is_over, .. }) => Change::Failed {
                error,
                keeps: !is_over && !self.load().all().is_empty(),
            },
            None => Change::None,
        }
    }

    /// Removes the endpoints if they have been kept for long enough while the source fails. Returns its error if it has
    /// just removed some.
    pub fn expire(&self, now: Moment) -> Option<Arc<str>> {
        let error = self.discovery()?.give_up(now)?;
        let had_some = self.replace(Vec::new()).removed > 0;
        had_some.then_some(error)
    }

    /// Returns the time since which the endpoints are those of an earlier answer, because the source fails; `None` if it
    /// does not, or there is no endpoint.
    pub fn kept_since(&self) -> Option<Moment> {
        let failing = self.discovery()?.status().failing?;
        (!self.load().all().is_empty()).then_some(failing.since)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::call::endpoints::tests::{member, set};
    use crate::call::endpoints::{DnsSettings, Naming, Source};

    const KEEP: Duration = Duration::from_secs(600);

    /// Set with these endpoints and a source.
    fn found_set(keep: Option<Duration>, ports: &[u16]) -> EndpointSet {
        let naming = Naming {
            host: "users.internal".into(),
            server_name: None,
        };
        let settings = DnsSettings {
            naming,
            port: 80,
            refresh: Duration::from_secs(10),
        };
        set(ports.iter().copied().map(member)).found_by(Some(Discovery::new(Source::Dns(settings), keep)))
    }

    fn take(set: &EndpointSet, found: Found, now: Moment) -> Change {
        set.take(discovery(set), found, now)
    }

    fn discovery(set: &EndpointSet) -> &Discovery {
        set.discovery().expect("it has a source")
    }

    fn at(seconds: u64) -> Moment {
        Moment::ZERO + Duration::from_secs(seconds)
    }

    fn ports(set: &EndpointSet) -> Vec<u16> {
        set.load()
            .endpoints()
            .map(|endpoint| endpoint.address().port())
            .collect()
    }

    fn members(ports: &[u16]) -> Found {
        Found::Members(ports.iter().copied().map(member).collect())
    }

    #[test]
    fn the_last_endpoints_are_kept_for_a_time_while_the_source_fails_or_lists_none() {
        let set = found_set(Some(KEEP), &[]);
        take(&set, members(&[1, 2]), at(0));
        for (found, error) in [
            (Found::Failed("SERVFAIL".to_owned()), "SERVFAIL"),
            (members(&[]), "it lists no endpoint"),
        ] {
            let failed = take(&set, found, at(10));
            assert_eq!(
                failed,
                Change::Failed {
                    error: error.into(),
                    keeps: true
                }
            );
            assert_eq!(ports(&set), [1, 2]);
        }
        // The same error again is not told again, and the time counts from the first failure.
        assert_eq!(take(&set, members(&[]), at(300)), Change::None);
        assert_eq!(set.kept_since(), Some(at(10)));
        assert_eq!(set.expire(at(609)), None);
        assert_eq!(ports(&set), [1, 2]);
        assert_eq!(set.expire(at(610)).as_deref(), Some("it lists no endpoint"));
        assert_eq!((ports(&set).len(), set.expire(at(700))), (0, None));
        assert_eq!(set.kept_since(), None);
        assert!(discovery(&set).status().failing.is_some(), "it still fails");
        let back = take(&set, members(&[2]), at(800));
        assert!(matches!(back, Change::Replaced { recovered: true, .. }), "{back:?}");
        assert_eq!((ports(&set), discovery(&set).status().failing), (vec![2], None));
        assert_eq!(take(&set, members(&[2]), at(810)), Change::None);
        assert_eq!(discovery(&set).looks().map(|(_, count)| count), [3, 3]);
    }

    #[test]
    fn an_answer_in_between_begins_the_time_anew() {
        let set = found_set(Some(KEEP), &[]);
        for start in [0, 500, 1000] {
            take(&set, members(&[1]), at(start));
            take(&set, Found::Failed("SERVFAIL".to_owned()), at(start + 10));
            assert_eq!(set.expire(at(start + 499)), None);
        }
        assert_eq!(ports(&set), [1]);
        // Time may go backwards.
        assert_eq!(set.expire(at(1)), None);
    }

    #[test]
    fn without_a_time_they_are_kept_forever() {
        let set = found_set(None, &[]);
        take(&set, members(&[1]), at(0));
        take(&set, Found::Failed("line 3".to_owned()), at(10));
        assert_eq!(set.expire(Moment::MAX), None);
        assert_eq!(ports(&set), [1]);
    }

    #[test]
    fn endpoints_of_another_source_are_given_up_too_if_the_new_one_never_answers() {
        let set = found_set(Some(KEEP), &[1]);
        take(&set, Found::Failed("NXDOMAIN".to_owned()), at(0));
        assert_eq!((ports(&set), set.kept_since()), (vec![1], Some(at(0))));
        assert_eq!(set.expire(at(600)).as_deref(), Some("NXDOMAIN"));
        assert!(ports(&set).is_empty());
    }
}
