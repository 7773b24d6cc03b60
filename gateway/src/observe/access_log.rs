//! One JSON line a request, with the decision and what it was based on.
//!
//! Invariant: a request never waits for the log. A worker hands over the record through a bounded queue and goes on; if
//! the log cannot keep up, the record is dropped and counted. What was accepted is written, also at shutdown, or counted
//! once if its target takes no more; and no line that was begun is followed by another before it has ended.
//!
//! A worker that wakes another thread pays for it with a system call. So the log's thread blocks only while there is
//! nothing to do; under load it looks into the queue at fixed short intervals, and handing over costs no more than a copy.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use policies::Moment;

use super::line::Line;
use super::lines::Lines;
use super::record::RequestRecord;
use crate::{clock, files};

/// Records that may wait. Together with [`TICK`] enough for 200,000 requests a second.
const CAPACITY: usize = 4096;
/// How long the thread rests between two looks into the queue while requests keep coming.
const TICK: Duration = Duration::from_millis(20);
/// Written at once when there is this much of it, in bytes.
const BUFFER: usize = 64 * 1024;

/// Where the lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Off,
    Stdout,
    /// Appended to, created if absent.
    File(PathBuf),
}

/// Where the log's thread writes to.
trait Sink: Write + Send {
    /// Whether it was found to hold a last line without an end.
    fn ends_within_a_line(&mut self) -> bool {
        false
    }
}

impl Sink for File {
    fn ends_within_a_line(&mut self) -> bool {
        files::ends_within_a_line(self)
    }
}

impl Sink for io::Sink {}

#[derive(Debug)]
pub struct AccessLog {
    /// `None` wakes the thread to look at what is shared.
    queue: SyncSender<Option<RequestRecord>>,
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
    /// Disconnected when the thread has written its last line.
    finished: Mutex<Receiver<()>>,
}

#[derive(Default)]
struct Shared {
    on: AtomicBool,
    closing: AtomicBool,
    dropped: AtomicU64,
    next_sink: Mutex<Option<Box<dyn Sink>>>,
}

impl AccessLog {
    /// # Errors
    /// The file cannot be opened, or the thread cannot be started.
    pub fn start(target: &Target) -> io::Result<Self> {
        let Opened(sink) = Opened::open(target)?;
        let on = sink.is_some();
        let log = Self::with_sink(sink.unwrap_or_else(|| Box::new(io::sink())))?;
        log.shared.on.store(on, Ordering::Relaxed);
        Ok(log)
    }

    fn with_sink(sink: Box<dyn Sink>) -> io::Result<Self> {
        let (queue, records) = sync_channel(CAPACITY);
        let (alive, finished) = channel();
        let shared = Arc::new(Shared {
            on: AtomicBool::new(true),
            ..Shared::default()
        });
        let writer = Writer::new(sink, Arc::clone(&shared));
        let thread = thread::Builder::new()
            .name("access-log".into())
            .spawn(move || writer.run(&records, &alive))?;
        Ok(Self {
            queue,
            shared,
            thread,
            finished: Mutex::new(finished),
        })
    }

    /// Hands over a record; never waits.
    #[inline]
    pub fn write(&self, record: RequestRecord) {
        if self.shared.on.load(Ordering::Relaxed) && self.queue.try_send(Some(record)).is_err() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Writes elsewhere from now on. A file is opened anew even if it is the same one, so this is also how a rotated
    /// file is let go of. Switched off, what is still in the queue goes where it was meant to go.
    ///
    /// Waits for nothing.
    pub fn point_at(&self, Opened(sink): Opened) {
        let on = sink.is_some();
        if on {
            *self.shared.next_sink.lock().unwrap_or_else(PoisonError::into_inner) = sink;
            self.wake();
        }
        self.shared.on.store(on, Ordering::Relaxed);
    }

    /// Writes all that was accepted and stops; false if that takes longer than `limit`. To be called when the workers
    /// have stopped: a record that comes later is dropped.
    pub fn close(&self, limit: Duration) -> bool {
        self.shared.closing.store(true, Ordering::Release);
        self.wake();
        let finished = self.finished.lock().unwrap_or_else(PoisonError::into_inner);
        finished.recv_timeout(limit) == Err(RecvTimeoutError::Disconnected)
    }

    /// Records that were not written: there was no room in the queue, or the target took no more.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    fn wake(&self) {
        // A full queue is as good: its reader is not asleep for longer than a tick.
        let _ = self.queue.try_send(None);
        self.thread.thread().unpark();
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("on", &self.on)
            .field("dropped", &self.dropped)
            .finish_non_exhaustive()
    }
}

