//! Requests that wait for the store.
//!
//! Invariant: a grant belongs to one request. If the request is gone before it has seen the grant, the account takes the
//! tokens back.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use policies::lease::Waiting;
use tokio::sync::oneshot;

use super::Renewed;
use crate::clock::Now;

/// Largest number of requests that wait for one account.
const MOST: usize = 10_000;

/// What a request that waited is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Granted,
    /// Refused; an owner without other requests is admitted after this time.
    Refused(Duration),
    /// The store does not answer.
    Trouble,
}

/// Place of one request among those that wait.
#[must_use = "a grant that nobody sees is taken back"]
pub struct Ticket {
    verdict: oneshot::Receiver<Verdict>,
    account: Arc<dyn Renewed>,
    tokens: u64,
    /// Longest time that the request waits.
    pub(in crate::limits) call_limit: Duration,
    is_seen: bool,
}

/// Requests that wait for one account, in the order of their coming.
#[derive(Debug, Default)]
pub(super) struct Line(VecDeque<(u64, oneshot::Sender<Verdict>)>);

impl Line {
    /// Adds a request; `None` if too many wait.
    pub(super) fn join(&mut self, account: Arc<dyn Renewed>, tokens: u64, call_limit: Duration) -> Option<Ticket> {
        if self.0.len() >= MOST {
            return None;
        }
        let (sender, verdict) = oneshot::channel();
        self.0.push_back((tokens, sender));
        Some(Ticket {
            verdict,
            account,
            tokens,
            call_limit,
            is_seen: false,
        })
    }

    /// Removes those who have left, and returns what the others wait for.
    pub(super) fn waiting(&mut self) -> Waiting {
        self.0.retain(|(_, sender)| !sender.is_closed());
        self.0.iter().fold(Waiting::NONE, |all, (tokens, _)| all.and(*tokens))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Tells each what `decide` says of its tokens; `None` leaves it in the line. `undo` gets the tokens of those who
    /// were granted some and have left.
    pub(super) fn tell(&mut self, mut decide: impl FnMut(u64) -> Option<Verdict>, mut undo: impl FnMut(u64)) {
        for _ in 0..self.0.len() {
            let Some((tokens, sender)) = self.0.pop_front() else {
                return;
            };
            if sender.is_closed() {
                continue;
            }
            match decide(tokens) {
                None => self.0.push_back((tokens, sender)),
                Some(verdict) => {
                    if sender.send(verdict).is_err() && verdict == Verdict::Granted {
                        undo(tokens);
                    }
                }
            }
        }
    }
}

impl Future for Ticket {
    type Output = Verdict;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Verdict> {
        let told = std::task::ready!(Pin::new(&mut self.verdict).poll(cx));
        self.is_seen = true;
        Poll::Ready(told.unwrap_or(Verdict::Trouble))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.is_seen {
            return;
        }
        self.verdict.close();
        if self.verdict.try_recv() == Ok(Verdict::Granted) {
            self.account.take_back(Now::read(), self.tokens);
        }
    }
}
