//! Handles what is sent and received: HTTP/1.1 framing, HTTP/2 frames, gRPC, WebSocket, JSON bodies, and slow callers.

pub mod aliases;
pub mod caller_body;
pub mod content_encoding;
pub mod expiry;
pub mod flow_control;
pub mod gathered_io;
pub mod grpc;
pub mod http1;
pub mod http2_frames;
pub mod http2_switched;
pub mod interim;
pub mod json_body;
pub mod min_rate;
pub mod parked;
pub mod slow_caller;
pub mod stream_body;
pub mod switched_stream;
pub mod upload;
pub mod websocket;
pub mod write_queue;
