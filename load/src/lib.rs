//! Measures the gateway under load.
