//! Finds the end of each gRPC message in a body that arrives in any pieces.
//!
//! A message is a byte of flags, four bytes of length, and that many bytes (PROTOCOL-HTTP2 of gRPC,
//! *Length-Prefixed-Message*). Counts bytes; knows nothing of their content.

/// Position within a message after the bytes so far.
#[derive(Debug, Default)]
pub struct Messages {
    /// Bytes of an incomplete prefix.
    prefix: [u8; 5],
    have: usize,
    /// Remaining bytes of the message.
    left: u32,
}

impl Messages {
    /// Returns the number of messages that end in these bytes.
    pub fn pass(&mut self, mut bytes: &[u8]) -> u32 {
        let mut ended = 0;
        while !bytes.is_empty() {
            if self.left > 0 {
                let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
                self.left -= u32::try_from(count).unwrap_or(self.left);
                bytes = &bytes[count..];
            } else {
                self.prefix[self.have] = bytes[0];
                self.have += 1;
                bytes = &bytes[1..];
                if self.have < self.prefix.len() {
                    continue;
                }
                let [_, length @ ..] = self.prefix;
                self.left = u32::from_be_bytes(length);
                self.have = 0;
            }
            ended += u32::from(self.left == 0);
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(length: u32) -> Vec<u8> {
        let content = vec![7; length as usize];
        [&[0], &length.to_be_bytes()[..], &content].concat()
    }

    #[test]
    fn a_message_counts_when_its_last_byte_is_there() {
        let check = |bytes: &[u8], expected: &[u32]| {
            let mut messages = Messages::default();
            let ended: Vec<u32> = bytes.iter().map(|byte| messages.pass(&[*byte])).collect();
            assert_eq!(ended, expected, "{bytes:?}");
        };
        check(&message(0), &[0, 0, 0, 0, 1]);
        check(&message(2), &[0, 0, 0, 0, 0, 0, 1]);
        check(&[message(0), message(1)].concat(), &[0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
        // The largest possible length.
        check(&[0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3], &[0; 8]);
    }

    proptest! {
        #![proptest_config(cases::counted())]

        #[test]
        fn messages_are_counted_however_they_come(
            lengths in prop::collection::vec(0_u32..300, 0..20),
            pieces in prop::collection::vec(1_usize..400, 1..20),
        ) {
            let bytes: Vec<u8> = lengths.iter().flat_map(|length| message(*length)).collect();
            let (mut messages, mut rest, mut ended) = (Messages::default(), &bytes[..], 0);
            for piece in pieces.into_iter().cycle() {
                let (now, later) = rest.split_at(piece.min(rest.len()));
                ended += messages.pass(now);
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(ended as usize, lengths.len());
        }
    }
}
