//! How the endpoint of a call is chosen.

use std::time::Duration;

use policies::balance::Policy;

use super::ranges::{HOUR, MS};
use crate::config::fields::Fields;
use crate::config::mistake::{Code, Mistake};
use crate::config::reader::Read;
use crate::config::scalar::{Scalar, Wrong, unknown_word};
use crate::config::single::Single;
use crate::config::span::At;
use crate::config::value::Value;
use crate::request_key::RequestKey;

/// How the endpoint of a call is chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Balance {
    /// `load` asks the endpoint where a call is to wait least, by latency, calls in flight and weight. `turn` asks them in
    /// turn, as often as their weights say. `hash` asks the same endpoint for the same `key`, unless it has 1.25 times
    /// its share of the calls.
    pub by: At<Policy>,
    /// Key of `hash`. A request without it goes by `load`.
    pub key: Option<At<RequestKey>>,
    /// Latency as which a failure counts. Its `Retry-After` holds that up for as long as it says, a minute at most.
    pub failure_costs: At<Duration>,
    /// Time in which an endpoint that is new or comes back gets its full weight, from a tenth on. `0s` gives it at once.
    pub warm_up: At<Duration>,
}

impl Read for Balance {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ by: $ }"],
        sample: "{ by: load }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let balance = Self {
                by: f.or("by", Policy::default()),
                key: f.optional("key"),
                failure_costs: f.within("failure_costs", FAILURE_COSTS, MS..=HOUR),
                warm_up: f.within("warm_up", WARM_UP, Duration::ZERO..=HOUR),
            };
            let has_key = f.value("key").is_some();
            balance.check(f, has_key);
            balance
        })
    }
}

impl Default for Balance {
    fn default() -> Self {
        Self {
            by: At::unwritten(Policy::default()),
            key: None,
            failure_costs: At::unwritten(FAILURE_COSTS),
            warm_up: At::unwritten(WARM_UP),
        }
    }
}

const FAILURE_COSTS: Duration = Duration::from_secs(1);
const WARM_UP: Duration = Duration::from_secs(10);

impl Balance {
    fn check(&self, f: &Fields<'_>, has_key: bool) {
        let is_hash = *self.by == Policy::Hash;
        match &self.key {
            None if is_hash && !has_key => f.push(
                Mistake::new(
                    Code::MissingKey,
                    self.by.span(),
                    format!("`{}` has no `key` to hash", f.path),
                )
                .hint("write one, such as `key: tenant`, `key: header.x-room` or `key: path.id`"),
            ),
            Some(key) if is_hash && key.value == RequestKey::None => f.push(
                Mistake::new(
                    Code::BadValue,
                    key.span(),
                    format!("`{}.key` is nothing to hash", f.path),
                )
                .hint("write `by: load`, or a key such as `tenant`"),
            ),
            Some(key) if !is_hash => f.push(
                Mistake::new(Code::Conflict, key.span(), format!("`{}.key` is of no use", f.path))
                    .related(self.by.span(), "needs no key")
                    .hint("write `by: hash`, or leave it out"),
            ),
            _ => {}
        }
        let costs = self.failure_costs.span().filter(|_| *self.by == Policy::Turn);
        if let Some(costs) = costs {
            let message = format!("`{}.failure_costs` is of no use", f.path);
            f.push(
                Mistake::new(Code::Conflict, costs, message)
                    .related(self.by.span(), "does not look at the latency")
                    .hint("it goes with `by: load`: leave it out, or write that"),
            );
        }
    }
}

impl Scalar for Policy {
    const EXPECTED: &'static str = "`load`, `turn` or `hash`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let known = Self::ALL.iter().find(|policy| policy.as_str() == text);
        known.copied().ok_or_else(|| match foreign(text) {
            Some(meant) => {
                Wrong::new(Code::BadValue, "is not one of these").hint(format!("here it is `{}`", meant.as_str()))
            }
            None => unknown_word(text, &Self::ALL.map(Self::as_str)),
        })
    }

    fn show(&self) -> String {
        self.as_str().to_owned()
    }
}

/// Returns the policy that comes closest to one of another product.
fn foreign(text: &str) -> Option<Policy> {
    let text = text.to_lowercase().replace(['-', '_', ' '], "");
    Some(match &*text {
        "roundrobin" | "rr" | "wrr" | "weightedroundrobin" | "weighted" | "static" => Policy::Turn,
        "leastconn" | "leastconnections" | "leastrequest" | "leastrequests" | "leasttime" | "p2c" | "ewma"
        | "peakewma" | "random" => Policy::Load,
        "iphash" | "source" | "consistent" | "consistenthash" | "consistenthashing" | "ketama" | "ringhash"
        | "maglev" | "sticky" | "uri" => Policy::Hash,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_is_expected() {
        for policy in Policy::ALL {
            assert!(Policy::EXPECTED.contains(&format!("`{}`", policy.as_str())));
            assert_eq!(Policy::parse(policy.as_str()), Ok(policy));
        }
    }
}
