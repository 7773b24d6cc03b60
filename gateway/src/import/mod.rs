//! Makes a config of what other gateways and descriptions say. Knows no files: text in, text out.

pub mod krakend;
mod names;
pub mod openapi;
mod yaml;

/// A config made of something else.
#[derive(Debug)]
pub struct Imported {
    /// Config, with comments about what could not be carried over.
    pub config: String,
    /// Number of things without a counterpart.
    pub left_out: usize,
}
