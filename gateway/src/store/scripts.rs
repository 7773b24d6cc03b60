//! The scripts that the store executes, their arguments and their replies.
//!
//! A script knows only floating-point numbers, which are exact up to 2^53. So times are microseconds where they are
//! counted from the epoch, names of replicas are text, and amounts are cut to that.

use std::sync::LazyLock;
use std::time::Duration;

use aws_lc_rs::digest;
use policies::lease::CentralWindow;
use policies::lease::{Reply, SlotReply};
use redis::{Cmd, Value};

use super::command::{Answer, Ask, CentralTerms, Command, MOST_EXACT, every};
use super::trouble::Trouble;

/// Makes the text of a script of its parts.
macro_rules! text {
    ($clock:literal, $($part:literal),+) => {
        concat!(include_str!(concat!("scripts/", $clock)), "\n", $(include_str!(concat!("scripts/", $part)), "\n"),+)
    };
}

/// The scripts of the counts, by the source of their time.
macro_rules! counts {
    ($clock:literal) => {
        [
            text!($clock, "state.lua", "bucket.lua", "tokens.lua"),
            text!($clock, "state.lua", "window.lua", "tokens.lua"),
            text!($clock, "state.lua", "calendar.lua", "tokens.lua"),
            text!($clock, "state.lua", "slots.lua"),
        ]
    };
}

/// Script: of one kind of count, or of what replicas tell each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Script {
    Bucket,
    Window,
    Calendar,
    Slots,
    Announce,
    Changes,
    Presence,
}

impl Script {
    pub(super) const ALL: [Script; 7] = [
        Script::Bucket,
        Script::Window,
        Script::Calendar,
        Script::Slots,
        Script::Announce,
        Script::Changes,
        Script::Presence,
    ];

    const TEXTS: [&str; 7] = {
        let [bucket, window, calendar, slots] = counts!("time.lua");
        [
            bucket,
            window,
            calendar,
            slots,
            text!("time.lua", "announce.lua"),
            include_str!("scripts/changes.lua"),
            text!("time.lua", "presence.lua"),
        ]
    };

    /// The scripts of the counts, except that they read the time from one more argument.
    #[cfg(test)]
    pub(super) const TEXTS_OF_TESTS: [&str; 4] = counts!("time_of_tests.lua");

    pub(super) const fn of(terms: &CentralTerms) -> Script {
        match terms {
            CentralTerms::Bucket(_) => Script::Bucket,
            CentralTerms::Window(_) => Script::Window,
            CentralTerms::Calendar(_) => Script::Calendar,
            CentralTerms::Slots(_) => Script::Slots,
        }
    }

    pub(super) const fn text(self) -> &'static str {
        Script::TEXTS[self as usize]
    }

    /// Returns the name by which the store knows the script: the SHA-1 of its text.
    pub(super) fn name(self) -> &'static str {
        static NAMES: LazyLock<[String; 7]> = LazyLock::new(|| Script::TEXTS.map(name));
        &NAMES[self as usize]
    }

    pub(super) fn load(self) -> Cmd {
        let mut load = redis::cmd("SCRIPT");
        load.arg("LOAD").arg(self.text());
        load
    }
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

    pub(super) fn new(prefix: &str, lease_time: Duration, heartbeat: Duration) -> Common {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(MOST_EXACT);
        Common {
            prefix: prefix.into(),
            lease_time: micros(lease_time).clamp(1_000, MOST_EXACT / 4_000),
            heartbeat: micros(heartbeat).clamp(1_000, MOST_EXACT / 4_000),
            is_cluster: false,
        }
    }

    /// Returns the key of the name of the store's memory, where it is not one for each tag.
    pub(super) fn epoch(&self) -> String {
        format!("{}epoch", self.prefix)
    }

    /// Returns the call of a script; `None` if the terms do not fit the request or cannot be counted exactly.
    pub(super) fn call(&self, command: &Command) -> Option<Cmd> {
        if !command.terms.are_exact() {
            return None;
        }
        let mut call = redis::cmd("EVALSHA");
        call.arg(Script::of(&command.terms).name()).arg(2);
        self.arguments(&mut call, command)?;
        Some(call)
    }

    pub(super) fn arguments(&self, call: &mut Cmd, command: &Command) -> Option<()> {
        call.arg(command.key.full(&self.prefix, &command.terms));
        if self.is_cluster {
            call.arg(format!("{}{}epoch", self.prefix, command.key.tag()));
            call.arg(Common::EPOCH);
        } else {
            call.arg(self.epoch()).arg(0);
        }
        match (&command.ask, &command.terms) {
            (Ask::Slots(request), CentralTerms::Slots(cap)) => {
                call.arg(self.heartbeat)
                    .arg(request.replica)
                    .arg(exact(request.sequence));
                call.arg(request.wanted).arg(*cap);
            }
            (Ask::Slots(_), _) | (Ask::Tokens(_), CentralTerms::Slots(_)) => return None,
            (Ask::Tokens(request), terms) => {
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
                match terms {
                    CentralTerms::Bucket(quota) => {
                        let interval = quota.time_to_earn(1).as_nanos();
                        call.arg(u64::try_from(interval).ok()?).arg(quota.burst());
                    }
                    CentralTerms::Window(quota) => {
                        let (window, cells) = (quota.window(), CentralWindow::CELLS);
                        call.arg(quota.limit()).arg(u64::try_from(window.as_nanos()).ok()?);
                        call.arg(u64::try_from((window / cells).as_nanos()).ok()?);
                    }
                    CentralTerms::Calendar(quota) => {
                        call.arg(quota.limit()).arg(every(quota.every()));
                    }
                    CentralTerms::Slots(_) => return None,
                }
                call.arg(exact(request.most));
            }
        }
        Some(())
    }
}

/// Cuts an amount to what is exact. More than that is never left, so it means the same.
fn exact(amount: u64) -> u64 {
    amount.min(MOST_EXACT)
}

/// Reads the reply of a script to what was asked.
pub(super) fn answer(ask: &Ask, value: &Value) -> Result<Answer, Trouble> {
    let answer = match (ask, value) {
        (Ask::Tokens(_), Value::Nil) => Some(Answer::Tokens(None)),
        (Ask::Slots(_), Value::Nil) => Some(Answer::Slots(None)),
        (Ask::Tokens(_), Value::Array(values)) => reply(values).map(|reply| Answer::Tokens(Some(reply))),
        (Ask::Slots(_), Value::Array(values)) => slot_reply(values).map(|reply| Answer::Slots(Some(reply))),
        _ => None,
    };
    answer.ok_or(Trouble::Unexpected)
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
