//! Compiles the configs of tests.

use std::path::Path;

use super::compile;
use crate::config;
use crate::observe::{Observer, Target};
use crate::plan::{Plan, State};

/// Returns the state of a process that has no plan yet, and logs nothing.
pub(crate) fn state() -> State {
    State::new(Observer::start(&Target::Off).expect("nothing is opened"))
}

/// Compiles a config that must be good.
pub(crate) fn plan(text: &str, state: &State) -> Plan {
    let mut loaded = config::parse("gateway.yaml", text, Path::new("."), &|_| None).expect("it can be read");
    match compile(&mut loaded, state, 1) {
        Ok(compiled) => compiled.plan,
        Err(mistakes) => panic!("{}", loaded.sources.render(&mistakes, false)),
    }
}
