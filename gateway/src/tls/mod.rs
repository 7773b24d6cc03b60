//! TLS of listeners: certificates and what is asked of callers.

pub mod certificate;
pub mod certificate_names;
pub mod client_authorities;
pub mod listener;
