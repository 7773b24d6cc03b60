//! The commands of the binary, their options and their exit codes.

mod admin_client;
mod check;
#[cfg(feature = "demo")]
mod demo;
mod diff;
mod doctor;
mod exit_codes;
mod explain;
mod healthcheck;
mod import;
mod init;
mod key;
mod manual;
mod reload;
mod run;
mod schema;
mod service_manager;
mod signals;
mod simulate;
mod start;
mod status;
mod take_over;
mod tenant;
mod test;
mod token;
mod top;
mod upgrade;
mod usage;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

/// Exit code: success.
pub const OK: u8 = 0;
/// Exit code: a failure at run time.
pub const FAILED: u8 = 1;
/// Exit code: stopped, but requests were cut at the drain limit.
pub const CUT: u8 = 3;
/// Exit code: the config is invalid (`EX_CONFIG` of sysexits.h).
pub const INVALID_CONFIG: u8 = 78;

#[derive(Parser)]
#[command(
    name = "gateway",
    version,
    about = "An API gateway: callers, tiered limits, timeout budgets, guarded calls, aggregation"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve requests until SIGTERM; SIGHUP reads the config again, SIGUSR2 replaces the process.
    Run(run::Options),
    /// Read a config and report every mistake in it, without opening a socket.
    Check(check::Options),
    /// Say what a config decides on a request and why, or what a running gateway would do with it now.
    Explain(explain::Options),
    /// Run policy tests of a config: requests on virtual time, scripted backends, and what must come of them.
    Test(test::Options),
    /// Say what two configs decide differently, and which settings differ.
    Diff(diff::Options),
    /// Say what a config does with a recorded or a described load, on virtual time.
    Simulate(simulate::Options),
    /// Look for troubles in what a running gateway has counted, and say which line to change.
    Doctor(doctor::Options),
    /// Show what a running gateway does now, its backends in trouble first.
    Status(status::Options),
    /// Watch what a running gateway does, drawn anew every second.
    Top(top::Options),
    /// Print what tenants have used, as a running gateway counted it.
    Usage(usage::Options),
    /// Make a running gateway read its config again, and report every mistake in it.
    Reload(reload::Options),
    /// Say whether a running gateway takes requests: exit code 0 if it does.
    Healthcheck(healthcheck::Options),
    /// Make a config of what another gateway or a description of an API says.
    #[command(subcommand)]
    Import(import::Command),
    /// Write a config to begin with.
    Init(init::Options),
    /// Write the JSON schema of the config, for editors that complete and check while one types.
    Schema,
    /// Show the tenants of a running gateway, and change those of its file of tenants.
    #[command(subcommand)]
    Tenant(tenant::Command),
    /// Make API keys and their digests, and change the keys of a running gateway.
    #[command(subcommand)]
    Key(key::Command),
    /// Sign tokens for tests, and say what is wrong with one.
    #[command(subcommand)]
    Token(token::Command),
    /// Print a script that completes commands and options in a shell.
    Completions(manual::CompletionOptions),
    /// Print the manual page, for `man -l -`.
    Man,
    /// Serve a demo fleet, and print commands to try.
    #[cfg(feature = "demo")]
    Demo(demo::Options),
}

