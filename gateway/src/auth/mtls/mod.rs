//! Client certificates.

pub mod caller_certificate;
pub mod holders;
