//! What callers get: the tiers that plans are sold by, and tenants with terms of their own.

use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::config::asked::Shape;
use crate::config::fields::Fields;
use crate::config::mistake::{Code, Mistake};
use crate::config::named::NamedMap;
use crate::config::reader::{Read, keyed, named_with, read_as};
use crate::config::single::Single;
use crate::config::span::At;
use crate::config::tree::{Kind as NodeKind, Node};
use crate::config::units::Rate;
use crate::config::value::Value;
use crate::identity;

use super::limit::rate_limit;
use super::{Counted, Kind, Mode, Quota, RateLimit};

/// What a tier gets. Each tenant in it is counted alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Tier {
    pub rate: RateLimit,
    /// Share of a full bulkhead, relative to other tiers.
    pub weight: At<u32>,
    /// `shadow` counts what the rate would have refused, and refuses nothing.
    pub mode: At<Mode>,
    /// Whether all processes count the rate together. Left out: `leased` with a `limits_store`, else `local`.
    pub counted: Option<At<Counted>>,
    /// Requests of one tenant at once; `off` is any number.
    pub in_flight: Option<At<NonZeroU32>>,
    /// Quotas by name, beside the rate.
    pub quotas: NamedMap<Quota>,
}

/// What one tenant gets. What is left out comes from its tier.
#[derive(Debug, Clone, PartialEq)]
pub struct Tenant {
    /// Tier of the tenant, whatever its credentials say.
    pub tier: Option<At<String>>,
    /// Tokens per time.
    pub rate: Option<At<Rate>>,
    /// Tokens that a full bucket holds.
    pub burst: Option<At<NonZeroU64>>,
    /// Requests at once.
    pub in_flight: Option<At<NonZeroU32>>,
    /// Quotas in place of those of the tier that have the same name.
    pub quotas: NamedMap<Quota>,
    /// Whether every request of the tenant is refused.
    pub disabled: At<bool>,
    /// Texts for people and programs, by name; they have no effect. At most 16, of up to 256 bytes each.
    pub labels: NamedMap<At<String>>,
}

/// Largest number of labels of a tenant, and of bytes in one.
const MOST_LABELS: (usize, usize) = (16, 256);

/// Name, tokens a second, burst, weight and requests at once of the built-in tiers: the article's tiered rate limiting,
/// and as many at once as come in a burst (of a rate that is kept up, each may take two seconds).
const BUILT_IN: [(&str, u64, u64, u32, u32); 4] = [
    ("free", 10, 20, 1, 20),
    ("basic", 50, 100, 2, 100),
    ("premium", 200, 400, 4, 400),
    ("enterprise", 1000, 2000, 8, 2000),
];

impl Tier {
    fn built_in(name: &str) -> Option<Self> {
        let (_, rate, burst, weight, in_flight) = BUILT_IN.into_iter().find(|(built_in, ..)| *built_in == name)?;
        Some(Self {
            rate: RateLimit {
                kind: At::unwritten(Kind::TokenBucket),
                rate: At::unwritten(Rate::per_second(NonZeroU64::new(rate)?)),
                burst: Some(At::unwritten(NonZeroU64::new(burst)?)),
                wait: At::unwritten(Duration::ZERO),
            },
            weight: At::unwritten(weight),
            mode: At::unwritten(Mode::Enforce),
            counted: None,
            in_flight: Some(At::unwritten(NonZeroU32::new(in_flight)?)),
            quotas: NamedMap::default(),
        })
    }
}

/// The built-in tiers with what was overridden in them, and the others.
pub(super) fn tiers(f: &mut Fields<'_>) -> NamedMap<Tier> {
    let mut tiers = NamedMap::default();
    for (name, ..) in BUILT_IN {
        tiers.set(
            At::unwritten(Arc::from(name)),
            Tier::built_in(name).expect("every built-in rate and burst is above 0"),
        );
    }
    if let Some(value) = f.value_of("tiers", Shape::Named(&Shape::Section)) {
        let read = named_with(&value, &mut tiers, |name, value| {
            let value = Value {
                filled: Some(Tier::filled),
                ..value.clone()
            };
            read_tier(&value, Tier::built_in(name))
        });
        if read.is_none() {
            tiers.doubt();
        }
    }
    tiers
}

