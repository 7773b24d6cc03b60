//! Writes the access log: one JSON line per request, with the decision and its reasons.
//!
//! Invariant: a request never waits for the log. A worker puts the record in a bounded queue and goes on; if the queue
//! is full, the record is dropped and counted. An accepted record is written, also at shutdown, or is counted once as
//! lost if its target fails. A line is finished before the next one begins.
//!
//! Waking another thread costs a worker a system call. So the log's thread blocks only while it has nothing to do.
//! Under load it polls the queue at short fixed intervals, and a write costs the worker only a copy.

use std::fs::File;
use std::io::{self, Write};
use std::mem;
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

/// Capacity of the queue in records. With [`TICK`] it allows 200,000 requests per second.
const CAPACITY: usize = 4096;
/// Interval of polls while requests keep coming.
const TICK: Duration = Duration::from_millis(20);
/// Size in bytes at which the buffer is written without waiting for the next poll.
const BUFFER: usize = 64 * 1024;

/// The target of the access log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Off,
    Stdout,
    /// A file to append to; created if missing.
    File(PathBuf),
}

/// An opened target.
trait Sink: Write + Send {
    /// Returns true if the target ends with an incomplete line.
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
    /// Records for the thread. `None` wakes it to look at `shared`.
    queue: SyncSender<Option<RequestRecord>>,
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
    /// Disconnected when the thread has ended.
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
    /// Returns an error if the file cannot be opened or the thread cannot be started.
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

    /// Queues a record, which is moved only while the log is on; never waits.
    #[inline]
    pub fn write(&self, record: &mut RequestRecord) {
        if self.shared.on.load(Ordering::Relaxed) && self.queue.try_send(Some(mem::take(record))).is_err() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Switches to another target. A file is opened again even if it is the same one, which releases a rotated file. If
    /// the log is switched off, queued records still go to the old target.
    ///
    /// Never waits.
    pub fn point_at(&self, Opened(sink): Opened) {
        let on = sink.is_some();
        if on {
            *self.shared.next_sink.lock().unwrap_or_else(PoisonError::into_inner) = sink;
            self.wake();
        }
        self.shared.on.store(on, Ordering::Relaxed);
    }

    /// Writes all accepted records and stops; returns false if that takes longer than `limit`. Must be called after the
    /// workers have stopped: later records are dropped.
    pub fn close(&self, limit: Duration) -> bool {
        self.shared.closing.store(true, Ordering::Release);
        self.wake();
        let finished = self.finished.lock().unwrap_or_else(PoisonError::into_inner);
        finished.recv_timeout(limit) == Err(RecvTimeoutError::Disconnected)
    }

    /// Returns the number of records that were lost, by a full queue or a failed target.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    fn wake(&self) {
        // A full queue needs no wake-up: the thread polls it within one tick.
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

/// An opened target; `None` if the log is off.
pub struct Opened(Option<Box<dyn Sink>>);

impl Opened {
    /// # Errors
    /// Returns an error if the file cannot be opened.
    pub fn open(target: &Target) -> io::Result<Self> {
        Ok(Self(match target {
            Target::Off => None,
            // Bypasses the buffer of `io::stdout`, which does not tell how much of a line is written.
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

    /// Switches to another target.
    fn begin(&mut self, mut sink: Box<dyn Sink>) {
        // A partly written line is finished in its old target, or dropped.
        let _ = self.lines.finish_begun(&mut self.sink);
        self.drop_lines(Lines::drop_begun);
        // Checked only now, because the new target may be the same file.
        if sink.ends_within_a_line() {
            self.lines.end_found();
        }
        self.sink = sink;
    }

    fn run(mut self, records: &Receiver<Option<RequestRecord>>, _alive: &Sender<()>) {
        loop {
            // Read before the queue is emptied, so that everything accepted before the close is found.
            let closing = self.shared.closing.load(Ordering::Acquire);
            if !closing {
                match records.recv() {
                    Ok(record) => self.add(record),
                    Err(_) => break,
                }
            }
            // The cap gives the thread time to write while workers fill the queue as fast as it is emptied.
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
        // The switch happens here, so that a record queued after it cannot go to the old target.
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

    /// Drops lines and counts them.
    fn drop_lines(&mut self, drop: impl FnOnce(&mut Lines) -> u64) -> u64 {
        let lost = drop(&mut self.lines);
        self.shared.dropped.fetch_add(lost, Ordering::Relaxed);
        lost
    }
}

/// Logs a failure of the target once when it begins and once when it ends.
#[derive(Default)]
struct Outage {
    lost: Option<u64>,
    told: Option<Moment>,
}

impl Outage {
    /// Minimum time between two warnings, because a target can fail and recover many times a second.
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
                scope.spawn(move || {
                    (0..sent / 4).for_each(|number| log.write(&mut record(&format!("{worker}-{number}"))))
                });
            }
        });
        assert!(log.close(LIMIT));
        assert_eq!(lines(&path).len() as u64 + log.dropped(), sent);
        assert!(lines(&path).len() >= CAPACITY);
    }

    #[test]
    fn a_log_that_is_stuck_costs_lines_and_no_time() {
        /// Accepts nothing until it is released.
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
        (0..sent).for_each(|_| log.write(&mut record("id")));
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
        log.write(&mut record("after"));
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
        log.write(&mut record("one"));
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
        log.write(&mut record("unseen"));
        log.point_at(Opened::open(&Target::File(path.clone())).unwrap());
        log.write(&mut record("seen"));
        log.point_at(Opened::open(&Target::Off).unwrap());
        log.write(&mut record("unseen again"));
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
        (0..3).for_each(|_| log.write(&mut record("lost")));
        assert!(log.close(LIMIT));
        assert_eq!(log.dropped(), 3);
    }

    #[test]
    fn a_line_that_was_begun_is_never_ended_elsewhere() {
        /// Accepts a limited number of bytes.
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
        log.write(&mut record("begun"));
        // Waits until the lines before have been tried.
        let lost = |count| {
            while log.dropped() < count {
                thread::yield_now();
            }
        };
        while held.lock().unwrap().len() < 100 {
            thread::yield_now();
        }
        log.write(&mut record("lost"));
        lost(1);
        log.point_at(Opened::open(&Target::File(path.clone())).unwrap());
        log.write(&mut record("elsewhere"));
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