/// A target that can be written to; `None` is off.
pub struct Opened(Option<Box<dyn Sink>>);

impl Opened {
    /// # Errors
    /// The file cannot be opened.
    pub fn open(target: &Target) -> io::Result<Self> {
        Ok(Self(match target {
            Target::Off => None,
            // Not through the process's own buffer, which would not say how much of a line is out.
            Target::Stdout => Some(Box::new(File::from(io::stdout().as_fd().try_clone_to_owned()?))),
            Target::File(path) => Some(Box::new(files::append(path)?)),
        }))
    }
}

struct Writer {
    sink: Box<dyn Sink>,
    shared: Arc<Shared>,
    lines: Lines,
    outage: Outage,
}

impl Writer {
    fn new(sink: Box<dyn Sink>, shared: Arc<Shared>) -> Self {
        let mut writer = Self {
            sink: Box::new(io::sink()),
            shared,
            lines: Lines::default(),
            outage: Outage::default(),
        };
        writer.begin(sink);
        writer
    }

    /// Goes on in another target.
    fn begin(&mut self, mut sink: Box<dyn Sink>) {
        // A line that was begun ends where it was begun, or nowhere.
        let _ = self.lines.finish_begun(&mut self.sink);
        self.drop_lines(Lines::drop_begun);
        // Asked only now, as it may be the same file.
        if sink.ends_within_a_line() {
            self.lines.end_found();
        }
        self.sink = sink;
    }

    fn run(mut self, records: &Receiver<Option<RequestRecord>>, _alive: &Sender<()>) {
        loop {
            // Read before the queue is emptied: what was accepted before the close is then still found.
            let closing = self.shared.closing.load(Ordering::Acquire);
            if !closing {
                match records.recv() {
                    Ok(record) => self.add(record),
                    Err(_) => break,
                }
            }
            // The bound lets the log look up from its work while the queue is filled as fast as it is emptied.
            for record in records.try_iter().take(CAPACITY) {
                self.add(record);
            }
            self.flush();
            if closing {
                break;
            }
            thread::park_timeout(TICK);
        }
        self.drop_lines(Lines::drop_begun);
    }

    fn add(&mut self, record: Option<RequestRecord>) {
        let Some(record) = record else { return };
        self.lines.push(&Line::of(&record));
        if self.lines.bytes() >= BUFFER {
            self.flush();
        }
    }

    fn flush(&mut self) {
        // Taken here, so that a line handed over after the change cannot go to the old target.
        let next = self
            .shared
            .next_sink
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(sink) = next {
            self.begin(sink);
        }
        match self.lines.write_to(&mut self.sink) {
            Ok(()) => self.outage.end(),
            Err(error) => {
                let lost = self.drop_lines(Lines::drop_unbegun);
                self.outage.note(&error, lost, clock::now());
            }
        }
    }

    /// Counts what it drops.
    fn drop_lines(&mut self, drop: impl FnOnce(&mut Lines) -> u64) -> u64 {
        let lost = drop(&mut self.lines);
        self.shared.dropped.fetch_add(lost, Ordering::Relaxed);
        lost
    }
}

/// Tells of lines that cannot be written: once when it begins, once when it is over.
#[derive(Default)]
struct Outage {
    lost: Option<u64>,
    told: Option<Moment>,
}

impl Outage {
    /// A target may fail and recover many times a second.
    const QUIET: Duration = Duration::from_secs(60);

    fn note(&mut self, error: &io::Error, lost: u64, now: Moment) {
        if self.lost.is_none() && self.told.is_none_or(|told| now.since(told) >= Self::QUIET) {
            self.told = Some(now);
            tracing::warn!(%error, "the access log cannot be written; lines are dropped until it can");
        }
        *self.lost.get_or_insert(0) += lost;
    }

