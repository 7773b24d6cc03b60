//! Runs reloads on one thread, which reads the config and the files that it names.
//!
//! One reload runs at a time, so its memory is used only once. All callers that ask for a reload while one runs share
//! the next one. It begins after they asked, and so sees everything that was written before.
//!
//! A file system may never answer, and a thread that waits for it cannot be interrupted. [`Worker::tend`] abandons such
//! a thread: its callers get an error, a new thread takes over, and the results of the old one are discarded.
//!
//! Invariant: at most one thread may put a plan in force ([`WorkPermit::commit`]), and at most [`MOST_GIVEN_UP`] abandoned
//! threads wait for file systems.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use policies::Moment;
use tokio::sync::oneshot;

use crate::clock;
use crate::files::OnRead;

/// Time limit of a reload.
pub(crate) const LONGEST: Duration = Duration::from_secs(30);
/// Time limit of a check for changed files.
const LONGEST_LOOK: Duration = Duration::from_secs(2);
/// Time after which a warning is logged while the work goes on.
const TOLD: Duration = Duration::from_secs(2);
/// Maximum number of abandoned threads that still wait. At this number, nothing more is read.
const MOST_GIVEN_UP: usize = 4;
/// Stack size in bytes. A config has at most 32 levels.
const STACK: usize = 4 << 20;

/// The generation in force now, or the error.
pub(crate) type Outcome = Result<u64, Arc<str>>;

/// The work of the thread.
pub(crate) trait Work: Send + Sync + 'static {
    /// Checks for changed files, and reads them.
    fn look(&self, turn: &WorkPermit);
    /// Reads the whole config and its files, on request.
    fn reload(&self, turn: &WorkPermit) -> Outcome;
    /// Called when a turn is abandoned, with the reason. Must not block.
    fn gave_up(&self, why: &str);
}

/// A handle on the worker thread. When it is dropped, the thread ends after its current work.
pub(crate) struct Worker {
    shared: Arc<Shared>,
    work: Arc<dyn Work>,
}

struct Shared {
    inner: Mutex<Inner>,
    wake: Condvar,
}

#[derive(Default)]
struct Inner {
    /// Number of the current thread; all others are abandoned. 0 means no thread.
    thread: u64,
    /// Number of threads started so far.
    threads: u64,
    is_asked: bool,
    is_to_look: bool,
    /// Callers that wait for the next reload.
    waiting: Vec<oneshot::Sender<Outcome>>,
    running: Option<Running>,
    given_up: Vec<GivenUp>,
}

/// The current work of the thread.
struct Running {
    what: What,
    since: Moment,
    /// The file that is being read.
    at: Option<PathBuf>,
    is_told: bool,
    waiting: Vec<oneshot::Sender<Outcome>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Looking,
    Reloading,
    /// Puts the plan in force. Waits for no file system, so it has no time limit.
    Committing,
}

struct GivenUp {
    thread: u64,
    at: Option<PathBuf>,
}

/// The right of one thread to work.
#[derive(Clone)]
pub(crate) struct WorkPermit {
    shared: Arc<Shared>,
    thread: u64,
}

impl Worker {
    pub(crate) fn start(work: Arc<dyn Work>) -> Self {
        let worker = Self {
            shared: Arc::new(Shared {
                inner: Mutex::default(),
                wake: Condvar::new(),
            }),
            work,
        };
        worker.start_thread(&mut worker.shared.inner());
        worker
    }

    /// Requests a reload.
    pub(crate) fn ask(&self) {
        self.shared.inner().is_asked = true;
        self.shared.wake.notify_all();
    }

    /// Requests a reload that begins after this call, and waits for it.
    ///
    /// # Errors
    /// The reason why no plan was put in force.
    pub(crate) async fn reload(&self) -> Outcome {
        let answer = {
            let mut inner = self.shared.inner();
            if inner.thread == 0 {
                return Err(full(&inner.given_up));
            }
            let (sender, answer) = oneshot::channel();
            // Callers that have left are removed.
            inner.waiting.retain(|waiting| !waiting.is_closed());
            inner.waiting.push(sender);
            answer
        };
        self.ask();
        answer.await.unwrap_or_else(|_| Err("the gateway is stopping".into()))
    }

    /// Starts a check for changed files, or abandons the thread if its current work takes too long. Must be called
    /// several times a second.
    pub(crate) fn tend(&self, now: Moment) {
        let mut inner = self.shared.inner();
        if inner.thread == 0 {
            if inner.given_up.len() < MOST_GIVEN_UP {
                self.start_thread(&mut inner);
            }
            return;
        }
        let Some(running) = &mut inner.running else {
            inner.is_to_look = true;
            drop(inner);
            self.shared.wake.notify_all();
            return;
        };
        let took = now.since(running.since);
        let limit = match running.what {
            What::Looking => LONGEST_LOOK,
            What::Reloading => LONGEST,
            What::Committing => return,
        };
        if took > limit {
            self.give_up(&mut inner, limit);
        } else if took > TOLD && !running.is_told {
            running.is_told = true;
            tracing::warn!(at = ?running.at, ?took, "reading files takes long; everything runs on as before");
        }
    }

