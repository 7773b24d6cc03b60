//! The probe of an endpoint that speaks HTTP/1.1: one GET, whose answer is read as strictly as those to calls.

use bytes::BytesMut;
use http::StatusCode;
use http::header::USER_AGENT;
use http::uri::PathAndQuery;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{AGENT, in_words};
use crate::call::endpoints::Endpoint;
use crate::wire::http1::{Asked, Event, Limits, Reader, write_request_head};

/// Asks once on a connection of its own. Returns the status of the answer, which may have at most `fields` fields.
pub(super) async fn status(endpoint: &Endpoint, path: &PathAndQuery, fields: usize) -> Result<StatusCode, String> {
    let mut stream = endpoint.reach().await.map_err(in_words)?;
    let mut request = BytesMut::new();
    let start = ("GET", path.as_str(), Some(endpoint.host()));
    write_request_head(&mut request, start, [(&USER_AGENT, &AGENT)].into_iter(), None);
    stream.write_all(&request).await.map_err(in_words)?;
    stream.flush().await.map_err(in_words)?;

    let mut reader = Reader::answers(Limits::of_answers(fields));
    reader.expect(Asked::Other);
    let mut received = BytesMut::new();
    loop {
        match reader.read(&mut received).map_err(in_words)? {
            Some(Event::Head(head)) => return head.status().ok_or_else(|| "the answer has no status".to_owned()),
            Some(_) => {}
            None => {
                if stream.read_buf(&mut received).await.map_err(in_words)? == 0 {
                    return Err("closed before it answered".to_owned());
                }
            }
        }
    }
}