impl Read for Tier {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ rate: $, burst: 20 }"],
        sample: "{ rate: 10/s, burst: 20 }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        read_tier(value, None)
    }
}

fn read_tier(value: &Value<'_>, base: Option<Tier>) -> Option<Tier> {
    value.fields(|f| {
        let rate = rate_limit(f, base.as_ref().map(|base| &base.rate));
        let weight = f.within("weight", base.as_ref().map_or(1, |base| *base.weight), 1..=1000);
        let mode = f.or("mode", Mode::Enforce);
        let counted = f.optional("counted");
        let in_flight = match f.value_of("in_flight", Shape::Value("a whole number of at least 1, or `off`")) {
            Some(written) if written.is_word("off") => None,
            Some(_) => f.optional("in_flight"),
            None => base.as_ref().and_then(|base| base.in_flight),
        };
        let quotas = f.optional("quotas").unwrap_or_default();
        Some(Tier {
            rate: rate?,
            weight,
            mode,
            counted,
            in_flight,
            quotas,
        })
    })?
}

/// Reads the tenants, and the path of the file with others. Tenants are named by keys and tokens too, so their names are
/// freer than those of tiers and routes. A tenant is a map, so a single value called `file` can only be the path.
pub(super) fn tenants(f: &mut Fields<'_>) -> (NamedMap<Tenant>, Option<At<PathBuf>>) {
    let (mut tenants, mut file) = (NamedMap::default(), None);
    if let Some(value) = f.value_of("tenants", Shape::Named(&Shape::Section)) {
        let is_file = |node: &Node| matches!(&node.kind, NodeKind::Scalar { .. }) && !node.is_null();
        let node = match &value.node.kind {
            NodeKind::Map(entries) if entries.iter().any(|(key, node)| key.text == "file" && is_file(node)) => {
                let (files, others): (Vec<_>, Vec<_>) =
                    entries.iter().cloned().partition(|(key, _)| key.text == "file");
                for (key, node) in &files {
                    let path = Value::new(node, key.span, "tenants.file".to_owned(), value.cx);
                    file = path
                        .scalar::<String>()
                        .map(|path| path.map(|path| value.cx.base_dir.join(path)));
                }
                Some(Node::map(value.node.span, others))
            }
            _ => None,
        };
        let node = node.as_ref().unwrap_or(value.node);
        let value = Value { node, ..value };
        keyed(&value, &mut tenants, check_tenant, |_, value| read_as::<Tenant>(value));
    }
    (tenants, file)
}

/// What a tenant may be called, here as in a key file.
pub(in crate::config) fn check_tenant(name: &str) -> Result<String, &'static str> {
    if !identity::is_name(name, identity::TENANT_LENGTH) {
        return Err("a tenant's name has 1 to 128 characters, and no control characters");
    }
    Ok(name.to_owned())
}

impl Read for Tenant {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ rate: $ }", "{ tier: $ }"],
        sample: "{ tier: premium }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            f.not_built(&["limits", "weight"]);
            Self {
                tier: f.optional("tier"),
                rate: f.optional("rate"),
                burst: f.optional("burst"),
                in_flight: f.optional("in_flight"),
                quotas: f.optional("quotas").unwrap_or_default(),
                disabled: f.or("disabled", false),
                labels: labels(f),
            }
        })
    }
}

fn labels(f: &mut Fields<'_>) -> NamedMap<At<String>> {
    let mut labels = NamedMap::default();
    let Some(value) = f.value_of("labels", Shape::Named(&Shape::Value("text"))) else {
        return labels;
    };
    named_with(&value, &mut labels, |_, value| {
        let text = value.scalar::<String>()?;
        if text.len() > MOST_LABELS.1 {
            let message = format!("`{}` has more than {} bytes", value.path, MOST_LABELS.1);
            value.push(Mistake::new(Code::OutOfRange, text.span(), message));
        }
        Some(text)
    });
    if labels.len() > MOST_LABELS.0 {
        let message = format!("`{}` has more than {} entries", value.path, MOST_LABELS.0);
        value.push(Mistake::new(Code::OutOfRange, value.key, message));
    }
    labels
}
