//! Finds the end of each WebSocket frame (RFC 6455 section 5.2), so that the gateway can send a frame of its own
//! between two frames.
//!
//! Counts bytes; knows nothing of messages, masks or content. Each direction of a connection has its own counter.

/// Position within a frame after the bytes so far.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    /// Bytes of an incomplete head.
    head: [u8; 14],
    head_len: usize,
    /// Remaining bytes of payload.
    payload: u64,
    said_close: bool,
    /// Number of complete frames, without pings and pongs.
    whole: u64,
    /// Bytes of such frames, complete or not.
    said: u64,
    /// Bytes of pings.
    pinged: u64,
}

/// Opcode of a close frame (RFC 6455 section 5.5.1).
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

impl Frames {
    /// Counts the bytes that pass.
    pub(crate) fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.payload > 0 {
                let count = usize::try_from(self.payload).unwrap_or(usize::MAX).min(bytes.len());
                self.payload -= count as u64;
                self.count(count);
                bytes = &bytes[count..];
                continue;
            }
            self.head[self.head_len] = bytes[0];
            self.head_len += 1;
            bytes = &bytes[1..];
            if self.head_len == self.head_size() {
                self.said_close |= self.opcode() == CLOSE;
                self.payload = self.payload_size();
                let size = std::mem::take(&mut self.head_len);
                self.count(size);
            }
        }
    }

    /// Returns the opcode of the current frame.
    const fn opcode(&self) -> u8 {
        self.head[0] & 0x0f
    }

    /// Counts more bytes of the current frame.
    const fn count(&mut self, bytes: usize) {
        match self.opcode() {
            // A pong only echoes what the other side has sent.
            PONG => {}
            PING => self.pinged += bytes as u64,
            _ => {
                self.said += bytes as u64;
                self.whole += (self.payload == 0) as u64;
            }
        }
    }

    /// Returns the number of complete frames, without pings and pongs, which carry no data.
    pub(crate) const fn whole(&self) -> u64 {
        self.whole
    }

    /// Returns the bytes of those frames and of the current one.
    pub(crate) const fn said(&self) -> u64 {
        self.said
    }

    /// Returns the bytes of pings.
    pub(crate) const fn pinged(&self) -> u64 {
        self.pinged
    }

    /// Returns how many bytes are certain to belong to the current frame; 0 between two frames.
    pub(crate) fn until_boundary(&self) -> usize {
        if self.head_len > 0 {
            self.head_size() - self.head_len
        } else {
            usize::try_from(self.payload).unwrap_or(usize::MAX)
        }
    }

    /// Whether a close frame has passed. No frame may follow it.
    pub(crate) const fn said_close(&self) -> bool {
        self.said_close
    }

    /// Returns the size of the head, as far as the bytes so far determine it.
    fn head_size(&self) -> usize {
        if self.head_len < 2 {
            return 2;
        }
        let length = match self.head[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if self.head[1] & 0x80 == 0 { 0 } else { 4 };
        2 + length + mask
    }

    /// Returns the payload size in a complete head.
    fn payload_size(&self) -> u64 {
        let extended = |bytes: &[u8]| bytes.iter().fold(0, |size, byte| size << 8 | u64::from(*byte));
        match self.head[1] & 0x7f {
            126 => extended(&self.head[2..4]),
            127 => extended(&self.head[2..10]),
            short => u64::from(short),
        }
    }
}

/// Builds a close frame "going away" (status 1001). Frames from a caller's side are masked (RFC 6455 section 5.3).
pub(crate) fn going_away(mask: Option<[u8; 4]>) -> Vec<u8> {
    const STATUS: [u8; 2] = 1001_u16.to_be_bytes();
    match mask {
        None => [[0x88, 2], STATUS].concat(),
        Some(mask) => {
            let masked = [STATUS[0] ^ mask[0], STATUS[1] ^ mask[1]];
            [&[0x88, 0x82][..], &mask, &masked].concat()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(opcode: u8, size: usize, masked: bool) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut out = vec![0x80 | opcode];
        match size {
            0..126 => out.push(mask | size as u8),
            126..65536 => {
                out.push(mask | 126);
                out.extend((size as u16).to_be_bytes());
            }
            _ => {
                out.push(mask | 127);
                out.extend((size as u64).to_be_bytes());
            }
        }
        if masked {
            out.extend([1, 2, 3, 4]);
        }
        out.extend(std::iter::repeat_n(0x88, size));
        out
    }

    #[test]
    fn a_close_frame_is_one() {
        for close in [going_away(None), going_away(Some([9, 8, 7, 6]))] {
            let mut frames = Frames::default();
            frames.pass(&close);
            assert!(frames.said_close() && frames.until_boundary() == 0, "{close:x?}");
        }
        assert_eq!(going_away(None), [0x88, 2, 0x03, 0xe9]);
    }

    #[test]
    fn only_what_says_something_is_counted() {
        let check = |opcode, size, whole, said, pinged| {
            let mut frames = Frames::default();
            let bytes = frame(opcode, size, true);
            let (last, before) = bytes.split_last().expect("a frame has a head");
            frames.pass(before);
            assert_eq!(frames.whole(), 0, "{opcode} of {size}");
            frames.pass(&[*last]);
            let counted = (frames.whole(), frames.said(), frames.pinged());
            assert_eq!(counted, (whole, said, pinged), "{opcode} of {size}");
        };
        check(1, 0, 1, 6, 0);
        check(2, 200, 1, 208, 0);
        check(0, 1, 1, 7, 0);
        check(PING, 5, 0, 0, 11);
        check(PONG, 5, 0, 0, 0);
        check(PONG, 0, 0, 0, 0);
    }

    #[test]
    fn a_length_that_no_one_can_send_does_no_harm() {
        let mut frames = Frames::default();
        frames.pass(&[0x82, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        frames.pass(&[0; 100]);
        assert!(frames.until_boundary() > 0);
    }

    proptest! {
        #![proptest_config(cases::counted())]

        #[test]
        fn boundaries_are_found_however_the_bytes_come(
            sizes in prop::collection::vec((prop_oneof![0_usize..200, 65_500_usize..65_600], any::<bool>()), 1..6),
            pieces in prop::collection::vec(1_usize..5000, 1..50),
        ) {
            let mut bytes = Vec::new();
            let mut ends = vec![0];
            for (size, masked) in sizes {
                bytes.extend(frame(2, size, masked));
                ends.push(bytes.len());
            }
            let (mut frames, mut at) = (Frames::default(), 0);
            for piece in pieces.into_iter().cycle() {
                prop_assert_eq!(frames.until_boundary() == 0, ends.contains(&at), "at {}", at);
                let next = ends.iter().find(|end| **end >= at).copied().unwrap_or(at);
                prop_assert!(at + frames.until_boundary() <= next);
                if at == bytes.len() {
                    break;
                }
                let to = (at + piece).min(bytes.len());
                frames.pass(&bytes[at..to]);
                at = to;
            }
            prop_assert!(!frames.said_close());
        }
    }
}
