//! The scripts that the store executes, their arguments and their replies.
//!
//! A script knows only floating-point numbers, which are exact up to 2^53. So times are microseconds where they are
//! counted from the epoch, names of replicas are text, and amounts are cut to that.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use aws_lc_rs::digest;
use policies::lease::CentralWindow;
use policies::lease::{Reply, SlotReply, UsedReply};
use redis::{Arg, Cmd, Value};

use super::command::{Answer, Ask, CentralTerms, Command, MOST_EXACT, every};
use super::spread::{self, SpreadKeys};
use super::trouble::Trouble;

/// Makes the text of a script of its parts.
macro_rules! text {
    ($($part:literal),+) => {
        concat!($(include_str!(concat!("scripts/", $part)), "\n"),+)
    };
}

/// The script of the counts, by the source of its time: a function for each kind.
macro_rules! counts {
    ($clock:literal) => {
        concat!(
            text!($clock, "memory.lua"),
            "local kinds = {}\nfunction kinds.bucket(KEYS, ARGV)\n",
            text!("state.lua", "bucket.lua", "tokens.lua"),
            "end\nfunction kinds.window(KEYS, ARGV)\n",
            text!("state.lua", "window.lua", "tokens.lua"),
            "end\nfunction kinds.calendar(KEYS, ARGV)\n",
            text!("state.lua", "calendar.lua", "tokens.lua"),
            "end\nfunction kinds.set(KEYS, ARGV)\n",
            text!("state.lua", "calendar.lua", "set.lua"),
            "end\nfunction kinds.slots(KEYS, ARGV)\n",
            text!("state.lua", "slots.lua"),
            "end\n",
            text!("all.lua"),
        )
    };
}

/// Script: of the counts, of what replicas tell each other, or of idempotency keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Script {
    Counts,
    Announce,
    Changes,
    Presence,
    Replicas,
    Idempotency,
}

impl Script {
    pub(super) const ALL: [Script; 6] = [
        Script::Counts,
        Script::Announce,
        Script::Changes,
        Script::Presence,
        Script::Replicas,
        Script::Idempotency,
    ];

    const TEXTS: [&str; 6] = [
        counts!("time.lua"),
        text!("time.lua", "announce.lua"),
        text!("changes.lua"),
        text!("time.lua", "presence.lua"),
        text!("time.lua", "replicas.lua"),
        text!("time.lua", "idempotency.lua"),
    ];

    /// The script of the counts, except that it reads the time from one more argument.
    #[cfg(test)]
    pub(super) const TEXT_OF_TESTS: &str = counts!("time_of_tests.lua");

    pub(super) const fn text(self) -> &'static str {
        Script::TEXTS[self as usize]
    }

    /// Returns the name by which the store knows the script: the SHA-1 of its text.
    pub(super) fn name(self) -> &'static str {
        static NAMES: LazyLock<[String; 6]> = LazyLock::new(|| Script::TEXTS.map(name));
        &NAMES[self as usize]
    }

    pub(super) fn load(self) -> Cmd {
        let mut load = redis::cmd("SCRIPT");
        load.arg("LOAD").arg(self.text());
        load
    }
}

/// Returns the call of a script with its text in place of its name; `None` if it calls none.
pub(super) fn in_full(call: &Cmd) -> Option<Cmd> {
    let mut arguments = call.args_iter().filter_map(|argument| match argument {
        Arg::Simple(bytes) => Some(bytes),
        _ => None,
    });
    if arguments.next()? != b"EVALSHA" {
        return None;
    }
    let name = arguments.next()?;
    let script = Script::ALL
        .into_iter()
        .find(|script| script.name().as_bytes() == name)?;
    let mut in_full = redis::cmd("EVAL");
    in_full.arg(script.text());
    for argument in arguments {
        in_full.arg(argument);
    }
    Some(in_full)
}

