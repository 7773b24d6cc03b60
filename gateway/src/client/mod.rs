//! Determines the client address of a request.

pub mod address;
pub mod address_list;
pub mod embedded_ipv4;
pub mod proxy_protocol;
