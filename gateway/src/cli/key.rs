//! `gateway key`: makes API keys, and digests of keys that were made elsewhere.
//!
//! Invariant: a key is written once, to standard output, and is read from standard input. It is never an argument,
//! because every user of the machine can read arguments. Its line for the key file goes to standard error, or into the
//! file that `--into` names.

mod key_file;
mod live;

use std::io::{self, IsTerminal, Read, Write, stderr, stdin, stdout};
use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;

use super::admin_client::AdminOption;
use super::{FAILED, OK};
use crate::auth::api_key::format::{self, Shape};
use crate::auth::api_key::keys::{digest_of, digest_text};
use crate::auth::caller::is_tenant_name;
use crate::clock;
use crate::config::keys::Timestamp;
use crate::config::written;
use crate::observe::timestamp;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Make a key: it is written to standard output, its line into the key file, or to standard error.
    New(New),
    /// Read a key from standard input and write its digest, as the key file takes it.
    Hash,
    /// List the keys of a running gateway.
    List(live::List),
    /// Change what a running gateway's key file says of a key.
    Set(live::Set),
    /// Refuse a key, from the next request on.
    Disable(live::Change),
    /// Accept a key again.
    Enable(live::Change),
    /// Take a key out of a running gateway's key file.
    Delete(live::Change),
}

#[derive(clap::Args)]
pub(super) struct New {
    /// Let a running gateway make the key and add it to its key file: the key works on the next request.
    #[arg(long, conflicts_with = "into")]
    live: bool,
    #[command(flatten)]
    admin: AdminOption,
    /// Key file that the line is added to. A new one is created with mode 0600. Left out, the line goes to standard
    /// error.
    #[arg(long, value_name = "FILE")]
    into: Option<PathBuf>,
    /// Tenant of the key.
    #[arg(long, value_parser = tenant)]
    tenant: String,
    /// Tier of the key's requests, unless the tenants table names one; default: the default tier.
    #[arg(long)]
    tier: Option<String>,
    /// Scopes of the key, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "SCOPE")]
    scopes: Vec<String>,
    /// Description for people; it has no effect.
    #[arg(long)]
    label: Option<String>,
    /// Start of validity: a day, an instant in UTC, or a time from now such as `2h`.
    #[arg(long, value_name = "WHEN", value_parser = when)]
    not_before: Option<u64>,
    /// End of validity: a day, an instant in UTC, or a time from now such as `90d`.
    #[arg(long, value_name = "WHEN", value_parser = when)]
    expires: Option<u64>,
    /// Name of the key in logs: letters, digits and hyphens; default: the tenant with a random ending.
    #[arg(long, value_parser = id)]
    id: Option<String>,
}

/// Largest input, in bytes. A longer key would not fit into the head of a request.
const MAX_KEY: u64 = 64 * 1024;

pub(super) fn key(command: &Command) -> u8 {
    let done = match command {
        Command::New(options) => new(options),
        Command::Hash => hash(),
        Command::List(options) => live::list(options),
        Command::Set(options) => live::set(options),
        Command::Disable(change) => live::disable(change),
        Command::Enable(change) => live::enable(change),
        Command::Delete(change) => live::delete(change),
    };
    match done {
        Ok(()) => OK,
        Err(why) => {
            let _ = writeln!(stderr(), "gateway: {why}");
            FAILED
        }
    }
}

fn new(options: &New) -> Result<(), String> {
    if let (Some(start), Some(end)) = (options.not_before, options.expires)
        && start >= end
    {
        return Err("the key would end before it begins: --expires must be later than --not-before".to_owned());
    }
    if options.live {
        return live::new(&options.admin, options);
    }
    let no_randomness = |_| "the system has no randomness to make a key of".to_owned();
    let id = match &options.id {
        Some(id) => id.clone(),
        None => format::make_id(&options.tenant).map_err(no_randomness)?,
    };
    let key = format::issue(&id).map_err(no_randomness)?;
    let said = format!(
        "  # Made {}. The key itself is on standard output, now and never again.\n{}\n",
        timestamp::Timestamp(clock::unix_time()).whole_seconds(),
        line(options, &id, &key)
    );
    // The line comes first: a key without a line is of no use, and a line without a key is noticed.
    match &options.into {
        Some(file) => key_file::add(file, &said).map_err(|why| format!("{}: {why}", file.display()))?,
        None => stderr().write_all(said.as_bytes()).map_err(|error| error.to_string())?,
    }
    write_out(&key)
}

/// Returns the entry for a key file, to be put below `keys:`.
fn line(options: &New, id: &str, key: &str) -> String {
    let mut fields = vec![format!("id: {id}"), format!("tenant: {}", written(&options.tenant))];
    if let Some(tier) = &options.tier {
        fields.push(format!("tier: {}", written(tier)));
    }
    if !options.scopes.is_empty() {
        let scopes: Vec<_> = options.scopes.iter().map(|scope| written(scope)).collect();
        fields.push(format!("scopes: [{}]", scopes.join(", ")));
    }
    if let Some(label) = &options.label {
        fields.push(format!("label: {}", written(label)));
    }
    for (name, at) in [("not_before", options.not_before), ("expires", options.expires)] {
        if let Some(at) = at {
            let at = timestamp::Timestamp(Duration::from_secs(at)).whole_seconds();
            fields.push(format!("{name}: {at}"));
        }
    }
    fields.push(format!("digest: \"{}\"", digest_text(&digest_of(key.as_bytes()))));
    format!("  - {{ {} }}", fields.join(", "))
}

fn hash() -> Result<(), String> {
    if stdin().is_terminal() {
        let _ = writeln!(stderr(), "Paste the key, then press return and Ctrl-D.");
    }
    let mut text = Vec::new();
    stdin()
        .take(MAX_KEY + 1)
        .read_to_end(&mut text)
        .map_err(|error| format!("the key cannot be read: {error}"))?;
    write_out(&digest_text(&digest_of(presentable(&text)?)))
}

