//! Limits the worker time that TLS handshakes take: a handshake costs the caller nothing and the gateway a signature.
//!
//! There are two limits. One address has at most a fixed number of handshakes at once, over all workers. All handshakes
//! together have at most a share of each worker's time. On a worker, handshakes advance one step at a time, first come,
//! first served; between two steps all other ready tasks run. A handshake that exceeds a limit waits, at most for the
//! time that a handshake may take, and costs nothing until it starts. A resumed handshake is charged only for the
//! little time it takes.

use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use policies::{Share, TimeShare};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::sleep;

use crate::clock;

/// Time to pay for all earlier steps, above which the next step waits.
const BACKLOG: Duration = Duration::from_millis(100);

/// Longest time charged for one step. A longer measurement includes time in which the thread did not run.
const LONGEST: Duration = Duration::from_millis(10);

/// Handshakes under way by address. Its size is bounded by the number of connections.
#[derive(Default)]
pub(super) struct HandshakeSlots(Mutex<HashMap<IpAddr, Address>>);

struct Address {
    slots: Arc<Semaphore>,
    /// Number of handshakes that have a slot or wait for one.
    users: usize,
}

/// Slot of one handshake of an address; given back on drop.
#[must_use]
pub(super) struct HandshakeSlot {
    all: Arc<HandshakeSlots>,
    address: IpAddr,
    permit: Option<OwnedSemaphorePermit>,
}

impl HandshakeSlots {
    /// Waits for one of the `most` slots of the address. Calls `waits` if none is free now.
    pub(super) async fn enter(self: &Arc<Self>, address: IpAddr, most: u32, waits: impl FnOnce()) -> HandshakeSlot {
        let slots = {
            let mut addresses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let address = addresses.entry(address).or_insert_with(|| Address {
                slots: Arc::new(Semaphore::new(most as usize)),
                users: 0,
            });
            address.users += 1;
            Arc::clone(&address.slots)
        };
        let mut slot = HandshakeSlot {
            all: Arc::clone(self),
            address,
            permit: None,
        };
        slot.permit = Arc::clone(&slots).try_acquire_owned().ok();
        if slot.permit.is_none() {
            waits();
            // The semaphore is never closed, so this does not fail.
            slot.permit = slots.acquire_owned().await.ok();
        }
        slot
    }
}

impl Drop for HandshakeSlot {
    fn drop(&mut self) {
        self.permit = None;
        let mut addresses = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(address) = addresses.get_mut(&self.address) {
            address.users -= 1;
            if address.users == 0 {
                addresses.remove(&self.address);
            }
        }
    }
}

/// Time that one worker may spend on handshakes.
pub(super) struct HandshakeTime {
    turns: Semaphore,
    unpaid: TimeShare,
}

impl Default for HandshakeTime {
    fn default() -> Self {
        Self {
            turns: Semaphore::new(1),
            unpaid: TimeShare::default(),
        }
    }
}

/// Permission for one step of a handshake.
#[must_use]
pub(super) struct HandshakeStep<'a> {
    time: &'a HandshakeTime,
    share: Option<Share>,
    _permit: Option<SemaphorePermit<'a>>,
}

impl HandshakeTime {
    /// Waits for a turn. Calls `waits` if the time is used up now. Without a `share` the time is not limited.
    pub(super) async fn turn(&self, share: Option<Share>, waits: impl FnOnce()) -> HandshakeStep<'_> {
        // The semaphore is never closed, so this does not fail.
        let permit = self.turns.acquire().await.ok();
        let mut waits = Some(waits);
        while share.is_some()
            && let Err(wait) = self.unpaid.begin(clock::now(), BACKLOG)
        {
            if let Some(waits) = waits.take() {
                waits();
            }
            sleep(wait).await;
        }
        HandshakeStep {
            time: self,
            share,
            _permit: permit,
        }
    }
}

