//! Checks promises that only show under load: each run starts a real gateway before a pretend fleet and measures.
//!
//! A scenario is an async function that returns its findings. A promise is either kept or broken, and the measured
//! figure is shown in both cases. Nothing is retried and no run is discarded.

pub mod backend_process;
pub mod gateway;

mod adaptive;
mod aggregate;
mod balance;
mod bill;
mod cost;
mod credentials;
mod fairness;
mod fleet;
mod hand_over;
mod hanging;
mod hostile;
mod isolation;
mod json;
mod mirror;
mod outage;
mod overload;
mod processors;
mod reload;
mod replicas;
mod rolling;
mod scale;
mod sick_parts;
mod slow_reader;
mod slow_upload;
mod soak;
mod split;
pub(crate) mod steady;
mod tenants;
mod tiers;
mod usage;

use std::fmt;
use std::path::Path;
use std::pin::Pin;

use crate::Result;

/// Promise and its result.
#[derive(Clone, Debug)]
pub struct Finding {
    pub asked: String,
    pub measured: String,
    pub kept: bool,
}

impl Finding {
    pub fn new(asked: impl Into<String>, measured: impl Into<String>, kept: bool) -> Self {
        Self {
            asked: asked.into(),
            measured: measured.into(),
            kept,
        }
    }
}

impl fmt::Display for Finding {
    /// Writes a row of a Markdown table, without the scenario's name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.kept { "PASS" } else { "FAIL" };
        write!(f, "{} | {} | {verdict}", self.asked, self.measured)
    }
}

type Running<'a> = Pin<Box<dyn Future<Output = Result<Vec<Finding>>> + 'a>>;

/// Scenario with its name.
#[derive(Clone, Copy)]
pub struct Scenario {
    pub name: &'static str,
    pub about: &'static str,
    /// Whether it takes so long that `all` leaves it out.
    pub long: bool,
    run: for<'a> fn(&'a Path) -> Running<'a>,
}

impl Scenario {
    /// Runs the scenario with this gateway binary.
    ///
    /// # Errors
    /// The scenario could not run at all. A broken promise is a [`Finding`].
    pub async fn run(&self, binary: &Path) -> Result<Vec<Finding>> {
        (self.run)(binary).await
    }
}

pub const SCENARIOS: [Scenario; 29] = [
    Scenario {
        name: "tiers",
        about: "each tier admits its burst and its rate, and no neighbour pays",
        long: false,
        run: |b| Box::pin(tiers::run(b)),
    },
    Scenario {
        name: "hanging",
        about: "a backend that hangs costs its budget and nothing else",
        long: false,
        run: |b| Box::pin(hanging::run(b)),
    },
    Scenario {
        name: "isolation",
        about: "500 callers on a hanging backend, seen from another",
        long: false,
        run: |b| Box::pin(isolation::run(b)),
    },
    Scenario {
        name: "mirror",
        about: "a route whose mirror hangs, beside the same route without one",
        long: false,
        run: |b| Box::pin(mirror::run(b)),
    },
    Scenario {
        name: "fairness",
        about: "a quiet tenant beside one that asks a hundred times as often",
        long: false,
        run: |b| Box::pin(fairness::run(b)),
    },
    Scenario {
        name: "credentials",
        about: "a hundred thousand credentials that nobody issued, beside callers who have one",
        long: false,
        run: |b| Box::pin(credentials::run(b)),
    },
    Scenario {
        name: "hostile",
        about: "slow heads, endless heads and reset streams, beside callers who mean well",
        long: false,
        run: |b| Box::pin(hostile::run(b)),
    },
    Scenario {
        name: "slow_upload",
        about: "uploads as slow as may be, beside a tenant that asks the same backend",
        long: false,
        run: |b| Box::pin(slow_upload::run(b)),
    },
    Scenario {
        name: "json",
        about: "documents of ten megabytes in the worst shapes, beside callers who mean well",
        long: false,
        run: |b| Box::pin(json::run(b)),
    },
    Scenario {
        name: "slow_reader",
        about: "callers who do not read, and the slots that they hold",
        long: false,
        run: |b| Box::pin(slow_reader::run(b)),
    },
    Scenario {
        name: "outage",
        about: "what reaches a backend that is down",
        long: false,
        run: |b| Box::pin(outage::run(b)),
    },
    Scenario {
        name: "aggregate",
        about: "three slow parts at once, merged the same every time",
        long: false,
        run: |b| Box::pin(aggregate::run(b)),
    },
    Scenario {
        name: "sick_parts",
        about: "an aggregate of five parts, one hanging and one resetting",
        long: false,
        run: |b| Box::pin(sick_parts::run(b)),
    },
    Scenario {
        name: "cost",
        about: "an aggregate's processor time beside that of a single call",
        long: false,
        run: |b| Box::pin(cost::run(b)),
    },
    Scenario {
        name: "reload",
        about: "a config swapped ten times a second under load, with broken ones and the end, then for a minute",
        long: false,
        run: |b| Box::pin(reload::run(b)),
    },
    Scenario {
        name: "hand_over",
        about: "ten processes replace each other under full load",
        long: false,
        run: |b| Box::pin(hand_over::run(b)),
    },
    Scenario {
        name: "replicas",
        about: "three gateways that share their limits through one Redis (needs redis-server and redis-tools)",
        long: true,
        run: |b| Box::pin(replicas::run(b)),
    },
    Scenario {
        name: "usage",
        about: "what two gateways count of 100,000 requests, one of them killed, and what a failing receiver gets",
        long: true,
        run: |b| Box::pin(usage::run(b)),
    },
    Scenario {
        name: "tenants",
        about: "a thousand changes of tenants by four writers under load, and kills during changes",
        long: true,
        run: |b| Box::pin(tenants::run(b)),
    },
    Scenario {
        name: "rolling",
        about: "two endpoints restart in turn under GETs",
        long: false,
        run: |b| Box::pin(rolling::run(b)),
    },
    Scenario {
        name: "fleet",
        about: "processes of a backend killed, stopped, drained and restarted under GETs",
        long: false,
        run: |b| Box::pin(fleet::run(b)),
    },
    Scenario {
        name: "balance",
        about: "one slow, failing or silent endpoint of three",
        long: false,
        run: |b| Box::pin(balance::run(b)),
    },
    Scenario {
        name: "split",
        about: "ten thousand tenants shared by two versions, at two replicas",
        long: false,
        run: |b| Box::pin(split::run(b)),
    },
    Scenario {
        name: "scale",
        about: "ten thousand routes and ten thousand endpoints",
        long: true,
        run: |b| Box::pin(scale::run(b)),
    },
    Scenario {
        name: "bill",
        about: "what two tenants are charged, to the request",
        long: false,
        run: |b| Box::pin(bill::run(b)),
    },
    Scenario {
        name: "adaptive",
        about: "the limit that is found for a backend of eight places",
        long: false,
        run: |b| Box::pin(adaptive::run(b, 60)),
    },
    Scenario {
        name: "adaptive_long",
        about: "the same for five minutes",
        long: true,
        run: |b| Box::pin(adaptive::run(b, 300)),
    },
    Scenario {
        name: "overload",
        about: "a worker that gets three times the work it can do, from four tiers",
        long: false,
        run: |b| Box::pin(overload::run(b)),
    },
    Scenario {
        name: "soak",
        about: "ten minutes of aggregates, and what stays in memory",
        long: true,
        run: |b| Box::pin(soak::run(b)),
    },
];
