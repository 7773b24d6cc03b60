//! Endpoints as the config lists them: URLs with an address or with a name, which the control thread resolves.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use super::MOST_ADDRESSES;
use super::member::{Member, Origin};
use super::registry::Registry;

/// Endpoint of the config.
#[derive(Debug, Clone)]
pub struct Written {
    pub origin: Arc<Origin>,
    /// Name or address; IPv6 without brackets.
    pub host: String,
    pub port: u16,
    /// Weight of each address of the host.
    pub weight: u32,
}

/// Endpoints of the config, in its order.
#[derive(Debug, Default)]
pub struct WrittenEndpoints(Vec<Written>);

impl Written {
    fn fixed(&self) -> Option<SocketAddr> {
        self.host.parse().ok().map(|ip| SocketAddr::new(ip, self.port))
    }
}

impl WrittenEndpoints {
    pub const fn new(all: Vec<Written>) -> Self {
        Self(all)
    }

    pub fn all(&self) -> &[Written] {
        &self.0
    }

    /// Whether a host is a name, which must be resolved.
    pub fn have_names(&self) -> bool {
        self.0.iter().any(|written| written.fixed().is_none())
    }

    /// Returns the members without resolving. A name has the addresses that are in use already.
    pub fn members(&self, registry: &Registry) -> Vec<Member> {
        let mut members = Vec::new();
        for written in &self.0 {
            let known = match written.fixed() {
                Some(address) => vec![address],
                None => registry.addresses(&written.origin.url),
            };
            members.extend(written.at(known));
        }
        members
    }

    /// Resolves the names and returns the members. A name without a result keeps the addresses that are in use; it is
    /// returned in the second list.
    pub async fn resolve<'a, F>(
        &'a self,
        registry: &Registry,
        lookup: impl Fn(&'a str, u16) -> F,
    ) -> (Vec<Member>, Vec<(&'a Origin, io::Error)>)
    where
        F: Future<Output = io::Result<Vec<SocketAddr>>>,
    {
        let (mut members, mut failed) = (Vec::new(), Vec::new());
        for written in &self.0 {
            if let Some(address) = written.fixed() {
                members.extend(written.at(vec![address]));
                continue;
            }
            let found = match lookup(&written.host, written.port).await {
                Ok(found) if found.is_empty() => Err(io::Error::other("the name has no address")),
                other => other,
            };
            let found = found.unwrap_or_else(|error| {
                failed.push((&*written.origin, error));
                registry.addresses(&written.origin.url)
            });
            members.extend(written.at(found));
        }
        (members, failed)
    }
}

impl Written {
    /// Returns a member for each address, at most [`MOST_ADDRESSES`]. The addresses are sorted, because resolvers change
    /// their order with each answer.
    fn at(&self, mut addresses: Vec<SocketAddr>) -> impl Iterator<Item = Member> {
        addresses.sort_unstable();
        addresses.dedup();
        addresses.truncate(MOST_ADDRESSES);
        let (origin, weight) = (Arc::clone(&self.origin), self.weight);
        addresses
            .into_iter()
            .map(move |address| Member::new(Arc::clone(&origin), address, weight))
    }
}
