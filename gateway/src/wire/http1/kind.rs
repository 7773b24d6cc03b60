//! Names the fields that decide about a message and its connection.

/// Kind of a field, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldKind {
    Connection,
    ContentLength,
    Expect,
    Host,
    KeepAlive,
    ProxyConnection,
    Te,
    Trailer,
    TransferEncoding,
    Upgrade,
    Other,
}

impl FieldKind {
    /// Returns the kind of a name in any case.
    pub fn of(name: &[u8]) -> Self {
        let (kind, spelling): (_, &[u8]) = match name.len() {
            2 => (Self::Te, b"te"),
            4 => (Self::Host, b"host"),
            6 => (Self::Expect, b"expect"),
            7 => match name[0] | 0x20 {
                b't' => (Self::Trailer, b"trailer"),
                _ => (Self::Upgrade, b"upgrade"),
            },
            10 => match name[0] | 0x20 {
                b'c' => (Self::Connection, b"connection"),
                _ => (Self::KeepAlive, b"keep-alive"),
            },
            14 => (Self::ContentLength, b"content-length"),
            16 => (Self::ProxyConnection, b"proxy-connection"),
            17 => (Self::TransferEncoding, b"transfer-encoding"),
            _ => return Self::Other,
        };
        if name.eq_ignore_ascii_case(spelling) {
            kind
        } else {
            Self::Other
        }
    }

    /// Whether the field frames its message, so that only the writer of a message may set it.
    pub const fn is_framing(self) -> bool {
        matches!(self, Self::ContentLength | Self::TransferEncoding)
    }
}
