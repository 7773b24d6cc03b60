//! Controls the fleet of a demo that runs in another process.

use std::io::{Write, stderr, stdout};
use std::net::SocketAddr;

use serde_json::Value;

use super::folder;
use super::running::Running;
use crate::auth::jwt::key_fetch;
use crate::cli::{FAILED, OK};

#[derive(Clone, Copy)]
pub(super) enum FleetChange<'a> {
    /// Makes the backend fail with this fault.
    Break(&'a str),
    Slow {
        ms: u32,
    },
    Heal,
}

/// Changes the backend, and prints one line that says what was done or why not. Returns the exit code.
pub(super) fn steer(control: Option<SocketAddr>, backend: &str, how: FleetChange<'_>) -> u8 {
    let done = control
        .map_or_else(the_only_one, Ok)
        .and_then(|control| tell(control, backend, how));
    match done {
        Ok(()) => {
            let _ = writeln!(stdout(), "{backend}: {}", said(how, backend));
            OK
        }
        Err(why) => {
            let _ = writeln!(stderr(), "gateway demo: {why}");
            FAILED
        }
    }
}

fn said(how: FleetChange<'_>, backend: &str) -> String {
    let until = format!("until `gateway demo heal {backend}`");
    match how {
        FleetChange::Break("hang") => format!("takes requests and never answers, {until}"),
        FleetChange::Break("reset") => format!("resets every connection, {until}"),
        FleetChange::Break("refuse") => format!("refuses connections, {until}"),
        FleetChange::Break(_) => format!("answers 503 to everything, {until}"),
        FleetChange::Slow { ms } => format!("takes {ms} ms to answer, {until}"),
        FleetChange::Heal => "is as it was at the start".to_owned(),
    }
}

fn the_only_one() -> Result<SocketAddr, String> {
    match folder::running().as_slice() {
        [] => Err("no demo runs; start one with `gateway demo`".to_owned()),
        [demo] => Ok(demo.control),
        several => {
            let one = |demo: &Running| format!("\n  --control {}  for the one at {}", demo.control, demo.public);
            Err(format!(
                "several demos run; say which:{}",
                several.iter().map(one).collect::<String>()
            ))
        }
    }
}

fn tell(control: SocketAddr, backend: &str, how: FleetChange<'_>) -> Result<(), String> {
    if backend.is_empty()
        || !backend
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    {
        return Err(format!("{backend:?} is no name of a backend"));
    }
    let path = match how {
        FleetChange::Break(fault) => format!("break?fault={fault}"),
        FleetChange::Slow { ms } => format!("slow?ms={ms}"),
        FleetChange::Heal => "heal".to_owned(),
    };
    let url = format!("http://{control}/fleet/{backend}/{path}");
    let asked = async {
        let answer = key_fetch::client()?.post(url).send().await?;
        let status = answer.status();
        Ok::<_, reqwest::Error>((status, answer.json::<Value>().await?))
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    match runtime.block_on(asked) {
        Ok((status, _)) if status.is_success() => Ok(()),
        Ok((_, body)) => Err(body["error"]
            .as_str()
            .unwrap_or("the fleet did not say why not")
            .to_owned()),
        Err(error) if error.is_connect() => Err(format!(
            "no demo is steered at {control}; start one with `gateway demo`"
        )),
        Err(error) => Err(format!("{control} does not answer like a demo's fleet: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use fixtures::fleet::{Behaviour, Fleet, demo};

    use super::*;

    #[test]
    fn a_fleet_is_broken_slowed_and_healed() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let fleet = runtime.block_on(Fleet::start(demo::specs())).expect("ports are free");
        let users = fleet.backend("users");
        let nature = users.behaviour();
        tell(fleet.control(), "users", FleetChange::Break("status")).expect("it is told");
        assert_eq!(users.behaviour(), Behaviour::status(503));
        tell(fleet.control(), "users", FleetChange::Break("refuse")).expect("it is told");
        assert_eq!(users.behaviour(), Behaviour::refusing());
        tell(fleet.control(), "users", FleetChange::Slow { ms: 40 }).expect("it is told");
        assert_ne!(users.behaviour(), nature);
        tell(fleet.control(), "users", FleetChange::Heal).expect("it is told");
        assert_eq!(users.behaviour(), nature);
        let unknown = tell(fleet.control(), "billing", FleetChange::Heal).expect_err("there is no such backend");
        assert!(
            unknown.contains("users, orders, inventory, recommendations, payments"),
            "{unknown}"
        );
        let odd = tell(fleet.control(), "users/../orders", FleetChange::Heal).expect_err("that is no name");
        assert!(odd.contains("no name"), "{odd}");
    }

    #[test]
    fn nobody_there_is_said_so() {
        let closed = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .expect("a free port")
            .local_addr();
        let closed: SocketAddr = closed.expect("bound");
        let why = tell(closed, "users", FleetChange::Heal).expect_err("nobody listens");
        assert!(why.contains("start one with `gateway demo`"), "{why}");
    }
}
