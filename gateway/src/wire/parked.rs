//! Counts the bytes of HTTP/2 uploads that have arrived but are not read yet, over the whole process.
//!
//! A caller may fill its windows before its body is read, for example while its request waits for a slot. One
//! connection with many streams can hold megabytes in this way, and many connections all memory. Hence one budget
//! counts what is held, and each connection may use one eighth of what is left of it. The more is held, the less each
//! connection may add. The budget is never used up, and a caller whose uploads are read is not affected.
//!
//! An upload that is not yet read counts with all that it may send. If there is no room for that, its request is
//! refused, unless it is the only upload of its connection. Waiting uploads therefore never block uploads that are
//! read. Once it is read, an upload counts with what it holds. If that is too much, the gateway stops reading the
//! connection until some of it is read.
//!
//! Invariant: the counted bytes are never less than the bytes held. They fall when bodies are read or dropped. Knows
//! nothing of sockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::Waker;

use futures_util::task::AtomicWaker;

use crate::wire::flow_control::FlowControlWindows;

/// Divisor of the remaining bytes: one connection may use one part in eight.
const SHARE: u64 = 8;

/// Parked bytes of the process.
#[derive(Debug, Default)]
pub struct ParkedBytes {
    /// Bytes of bodies held.
    held: AtomicU64,
    /// Bytes held, or granted to uploads that are not yet read.
    counted: AtomicU64,
    pauses: AtomicU64,
    refusals: AtomicU64,
}

/// Parked bytes of one connection.
#[derive(Debug)]
pub struct ParkedOfConnection {
    process: Arc<ParkedBytes>,
    counted: AtomicU64,
    /// Bytes that uploads hold beyond their grants.
    loose: AtomicU64,
    is_paused: AtomicBool,
    reader: AtomicWaker,
}

/// Parked bytes of one upload.
#[derive(Debug)]
pub struct ParkedUpload {
    connection: Arc<ParkedOfConnection>,
    /// [`Bytes`], packed into one number.
    bytes: AtomicU64,
    /// Windows of the stream. An upload never counts more than its window, even with padding.
    windows: FlowControlWindows,
    is_refused: AtomicBool,
}

/// Parked bytes of one upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bytes {
    /// Granted bytes; 0 once the upload is read.
    granted: u32,
    held: u32,
    /// Number of frames in which the bytes arrived.
    frames: u32,
}

/// Memory in bytes that the h2 library needs for each frame. A body can come in frames of one byte.
const FRAME: u64 = 256;

/// Exclusive maximum of each part of [`Bytes`]. Windows are smaller.
const PART: u32 = 1 << 21;
const PART_BITS: u32 = PART.trailing_zeros();

/// Mark of an upload whose body was dropped. Later bytes are not kept.
const DROPPED: u64 = u64::MAX;

/// Whether a connection may use `own` bytes while the whole process uses `total`.
fn has_room(own: u64, total: u64, budget: u64) -> bool {
    own <= budget.saturating_sub(total) / SHARE
}

impl Bytes {
    const NONE: Self = Self {
        granted: 0,
        held: 0,
        frames: 0,
    };

    fn counted(self) -> u64 {
        u64::from(self.granted).max(self.in_memory())
    }

    fn loose(self) -> u64 {
        self.in_memory().saturating_sub(self.granted.into())
    }

    fn in_memory(self) -> u64 {
        u64::from(self.held) + FRAME * u64::from(self.frames)
    }

    fn packed(self) -> u64 {
        let part = |part: u32| u64::from(part.min(PART - 1));
        part(self.granted) << (2 * PART_BITS) | part(self.held) << PART_BITS | part(self.frames)
    }

    fn unpacked(packed: u64) -> Self {
        let part = |shift: u32| (packed >> shift) as u32 & (PART - 1);
        Self {
            granted: part(2 * PART_BITS),
            held: part(PART_BITS),
            frames: part(0),
        }
    }
}

impl ParkedBytes {
    /// Returns the bytes of bodies held.
    pub fn held(&self) -> u64 {
        self.held.load(Relaxed)
    }

    /// Returns the bytes of the budget in use.
    pub fn counted(&self) -> u64 {
        self.counted.load(Relaxed)
    }

    /// Returns how often the gateway stopped reading a connection.
    pub fn pauses(&self) -> u64 {
        self.pauses.load(Relaxed)
    }

