//! User names and passwords (RFC 7617).

pub mod checks;
pub mod password_cache;
pub mod password_check;
pub mod password_hash;
pub mod users;