    fn give_up(&self, inner: &mut Inner, limit: Duration) {
        let Some(running) = inner.running.take() else { return };
        let what = match &running.at {
            Some(path) => format!("{} has not been read", path.display()),
            None => "it has not ended".to_owned(),
        };
        let why: Arc<str> = format!(
            "{what} after {} s, as if its file system did not answer: it is not waited for any longer",
            limit.as_secs()
        )
        .into();
        self.work.gave_up(&why);
        for waiting in running.waiting {
            let _ = waiting.send(Err(Arc::clone(&why)));
        }
        let thread = std::mem::take(&mut inner.thread);
        inner.given_up.push(GivenUp { thread, at: running.at });
        if inner.given_up.len() < MOST_GIVEN_UP {
            self.start_thread(inner);
            return;
        }
        let why = full(&inner.given_up);
        tracing::error!("{why}");
        for waiting in std::mem::take(&mut inner.waiting) {
            let _ = waiting.send(Err(Arc::clone(&why)));
        }
    }

    fn start_thread(&self, inner: &mut Inner) {
        inner.threads += 1;
        let turn = WorkPermit {
            shared: Arc::clone(&self.shared),
            thread: inner.threads,
        };
        let work = Arc::clone(&self.work);
        let started = thread::Builder::new()
            .name("reload".into())
            .stack_size(STACK)
            .spawn(move || turn.run(&*work));
        match started {
            Ok(_) => inner.thread = inner.threads,
            // The next call of `tend` tries again.
            Err(error) => tracing::error!(%error, "no thread to reload with"),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.shared.inner().thread = 0;
        self.shared.wake.notify_all();
    }
}

impl Shared {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn full(given_up: &[GivenUp]) -> Arc<str> {
    let paths: BTreeSet<_> = given_up.iter().filter_map(|thread| thread.at.as_ref()).collect();
    let paths: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    format!(
        "nothing is read any more: {} threads wait for file systems that do not answer ({})",
        given_up.len(),
        paths.join(", ")
    )
    .into()
}

impl WorkPermit {
    fn run(&self, work: &dyn Work) {
        while let Some(what) = self.next() {
            let outcome = catch_unwind(AssertUnwindSafe(|| match what {
                What::Looking => {
                    work.look(self);
                    None
                }
                What::Reloading | What::Committing => Some(work.reload(self)),
            }));
            let outcome = outcome.unwrap_or_else(|_| Some(Err("reading it has panicked".into())));
            let mut inner = self.shared.inner();
            if inner.thread != self.thread {
                break;
            }
            let waiting = inner.running.take().map(|running| running.waiting).unwrap_or_default();
            drop(inner);
            if let Some(outcome) = outcome {
                for waiting in waiting {
                    // The receiver may have left.
                    let _ = waiting.send(outcome.clone());
                }
            }
        }
        self.shared
            .inner()
            .given_up
            .retain(|given_up| given_up.thread != self.thread);
    }