fn name(text: &str) -> String {
    let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What all commands of one store have in common.
#[derive(Clone, Debug)]
pub(super) struct Common {
    pub(super) prefix: Box<str>,
    /// Microseconds.
    pub(super) lease_time: u64,
    pub(super) heartbeat: u64,
    /// Whether keys lie on several nodes, by their tags.
    pub(super) is_cluster: bool,
}

impl Common {
    /// Seconds for which the nodes of a cluster keep the names of their memory. There is one for each tag, so they must
    /// not stay for ever.
    const EPOCH: u64 = 30 * 86_400;

    pub(super) fn new(prefix: &str, lease_time: Duration, heartbeat: Duration, is_cluster: bool) -> Common {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(MOST_EXACT);
        Common {
            prefix: prefix.into(),
            lease_time: micros(lease_time).clamp(1_000, MOST_EXACT / 4_000),
            heartbeat: micros(heartbeat).clamp(1_000, MOST_EXACT / 4_000),
            is_cluster,
        }
    }

    /// Returns the key of the name of the store's memory; in a cluster of that of the node with the notices.
    pub(super) fn epoch(&self) -> String {
        let tag = if self.is_cluster { spread::TAG } else { "" };
        format!("{}{tag}epoch", self.prefix)
    }

    /// Returns the calls that execute these commands, each with the places of its commands: one call for each owner.
    /// Commands that do not fit their terms, or that cannot be counted exactly, are in none.
    pub(super) fn calls(&self, keys: &SpreadKeys, commands: &[Command]) -> Vec<(Cmd, Vec<usize>)> {
        let mut by_owner: HashMap<&str, usize> = HashMap::new();
        let mut groups: Vec<Vec<usize>> = Vec::with_capacity(commands.len());
        let known = commands.iter().enumerate().filter(|(_, command)| command.fits());
        for (place, command) in known {
            let next = groups.len();
            match *by_owner.entry(command.key.owner()).or_insert(next) {
                group if group == next => groups.push(vec![place]),
                group => groups[group].push(place),
            }
        }
        let call = |places: Vec<usize>| {
            let mut call = redis::cmd("EVALSHA");
            call.arg(Script::Counts.name());
            self.arguments(&mut call, keys, places.iter().map(|place| &commands[*place]));
            (call, places)
        };
        groups.into_iter().map(call).collect()
    }

    /// Adds the keys and arguments of commands of one owner, of which there must be one.
    pub(super) fn arguments<'a>(
        &self,
        call: &mut Cmd,
        keys: &SpreadKeys,
        commands: impl ExactSizeIterator<Item = &'a Command> + Clone,
    ) {
        let tag = commands.clone().next().map_or("", |command| command.key.owner());
        if self.is_cluster {
            // The version of the notices is on another node.
            call.arg(1 + commands.len()).arg(format!("{}{tag}epoch", self.prefix));
        } else {
            call.arg(2 + commands.len()).arg(self.epoch()).arg(&keys.version);
        }
        for command in commands.clone() {
            call.arg(command.key.full(&self.prefix, &command.terms));
        }
        let (kept, before) = if self.is_cluster { (Common::EPOCH, 1) } else { (0, 2) };
        call.arg(kept).arg(before);
        for command in commands {
            self.count(call, command);
        }
    }

    /// Adds the kind and arguments of one count.
    fn count(&self, call: &mut Cmd, Command { terms, ask, .. }: &Command) {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(MOST_EXACT);
        let of_terms = match terms {
            CentralTerms::Slots(_) => 1,
            CentralTerms::Bucket(_) | CentralTerms::Calendar(_) => 2,
            CentralTerms::Window(_) => 3,
        };
        match ask {
            Ask::Slots(request) => {
                call.arg("slots").arg(4 + of_terms).arg(self.heartbeat);
                call.arg(request.replica)
                    .arg(exact(request.sequence))
                    .arg(request.wanted);
            }
            Ask::SetUsed(used) => {
                call.arg("set").arg(3 + of_terms);
                call.arg(self.lease_time).arg(exact(*used));
            }
            Ask::Tokens(request) => {
                let kind = match terms {
                    CentralTerms::Bucket(_) => "bucket",
                    CentralTerms::Window(_) => "window",
                    CentralTerms::Calendar(_) => "calendar",
                    CentralTerms::Slots(_) => "slots",
                };
                call.arg(kind).arg(10 + of_terms);
                call.arg(self.lease_time).arg(request.replica);
                let amounts = [
                    request.sequence,
                    request.held,
                    request.returned,
                    request.charged,
                    request.needed,
                    request.waiting,
                    request.wanted,
                ];
                for amount in amounts {
                    call.arg(exact(amount));
                }
            }
        }
        match terms {
            CentralTerms::Bucket(quota) => {
                call.arg(nanos(quota.time_to_earn(1))).arg(quota.burst());
            }
            CentralTerms::Window(quota) => {
                let (window, cell) = (quota.window(), quota.window() / CentralWindow::CELLS);
                call.arg(quota.limit()).arg(nanos(window)).arg(nanos(cell));
            }
            CentralTerms::Calendar(quota) => {
                call.arg(quota.limit()).arg(every(quota.every()));
            }
            CentralTerms::Slots(cap) => {
                call.arg(*cap);
            }
        }
        match ask {
            Ask::Tokens(request) => call.arg(exact(request.most)),
            Ask::SetUsed(_) => call.arg(0),
            Ask::Slots(_) => call,
        };
    }
}

