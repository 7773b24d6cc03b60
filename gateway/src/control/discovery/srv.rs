//! Follows the SRV records of a service (RFC 2782) and the addresses of its targets.
//!
//! The targets with the lowest priority number are in use; others only if none of those has an address. A family of
//! addresses that a name server does not answer for keeps the addresses that were known, so half an answer takes no
//! endpoint away.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use policies::Moment;
use tokio::sync::Notify;

use super::name_server::{Addresses, Answer, NameServers, NoAnswer, Target};
use super::{Found, look_pause};
use crate::call::endpoints::{MOST_ADDRESSES, Member, Naming, SrvSettings};
use crate::clock;

/// Maximum number of hosts of one priority whose addresses are looked up.
const MOST_HOSTS: usize = 256;
/// Number of hosts that are looked up at the same time.
const AT_ONCE: usize = 8;
/// Time limit of a look, with all its questions.
const LOOK_LIMIT: Duration = Duration::from_secs(20);

/// Reports the members of a service, forever. Addresses that no name server answers for any more are used for the time
/// `keep`; `None` is forever.
pub(super) async fn follow(
    settings: &SrvSettings,
    keep: Option<Duration>,
    wake: &Notify,
    mut report: impl FnMut(Found),
) {
    let mut known = Known::default();
    let mut failures = 0;
    loop {
        let began = clock::now();
        let looked = tokio::time::timeout(LOOK_LIMIT, look(settings, &mut known, keep, began)).await;
        let looked = looked.unwrap_or_else(|_| Err(format!("no complete answer within {LOOK_LIMIT:?}")));
        let pause = match looked {
            Ok(Looked {
                members,
                ttl,
                unanswered,
            }) => {
                failures = if unanswered == 0 { 0 } else { failures + 1 };
                report(Found::Members(members));
                look_pause::after_answer(ttl, fastrand::f64())
            }
            Err(why) => {
                failures += 1;
                report(Found::Failed(format!("SRV {}: {why}", settings.name)));
                Duration::MAX
            }
        };
        let pause = match failures {
            0 => pause,
            failures => pause.min(look_pause::after_failures(failures, fastrand::f64())),
        };
        look_pause::wait(began, pause, wake).await;
    }
}

/// Result of a look.
struct Looked {
    members: Vec<Member>,
    /// Time for which the answers hold.
    ttl: Duration,
    /// Number of questions about addresses that no name server answered.
    unanswered: usize,
}

async fn look(
    settings: &SrvSettings,
    known: &mut Known,
    keep: Option<Duration>,
    now: Moment,
) -> Result<Looked, String> {
    let servers = NameServers::new(settings.name_server).await?;
    let found = servers.targets(&settings.name).await;
    let Answer { records, mut ttl } = found.map_err(|why| why.to_string())?;
    let by_priority = ranks(records)?;
    known.forget_others(by_priority.iter().flatten(), keep, now);
    let (mut unanswered, mut whys) = (0, Vec::new());
    for targets in by_priority {
        let hosts = hosts(&targets, &settings.name);
        let questions: Vec<_> = hosts.into_iter().map(|host| addresses(&servers, host)).collect();
        let mut answers = futures_util::stream::iter(questions).buffer_unordered(AT_ONCE);
        while let Some((host, addresses)) = answers.next().await {
            let noted = known.note(host, addresses, now);
            ttl = ttl.min(noted.ttl);
            unanswered += noted.whys.len();
            for why in noted.whys {
                tracing::warn!(service = %settings.name, host, %why, "addresses not answered");
                whys.push(format!("{host}: {why}"));
            }
        }
        let members = members(&targets, known, &settings.naming);
        if !members.is_empty() {
            return Ok(Looked {
                members,
                ttl,
                unanswered,
            });
        }
    }
    Err(match whys.into_iter().min() {
        Some(why) => format!("no target has an address ({why})"),
        None => "no target has an address".to_owned(),
    })
}

async fn addresses<'h>(servers: &NameServers, host: &'h str) -> (&'h str, Addresses) {
    // The name of a target is complete (RFC 2782): the search list does not apply.
    (host, servers.addresses(&format!("{host}.")).await)
}

