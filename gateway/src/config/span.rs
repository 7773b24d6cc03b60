//! The place of a value in its file, kept with the value so that a later check can report it.
//!
//! A default has no span. [`At::is_written`] tells a written value from a default, because some checks compare only
//! *written* limits.

use std::fmt;
use std::ops::Deref;

/// A range of bytes in one source; the end is exclusive. Only [`super::Sources`] can turn it into a line and column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    pub(super) source: u16,
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Span {
    /// Returns the number of the source, which is 0 for the config itself, and the range of bytes in it.
    #[cfg(test)]
    pub fn place(self) -> (u16, std::ops::Range<usize>) {
        (self.source, self.start as usize..self.end as usize)
    }
}

/// A value and its place in the config. Comparisons ignore the place.
#[derive(Clone, Copy)]
pub struct At<T> {
    pub value: T,
    span: Option<Span>,
}

impl<T> At<T> {
    pub const fn written(value: T, span: Span) -> Self {
        Self {
            value,
            span: Some(span),
        }
    }

    /// Creates a default value, which has no place.
    pub const fn unwritten(value: T) -> Self {
        Self { value, span: None }
    }

    pub const fn span(&self) -> Option<Span> {
        self.span
    }

    pub const fn is_written(&self) -> bool {
        self.span.is_some()
    }

    pub const fn as_ref(&self) -> At<&T> {
        At {
            value: &self.value,
            span: self.span,
        }
    }

    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> At<U> {
        At {
            value: f(self.value),
            span: self.span,
        }
    }
}

impl<T> Deref for At<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: fmt::Debug> fmt::Debug for At<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

impl<T: fmt::Display> fmt::Display for At<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

impl<T: PartialEq> PartialEq for At<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: Eq> Eq for At<T> {}
