//! Finds the HTTP/2 frames in a byte stream that arrives in any pieces (RFC 9113 section 4.1).

/// Header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub length: u32,
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Met {
    /// The header of a frame is complete.
    Begin(Head),
    /// The whole frame is complete.
    End(Head),
}

#[derive(Debug, Clone, Copy)]
pub struct Scan {
    /// Frame header, as far as it has arrived.
    header: [u8; 9],
    have: usize,
    /// Number of bytes before the next header.
    skip: u32,
}

impl Scan {
    /// Starts a scan; `ahead` bytes come before the first frame.
    pub const fn begin(ahead: u32) -> Self {
        Self {
            header: [0; 9],
            have: 0,
            skip: ahead,
        }
    }

    /// Whether a frame has arrived in part.
    pub const fn is_within(&self) -> bool {
        self.have > 0
    }

    /// Returns the next event and removes the bytes up to it; without an event, removes all bytes.
    pub fn next(&mut self, bytes: &mut &[u8]) -> Option<Met> {
        loop {
            if self.have == self.header.len() && self.skip == 0 {
                self.have = 0;
                return Some(Met::End(self.head()));
            }
            if bytes.is_empty() {
                return None;
            }
            if self.skip > 0 {
                let skipped = bytes.len().min(self.skip as usize);
                *bytes = &bytes[skipped..];
                self.skip -= u32::try_from(skipped).unwrap_or(self.skip);
                continue;
            }
            let taken = bytes.len().min(self.header.len() - self.have);
            self.header[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            *bytes = &bytes[taken..];
            if self.have == self.header.len() {
                let head = self.head();
                self.skip = head.length;
                return Some(Met::Begin(head));
            }
        }
    }

    const fn head(&self) -> Head {
        let [a, b, c, kind, flags, d, e, f, g] = self.header;
        Head {
            length: u32::from_be_bytes([0, a, b, c]),
            kind,
            flags,
            // The first bit is reserved.
            stream: u32::from_be_bytes([d & 0x7f, e, f, g]),
        }
    }
}
