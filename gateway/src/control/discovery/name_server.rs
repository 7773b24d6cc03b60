//! Asks name servers for records (RFC 1035). An answer comes with its time to live.
//!
//! Nothing is cached: each question goes to a name server, so no answer is older than the question.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::system_conf::read_system_conf;

/// Time limit of one try of a question.
const TRY_LIMIT: Duration = Duration::from_secs(2);
/// Number of further tries after a question without an answer.
const RETRIES: usize = 1;
/// Longest chain of aliases (CNAME) of a name that is followed.
const MOST_ALIASES: usize = 8;

/// Name servers that are asked: those of the system, or one that the config names.
pub(super) struct NameServers(TokioResolver);

/// Records of one answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer<T> {
    pub(super) records: Vec<T>,
    /// Smallest time to live of the records.
    pub(super) ttl: Duration,
}

/// Target of a service (RFC 2782).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Target {
    /// Targets with the lowest number are used first.
    pub(super) priority: u16,
    /// Name of the host, without the dot at its end. Empty if the service is not available at this name.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) weight: u16,
}

/// Addresses of a name, by family.
#[derive(Debug)]
pub(super) struct Addresses {
    pub(super) v4: Result<Answer<IpAddr>, NoAnswer>,
    pub(super) v6: Result<Answer<IpAddr>, NoAnswer>,
}

/// Reason why a question brought no record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoAnswer {
    /// The name does not exist.
    NoName,
    /// The name has no record of this type.
    NoRecord,
    /// The name server answered with an error.
    Refused(String),
    Silent,
    /// The question could not be asked, or the answer could not be read.
    Failed(String),
}

impl NameServers {
    /// Prepares questions to the name server at this address. `None` means those of the system, with its search list,
    /// as `/etc/resolv.conf` names them now.
    ///
    /// # Errors
    /// Returns an error if the system names no name server.
    pub(super) async fn new(server: Option<SocketAddr>) -> Result<Self, String> {
        let (config, mut options) = match server {
            Some(address) => (only(address), ResolverOpts::default()),
            None => of_system().await?,
        };
        options.timeout = TRY_LIMIT;
        options.attempts = RETRIES;
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        builder.build().map(Self).map_err(|error| error.to_string())
    }

    /// Returns the targets of a service, in the order of their priority.
    pub(super) async fn targets(&self, service: &str) -> Result<Answer<Target>, NoAnswer> {
        let mut name = name(service)?;
        let mut longest = Duration::MAX;
        // The library follows aliases of hosts alone.
        for _ in 0..=MOST_ALIASES {
            let answer = self.ask(name.clone(), RecordType::SRV, |data| match data {
                RData::SRV(found) => Some(Target {
                    priority: found.priority,
                    host: text(&found.target),
                    port: found.port,
                    weight: found.weight,
                }),
                _ => None,
            });
            let why = match answer.await {
                Ok(Answer { mut records, ttl }) => {
                    records.sort_unstable();
                    let ttl = ttl.min(longest);
                    return Ok(Answer { records, ttl });
                }
                Err(why) if why.is_definite() => why,
                Err(why) => return Err(why),
            };
            let alias = self.ask(name, RecordType::CNAME, |data| match data {
                RData::CNAME(alias) => Some(alias.0.clone()),
                _ => None,
            });
            let Ok(Answer { records, ttl }) = alias.await else {
                return Err(why);
            };
            name = records.into_iter().next().ok_or(NoAnswer::NoRecord)?;
            longest = longest.min(ttl);
        }
        Err(NoAnswer::Failed("too many aliases".to_owned()))
    }

    /// Returns the addresses of a host. The search list does not apply to a name that ends with a dot.
    pub(super) async fn addresses(&self, host: &str) -> Addresses {
        let name = match name(host) {
            Ok(name) => name,
            Err(why) => {
                return Addresses {
                    v4: Err(why.clone()),
                    v6: Err(why),
                };
            }
        };
        let address = |data: &RData| data.ip_addr();
        let (v4, v6) = tokio::join!(
            self.ask(name.clone(), RecordType::A, address),
            self.ask(name.clone(), RecordType::AAAA, address),
        );
        Addresses { v4, v6 }
    }

    async fn ask<T>(
        &self,
        name: Name,
        kind: RecordType,
        read: impl Fn(&RData) -> Option<T>,
    ) -> Result<Answer<T>, NoAnswer> {
        let found = self.0.lookup(name, kind).await.map_err(|error| NoAnswer::of(&error))?;
        let found = found.answers();
        let records: Vec<_> = found.iter().filter_map(|record| read(&record.data)).collect();
        if records.is_empty() {
            return Err(NoAnswer::NoRecord);
        }
        let ttl = found.iter().map(|record| record.ttl).min().unwrap_or(0);
        Ok(Answer {
            records,
            ttl: Duration::from_secs(ttl.into()),
        })
    }
}

impl NoAnswer {
    /// Whether a name server has said that there is no such record.
    pub(super) const fn is_definite(&self) -> bool {
        matches!(self, Self::NoName | Self::NoRecord)
    }

    fn of(error: &NetError) -> Self {
        match error {
            NetError::Dns(DnsError::NoRecordsFound(none)) if none.response_code == ResponseCode::NXDomain => {
                Self::NoName
            }
            NetError::Dns(DnsError::NoRecordsFound(_)) => Self::NoRecord,
            NetError::Dns(DnsError::ResponseCode(code)) => Self::Refused(code.to_string()),
            NetError::Timeout => Self::Silent,
            other => Self::Failed(other.to_string()),
        }
    }
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoName => f.write_str("the name does not exist"),
            Self::NoRecord => f.write_str("the name has no such record"),
            Self::Refused(code) => write!(f, "the name server answered: {code}"),
            Self::Silent => f.write_str("no name server answered within the time limit"),
            Self::Failed(why) => f.write_str(why),
        }
    }
}

fn only(address: SocketAddr) -> ResolverConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    let server = NameServerConfig::new(address.ip(), true, connections.into());
    ResolverConfig::from_name_servers(vec![server])
}

async fn of_system() -> Result<(ResolverConfig, ResolverOpts), String> {
    let read = tokio::task::spawn_blocking(read_system_conf).await;
    let read = read.map_err(|error| error.to_string())?;
    read.map_err(|error| format!("/etc/resolv.conf: {error}"))
}

fn name(written: &str) -> Result<Name, NoAnswer> {
    Name::from_ascii(written).map_err(|error| NoAnswer::Failed(format!("`{written}`: {error}")))
}

/// Returns a name as written in a URL, without the dot at its end.
fn text(name: &Name) -> String {
    let mut text = name.to_lowercase().to_ascii();
    text.truncate(text.trim_end_matches('.').len());
    text
}