    fn end(&mut self) {
        if let Some(lost) = self.lost.take()
            && lost > 0
        {
            tracing::info!(lost, "the access log is written again");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use http::Method;
    use policies::Moment;
    use serde_json::Value;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[test]
    fn closing_writes_all_that_was_accepted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let log = AccessLog::start(&Target::File(path.clone())).unwrap();
        let sent = 20_000;
        thread::scope(|scope| {
            for worker in 0..4 {
                let log = &log;
                scope.spawn(move || (0..sent / 4).for_each(|number| log.write(record(&format!("{worker}-{number}")))));
            }
        });
        assert!(log.close(LIMIT));
        assert_eq!(lines(&path).len() as u64 + log.dropped(), sent);
        assert!(lines(&path).len() >= CAPACITY);
    }

    #[test]
    fn a_log_that_is_stuck_costs_lines_and_no_time() {
        /// Takes nothing until it is let go.
        struct Stuck(Receiver<()>);
        impl Write for Stuck {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let _ = self.0.recv();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        impl Sink for Stuck {}
        let (release, held) = channel();
        let log = AccessLog::with_sink(Box::new(Stuck(held))).unwrap();
        let sent = 8 * CAPACITY;
        (0..sent).for_each(|_| log.write(record("id")));
        assert!(log.dropped() > 0);
        assert!(!log.close(Duration::ZERO), "it cannot be done yet");
        drop(release);
        assert!(log.close(LIMIT));
    }

    #[test]
    fn a_rotated_file_is_let_go_of() {
        let folder = tempfile::tempdir().unwrap();
        let (path, rotated) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
        let target = Target::File(path.clone());
        let log = AccessLog::start(&target).unwrap();
        fs::rename(&path, &rotated).unwrap();
        log.point_at(Opened::open(&target).unwrap());
        log.write(record("after"));
        assert!(log.close(LIMIT));
        assert_eq!((lines(&rotated).len(), lines(&path).len()), (0, 1));
    }

    #[test]
    fn a_file_that_ends_within_a_line_is_gone_on_with_on_a_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        fs::write(&path, "{\"torn\":").unwrap();
        let target = Target::File(path.clone());
        let log = AccessLog::start(&target).unwrap();
        log.write(record("one"));
        assert!(log.close(LIMIT));
        let text = fs::read_to_string(&path).unwrap();
        let (torn, rest) = text.split_once('\n').unwrap();
        assert_eq!(torn, "{\"torn\":");
        assert_eq!(serde_json::from_str::<Value>(rest).unwrap()["request_id"], "one");
        assert_eq!(log.dropped(), 0);
    }

    #[test]
    fn switched_off_it_takes_nothing_and_drops_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let log = AccessLog::start(&Target::Off).unwrap();
        log.write(record("unseen"));
        log.point_at(Opened::open(&Target::File(path.clone())).unwrap());
        log.write(record("seen"));
        log.point_at(Opened::open(&Target::Off).unwrap());
        log.write(record("unseen again"));
        assert!(log.close(LIMIT));
        assert_eq!(log.dropped(), 0);
        let lines = lines(&path);
        assert_eq!((lines.len(), &lines[0]["request_id"]), (1, &"seen".into()));
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        impl Sink for Full {}
        let log = AccessLog::with_sink(Box::new(Full)).unwrap();
        (0..3).for_each(|_| log.write(record("lost")));
        assert!(log.close(LIMIT));
        assert_eq!(log.dropped(), 3);
    }

    #[test]
    fn a_line_that_was_begun_is_never_ended_elsewhere() {
        /// Takes so many bytes.
        struct Small(usize, Arc<Mutex<Vec<u8>>>);
        impl Write for Small {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let taken = bytes.len().min(self.0);
                self.0 -= taken;
                self.1.lock().unwrap().extend(&bytes[..taken]);
                if taken == 0 {
                    Err(io::ErrorKind::StorageFull.into())
                } else {
                    Ok(taken)
                }
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        impl Sink for Small {}
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let held = Arc::default();
        let log = AccessLog::with_sink(Box::new(Small(100, Arc::clone(&held)))).unwrap();
        log.write(record("begun"));
        // Each waits for what came before to be tried.
        let lost = |count| {
            while log.dropped() < count {
                thread::yield_now();
            }
        };
        while held.lock().unwrap().len() < 100 {
            thread::yield_now();
        }
        log.write(record("lost"));
        lost(1);
        log.point_at(Opened::open(&Target::File(path.clone())).unwrap());
        log.write(record("elsewhere"));
        assert!(log.close(LIMIT));
        assert_eq!(log.dropped(), 2, "one that was begun, and one that was not");
        assert_eq!(lines(&path).len(), 1);
        assert_eq!(lines(&path)[0]["request_id"], "elsewhere");
    }

    fn record(id: &str) -> RequestRecord {
        RequestRecord::begin(Moment::ZERO, Duration::ZERO, id, Method::GET, "/")
    }

    fn lines(path: &std::path::Path) -> Vec<Value> {
        let text = fs::read_to_string(path).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).expect(line))
            .collect()
    }
}
