//! User names and passwords (RFC 7617).

pub mod checks;
pub mod password_cache;
pub mod users;
