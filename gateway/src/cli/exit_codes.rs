//! Exit codes of each command, for `--help` and the manual page.

use std::fmt::Write as _;

use super::{CUT, FAILED, INVALID_CONFIG, OK};

/// Exit code of clap: the command line is wrong.
const USAGE: u8 = 2;

/// Codes of a command and what they mean, without [`USAGE`], which all have.
type Codes = &'static [(u8, &'static str)];

/// Codes of commands that have not only the usual ones.
const CODES: [(&str, Codes); 15] = [
    (
        "run",
        &[
            (OK, "stopped, and no request was cut"),
            (FAILED, "failed, such as an address that is taken"),
            (CUT, "stopped, but requests were cut at the drain limit"),
            (INVALID_CONFIG, "the config is invalid"),
        ],
    ),
    (
        "check",
        &[
            (OK, "the config is good, and --against finds no difference"),
            (FAILED, "failed, or --against finds a difference"),
            (INVALID_CONFIG, "the config is invalid"),
        ],
    ),
    (
        "explain",
        &[
            (OK, "explained, whatever would happen to the request"),
            (FAILED, "failed, such as no gateway that answers"),
            (INVALID_CONFIG, "the config is invalid"),
        ],
    ),
    (
        "test",
        &[
            (OK, "all expectations hold"),
            (FAILED, "one does not, or less is covered than --fail-under asks for"),
            (INVALID_CONFIG, "a file of tests or a config is invalid"),
        ],
    ),
    (
        "diff",
        &[
            (OK, "both decide alike on every request"),
            (FAILED, "they do not, or no gateway answers"),
            (INVALID_CONFIG, "a config is invalid"),
        ],
    ),
    (
        "simulate",
        &[
            (OK, "simulated"),
            (FAILED, "the log cannot be read"),
            (INVALID_CONFIG, "the config or the file of loads is invalid"),
        ],
    ),
    (
        "doctor",
        &[
            (OK, "nothing is found"),
            (FAILED, "a trouble is found, or no gateway answers"),
        ],
    ),
    (
        "healthcheck",
        &[
            (OK, "the gateway takes requests"),
            (FAILED, "it does not, or none answers"),
        ],
    ),
    (
        "reload",
        &[
            (OK, "the config is in force"),
            (FAILED, "no gateway answers, or the config was taken back"),
            (INVALID_CONFIG, "the config is invalid, and the one before is in force"),
        ],
    ),
    (
        "usage",
        &[(OK, "printed"), (FAILED, "no gateway answers, or it counts no usage")],
    ),
    (
        "krakend",
        &[
            (OK, "the config is written"),
            (FAILED, "the configuration cannot be read"),
        ],
    ),
    (
        "openapi",
        &[
            (OK, "the config is written"),
            (FAILED, "the description cannot be read"),
        ],
    ),
    ("status", &[(OK, "shown"), (FAILED, "no gateway answers")]),
    (
        "top",
        &[
            (OK, "ended by SIGINT, or the frame is printed"),
            (FAILED, "no gateway answers"),
        ],
    ),
    (
        "inspect",
        &[
            (OK, "the token is valid"),
            (FAILED, "it is not"),
            (INVALID_CONFIG, "the config is invalid"),
        ],
    ),
];
const USUAL: Codes = &[(OK, "done"), (FAILED, "failed")];

/// Adds the exit codes to the help of a command and of all below it.
pub(super) fn explained(command: clap::Command) -> clap::Command {
    let name = command.get_name().to_owned();
    let is_group = command.has_subcommands();
    let command = command.mut_subcommands(explained);
    match is_group {
        true => command,
        false => command.after_help(text(&name)),
    }
}

fn text(command: &str) -> String {
    let own = CODES.iter().find(|(name, _)| *name == command);
    let codes = own.map_or(USUAL, |(_, codes)| codes);
    let mut codes = codes.to_vec();
    codes.push((USAGE, "the command line is wrong"));
    codes.sort_unstable();
    let mut text = "Exit codes:\n".to_owned();
    for (code, meaning) in codes {
        let _ = writeln!(text, "  {code:>2}  {meaning}");
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    fn leaves<'c>(command: &'c clap::Command, found: &mut Vec<&'c clap::Command>) {
        match command.has_subcommands() {
            true => command.get_subcommands().for_each(|inner| leaves(inner, found)),
            false => found.push(command),
        }
    }

    #[test]
    fn every_command_says_its_exit_codes() {
        let command = explained(Cli::command());
        let mut all = Vec::new();
        leaves(&command, &mut all);
        assert!(all.len() > 12);
        for leaf in &all {
            let help = leaf.get_after_help().expect("exit codes").to_string();
            assert!(
                help.starts_with("Exit codes:\n   0  ") && help.contains("\n   2  the command line is wrong\n"),
                "{}: {help}",
                leaf.get_name()
            );
        }
        for (name, _) in CODES {
            assert!(
                all.iter().any(|leaf| leaf.get_name() == name),
                "there is no command {name}"
            );
        }
        let docs = include_str!("../../docs/operations.md");
        for (name, codes) in CODES {
            for (code, _) in codes.iter().filter(|(code, _)| ![OK, FAILED].contains(code)) {
                let row = docs
                    .lines()
                    .find(|line| line.starts_with(&format!("| {code} |")))
                    .expect("a row");
                assert!(row.contains(&format!("{name}`")), "{name} is not in: {row}");
            }
        }
    }

    #[test]
    fn a_mistyped_command_is_told_the_right_one() {
        for (typed, meant) in [
            ("chekc", "check"),
            ("relaod", "reload"),
            ("topp", "top"),
            ("helthcheck", "healthcheck"),
        ] {
            let error = explained(Cli::command())
                .try_get_matches_from(["gateway", typed])
                .unwrap_err();
            assert!(error.to_string().contains(&format!("'{meant}'")), "{error}");
        }
    }
}
