//! Runs the renewer of leased limits, on a thread of its own: requests wait for it, so nothing else may delay it.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::watch;

use crate::limits::leased::renewer::{Renewer, RenewerHandle};
use crate::plan::State;
use crate::store::{Health, Store, StoreSettings};

/// Longest time that the start waits for the store. After it, the gateway serves without.
const FIRST_CONTACT: Duration = Duration::from_secs(1);

/// Longest time to give back what is on lease at the end.
const LAST_RETURN: Duration = Duration::from_millis(500);

/// The connection to the store, and the renewer.
pub struct SharedStore {
    store: Arc<Store>,
    renewer: RenewerHandle,
}

impl SharedStore {
    /// Connects to the store, and begins to renew the leases of all accounts. Waits a moment for the store.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub async fn start(settings: StoreSettings, state: &State) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let address = settings.address.to_string();
        let (call_limit, lease_time) = (settings.call_limit, settings.lease_time);
        let store = Store::start(settings, runtime.handle());
        let _ = state.shared_store.set(Arc::clone(&store));
        state.idempotency.use_store(Arc::clone(&store));
        let leasing = Arc::clone(&state.accounts.leasing);
        let renewals = leasing.start(store.replica(), call_limit, lease_time);
        let (is_up, seen) = watch::channel(store.state().is_up());
        let (renewer, handle) = Renewer::new(leasing, Arc::clone(&store), renewals, seen);
        let mut health = store.watch();
        let run = move || {
            runtime.block_on(async {
                let follow = async {
                    loop {
                        let now = health.borrow_and_update().is_up();
                        is_up.send_if_modified(|before| std::mem::replace(before, now) != now);
                        if health.changed().await.is_err() {
                            return;
                        }
                    }
                };
                tokio::join!(renewer.run(), follow)
            })
        };
        thread::Builder::new().name("store".into()).spawn(run)?;
        let mut first = store.watch();
        let up = tokio::time::timeout(FIRST_CONTACT, first.wait_for(|state| state.is_up())).await;
        if !matches!(up, Ok(Ok(_)))
            && let Health::Down { trouble, .. } = store.state().health
        {
            tracing::warn!(%address, %trouble, "the store of limits cannot be reached: served without it until then");
        }
        Ok(Self { store, renewer: handle })
    }

    /// Gives back what is on lease.
    pub async fn give_back(&self) {
        if self.store.state().is_up() && tokio::time::timeout(LAST_RETURN, self.renewer.drain()).await.is_err() {
            tracing::warn!("not everything on lease was given back: it is lost until it is earned again");
        }
    }
}
