//! `gateway token`: makes tokens for tests, and checks tokens.

mod inspect;
mod mint;

use clap::Subcommand;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Sign a token with a local key, for tests.
    Mint(mint::Options),
    /// Read a token and say which checks of a config it passes: exit 0 if it is valid there, 1 if not.
    Inspect(inspect::Options),
}

pub(super) fn token(command: &Command) -> u8 {
    match command {
        Command::Mint(options) => mint::mint(options),
        Command::Inspect(options) => inspect::inspect(options),
    }
}
