//! Decides.
mod moment;
pub use moment::Moment;
