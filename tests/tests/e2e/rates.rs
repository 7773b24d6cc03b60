//! Checks exact rates: a tier's burst and rate, under more load than it admits and beside other tenants.

use std::time::{Duration, Instant};

use fixtures::api_keys::{KeyLine, key_file};
use tests::configs::Config;
use tests::crowd::{Tally, paced};
use tests::{Client, Setup};

use crate::tiers::TIERS;

const TOP: &str = r#"
listeners: { public: { address: "127.0.0.1:0" } }
admin: { address: "127.0.0.1:0" }
access_log: off
callers: { api_keys: { file: keys.yaml } }
"#;

/// A key for each of two tenants of every tier: `free-1`, `free-2` and so on.
fn keys() -> String {
    let of_tier = |(tier, ..): (&str, u32, u32)| {
        ["1", "2"].map(|number| {
            let key = format!("{tier}-{number}");
            KeyLine::new(&key, &format!("{tier}-tenant-{number}"), &key).tier(tier)
        })
    };
    key_file(&TIERS.into_iter().flat_map(of_tier).collect::<Vec<_>>())
}

/// Returns what one tenant was served of a load that saturates its limit.
struct Taken {
    tier: &'static str,
    rate: f64,
    burst: f64,
    tally: Tally,
}

impl Taken {
    /// Never more than the burst and what the rate has added since, and no fewer than an ideal bucket would have admitted
    /// of the requests as they came: within 1 % or one token.
    ///
    /// When a request was decided on nobody outside knows, but it was between its sending and its answer. On a machine
    /// that is busy with other tests that is long, and the load may fall short of the rate for a while.
    fn check(&self) {
        let told = &self.tally.told;
        let (admitted, refused) = (self.tally.with_status(204), self.tally.with_status(429));
        assert_eq!(admitted + refused, told.len(), "{:?}", self.tally.statuses());

        let begun = told.iter().map(|told| told.sent).min().expect("some were sent");
        let ended = told
            .iter()
            .map(|told| told.sent + told.took)
            .max()
            .expect("some were sent");
        let (admitted, most) = (admitted as f64, self.burst + self.rate * (ended - begun).as_secs_f64());
        let ideal = self.ideally_admitted();
        let unsure = self.rate
            * told
                .iter()
                .map(|told| told.took)
                .max()
                .expect("some were sent")
                .as_secs_f64();
        let slack = |expected: f64| (expected * 0.01).max(1.0);
        assert!(
            admitted <= most + slack(most) && admitted >= ideal - slack(ideal) - unsure,
            "{}: {admitted} of {} admitted, {ideal} by an ideal bucket, {most:.1} at most",
            self.tier,
            told.len(),
        );
    }

    fn ideally_admitted(&self) -> f64 {
        let mut moments: Vec<Instant> = self.tally.told.iter().map(|told| told.sent + told.took / 2).collect();
        moments.sort_unstable();
        let (mut tokens, mut admitted, mut last) = (self.burst, 0.0, moments[0]);
        for moment in moments {
            tokens = (tokens + self.rate * (moment - last).as_secs_f64()).min(self.burst);
            last = moment;
            if tokens >= 1.0 {
                tokens -= 1.0;
                admitted += 1.0;
            }
        }
        admitted
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn each_tier_admits_its_burst_and_its_rate_and_takes_nothing_from_others() {
    const TIME: Duration = Duration::from_secs(3);
    let config = Config::with(TOP).route("fixed", r#"{ match: { path: /fixed }, respond: { status: 204 } }"#);
    let gateway = Setup::new(config.to_string()).file("keys.yaml", keys()).start().await;
    let mut loads = Vec::new();
    for (tier, rate, burst) in TIERS {
        let clients: Vec<Client> = (0..8).map(|_| gateway.another_client()).collect();
        let key = format!("{tier}-1");
        loads.push(tokio::spawn(async move {
            let tally = paced(clients, rate * 4, TIME, move |client| client.get("/fixed").key(&key)).await;
            let (rate, burst) = (f64::from(rate), f64::from(burst));
            Taken {
                tier,
                rate,
                burst,
                tally,
            }
        }));
    }
    let mut bystanders = Vec::new();
    for (tier, rate, _) in TIERS {
        let client = vec![gateway.another_client()];
        let key = format!("{tier}-2");
        bystanders.push(tokio::spawn(async move {
            let rate = (rate / 2).min(50);
            (
                tier,
                paced(client, rate, TIME, move |client| client.get("/fixed").key(&key)).await,
            )
        }));
    }
    for load in loads {
        load.await.expect("no panic").check();
    }
    for bystander in bystanders {
        let (tier, tally) = bystander.await.expect("no panic");
        assert_eq!(
            tally.with_status(204),
            tally.told.len(),
            "{tier}: {:?}",
            tally.statuses()
        );
    }
}