/// Returns the key in the text, without the line end that editors and shells add.
fn presentable(text: &[u8]) -> Result<&[u8], String> {
    let key = text.strip_suffix(b"\n").unwrap_or(text);
    let key = key.strip_suffix(b"\r").unwrap_or(key);
    let why = if key.is_empty() {
        "there is no key on standard input"
    } else if key.len() as u64 > MAX_KEY {
        "a key of more than 64 KiB could not be sent in a header"
    } else if !key.iter().all(u8::is_ascii_graphic) {
        "a key is one line of visible ASCII without spaces: anything else would not arrive as it was sent"
    } else if format::shape(key) == Shape::Damaged {
        "the key begins with `gw_` and its checksum does not fit: it was mistyped or cut off"
    } else {
        return Ok(key);
    };
    Err(why.to_owned())
}

fn write_out(line: &str) -> Result<(), String> {
    writeln!(stdout(), "{line}").map_err(|error: io::Error| format!("standard output: {error}"))
}

fn tenant(text: &str) -> Result<String, String> {
    if is_tenant_name(text) {
        Ok(text.to_owned())
    } else {
        Err("use 1 to 128 characters, no control characters, and not `anonymous`".to_owned())
    }
}

fn id(text: &str) -> Result<String, String> {
    if format::is_id(text) {
        Ok(text.to_owned())
    } else {
        Err(format!("use 1 to {} letters, digits and hyphens", format::MAX_ID))
    }
}

/// Parses a time, as seconds since 1970.
fn when(text: &str) -> Result<u64, &'static str> {
    Timestamp::read_from(text, clock::unix_seconds()).map(|at| at.0)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::config::Sources;
    use crate::config::keys;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        new: New,
    }

    fn typed(arguments: &[&str]) -> New {
        Typed::parse_from(["new"].iter().chain(arguments)).new
    }

    fn read_back(line: &str) -> keys::ApiKey {
        let mut sources = Sources::default();
        let text = format!("keys:\n{line}\n");
        let mut file = keys::parse("keys.yaml", &text, &mut sources, &|_| None)
            .unwrap_or_else(|mistakes| panic!("{}", sources.render(&mistakes, false)));
        assert_eq!(file.keys.len(), 1, "{text}");
        file.keys.remove(0)
    }

    #[test]
    fn the_line_is_what_the_key_file_takes() {
        let options = typed(&[
            "--tenant=acme/eu",
            "--tier=premium",
            "--scopes=users.read,a:b",
            "--label=acme, \"production\" # not a comment",
            "--not-before=2026-01-01",
            "--expires=2027-01-31T12:00:00Z",
        ]);
        let read = read_back(&line(&options, "acme-1", "gw_x"));
        assert_eq!(read.id.as_str(), "acme-1");
        assert_eq!(read.tenant.as_str(), "acme/eu");
        assert_eq!(read.tier.unwrap().as_str(), "premium");
        let scopes: Vec<_> = read.scopes.iter().map(|scope| scope.as_str()).collect();
        assert_eq!(scopes, ["users.read", "a:b"]);
        assert_eq!(read.label.unwrap().as_str(), "acme, \"production\" # not a comment");
        assert_eq!(read.not_before.unwrap().0, 1_767_225_600);
        assert_eq!(read.expires.unwrap().0, 1_801_396_800);
        assert_eq!(read.digest.0, digest_of(b"gw_x"));
    }

    #[test]
    fn names_that_yaml_would_read_differently_are_quoted() {
        for name in [
            "true",
            "null",
            "007",
            "1e3",
            "a: b",
            "~",
            "off",
            "[a]",
            "x",
            "acme-1_b.c",
            "\u{1}",
        ] {
            let options = typed(&["--tenant=acme", &format!("--label={name}")]);
            let read = read_back(&line(&options, "a", "k"));
            assert_eq!(read.label.unwrap().as_str(), name);
        }
    }

    #[test]
    fn an_id_is_made_of_the_tenant() {
        for tenant in ["acme", "acme/eu_1", &"x".repeat(128), "\""] {
            let id = format::make_id(tenant).unwrap();
            assert!(format::is_id(&id), "{id}");
        }
        assert!(format::make_id("acme").unwrap().starts_with("acme-"));
        assert_ne!(format::make_id("acme").unwrap(), format::make_id("acme").unwrap());
    }

    #[test]
    fn only_what_arrives_as_it_is_sent_is_hashed() {
        let whole = format::issue("a").unwrap();
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(
                presentable(text.as_bytes()).ok(),
                expected.map(str::as_bytes),
                "{text:?}"
            );
        };
        check("secret", Some("secret"));
        check("secret\n", Some("secret"));
        check("secret\r\n", Some("secret"));
        check(&format!("{whole}\n"), Some(&whole));
        check("", None);
        check("\n", None);
        check("two words", None);
        check("two\nlines\n", None);
        check("caf\u{e9}", None);
        check(&whole[..whole.len() - 1], None);
        check(&"x".repeat(70_000), None);
    }

    #[test]
    fn times_are_days_instants_or_from_now() {
        assert_eq!(when("2027-01-31"), Ok(1_801_353_600));
        assert_eq!(when("2027-01-31T12:00:00Z"), Ok(1_801_396_800));
        let ninety_days = 90 * 24 * 3600;
        let in_ninety_days = clock::unix_seconds() + ninety_days;
        assert!((in_ninety_days - 1..=in_ninety_days + 1).contains(&when("90d").unwrap()));
        assert!(when("tomorrow").is_err() && when("2027-02-30").is_err() && when("").is_err());
    }
}
