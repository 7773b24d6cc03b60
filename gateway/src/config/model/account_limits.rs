//! How many accounts limits may keep for owners that nobody wrote down.

use crate::config::reader::{Read, Value};
use crate::config::span::At;

/// Accounts over all limits, each 1 to 10000000. Owners beyond it are counted together: addresses by network, callers by
/// tenant, and beyond that all of a kind.
#[derive(Debug, Clone, PartialEq)]
pub struct AccountLimits {
    /// Of client addresses; default 400000.
    pub addresses: At<u32>,
    /// Of networks (IPv4 /24, IPv6 /48) whose addresses are counted together; default 100000.
    pub networks: At<u32>,
    /// Of tenants that neither the config nor the key file names, and of as many whose callers are counted together;
    /// default 150000.
    pub tenants: At<u32>,
    /// Of callers that are known by a token or a certificate; default 200000.
    pub callers: At<u32>,
}

impl Read for AccountLimits {
    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let mut most = |name, default| f.within(name, default, 1..=10_000_000);
            Self {
                addresses: most("addresses", 400_000),
                networks: most("networks", 100_000),
                tenants: most("tenants", 150_000),
                callers: most("callers", 200_000),
            }
        })
    }
}
