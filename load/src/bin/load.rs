//! Implements the command line of the load generator and of the scenarios.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use std::{env, fs};

use bytes::Bytes;
use clap::{Args, Parser, Subcommand};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use load::Result;
use load::arrivals::Pace;
use load::generate::{Load, generate};
use load::instructions;
use load::scenario::{SCENARIOS, Scenario, backend_process};
use load::target::Target;

/// Measures HTTP servers with an open load, and runs scenarios that check the promises of the gateway
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Sends requests at a fixed rate and reports how they ended
    Run(Run),
    /// Starts a gateway before a pretend fleet and checks a promise under load
    Scenario(Scenarios),
    /// Counts the user instructions of a request, with valgrind
    Instructions(Instructions),
    /// Runs a pretend backend until standard input ends: how scenarios start processes that they can kill
    #[command(hide = true)]
    Backend {
        name: String,
        #[arg(long, default_value_t = 0)]
        port: u16,
    },
}

#[derive(Args)]
struct Run {
    /// http://HOST:PORT/PATH, on this machine
    url: String,
    /// Requests in a second
    #[arg(short, long, default_value_t = 100.0)]
    rate: f64,
    /// Draw the pauses at random around the rate instead of keeping them equal
    #[arg(long)]
    poisson: bool,
    /// Seed of all random numbers
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(short, long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    connections: u16,
    /// Length of the run in seconds
    #[arg(short, long, default_value_t = 10.0)]
    duration: f64,
    /// Largest number of requests
    #[arg(short = 'n', long)]
    count: Option<u64>,
    #[arg(short = 'X', long, default_value = "GET")]
    method: Method,
    /// Header field of every request, as `name: value`; can be repeated
    #[arg(short = 'H', long = "header", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// File with one API key a line; requests use them in turn
    #[arg(long, value_name = "FILE")]
    keys: Option<PathBuf>,
    /// Header field for the key; its value is the line without changes
    #[arg(long, value_name = "NAME", default_value = "x-api-key")]
    key_header: HeaderName,
    /// Body of every request; @FILE reads it from a file
    #[arg(short = 'b', long)]
    body: Option<String>,
    /// Longest time for an answer, in seconds
    #[arg(long, default_value_t = 10.0)]
    limit: f64,
    /// Exit with 1 unless every request ends in this status
    #[arg(long, value_name = "STATUS")]
    expect: Option<u16>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// Allow a target on another machine
    #[arg(long)]
    i_know: bool,
}

#[derive(Args)]
struct Instructions {
    /// The gateway binary
    #[arg(long, env = "GATEWAY", value_name = "PATH", default_value = "target/release/gateway")]
    gateway: PathBuf,
}

#[derive(Args)]
struct Scenarios {
    /// `all` except the long ones, or one of tiers, hanging, isolation, fairness, credentials, hostile, json, outage,
    /// aggregate, sick_parts, cost, reload, hand_over, usage, tenants, fleet, balance, split, scale, bill, adaptive, adaptive_long, overload, soak
    name: String,
    /// The gateway binary
    #[arg(long, env = "GATEWAY", value_name = "PATH", default_value = "target/release/gateway")]
    gateway: PathBuf,
}

/// Largest value in seconds; a larger one is probably a mistake in the arguments.
const LONGEST: f64 = 600.0;
const MOST_REQUESTS: f64 = 10e6;

fn main() -> ExitCode {
    let command = Cli::parse().command;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime.map_err(Into::into).and_then(|runtime| {
        runtime.block_on(async {
            match command {
                Command::Run(options) => run(options).await,
                Command::Scenario(options) => scenarios(&options).await,
                Command::Instructions(options) => instructions::count(&options.gateway).await.map(|()| true),
                Command::Backend { name, port } => backend_process::serve(&name, port).await.map(|()| true),
            }
        })
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "load: {error}");
            ExitCode::from(2)
        }
    }
}

/// Runs a load. Returns whether all requests ended as expected.
async fn run(options: Run) -> Result<bool> {
    let (json, expect) = (options.json, options.expect);
    let report = generate(options.load()?).await;
    if json {
        writeln!(io::stdout(), "{:#}", report.to_json())?;
    } else {
        writeln!(io::stdout(), "{report}")?;
    }
    Ok(expect.is_none_or(|status| report.other_than(status) == 0 && report.sent() > 0))
}

impl Run {
    fn load(self) -> Result<Load> {
        let positive = |number: f64| number.is_finite() && number > 0.0;
        if !positive(self.rate) || !positive(self.limit) || !positive(self.duration) {
            return Err("rate, duration and limit must be above zero".into());
        }
        if self.duration > LONGEST || self.limit > LONGEST || self.rate * self.duration > MOST_REQUESTS {
            return Err(format!("at most {LONGEST} seconds and {MOST_REQUESTS} requests").into());
        }
        let body = match self.body.as_deref().map(|body| body.strip_prefix('@').ok_or(body)) {
            None => Bytes::new(),
            Some(Ok(file)) => fs::read(file).map_err(|error| format!("{file}: {error}"))?.into(),
            Some(Err(text)) => text.to_owned().into(),
        };
        let mut headers = HeaderMap::new();
        headers.extend(self.headers.into_iter().map(|(name, value)| (Some(name), value)));
        let rotating = match self.keys {
            None => Vec::new(),
            Some(file) => {
                let lines = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
                let lines = lines.lines().map(str::trim).filter(|line| !line.is_empty());
                let keys = lines
                    .map(HeaderValue::from_str)
                    .collect::<std::result::Result<_, _>>()?;
                vec![(self.key_header, keys)]
            }
        };
        Ok(Load {
            target: Target::read(&self.url, self.i_know)?,
            method: self.method,
            headers,
            rotating,
            body,
            rate: self.rate,
            pace: if self.poisson { Pace::Poisson } else { Pace::Constant },
            seed: self.seed,
            connections: self.connections.into(),
            duration: Duration::from_secs_f64(self.duration),
            count: self.count,
            limit: Duration::from_secs_f64(self.limit),
        })
    }
}

/// Runs scenarios. Returns whether all promises were kept.
async fn scenarios(options: &Scenarios) -> Result<bool> {
    let wanted: Vec<Scenario> = SCENARIOS
        .into_iter()
        .filter(|scenario| (options.name == "all" && !scenario.long) || options.name == scenario.name)
        .collect();
    if wanted.is_empty() {
        let names: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        return Err(format!("no scenario {}; there are all, {}", options.name, names.join(", ")).into());
    }
    let binary = env::current_dir()?.join(&options.gateway);
    if !binary.is_file() {
        return Err(format!(
            "{} is not there: build it, or name another with --gateway",
            binary.display()
        )
        .into());
    }
    let mut kept = true;
    writeln!(io::stdout(), "| scenario | asked | measured | |\n|---|---|---|---|")?;
    for scenario in wanted {
        for finding in scenario
            .run(&binary)
            .await
            .map_err(|error| format!("{}: {error}", scenario.name))?
        {
            kept &= finding.kept;
            writeln!(io::stdout(), "| {} | {finding} |", scenario.name)?;
        }
    }
    Ok(kept)
}

fn header(text: &str) -> std::result::Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("it is `name: value`")?;
    let name = name.trim().parse().map_err(|error| format!("{name}: {error}"))?;
    let value = value.trim().parse().map_err(|error| format!("{value}: {error}"))?;
    Ok((name, value))
}
