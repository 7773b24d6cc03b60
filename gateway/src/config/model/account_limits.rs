//! How many accounts limits may keep for owners that nobody wrote down.

use crate::config::reader::Read;
use crate::config::span::At;
use crate::config::value::Value;

/// Numbers of owners that limits count one by one. Owners beyond that are counted together: addresses by network,
/// callers by tenant, and beyond that all of a kind.
#[derive(Debug, Clone, PartialEq)]
pub struct AccountLimits {
    /// Client addresses.
    pub addresses: At<u32>,
    /// Networks (IPv4 /24, IPv6 /48) whose addresses are counted together.
    pub networks: At<u32>,
    /// Tenants that neither the config nor the key file names; and as many tenants whose callers are counted together.
    pub tenants: At<u32>,
    /// Callers that are known by a token or a certificate.
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
