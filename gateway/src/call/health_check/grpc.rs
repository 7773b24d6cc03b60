//! The health check of gRPC (`grpc.health.v1`): one message of one field in each direction.

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;

use super::in_words;
use crate::header_fields::GRPC_STATUS;

/// Maximum size in bytes of an answer, which needs seven.
const LONGEST: usize = 4096;

pub(super) fn set_headers(headers: &mut HeaderMap) {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
}

/// Returns the body of the question: a `HealthCheckRequest` with the name of the service, in a frame.
pub(super) fn question(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        // Field 1, of variable length.
        message.put_u8(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.put_u8((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        message.put_u8(length as u8);
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.put(message);
    frame.freeze()
}

/// Reads an answer. Returns what is wrong unless the service is serving.
pub(super) async fn read(answer: Response<Incoming>) -> Result<(), String> {
    let (head, body) = answer.into_parts();
    // An error without a message has its status in the head.
    refused(&head.headers)?;
    let body = Limited::new(body, LONGEST).collect().await.map_err(in_words)?;
    match body.trailers() {
        Some(trailers) => refused(trailers)?,
        None => return Err("the answer has no gRPC status".to_owned()),
    }
    match serving_status(&body.to_bytes()) {
        Some(1) => Ok(()),
        Some(0) => Err("the service is UNKNOWN".to_owned()),
        Some(2) => Err("the service is NOT_SERVING".to_owned()),
        Some(3) => Err("the service is SERVICE_UNKNOWN".to_owned()),
        Some(_) | None => Err("the answer is no HealthCheckResponse".to_owned()),
    }
}

fn refused(fields: &HeaderMap) -> Result<(), String> {
    match fields
        .get(&GRPC_STATUS)
        .map(|status| status.to_str().unwrap_or("unreadable"))
    {
        None | Some("0") => Ok(()),
        Some(status) => Err(format!("gRPC status {}", in_words(status))),
    }
}

/// Returns the status of a `HealthCheckResponse` in its frame. A status of zero is left out on the wire.
fn serving_status(frame: &[u8]) -> Option<u64> {
    let (head, mut message) = frame.split_at_checked(5)?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    if head[0] != 0 || length as usize != message.len() {
        return None;
    }
    let mut status = 0;
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        match tag & 7 {
            0 => {
                let value = varint(&mut message)?;
                if tag >> 3 == 1 {
                    status = value;
                }
            }
            2 => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            1 => message = message.get(8..)?,
            5 => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for (number, byte) in message.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f).checked_shl(7 * number as u32)?;
        if byte & 0x80 == 0 {
            *message = &message[number + 1..];
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_is_a_message_in_a_frame() {
        assert_eq!(question("").as_ref(), [0, 0, 0, 0, 0]);
        assert_eq!(question("shop").as_ref(), b"\0\0\0\0\x06\x0a\x04shop");
        let long = "x".repeat(300);
        assert_eq!(question(&long)[..8], [0, 0, 0, 1, 0x2f, 0x0a, 0xac, 0x02]);
    }

    #[test]
    fn the_status_of_an_answer_is_read() {
        let check = |frame: &[u8], expected: Option<u64>| assert_eq!(serving_status(frame), expected, "{frame:?}");
        check(&[0, 0, 0, 0, 2, 8, 1], Some(1));
        check(&[0, 0, 0, 0, 2, 8, 2], Some(2));
        check(&[0, 0, 0, 0, 0], Some(0));
        // Fields that a later version may add are left out.
        check(&[0, 0, 0, 0, 7, 0x12, 1, b'x', 8, 1, 0x18, 9], Some(1));
        check(&[0, 0, 0, 0, 3, 8, 0x81, 0], Some(1));
        // Cut off, compressed, too long, not a message.
        check(&[], None);
        check(&[0, 0, 0, 0, 3, 8, 1], None);
        check(&[1, 0, 0, 0, 2, 8, 1], None);
        check(&[0, 0, 0, 0, 2, 8, 0x81], None);
        check(&[0, 0, 0, 0, 2, 0x12, 9], None);
        check(&[0, 0, 0, 0, 2, 0x0f, 1], None);
        check(
            &[0, 0, 0, 0, 11, 8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255],
            None,
        );
    }
}