    /// Returns the number of uploads refused for lack of room.
    pub fn refusals(&self) -> u64 {
        self.refusals.load(Relaxed)
    }
}

impl ParkedOfConnection {
    pub fn new(process: Arc<ParkedBytes>) -> Self {
        Self {
            process,
            counted: AtomicU64::new(0),
            loose: AtomicU64::new(0),
            is_paused: AtomicBool::new(false),
            reader: AtomicWaker::new(),
        }
    }

    /// Whether the connection may be read whatever the budget.
    pub fn is_free(&self) -> bool {
        self.loose.load(Relaxed) == 0
    }

    /// Whether the connection may be read further. If not, `reader` is woken when this connection holds less. The
    /// caller of this function must check from time to time whether other connections hold less.
    pub fn may_read(&self, budget: u64, reader: &Waker) -> bool {
        let decide = || has_room(self.loose.load(Relaxed), self.process.counted(), budget);
        if decide() {
            self.is_paused.store(false, Relaxed);
            return true;
        }
        self.reader.register(reader);
        if !self.is_paused.swap(true, Relaxed) {
            self.process.pauses.fetch_add(1, Relaxed);
        }
        // Checked again, because a read in between did not wake the reader.
        decide()
    }

    fn change(&self, before: Bytes, after: Bytes) {
        change(&self.process.held, before.held.into(), after.held.into());
        change(&self.process.counted, before.counted(), after.counted());
        change(&self.counted, before.counted(), after.counted());
        change(&self.loose, before.loose(), after.loose());
        if after.loose() < before.loose() && self.is_paused.load(Relaxed) {
            self.reader.wake();
        }
    }
}

fn change(counter: &AtomicU64, before: u64, after: u64) {
    match after.checked_sub(before) {
        Some(0) => {}
        Some(more) => drop(counter.fetch_add(more, Relaxed)),
        None => drop(counter.fetch_sub(before - after, Relaxed)),
    }
}

impl ParkedUpload {
    pub const fn new(connection: Arc<ParkedOfConnection>, windows: FlowControlWindows) -> Self {
        Self {
            connection,
            bytes: AtomicU64::new(0),
            windows,
            is_refused: AtomicBool::new(false),
        }
    }

    /// Requests room for an upload when its request arrives, before any of its body. `length` is the announced size.
    pub fn ask_for_room(&self, length: Option<u64>, budget: u64) {
        let window = self.windows.unread;
        let granted = length.map_or(window, |length| u32::try_from(length).unwrap_or(window).min(window));
        let own = self.connection.counted.load(Relaxed);
        let process = &self.connection.process;
        if has_room(own + u64::from(granted), process.counted(), budget) {
            self.change(|bytes| Bytes { granted, ..bytes });
        } else if own > 0 {
            // The only upload of a connection blocks no other upload. It is not refused, and counts as it arrives.
            process.refusals.fetch_add(1, Relaxed);
            self.is_refused.store(true, Relaxed);
        }
    }

    /// Whether there was no room for the upload.
    pub fn is_refused(&self) -> bool {
        self.is_refused.load(Relaxed)
    }

    /// Counts a frame of `count` bytes that arrived.
    pub fn arrive(&self, count: u32) {
        let window = self.windows.stream;
        self.change(|bytes| Bytes {
            held: bytes.held.saturating_add(count).min(window),
            frames: (bytes.frames + 1).min(window),
            ..bytes
        });
    }

    /// Marks the upload as read from now on.
    pub fn start(&self) {
        if Bytes::unpacked(self.bytes.load(Relaxed)).granted > 0 {
            self.change(|bytes| Bytes { granted: 0, ..bytes });
        }
    }

    /// Counts a frame of `count` bytes that was read.
    pub fn read(&self, count: usize) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.change(|bytes| Bytes {
            held: bytes.held.saturating_sub(count),
            frames: bytes.frames.saturating_sub(1),
            ..bytes
        });
    }

    /// Records that everything that arrived was read. Padding is never read, and nothing holds it.
    pub fn read_all(&self) {
        if self.bytes.load(Relaxed) != Bytes::NONE.packed() {
            self.change(|_| Bytes::NONE);
        }
    }

    /// Drops the rest of the upload from the count.
    pub fn discard(&self) {
        let before = self.bytes.swap(DROPPED, Relaxed);
        if before != DROPPED {
            self.connection.change(Bytes::unpacked(before), Bytes::NONE);
        }
    }

    fn change(&self, to: impl Fn(Bytes) -> Bytes) {
        let to = |before| to(Bytes::unpacked(before));
        let step = |before| (before != DROPPED).then(|| to(before).packed());
        if let Ok(before) = self.bytes.fetch_update(Relaxed, Relaxed, step) {
            self.connection.change(Bytes::unpacked(before), to(before));
        }
    }
}