/// Returns the targets by priority, the lowest number first.
fn ranks(mut targets: Vec<Target>) -> Result<Vec<Vec<Target>>, String> {
    targets.retain(|target| !target.host.is_empty());
    if targets.is_empty() {
        return Err("the service is not available at this name (its target is `.`)".to_owned());
    }
    targets.sort_unstable();
    let ranks = targets.chunk_by(|one, other| one.priority == other.priority);
    Ok(ranks.map(<[_]>::to_vec).collect())
}

/// Returns the hosts of sorted targets, each once, at most [`MOST_HOSTS`].
fn hosts<'t>(targets: &'t [Target], service: &str) -> Vec<&'t str> {
    let mut hosts: Vec<_> = targets.iter().map(|target| &*target.host).collect();
    hosts.dedup();
    if hosts.len() > MOST_HOSTS {
        let left_out = hosts.len() - MOST_HOSTS;
        tracing::warn!(service, left_out, "too many targets");
        hosts.truncate(MOST_HOSTS);
    }
    hosts
}

/// Returns a member for each address of each target, in the order of the targets.
fn members(targets: &[Target], known: &Known, naming: &Naming) -> Vec<Member> {
    let mut origins = HashMap::new();
    let mut members = Vec::new();
    for Target { host, port, weight, .. } in targets {
        let addresses = known.addresses(host);
        // A host that is no part of a URL is refused with the config.
        let Some(origin) = origins.entry(*port).or_insert_with(|| naming.origin(*port)) else {
            continue;
        };
        let member = |address| {
            let address = SocketAddr::new(address, *port);
            Member::new(Arc::clone(origin), address, u32::from(*weight).max(1))
        };
        members.extend(addresses.into_iter().map(member));
    }
    members
}

/// Addresses of the targets' hosts as last answered.
#[derive(Default)]
struct Known(HashMap<String, [Option<Family>; 2]>);

/// Addresses of one family, and when a name server last answered for them.
struct Family {
    addresses: Vec<IpAddr>,
    confirmed: Moment,
}

/// What an answer about a host says besides its addresses.
struct Noted {
    ttl: Duration,
    /// Reasons why a family was not answered.
    whys: Vec<NoAnswer>,
}

impl Known {
    /// Notes the answer about a host. A family that is not answered keeps its addresses.
    fn note(&mut self, host: &str, Addresses { v4, v6 }: Addresses, now: Moment) -> Noted {
        let mut noted = Noted {
            ttl: Duration::MAX,
            whys: Vec::new(),
        };
        let families = self.0.entry(host.to_owned()).or_default();
        for (family, answer) in families.iter_mut().zip([v4, v6]) {
            let mut addresses = match answer {
                Ok(Answer { records, ttl }) => {
                    noted.ttl = noted.ttl.min(ttl);
                    records
                }
                Err(why) if why.is_definite() => Vec::new(),
                Err(why) => {
                    noted.whys.push(why);
                    continue;
                }
            };
            // Name servers change the order with each answer.
            addresses.sort_unstable();
            addresses.dedup();
            *family = Some(Family {
                addresses,
                confirmed: now,
            });
        }
        noted
    }

    /// Returns the addresses of a host, IPv4 first, at most [`MOST_ADDRESSES`].
    fn addresses(&self, host: &str) -> Vec<IpAddr> {
        let families = self.0.get(host).into_iter().flatten().flatten();
        let addresses = families.flat_map(|family| &family.addresses);
        addresses.copied().take(MOST_ADDRESSES).collect()
    }

    /// Forgets all hosts except those of `targets`, and the addresses that were not answered for longer than `keep`.
    fn forget_others<'t>(&mut self, targets: impl Iterator<Item = &'t Target>, keep: Option<Duration>, now: Moment) {
        let mut kept = HashMap::new();
        for Target { host, .. } in targets {
            if let Some((host, mut families)) = self.0.remove_entry(host) {
                for family in &mut families {
                    family.take_if(|family| keep.is_some_and(|keep| now.since(family.confirmed) > keep));
                }
                kept.insert(host, families);
            }
        }
        self.0 = kept;
    }
}

#[cfg(test)]
mod tests;
