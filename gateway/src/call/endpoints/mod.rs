//! The endpoints of a backend. An endpoint is an address: a name that resolves to ten addresses is ten endpoints, each
//! with its connection pools, its load, and its ejection state.
//!
//! The endpoints of a backend are a set that is replaced as a whole, by the control thread. A worker only reads the
//! current set. An endpoint that stays in the set keeps its state, over reloads too. An endpoint that leaves the set gets
//! no new exchange, ends those that it has, and closes its idle connections.

mod balance;
mod discovery;
mod endpoint;
mod endpoint_settings;
mod found;
mod hash_keys;
mod member;
mod registry;
mod set;
mod source;
mod written;

pub use self::balance::BalanceSettings;
pub(crate) use self::balance::Pick;
pub use self::discovery::{Discovery, Failing, SourceState};
pub(crate) use self::endpoint::Pools;
pub use self::endpoint::{ConnectionCount, Endpoint, EndpointGuard, EndpointId};
pub use self::endpoint_settings::EndpointSettings;
pub use self::found::{Change, Found};
pub use self::hash_keys::HashKeys;
pub use self::member::{Member, Origin, Readiness};
pub use self::registry::Registry;
pub use self::set::{EndpointSet, Listed, Replaced, Snapshot};
pub use self::source::{
    DnsSettings, FileSettings, KubernetesApi, KubernetesSettings, Naming, Schemes, SlicePort, Source, SrvSettings,
};
pub use self::written::{Written, WrittenEndpoints};

/// Maximum number of endpoints of a backend.
pub const MOST_ENDPOINTS: usize = 1024;
/// Maximum number of addresses of a name.
pub const MOST_ADDRESSES: usize = 64;

#[cfg(test)]
mod tests;
