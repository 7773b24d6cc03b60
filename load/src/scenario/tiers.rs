//! Loads each tier for three seconds at four times its rate, and checks that exactly the burst and the tokens earned
//! meanwhile are admitted.

use std::path::Path;
use std::time::Duration;

use fixtures::api_keys::{KeyLine, key_file};
use fixtures::fleet::{Fleet, Keep, Spec};
use http::{HeaderName, HeaderValue};

use super::Finding;
use super::gateway::Gateway;
use crate::Result;
use crate::generate::{Load, generate};

/// Built-in tier with its numbers, and the keys of two of its tenants.
struct Tier {
    name: &'static str,
    rate: f64,
    burst: f64,
    greedy: &'static str,
    modest: &'static str,
}

const TIERS: [Tier; 4] = [
    Tier {
        name: "free",
        rate: 10.0,
        burst: 20.0,
        greedy: "free-greedy",
        modest: "free-modest",
    },
    Tier {
        name: "basic",
        rate: 50.0,
        burst: 100.0,
        greedy: "basic-greedy",
        modest: "basic-modest",
    },
    Tier {
        name: "premium",
        rate: 200.0,
        burst: 400.0,
        greedy: "premium-greedy",
        modest: "premium-modest",
    },
    Tier {
        name: "enterprise",
        rate: 1000.0,
        burst: 2000.0,
        greedy: "enterprise-greedy",
        modest: "enterprise-modest",
    },
];

const CONFIG: &str = r#"
callers: { api_keys: { file: keys.yaml } }
backends:
  fast: { endpoints: [{ url: "http://@fast@" }], bulkhead: { limit: 1000, queue: 1000, wait: 5s } }
routes:
  all: { match: { path: "/{*rest}" }, access: { any_of: [api_key] }, backend: fast }
"#;

const FOR: Duration = Duration::from_secs(3);

pub(super) async fn run(binary: &Path) -> Result<Vec<Finding>> {
    let fleet = Fleet::start([Spec::new("fast").keep(Keep::NOTHING)]).await?;
    let lines: Vec<KeyLine> = TIERS
        .iter()
        .flat_map(|tier| [tier.greedy, tier.modest].map(|key| KeyLine::new(key, key, key).tier(tier.name)))
        .collect();
    let config = CONFIG.replace("@fast@", &fleet.address("fast").to_string());
    let gateway = Gateway::start(binary, &config, &key_file(&lines)).await?;
    let mut findings = vec![];
    for tier in &TIERS {
        findings.extend(of(tier, &gateway).await?);
    }
    Ok(findings)
}

/// Checks a tenant at four times its rate beside another of the same tier at half of its rate.
async fn of(tier: &Tier, gateway: &Gateway) -> Result<[Finding; 2]> {
    let load = |rate: f64, key| -> Result<Load> {
        let load = Load::new(gateway.target("/bytes/100")?, rate, FOR);
        Ok(load.header(HeaderName::from_static("x-api-key"), HeaderValue::from_static(key)))
    };
    let greedy = load(4.0 * tier.rate, tier.greedy)?;
    let modest = load(0.5 * tier.rate, tier.modest)?.connections(4);
    let (greedy, modest) = tokio::join!(generate(greedy), generate(modest));
    // Tokens earned between the gateway's first decision and its last; the bounds are as tight as is possible from
    // outside.
    let [least, most] = [greedy.inner.duration(), greedy.span].map(|span| tier.burst + tier.rate * span.as_secs_f64());
    let admitted = greedy.status(200);
    let tolerated = (0.01 * most).max(1.0);
    let exact = (least - tolerated..=most + tolerated).contains(&(admitted as f64));
    let clean = greedy.sent() == admitted + greedy.status(429) && greedy.unsent == 0;
    Ok([
        Finding::new(
            format!(
                "{}: {} + {}/s x {:.3} s = {most:.1}, within 1 % or a token",
                tier.name,
                tier.burst,
                tier.rate,
                greedy.span.as_secs_f64()
            ),
            greedy.endings(),
            exact && clean,
        ),
        Finding::new(
            format!("{}: a second tenant at half its rate loses nothing", tier.name),
            modest.endings(),
            modest.other_than(200) == 0,
        ),
    ])
}
