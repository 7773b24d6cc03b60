//! Buffers log lines for a target that may accept only a part of them, such as a full disk.
//!
//! Invariant: a line is written completely, not at all, or in part, and then its rest is written before anything else.
//! So two lines never merge, and each lost line is counted once.

use std::io::{self, ErrorKind, Write};

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::Formatter;

#[derive(Debug, Default)]
pub(super) struct Lines {
    text: Vec<u8>,
    /// End of each line in the text, including its line feed.
    ends: Vec<usize>,
    first: First,
}

/// The state of the first line.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum First {
    #[default]
    Nothing,
    /// Its beginning is written; the text starts with the rest.
    Begun,
    /// Only a line end, for an incomplete line that the target already had. It does not count as a lost line.
    Found,
}

/// Writes JSON without invisible or active characters. Beside those that JSON escapes, it escapes other control
/// characters, line and paragraph separators, and characters that change the text direction.
struct Visible;

impl Formatter for Visible {
    fn write_string_fragment<W: Write + ?Sized>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, hidden)) = rest.char_indices().find(|(_, letter)| is_hidden(*letter)) {
            writer.write_all(&rest.as_bytes()[..at])?;
            // All of these characters are in the basic plane, so four hex digits suffice.
            write!(writer, "\\u{:04x}", u32::from(hidden))?;
            rest = &rest[at + hidden.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }
}

const fn is_hidden(letter: char) -> bool {
    matches!(letter,
        '\u{7f}'..='\u{9f}'
        | '\u{61c}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{2069}'
        | '\u{feff}')
}

impl Lines {
    /// Appends a value as one line of JSON.
    pub(super) fn push(&mut self, value: &impl Serialize) {
        let mut written = Serializer::with_formatter(&mut self.text, Visible);
        value
            .serialize(&mut written)
            .expect("memory takes any line, and a line is JSON");
        self.text.push(b'\n');
        self.ends.push(self.text.len());
    }

    /// Inserts a line end in front, for a target that ends with an incomplete line.
    pub(super) fn end_found(&mut self) {
        self.text.insert(0, b'\n');
        self.ends.iter_mut().for_each(|end| *end += 1);
        self.ends.insert(0, 1);
        self.first = First::Found;
    }

    pub(super) fn bytes(&self) -> usize {
        self.text.len()
    }

    /// Writes as much as the target accepts and keeps the rest.
    ///
    /// # Errors
    /// Returns an error if the target does not accept everything.
    pub(super) fn write_to(&mut self, target: &mut impl Write) -> io::Result<()> {
        let (written, result) = write_some(target, &self.text);
        self.written(written);
        result
    }

    /// Writes only the rest of a line whose beginning is written.
    ///
    /// # Errors
    /// Returns an error if the target does not accept all of it.
    pub(super) fn finish_begun(&mut self, target: &mut impl Write) -> io::Result<()> {
        let rest = match self.first {
            First::Nothing => 0,
            First::Begun | First::Found => self.ends[0],
        };
        let (written, result) = write_some(target, &self.text[..rest]);
        self.written(written);
        result
    }

    /// Drops all lines that are not written in part; returns their number.
    pub(super) fn drop_unbegun(&mut self) -> u64 {
        let kept = usize::from(self.first != First::Nothing);
        let lost = self.ends.len() - kept;
        self.ends.truncate(kept);
        self.text.truncate(self.ends.last().copied().unwrap_or(0));
        lost as u64
    }

    /// Drops the rest of a partly written line; returns the number of lost lines, 0 or 1.
    pub(super) fn drop_begun(&mut self) -> u64 {
        let first = std::mem::take(&mut self.first);
        if first != First::Nothing {
            self.take(self.ends[0], 1);
        }
        u64::from(first == First::Begun)
    }

    fn written(&mut self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let whole = self.ends.partition_point(|end| *end <= bytes);
        let start = whole.checked_sub(1).map_or(0, |last| self.ends[last]);
        self.first = if bytes > start { First::Begun } else { First::Nothing };
        self.take(bytes, whole);
    }

    fn take(&mut self, bytes: usize, lines: usize) {
        self.text.drain(..bytes);
        self.ends.drain(..lines);
        self.ends.iter_mut().for_each(|end| *end -= bytes);
    }
}