    /// Waits for work; `None` ends the thread.
    fn next(&self) -> Option<What> {
        let mut inner = self.shared.inner();
        loop {
            if inner.thread != self.thread {
                return None;
            }
            let what = if inner.is_asked { What::Reloading } else { What::Looking };
            if inner.is_asked || inner.is_to_look {
                let waiting = match what {
                    What::Reloading => std::mem::take(&mut inner.waiting),
                    _ => Vec::new(),
                };
                match what {
                    What::Reloading => inner.is_asked = false,
                    _ => inner.is_to_look = false,
                }
                inner.running = Some(Running {
                    what,
                    since: clock::now(),
                    at: None,
                    is_told: false,
                    waiting,
                });
                return Some(what);
            }
            inner = self.shared.wake.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Notes the file that is being read, for messages about slow reads.
    pub(crate) fn at(&self, path: &Path) {
        self.change(|running| running.at = Some(path.to_owned()));
    }

    /// Returns a callback that does the same, for code that cannot hold a turn.
    pub(crate) fn teller(&self) -> OnRead {
        let turn = self.clone();
        Arc::new(move |path| turn.at(path))
    }

    /// Starts the time limit of one attempt to read files. Returns false if the thread is abandoned.
    #[must_use]
    pub(crate) fn begin_reading(&self) -> bool {
        self.change(|running| {
            running.what = What::Reloading;
            running.since = clock::now();
            running.is_told = false;
            running.at = None;
        })
    }

    /// Returns true if the thread is abandoned and its results must be discarded.
    pub(crate) fn is_given_up(&self) -> bool {
        self.shared.inner().thread != self.thread
    }

    /// Returns true if the plan may be put in force now. The thread is then not abandoned until it is done.
    #[must_use]
    pub(crate) fn commit(&self) -> bool {
        self.change(|running| running.what = What::Committing)
    }

    /// Returns the files that abandoned threads wait for.
    pub(crate) fn unreachable(&self) -> BTreeSet<PathBuf> {
        let inner = self.shared.inner();
        inner.given_up.iter().filter_map(|thread| thread.at.clone()).collect()
    }

    /// Returns false if the thread is abandoned.
    fn change(&self, change: impl FnOnce(&mut Running)) -> bool {
        let mut inner = self.shared.inner();
        let ours = inner.thread == self.thread;
        match inner.running.as_mut().filter(|_| ours) {
            Some(running) => {
                change(running);
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// A worker that follows orders: each piece of work takes one order.
    struct Told {
        orders: Mutex<Receiver<Order>>,
        reloads: AtomicUsize,
        looks: AtomicUsize,
        commits: AtomicUsize,
        unreachable: Mutex<BTreeSet<PathBuf>>,
        gave_up: Mutex<Vec<String>>,
    }

    enum Order {
        Finish,
        Panic,
        /// Waits at a file until the sender is dropped, then commits.
        Hang(&'static str, Receiver<()>),
        /// Commits, then waits.
        Commit(Receiver<()>),
    }

    impl Told {
        fn follow(&self, turn: &WorkPermit) {
            *self.unreachable.lock().unwrap() = turn.unreachable();
            let order = self.orders.lock().unwrap().recv().unwrap_or(Order::Finish);
            match order {
                Order::Finish => {}
                Order::Panic => panic!("as it was told to"),
                Order::Hang(path, released) => {
                    turn.at(Path::new(path));
                    let _ = released.recv();
                    self.commits.fetch_add(usize::from(turn.commit()), Ordering::SeqCst);
                }
                Order::Commit(released) => {
                    assert!(turn.commit());
                    let _ = released.recv();
                    self.commits.fetch_add(1, Ordering::SeqCst);
                }
            }
        }
    }

    impl Work for Told {
        fn look(&self, turn: &WorkPermit) {
            self.looks.fetch_add(1, Ordering::SeqCst);
            self.follow(turn);
        }

        fn reload(&self, turn: &WorkPermit) -> Outcome {
            let number = self.reloads.fetch_add(1, Ordering::SeqCst) + 1;
            self.follow(turn);
            Ok(number as u64)
        }

        fn gave_up(&self, why: &str) {
            self.gave_up.lock().unwrap().push(why.to_owned());
        }
    }

    struct Bench {
        worker: Arc<Worker>,
        told: Arc<Told>,
        orders: Sender<Order>,
    }

    impl Bench {
        fn new() -> Self {
            let (orders, taken) = channel();
            let told = Arc::new(Told {
                orders: Mutex::new(taken),
                reloads: AtomicUsize::new(0),
                looks: AtomicUsize::new(0),
                commits: AtomicUsize::new(0),
                unreachable: Mutex::default(),
                gave_up: Mutex::default(),
            });
            let worker = Arc::new(Worker::start(Arc::clone(&told) as Arc<dyn Work>));
            Self { worker, told, orders }
        }

        fn order(&self, order: Order) {
            self.orders.send(order).unwrap();
        }

        /// Requests a reload on a separate task, and returns once that task waits.
        async fn reload(&self) -> tokio::task::JoinHandle<Outcome> {
            let worker = Arc::clone(&self.worker);
            let task = tokio::spawn(async move { worker.reload().await });
            tokio::task::yield_now().await;
            task
        }

        fn inner<T>(&self, look: impl Fn(&mut Inner) -> T) -> T {
            look(&mut self.worker.shared.inner())
        }

        fn becomes(&self, what: &str, condition: impl Fn(&mut Inner) -> bool) {
            let began = std::time::Instant::now();
            while !self.inner(&condition) {
                assert!(began.elapsed() < Duration::from_secs(20), "{what}");
                thread::yield_now();
            }
        }

        /// Returns once the thread waits at a file.
        fn hangs(&self) {
            self.becomes("it hangs", |inner| {
                inner.running.as_ref().is_some_and(|running| running.at.is_some())
            });
        }

        fn tend_in(&self, time: Duration) {
            self.worker.tend(clock::now() + time);
        }
    }

    #[tokio::test]
    async fn who_asks_at_once_shares_a_reading_that_begins_after_the_asking() {
        let bench = Bench::new();
        let (release, released) = channel();
        bench.order(Order::Hang("gateway.yaml", released));
        let first = bench.reload().await;
        bench.hangs();
        let mut others = Vec::new();
        for _ in 0..100 {
            others.push(bench.reload().await);
        }
        bench.worker.ask();
        bench.order(Order::Finish);
        drop(release);
        assert_eq!(first.await.unwrap(), Ok(1));
        for other in others {
            assert_eq!(other.await.unwrap(), Ok(2));
        }
        bench.becomes("it rests", |inner| inner.running.is_none() && !inner.is_asked);
        assert_eq!(bench.told.reloads.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_reading_that_does_not_end_is_given_up_and_never_takes_effect() {
        let bench = Bench::new();
        let (release, released) = channel();
        bench.order(Order::Hang("/mnt/keys.yaml", released));
        let hung = bench.reload().await;
        bench.hangs();
        bench.tend_in(LONGEST - Duration::from_secs(1));
        assert!(!hung.is_finished());
        let waits = bench.reload().await;
        bench.order(Order::Finish);
        bench.tend_in(LONGEST + Duration::from_secs(1));
        let why = hung.await.unwrap().unwrap_err();
        assert!(why.contains("/mnt/keys.yaml has not been read after 30 s"), "{why}");
        assert_eq!(*bench.told.gave_up.lock().unwrap(), [why.to_string()]);
        assert_eq!(waits.await.unwrap(), Ok(2), "another thread goes on");
        let unreachable = bench.told.unreachable.lock().unwrap().clone();
        assert_eq!(unreachable, BTreeSet::from([PathBuf::from("/mnt/keys.yaml")]));
        drop(release);
        bench.becomes("it comes back", |inner| inner.given_up.is_empty());
        assert_eq!(bench.told.commits.load(Ordering::SeqCst), 0, "it is too late");
        bench.order(Order::Finish);
        assert_eq!(bench.worker.reload().await, Ok(3));
        assert!(bench.told.unreachable.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_look_that_does_not_end_is_given_up_sooner() {
        let bench = Bench::new();
        let (_release, released) = channel();
        bench.order(Order::Hang("/mnt/users.yaml", released));
        bench.tend_in(Duration::ZERO);
        bench.hangs();
        bench.tend_in(Duration::from_secs(1));
        assert!(bench.told.gave_up.lock().unwrap().is_empty());
        bench.tend_in(Duration::from_secs(3));
        assert_eq!(bench.told.gave_up.lock().unwrap().len(), 1);
        bench.order(Order::Finish);
        assert_eq!(bench.worker.reload().await, Ok(1));
    }

    #[tokio::test]
    async fn threads_that_wait_for_ever_are_bounded_and_whoever_asks_is_told() {
        let bench = Bench::new();
        let mut releases = Vec::new();
        for _ in 0..MOST_GIVEN_UP {
            let (release, released) = channel();
            releases.push(release);
            bench.order(Order::Hang("/mnt/gateway.yaml", released));
            let hung = bench.reload().await;
            bench.hangs();
            bench.tend_in(LONGEST + Duration::from_secs(1));
            assert!(hung.await.unwrap().is_err());
        }
        for _ in 0..3 {
            let why = bench.worker.reload().await.unwrap_err();
            assert!(
                why.contains("4 threads wait") && why.contains("/mnt/gateway.yaml"),
                "{why}"
            );
            bench.tend_in(Duration::ZERO);
        }
        releases.pop();
        bench.becomes("one comes back", |inner| inner.given_up.len() < MOST_GIVEN_UP);
        bench.tend_in(Duration::ZERO);
        bench.order(Order::Finish);
        let reloads = bench.told.reloads.load(Ordering::SeqCst) as u64;
        assert_eq!(bench.worker.reload().await, Ok(reloads + 1));
    }

    #[tokio::test]
    async fn what_takes_effect_is_not_given_up_and_a_panic_is_survived() {
        let bench = Bench::new();
        let (release, released) = channel();
        bench.order(Order::Commit(released));
        let commits = bench.reload().await;
        bench.becomes("it commits", |inner| {
            inner
                .running
                .as_ref()
                .is_some_and(|running| running.what == What::Committing)
        });
        bench.tend_in(LONGEST * 10);
        drop(release);
        assert_eq!(commits.await.unwrap(), Ok(1));
        bench.order(Order::Panic);
        assert_eq!(bench.worker.reload().await, Err("reading it has panicked".into()));
        bench.order(Order::Finish);
        assert_eq!(bench.worker.reload().await, Ok(3));
        assert!(bench.told.gave_up.lock().unwrap().is_empty());
    }
}