impl Drop for ParkedUpload {
    fn drop(&mut self) {
        self.discard();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Budget in bytes, of which an eighth is 1000.
    const BUDGET: u64 = 8000;
    const WINDOWS: FlowControlWindows = FlowControlWindows {
        unread: 400,
        stream: 600,
        connection: 10_000,
    };

    #[test]
    fn a_connection_may_have_an_eighth_of_what_is_left() {
        let check = |own, total, expected| assert_eq!(has_room(own, total, BUDGET), expected, "{own} of {total}");
        check(0, 0, true);
        check(888, 888, true);
        check(889, 889, false);
        check(500, 4000, true);
        check(501, 4000, false);
        // A connection that holds nothing is read even if the budget is used up.
        check(0, 8000, true);
        check(1, 8000, false);
        // The budget has been lowered.
        check(0, 50_000, true);
        check(1, 50_000, false);
    }

    struct Setup {
        process: Arc<ParkedBytes>,
        connection: Arc<ParkedOfConnection>,
    }

    impl Setup {
        fn new() -> Self {
            Self::of(&Arc::default())
        }

        fn of(process: &Arc<ParkedBytes>) -> Self {
            Self {
                process: Arc::clone(process),
                connection: Arc::new(ParkedOfConnection::new(Arc::clone(process))),
            }
        }

        fn upload(&self) -> ParkedUpload {
            ParkedUpload::new(Arc::clone(&self.connection), WINDOWS)
        }

        #[track_caller]
        fn check(&self, held: u64, counted: u64) {
            assert_eq!((self.process.held(), self.process.counted()), (held, counted));
            assert_eq!(self.connection.counted.load(Relaxed), counted);
        }
    }

    #[test]
    fn what_was_read_or_dropped_is_held_no_longer() {
        let setup = Setup::new();
        let (one, other) = (setup.upload(), setup.upload());
        one.arrive(60);
        other.arrive(30);
        setup.check(90, 90 + 2 * FRAME);
        one.read(50);
        setup.check(40, 40 + FRAME);
        // Padding is never read: it counts at most up to the window, until everything else is read.
        one.arrive(1000);
        setup.check(630, 630 + 3 * FRAME - FRAME);
        one.read(100);
        setup.check(530, 530 + FRAME);
        one.read_all();
        setup.check(30, 30 + FRAME);
        other.discard();
        setup.check(0, 0);
        other.arrive(10);
        other.read(10);
        other.start();
        other.read_all();
        other.discard();
        setup.check(0, 0);
        one.arrive(7);
        setup.check(7, 7 + FRAME);
        drop(one);
        setup.check(0, 0);
    }

    #[test]
    fn an_upload_counts_with_all_that_it_may_send_until_it_is_read() {
        let setup = Setup::new();
        let (long, short, empty) = (setup.upload(), setup.upload(), setup.upload());
        long.ask_for_room(None, BUDGET);
        setup.check(0, 400);
        short.ask_for_room(Some(10), BUDGET);
        empty.ask_for_room(Some(0), BUDGET);
        setup.check(0, 410);
        long.arrive(40);
        setup.check(40, 410);
        assert!(setup.connection.is_free(), "what was granted stops nobody");
        long.start();
        setup.check(40, 50 + FRAME);
        assert!(!setup.connection.is_free());
        long.read(40);
        setup.check(0, 10);
        short.discard();
        setup.check(0, 0);
    }

    #[test]
    fn frames_of_one_byte_count_with_what_they_take() {
        let setup = Setup::new();
        let upload = setup.upload();
        upload.ask_for_room(None, BUDGET);
        let mut arrived = 0;
        while setup.connection.may_read(BUDGET, Waker::noop()) {
            upload.arrive(1);
            arrived += 1;
        }
        setup.check(arrived, arrived * (1 + FRAME));
        // The count is an eighth of what is left, plus the grant.
        assert_eq!(arrived, 5);
    }

    #[test]
    fn an_upload_without_room_is_refused_unless_it_is_the_only_one() {
        let setup = Setup::new();
        let uploads = [(); 3].map(|()| setup.upload());
        for upload in &uploads {
            upload.ask_for_room(None, BUDGET);
        }
        // An eighth of 8000 is more than one window, and of 7600 more than two windows. Of 7200 it is less than three.
        assert_eq!(
            uploads.each_ref().map(|upload| upload.is_refused()),
            [false, false, true]
        );
        setup.check(0, 800);
        assert_eq!(setup.process.refusals(), 1);
        let other = Setup::of(&setup.process);
        let (first, second) = (other.upload(), other.upload());
        first.ask_for_room(None, 100);
        assert!(!first.is_refused());
        first.arrive(1);
        second.ask_for_room(Some(1), 100);
        assert!(second.is_refused());
    }

    #[test]
    fn a_connection_that_is_not_read_further_is_woken_when_it_holds_less() {
        let setup = Setup::new();
        let (upload, connection) = (setup.upload(), &setup.connection);
        let woken = Arc::new(Woken::default());
        let reader = Waker::from(Arc::clone(&woken));
        upload.arrive(600);
        upload.arrive(1);
        assert!(!connection.may_read(BUDGET, &reader));
        assert!(!connection.may_read(BUDGET, &reader));
        assert_eq!(setup.process.pauses(), 1, "it is one pause however often one looks");
        assert!(!woken.0.load(Relaxed));
        upload.read(600);
        assert!(woken.0.load(Relaxed));
        assert!(connection.may_read(BUDGET, &reader));
    }

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Relaxed);
        }
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Begin,
        Arrive(u32),
        Read(usize),
        Drop,
    }

    fn steps() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => Just(Step::Begin),
            4 => (1..20_u32).prop_map(Step::Arrive),
            2 => (1..20_usize).prop_map(Step::Read),
            1 => Just(Step::Drop),
        ]
    }

    proptest! {
        #![proptest_config(cases::counted())]

        /// Connections begin uploads and send in any order, before and after they are read.
        #[test]
        fn no_crowd_uses_up_the_budget(
            steps in prop::collection::vec((0..40_usize, 0..4_usize, steps()), 1..400),
        ) {
            let process = Arc::default();
            let connections: Vec<_> = (0..40).map(|_| Setup::of(&process)).collect();
            let mut uploads: Vec<Vec<(ParkedUpload, u32, bool)>> = (0..40).map(|_| Vec::new()).collect();
            for (number, place, step) in steps {
                let (connection, of_it) = (&connections[number].connection, &mut uploads[number]);
                match step {
                    Step::Begin if connection.may_read(BUDGET, Waker::noop()) => {
                        let upload = connections[number].upload();
                        upload.ask_for_room(None, BUDGET);
                        if !upload.is_refused() {
                            of_it.push((upload, 0, false));
                        }
                    }
                    Step::Arrive(count) if connection.may_read(BUDGET, Waker::noop()) => {
                        if let Some((upload, held, is_read)) = of_it.get_mut(place) {
                            // A caller never sends more than its window.
                            let window = if *is_read { WINDOWS.stream } else { WINDOWS.unread };
                            let count = count.min(window.saturating_sub(*held));
                            upload.arrive(count);
                            *held += count;
                        }
                    }
                    Step::Read(count) => {
                        if let Some((upload, held, is_read)) = of_it.get_mut(place) {
                            upload.start();
                            upload.read(count);
                            *held = held.saturating_sub(count as u32);
                            *is_read = true;
                        }
                    }
                    Step::Drop if place < of_it.len() => drop(of_it.remove(place)),
                    _ => {}
                }
                let held: u32 = uploads.iter().flatten().map(|(_, held, _)| *held).sum();
                prop_assert_eq!(process.held(), u64::from(held));
                prop_assert!(process.counted() >= process.held());
                // One piece for each connection may have been on its way when the decision was made.
                prop_assert!(process.counted() <= BUDGET + 40 * (19 + FRAME));
            }
            drop(uploads);
            prop_assert_eq!((process.held(), process.counted()), (0, 0));
        }
    }
}
