//! Where passwords are compared: beside the workers, few at a time.
//!
//! A comparison takes a tenth of a second of CPU, and a worker that did it would hold up all its requests. Invariant: no
//! more than so many cores are ever busy with it, no more than so many credentials wait, and no address has more than
//! its share of those, so that guessing from one place keeps nobody else out. Many requests with one credential, as
//! when a client with many connections starts, wait for one comparison. Credentials that are known never come here.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OnceCell, Semaphore};

use super::passwords::PasswordCheck;
use crate::rejection::Rejection;

/// Credentials that wait or are being compared.
const MOST: usize = 64;
/// Of these, from one address.
const MOST_OF_ONE: usize = 8;
/// What a caller is told who finds no place: by then some of them are done.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// All comparisons of a process.
#[derive(Debug)]
pub struct PasswordChecks {
    at_once: Arc<Semaphore>,
    waiting: Mutex<HashMap<[u8; 32], Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    client: IpAddr,
    done: Arc<OnceCell<()>>,
}

/// A request's part in a comparison.
struct Place<'a> {
    checks: &'a PasswordChecks,
    digest: [u8; 32],
    done: Arc<OnceCell<()>>,
}

impl PasswordChecks {
    /// `cores` may be busy at once.
    pub fn new(cores: usize) -> Self {
        Self {
            at_once: Arc::new(Semaphore::new(cores)),
            waiting: Mutex::default(),
        }
    }

    fn enter(&self, digest: [u8; 32], client: IpAddr) -> Option<Place<'_>> {
        let mut waiting = self.lock();
        if !waiting.contains_key(&digest) {
            let of_client = waiting.values().filter(|waiting| waiting.client == client).count();
            if waiting.len() >= MOST || of_client >= MOST_OF_ONE {
                return None;
            }
        }
        let entry = waiting.entry(digest).or_insert_with(|| Waiting {
            client,
            done: Arc::default(),
        });
        Some(Place {
            checks: self,
            digest,
            done: Arc::clone(&entry.done),
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PasswordCheck {
    /// Ready when the credential has been compared; what came of it is remembered where the check came from.
    ///
    /// # Errors
    /// [`Rejection::Overloaded`] if too many others wait.
    pub async fn done(self, client: IpAddr) -> Result<(), Rejection> {
        let checks = Arc::clone(&self.checks);
        let place = checks.enter(self.digest, client).ok_or(Rejection::Overloaded {
            retry_after: RETRY_AFTER,
        })?;
        let at_once = Arc::clone(&checks.at_once);
        place
            .done
            .get_or_init(|| async move {
                let turn = at_once.acquire_owned().await;
                // A panic in there leaves the credential unknown, and so refused.
                let _ = tokio::task::spawn_blocking(move || {
                    self.run();
                    drop(turn);
                })
                .await;
            })
            .await;
        Ok(())
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = self.checks.lock();
        // The map's and our own.
        if Arc::strong_count(&self.done) <= 2 {
            waiting.remove(&self.digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(last: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, last).into()
    }

    #[test]
    fn one_address_has_its_share_and_all_have_a_bound() {
        let checks = PasswordChecks::new(1);
        let digest = |n: usize| [u8::try_from(n).unwrap(); 32];
        let mut places = Vec::new();
        for n in 0..MOST_OF_ONE {
            places.push(checks.enter(digest(n), address(1)).expect("its share"));
        }
        assert!(checks.enter(digest(200), address(1)).is_none());
        let again = checks.enter(digest(0), address(1)).expect("one comparison for both");
        assert!(Arc::ptr_eq(&again.done, &places[0].done));
        for n in MOST_OF_ONE..MOST {
            let client = u8::try_from(n / MOST_OF_ONE + 1).unwrap();
            places.push(checks.enter(digest(n), address(client)).expect("others have theirs"));
        }
        assert!(checks.enter(digest(200), address(200)).is_none());
        drop(places);
        assert_eq!(checks.lock().len(), 1, "one still waits");
        drop(again);
        assert!(checks.lock().is_empty());
    }
}