/// Reply of the script of the counts.
pub(super) struct CountReplies<'a> {
    pub(super) memory: Memory,
    /// Reply of each count, which may be an error.
    pub(super) counts: &'a [Value],
}

/// What the store remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Memory {
    /// Name of the memory.
    pub(super) epoch: u64,
    /// Last version of the notices; `None` if the node does not know it.
    pub(super) version: Option<u64>,
}

/// Reads the reply to a call of so many commands.
pub(super) fn replies(value: &Value, commands: usize) -> Result<CountReplies<'_>, Trouble> {
    let read = match value {
        Value::ServerError(error) => return Err(Trouble::of_code(error.code())),
        Value::Array(values) => match &**values {
            [epoch, version, counts @ ..] if counts.len() == commands => {
                let version = read_epoch(version);
                let memory = read_epoch(epoch).map(|epoch| Memory { epoch, version });
                memory.map(|memory| CountReplies { memory, counts })
            }
            _ => None,
        },
        _ => None,
    };
    read.ok_or(Trouble::Unexpected)
}

/// Cuts an amount to what is exact. More than that is never left, so it means the same.
fn exact(amount: u64) -> u64 {
    amount.min(MOST_EXACT)
}

/// Reads the reply of one count to what was asked.
pub(super) fn answer(ask: &Ask, value: &Value) -> Result<Answer, Trouble> {
    let answer = match (ask, value) {
        (_, Value::ServerError(error)) => return Err(Trouble::of_code(error.code())),
        (Ask::Tokens(_), Value::Nil) => Some(Answer::Tokens(None)),
        (Ask::Slots(_), Value::Nil) => Some(Answer::Slots(None)),
        (Ask::Tokens(_), Value::Array(values)) => reply(values).map(|reply| Answer::Tokens(Some(reply))),
        (Ask::Slots(_), Value::Array(values)) => slot_reply(values).map(|reply| Answer::Slots(Some(reply))),
        (Ask::SetUsed(_), Value::Array(values)) => used_reply(values).map(Answer::Used),
        _ => None,
    };
    answer.ok_or(Trouble::Unexpected)
}

fn used_reply(values: &[Value]) -> Option<UsedReply> {
    let [was, on_lease, left] = values else { return None };
    Some(UsedReply {
        was: whole(was)?,
        on_lease: whole(on_lease)?,
        left: whole(left)?,
    })
}

fn reply(values: &[Value]) -> Option<Reply> {
    let [sequence, granted, usable_for, left, next, replicas, epoch, known] = values else {
        return None;
    };
    Some(Reply {
        sequence: whole(sequence)?,
        granted: whole(granted)?,
        usable_for: Duration::from_nanos(whole(usable_for)?),
        left: whole(left)?,
        next: match next {
            Value::Int(-1) => None,
            next => Some(Duration::from_nanos(whole(next)?)),
        },
        replicas: u32::try_from(whole(replicas)?).ok()?,
        epoch: read_epoch(epoch)?,
        known: whole(known)? == 1,
    })
}

fn slot_reply(values: &[Value]) -> Option<SlotReply> {
    let [sequence, granted] = values else { return None };
    Some(SlotReply {
        sequence: whole(sequence)?,
        granted: u32::try_from(whole(granted)?).ok()?,
    })
}

/// Reads a number without sign.
pub(super) fn whole(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    }
}

/// Reads the name of the store's memory.
pub(super) fn read_epoch(value: &Value) -> Option<u64> {
    match value {
        Value::BulkString(digits) => str::from_utf8(digits).ok()?.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
