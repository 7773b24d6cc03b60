//! End-to-end proof of the gateway, from outside.
