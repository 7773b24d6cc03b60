//! Keeps the records of idempotency keys in the store, by one script that decides as the room `idempotency` does in
//! memory.
//!
//! Records lie in [`SHARDS`] groups by their tenant, each under one hash tag, so that a cluster spreads them and a script
//! finds all keys of a group on one node.

use std::time::Duration;

use bytes::Bytes;
use redis::{Cmd, Value};

use super::Store;
use super::scripts::{Script, whole};
use super::trouble::Trouble;

/// Number of groups of records.
pub const SHARDS: u8 = 16;

/// A call to the records of one tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyCall<'a> {
    /// Group of the tenant, below [`SHARDS`].
    pub shard: u8,
    /// Name of the tenant among keys: hexadecimal digits.
    pub tenant: &'a str,
    /// Name of the record: hexadecimal digits, as many for each record.
    pub record: &'a str,
    pub what: KeyAsk<'a>,
}

/// What is asked of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyAsk<'a> {
    /// Decides on a request, and records it as running if the key is new.
    Begin {
        terms: KeyTerms<'a>,
        /// Time for which it counts as running.
        lease: Duration,
    },
    /// Records how a request ended. `answer` is that of an `answered` one.
    Finish {
        terms: KeyTerms<'a>,
        ending: &'static str,
        status: u16,
        answer: &'a [u8],
    },
    /// Frees the key of a request that has sent nothing.
    Release {
        token: u64,
    },
    /// Frees a key by the word of an operator.
    Free,
    Find,
    /// Lists at most so many records of the group that are not answered.
    List {
        most: usize,
    },
}

/// Terms of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyTerms<'a> {
    pub token: u64,
    pub fingerprint: &'a [u8],
    pub keep_for: Duration,
    /// Size of the record in bytes, without its answer.
    pub size: u64,
    /// Most bytes of the tenant.
    pub most: u64,
    pub forgets: bool,
    /// What an operator reads of it.
    pub subject: &'a str,
}

/// Answer of the script: a word, and what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyReply {
    pub word: Box<str>,
    pub bytes: Bytes,
    /// Milliseconds.
    pub time: u64,
    pub status: u16,
}

/// A record of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedKey {
    pub record: Box<str>,
    pub state: Box<str>,
    pub kept_for: Duration,
    pub subject: Box<str>,
}

impl Store {
    /// Executes one call. Ends within the call limit, and at once while the store is down.
    ///
    /// # Errors
    /// The trouble of the store. After [`Trouble::Timeout`] and [`Trouble::Closed`] the call may have been executed.
    pub async fn ask_key(&self, call: &KeyCall<'_>) -> Result<KeyReply, Trouble> {
        let value = self.call_script(self.command(call)).await?;
        reply(&value).ok_or(Trouble::Unexpected)
    }

    /// Lists records of one group that are not answered.
    ///
    /// # Errors
    /// The trouble of the store.
    pub async fn list_keys(&self, shard: u8, most: usize) -> Result<Vec<ListedKey>, Trouble> {
        let call = KeyCall {
            shard,
            tenant: "",
            record: NO_RECORD,
            what: KeyAsk::List { most },
        };
        match self.call_script(self.command(&call)).await? {
            Value::Array(listed) => Ok(listed.iter().filter_map(listed_key).collect()),
            _ => Err(Trouble::Unexpected),
        }
    }

    async fn call_script(&self, command: Cmd) -> Result<Value, Trouble> {
        let mut pipeline = redis::Pipeline::new();
        pipeline.add_command(command);
        let replies = Box::pin(self.keeper.call_in_turn(&pipeline)).await?;
        match replies.values().first() {
            Some(Value::ServerError(error)) => Err(Trouble::of_code(error.code())),
            Some(value) => Ok(value.clone()),
            None => Err(Trouble::Unexpected),
        }
    }

    fn command(&self, call: &KeyCall<'_>) -> Cmd {
        let KeyCall {
            shard,
            tenant,
            record,
            what,
        } = call;
        let group = format!("{}i:{{idempotency{shard}}}:", self.keeper.common.prefix);
        let mut command = redis::cmd("EVALSHA");
        command.arg(Script::Idempotency.name()).arg(4);
        command.arg(format!("{group}r:{record}"));
        command
            .arg(format!("{group}e:{tenant}"))
            .arg(format!("{group}s:{tenant}"));
        command.arg(format!("{group}open"));
        let millis = |time: &Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        match what {
            KeyAsk::Begin { terms, lease } => {
                command.arg("begin").arg(record).arg(terms.token).arg(terms.fingerprint);
                command.arg(millis(lease) * 1_000).arg(millis(&terms.keep_for));
                command
                    .arg(terms.size)
                    .arg(terms.most)
                    .arg(u8::from(terms.forgets))
                    .arg(terms.subject);
            }
            KeyAsk::Finish {
                terms,
                ending,
                status,
                answer,
            } => {
                command
                    .arg("finish")
                    .arg(record)
                    .arg(terms.token)
                    .arg(terms.fingerprint);
                command.arg(*ending).arg(millis(&terms.keep_for));
                command
                    .arg(terms.size)
                    .arg(answer.len())
                    .arg(terms.most)
                    .arg(u8::from(terms.forgets));
                command.arg(terms.subject).arg(*status).arg(*answer);
            }
            KeyAsk::Release { token } => {
                command.arg("release").arg(record).arg(*token);
            }
            KeyAsk::Free => {
                command.arg("free").arg(record);
            }
            KeyAsk::Find => {
                command.arg("find").arg(record);
            }
            KeyAsk::List { most } => {
                command.arg("list").arg(record).arg(*most);
            }
        }
        command
    }
}

/// Stands for the record in a call that is about none; as long as a name.
const NO_RECORD: &str = "0000000000000000000000000000000000000000000000000000000000000000";

fn reply(value: &Value) -> Option<KeyReply> {
    let Value::Array(parts) = value else { return None };
    let mut reply = KeyReply {
        word: text(parts.first()?)?.into(),
        bytes: Bytes::new(),
        time: 0,
        status: 0,
    };
    for part in &parts[1..] {
        match part {
            // An answer, a status or a subject: which one follows from the word.
            Value::BulkString(bytes) => {
                reply.bytes = Bytes::copy_from_slice(bytes);
                reply.status = text(part).and_then(|digits| digits.parse().ok()).unwrap_or_default();
            }
            Value::Int(_) => reply.time = whole(part).unwrap_or_default(),
            _ => {}
        }
    }
    Some(reply)
}

fn listed_key(value: &Value) -> Option<ListedKey> {
    let Value::Array(parts) = value else { return None };
    let [record, state, kept_for, subject] = &**parts else {
        return None;
    };
    Some(ListedKey {
        record: text(record)?.into(),
        state: text(state)?.into(),
        kept_for: Duration::from_millis(whole(kept_for).unwrap_or_default()),
        subject: text(subject)?.into(),
    })
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}
