//! The codings that the gateway writes (RFC 9110 section 8.4.1, RFC 7932, RFC 8878).

use http::HeaderValue;

/// A content coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Coding {
    Gzip,
    Brotli,
    Zstd,
}

impl Coding {
    pub const ALL: [Self; 3] = [Self::Gzip, Self::Brotli, Self::Zstd];

    /// Returns the name that is written in header fields and in the config.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }

    /// Finds a coding by its name, without regard to case. `x-gzip` is `gzip` (RFC 9110 section 8.4.1.3).
    pub fn named(name: &[u8]) -> Option<Self> {
        let name = if name.eq_ignore_ascii_case(b"x-gzip") {
            b"gzip"
        } else {
            name
        };
        let mut all = Self::ALL.into_iter();
        all.find(|coding| name.eq_ignore_ascii_case(coding.as_str().as_bytes()))
    }

    pub(super) const fn value(self) -> HeaderValue {
        HeaderValue::from_static(self.as_str())
    }
}

/// How hard each coding tries to make an answer small.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Levels {
    /// 1 to 9.
    pub gzip: u32,
    /// 0 to 6.
    pub brotli: u32,
    /// 1 to 6.
    pub zstd: u32,
}

impl Levels {
    pub(super) const fn of(self, coding: Coding) -> u32 {
        match coding {
            Coding::Gzip => self.gzip,
            Coding::Brotli => self.brotli,
            Coding::Zstd => self.zstd,
        }
    }
}