/// The config file to use.
#[derive(clap::Args)]
struct ConfigOption {
    /// The config file; default: `gateway.yaml`.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// The config file, which may also be given without the option's name.
#[derive(clap::Args)]
struct ConfigFile {
    #[command(flatten)]
    option: ConfigOption,
    /// The config file, without `-c`.
    #[arg(value_name = "FILE", conflicts_with = "config")]
    file: Option<PathBuf>,
}

impl ConfigOption {
    fn path(&self) -> &Path {
        self.config.as_deref().unwrap_or(Path::new("gateway.yaml"))
    }
}

impl ConfigFile {
    fn path(&self) -> &Path {
        self.file.as_deref().unwrap_or(self.option.path())
    }
}

/// Returns the commands with their help.
fn command() -> clap::Command {
    exit_codes::explained(Cli::command())
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let matches = command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    ExitCode::from(match cli.command {
        Command::Run(options) => run::run(&options),
        Command::Check(options) => check::check(&options),
        Command::Explain(options) => explain::explain_request(&options),
        Command::Test(options) => test::test(&options),
        Command::Diff(options) => diff::diff(&options),
        Command::Simulate(options) => simulate::simulate(&options),
        Command::Doctor(options) => doctor::doctor(&options),
        Command::Status(options) => status::status(&options),
        Command::Top(options) => top::top(&options),
        Command::Usage(options) => usage::usage(&options),
        Command::Reload(options) => reload::reload(&options),
        Command::Healthcheck(options) => healthcheck::healthcheck(&options),
        Command::Import(command) => import::import(&command),
        Command::Init(options) => init::init(&options),
        Command::Schema => schema::schema(),
        Command::Tenant(command) => tenant::tenant(&command),
        Command::Key(command) => key::key(&command),
        Command::Token(command) => token::token(&command),
        Command::Completions(options) => manual::completions(&options),
        Command::Man => manual::man(),
        #[cfg(feature = "demo")]
        Command::Demo(options) => demo::demo(&options),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;

    use super::{CUT, Cli, Command, INVALID_CONFIG, command};

    /// Clap checks only in debug builds, and only for the command that runs, that options do not conflict.
    #[test]
    fn the_commands_are_consistent() {
        command().debug_assert();
    }

    #[test]
    fn the_config_may_stand_alone() {
        let check = |arguments: &[&str], expected: Option<&str>| {
            let found = Cli::try_parse_from([&["gateway"], arguments].concat());
            let path = match found.as_ref().ok().map(|cli| &cli.command) {
                Some(Command::Check(options)) => Some(options.file.path()),
                Some(Command::Run(options)) => Some(options.file.path()),
                _ => None,
            };
            assert_eq!(path, expected.map(Path::new), "{arguments:?}");
        };
        for command in ["check", "run"] {
            check(&[command], Some("gateway.yaml"));
            check(&[command, "a.yaml"], Some("a.yaml"));
            check(&[command, "-c", "a.yaml"], Some("a.yaml"));
            check(&[command, "--config=a.yaml"], Some("a.yaml"));
            check(&[command, "-c", "a.yaml", "b.yaml"], None);
            check(&[command, "a.yaml", "b.yaml"], None);
        }
        check(&["check", "-q", "a.yaml"], Some("a.yaml"));
        check(&["check", "a.yaml", "-q"], Some("a.yaml"));
    }

    /// Returns the command lines of the gateway in the files under `gateway/deploy`, without its path.
    fn deployed() -> Vec<Vec<String>> {
        let unit = include_str!("../../deploy/systemd/gateway.service");
        let dockerfile = include_str!("../../deploy/Dockerfile");
        let compose = include_str!("../../deploy/compose/compose.yaml");
        let manifest = include_str!("../../deploy/kubernetes/gateway.yaml");
        let words = |line: &str| -> Vec<String> {
            let line = line.trim_matches(|c| "[]".contains(c));
            let words = line.split([' ', ',']).filter(|word| !word.is_empty());
            words.map(|word| word.trim_matches('"').to_owned()).collect()
        };
        let after = |text: &'static str, start: &'static str| {
            text.lines()
                .filter_map(move |line| line.trim_start_matches("- ").trim().strip_prefix(start))
        };
        let program = "/usr/local/bin/gateway ";
        let of_unit = after(unit, "ExecStart=").chain(after(unit, "ExecStartPre="));
        let of_unit = of_unit.filter_map(|line| line.strip_prefix(program)).map(words);
        let of_image = after(dockerfile, "CMD ").map(words);
        let of_image = of_image.map(|line| {
            line.into_iter()
                .filter(|word| !word.starts_with('/') || word.contains("etc"))
                .collect()
        });
        let of_compose = after(compose, "command: [run").map(|line| words(&format!("run{line}")));
        let of_manifest = after(manifest, "args: ").map(words);
        of_unit.chain(of_image).chain(of_compose).chain(of_manifest).collect()
    }

    #[test]
    fn what_is_deployed_calls_commands_that_there_are() {
        let all = deployed();
        let count = |command: &str| all.iter().filter(|line| line[0] == command).count();
        assert_eq!(
            (count("run"), count("check"), count("healthcheck")),
            (4, 1, 1),
            "{all:?}"
        );
        for line in &all {
            let arguments = ["gateway"].into_iter().chain(line.iter().map(String::as_str));
            if let Err(error) = command().try_get_matches_from(arguments) {
                panic!("{line:?}: {error}");
            }
        }
        let unit = include_str!("../../deploy/systemd/gateway.service");
        assert!(unit.contains(&format!("\nRestartPreventExitStatus={INVALID_CONFIG}\n")));
        assert!(unit.contains(&format!("\nSuccessExitStatus={CUT}\n")));
    }
}
