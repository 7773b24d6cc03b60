//! Computes the proof that a server has read the key of a WebSocket's opening handshake.
//!
//! The handshake itself is in `headers/websocket.rs`, and the bytes after it in `response/tunnel.rs`.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Returns the value of `Sec-WebSocket-Accept` (RFC 6455 section 4.2.2). It proves that the key was read, and is no
/// secret.
pub fn accept(key: &[u8]) -> String {
    let proof = [key, b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"].concat();
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &proof))
}
