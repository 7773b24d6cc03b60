//! Sections of the config that may be left out.

/// Turns a failed optional section into `None`, and a missing one into `Some(None)`.
pub(super) fn transposed<T>(compiled: Option<Option<T>>) -> Option<Option<T>> {
    match compiled {
        None => Some(None),
        Some(sound) => Some(Some(sound?)),
    }
}