/// Returns how many bytes the target accepted, and the error that stopped it.
fn write_some(target: &mut impl Write, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < bytes.len() {
        match target.write(&bytes[written..]) {
            Ok(0) => return (written, Err(ErrorKind::WriteZero.into())),
            Ok(taken) => written += taken,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A disk with limited space.
    #[derive(Default)]
    struct Disk {
        content: Vec<u8>,
        room: usize,
        /// Maximum number of bytes that it accepts in one write.
        piece: usize,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.room).min(self.piece);
            if taken == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            self.room -= taken;
            self.content.extend(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Writes rounds of lines, each after so much more space. Returns the content of the disk and the number of lost
    /// lines.
    fn write(rounds: &[(usize, &[u32])]) -> (String, u64) {
        let (mut lines, mut lost) = (Lines::default(), 0);
        let mut disk = Disk {
            piece: 7,
            ..Disk::default()
        };
        for (room, numbers) in rounds {
            disk.room += room;
            numbers.iter().for_each(|number| lines.push(number));
            if lines.write_to(&mut disk).is_err() {
                lost += lines.drop_unbegun();
            }
        }
        lost += lines.drop_begun();
        (String::from_utf8(disk.content).expect("text"), lost)
    }

    #[test]
    fn a_line_hides_nothing_and_says_the_same() {
        let check = |text: &str, expected: &str| {
            let mut lines = Lines::default();
            lines.push(&text);
            let line = String::from_utf8(lines.text).unwrap();
            assert_eq!(line, format!("\"{expected}\"\n"), "{text:?}");
            assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
        };
        check("us\u{e9}r-\u{2603}-\u{1f600}", "us\u{e9}r-\u{2603}-\u{1f600}");
        check("a\"b\\c\nd\0", r#"a\"b\\c\nd\u0000"#);
        check("\u{7f}", r"\u007f");
        check("a\u{9b}31mb\u{85}", r"a\u009b31mb\u0085");
        check("\u{2028}\u{2029}", r"\u2028\u2029");
        check(
            "\u{202e}gnirts\u{202c}\u{2066}x\u{2069}",
            r"\u202egnirts\u202c\u2066x\u2069",
        );
        check("\u{200b}\u{200f}\u{61c}\u{feff}", r"\u200b\u200f\u061c\ufeff");
        check("\u{5d0}\u{5d1}", "\u{5d0}\u{5d1}");
    }

    #[test]
    fn no_line_is_torn_but_the_last_and_each_that_is_lost_counts_once() {
        let check = |rounds: &[(usize, &[u32])], disk: &str, lost: u64| {
            assert_eq!(write(rounds), (disk.to_owned(), lost), "{rounds:?}");
        };
        check(&[(99, &[11, 22])], "11\n22\n", 0);
        check(&[(0, &[11, 22])], "", 2);
        check(&[(3, &[11, 22, 33])], "11\n", 2);
        check(&[(4, &[11, 22, 33])], "11\n2", 2);
        check(&[(5, &[11, 22, 33])], "11\n22", 2);
        // When there is space again, the partly written line is finished first.
        check(&[(4, &[11, 22, 33]), (99, &[44])], "11\n22\n44\n", 1);
        check(&[(5, &[11, 22, 33]), (99, &[])], "11\n22\n", 1);
        check(&[(4, &[11, 22]), (0, &[33]), (99, &[44])], "11\n22\n44\n", 1);
        check(
            &[(4, &[11, 22]), (1, &[33]), (1, &[44]), (99, &[55])],
            "11\n22\n55\n",
            2,
        );
        check(&[(3, &[11, 22]), (99, &[33])], "11\n33\n", 1);
        check(&[(1, &[1111_1111]), (1, &[2]), (1, &[3])], "111", 3);
    }

    #[test]
    fn a_line_that_was_found_is_ended_and_is_not_ours() {
        for (room, expected, lost) in [(0, "to", 2), (1, "to\n", 2), (4, "to\n11\n", 1), (9, "to\n11\n22\n", 0)] {
            let mut disk = Disk {
                content: b"to".to_vec(),
                room,
                piece: 99,
            };
            let mut lines = Lines::default();
            lines.push(&11);
            lines.end_found();
            lines.push(&22);
            let mut found = 0;
            if lines.write_to(&mut disk).is_err() {
                found += lines.drop_unbegun();
            }
            found += lines.drop_begun();
            assert_eq!(
                (disk.content.as_slice(), found),
                (expected.as_bytes(), lost),
                "room for {room}"
            );
        }
    }

    proptest! {
        #![proptest_config(cases::counted())]

        #[test]
        fn every_line_is_on_the_disk_or_lost(rounds in prop::collection::vec((0usize..40, 0u32..6, 1usize..9), 1..30)) {
            let (mut lines, mut disk, mut lost, mut next) = (Lines::default(), Disk::default(), 0, 0u32);
            for (room, count, piece) in rounds {
                disk.room += room;
                disk.piece = piece;
                for _ in 0..count {
                    lines.push(&(next * 37));
                    next += 1;
                }
                if lines.write_to(&mut disk).is_err() {
                    lost += lines.drop_unbegun();
                }
                prop_assert!(lines.ends.len() <= 1, "nothing waits but a line that was begun");
            }
            lost += lines.drop_begun();
            let text = String::from_utf8(disk.content).expect("text");
            let whole: Vec<u32> = text
                .split_inclusive('\n')
                .filter_map(|line| line.strip_suffix('\n'))
                .map(|line| line.parse().expect("a number"))
                .collect();
            prop_assert!(whole.iter().all(|number| number % 37 == 0), "{:?}", text);
            prop_assert!(whole.is_sorted() && whole.windows(2).all(|pair| pair[0] != pair[1]), "{:?}", text);
            prop_assert_eq!(whole.len() as u64 + lost, u64::from(next));
        }
    }
}
