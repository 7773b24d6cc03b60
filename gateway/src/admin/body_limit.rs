//! The bound on the body of a request.

/// Largest body of a request, in bytes.
pub(super) const MAX_BODY: usize = 2 << 20;