impl HandshakeStep<'_> {
    /// Takes one step. Returns its result and how long it took.
    pub(super) fn step<F: Future>(self, handshake: Pin<&mut F>, cx: &mut Context<'_>) -> (Poll<F::Output>, Duration) {
        let began = clock::now();
        let polled = handshake.poll(cx);
        let now = clock::now();
        let took = now.since(began).min(LONGEST);
        if let Some(share) = self.share {
            self.time.unpaid.spend(share, now, took);
        }
        (polled, took)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::net::Ipv4Addr;
    use std::pin::pin;
    use std::task::Waker;

    use policies::Ratio;
    use tokio::time::{advance, timeout};

    use super::*;

    const SOON: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn an_address_waits_for_a_slot_of_its_own_and_nobody_stays_behind() {
        let slots = Arc::new(HandshakeSlots::default());
        let (one, other): (IpAddr, IpAddr) = (Ipv4Addr::LOCALHOST.into(), Ipv4Addr::BROADCAST.into());
        let waited = Cell::new(0);
        let enter = |address| slots.enter(address, 2, || waited.set(waited.get() + 1));
        let (first, second) = (enter(one).await, enter(one).await);
        assert_eq!(waited.get(), 0);
        let mut third = pin!(enter(one));
        assert!(timeout(SOON, third.as_mut()).await.is_err());
        assert_eq!(waited.get(), 1);
        let stranger = timeout(SOON, enter(other)).await.expect("it has slots of its own");
        {
            // A handshake that stops waiting no longer counts as a user.
            let mut fourth = pin!(enter(one));
            assert!(timeout(SOON, fourth.as_mut()).await.is_err());
        }
        drop(first);
        let third = timeout(SOON, third).await.expect("there is a slot");
        assert!(timeout(SOON, enter(one)).await.is_err());
        drop((second, third, stranger));
        assert!(slots.0.lock().expect("no panic").is_empty());
    }

    /// Takes a step of the given length. Returns whether it had to wait.
    async fn step(time: &HandshakeTime, share: Option<Share>, took: Duration) -> bool {
        let waited = Cell::new(false);
        let turn = time.turn(share, || waited.set(true)).await;
        // The clock advances when this future is first polled.
        let work = pin!(advance(took));
        let _ = turn.step(work, &mut Context::from_waker(Waker::noop()));
        waited.get()
    }

    #[tokio::test(start_paused = true)]
    async fn handshakes_have_their_share_of_the_time_and_no_more() {
        let (time, share) = (
            HandshakeTime::default(),
            Share::new(Ratio::new(0.5).expect("a half"), 1),
        );
        let began = clock::now();
        let (mut steps, mut waited) = (0, 0);
        while clock::now().since(began) < Duration::from_secs(10) {
            waited += u32::from(step(&time, share, Duration::from_millis(5)).await);
            steps += 1;
        }
        // 5 s of work in steps of 5 ms, and the backlog.
        assert!((950..=1030).contains(&steps), "{steps}");
        assert!(waited > 400, "{waited}");
        // A thread that was paused for a minute has not worked for a minute.
        assert!(!step(&HandshakeTime::default(), share, Duration::from_secs(60)).await);
        // Without a share no step waits.
        let free = HandshakeTime::default();
        for _ in 0..100 {
            assert!(!step(&free, None, Duration::from_millis(10)).await);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn turns_go_to_whoever_came_first() {
        let time = HandshakeTime::default();
        let held = time.turn(None, || {}).await;
        let (mut second, mut third) = (pin!(time.turn(None, || {})), pin!(time.turn(None, || {})));
        assert!(timeout(SOON, second.as_mut()).await.is_err());
        assert!(timeout(SOON, third.as_mut()).await.is_err());
        drop(held);
        assert!(timeout(SOON, third.as_mut()).await.is_err());
        drop(timeout(SOON, second).await.expect("it is its turn"));
        let _turn = timeout(SOON, third).await.expect("it is its turn");
    }
}
