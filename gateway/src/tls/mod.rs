//! TLS of listeners: their own certificates, and the verification of callers' certificates.

pub mod certificate;
pub mod certificate_names;
pub mod client_authorities;
pub mod listener;
pub mod mistake;
