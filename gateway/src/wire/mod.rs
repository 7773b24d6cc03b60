//! What is sent and received: HTTP/1.1 framing, gRPC, WebSocket, and how slowly callers may send and read.

pub mod aliases;
pub mod caller_body;
pub mod coalesce;
pub mod content_encoding;
pub mod expiry;
pub mod flow_control;
pub mod framing;
pub mod grpc;
pub mod http2_frames;
pub mod json_body;
pub mod min_rate;
pub mod parked;
pub mod slow_caller;
pub mod websocket;
