//! Compiles which answers are compressed for callers.

use std::sync::Arc;

use crate::compression::{Compression, Levels};
use crate::config;
use crate::plan::compile::compiler::Compiler;
use crate::plan::outline::CompressionOutline;

/// Compiles the section at the top, which routes share.
pub(super) fn of_top(config: &config::Config) -> Option<Arc<Compression>> {
    config.compression.as_ref().map(|written| Arc::new(compile(written)))
}

/// Returns the rules of a route: its own, or those of the top.
pub(super) fn of_route(compiler: &Compiler<'_>, written: &config::Route) -> Option<Arc<Compression>> {
    match &written.compression {
        None => compiler.compression.clone(),
        Some(config::OwnCompression::Off) => None,
        Some(config::OwnCompression::On(own)) => Some(Arc::new(compile(own))),
    }
}

/// Describes the rules of a route for the admin API.
pub(super) fn outline(config: &config::Config, written: &config::Route) -> Option<CompressionOutline> {
    let written = match &written.compression {
        None => config.compression.as_ref()?,
        Some(config::OwnCompression::Off) => return None,
        Some(config::OwnCompression::On(own)) => own,
    };
    let Compression {
        codings,
        levels: _,
        types,
        minimum,
        memory: _,
    } = compile(written);
    Some(CompressionOutline {
        codings: codings.iter().map(|coding| coding.as_str()).collect(),
        types: types.iter().map(ToString::to_string).collect(),
        minimum_bytes: minimum,
    })
}

fn compile(written: &config::Compression) -> Compression {
    let config::Compression {
        codings,
        levels,
        types,
        minimum,
        memory,
    } = written;
    let config::CompressionLevels { gzip, br, zstd } = levels;
    Compression {
        codings: codings.iter().map(|coding| coding.value).collect(),
        levels: Levels {
            gzip: **gzip,
            brotli: **br,
            zstd: **zstd,
        },
        types: types.iter().map(|range| range.value.clone()).collect(),
        minimum: minimum.0,
        memory: memory.0,
    }
}
