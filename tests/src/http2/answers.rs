//! Answers a request according to the last segment of its path.

use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response};

use super::{Ended, Shared, grpc};

pub(super) type Result<T> = std::result::Result<T, h2::Error>;

pub(super) async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    shared: &Shared,
    index: usize,
) -> Ended {
    let answered = exchange(request, &mut respond, shared, index).await;
    match answered {
        Ok(ended) => ended,
        Err(error) if error.is_go_away() => Ended::Lost,
        Err(error) => error.reason().map_or(Ended::Lost, Ended::Reset),
    }
}

async fn exchange(
    request: Request<RecvStream>,
    respond: &mut SendResponse<Bytes>,
    shared: &Shared,
    index: usize,
) -> Result<Ended> {
    let path = request.uri().path().to_owned();
    let segment = path.rsplit('/').next().unwrap_or_default();
    let mut body = Incoming {
        stream: request.into_body(),
        shared,
        index,
    };
    match segment {
        "hang" => {
            let reason = poll_fn(|cx| respond.poll_reset(cx)).await?;
            return Ok(Ended::Reset(reason));
        }
        "hold" => {
            let mut held = shared.held.subscribe();
            tokio::select! {
                reset = poll_fn(|cx| respond.poll_reset(cx)) => return Ok(Ended::Reset(reset?)),
                _ = held.wait_for(|held| !held) => {}
            }
            let mut out = respond.send_response(Response::new(()), false)?;
            send(&mut out, Bytes::from_static(b"released"), true).await?;
        }
        "early" => {
            // Sent before the request has ended.
            respond.send_response(status(413), true)?;
        }
        "enough" => {
            // The same with a body. A reset with NO_ERROR then asks the gateway not to send the rest of the request.
            let mut out = respond.send_response(Response::new(()), false)?;
            send(&mut out, Bytes::from_static(b"enough"), true).await?;
        }
        // Both send less than a whole answer, whatever the reason of the reset says.
        "break" | "stop" => {
            let mut out = respond.send_response(Response::new(()), false)?;
            send(&mut out, Bytes::from_static(b"so far"), false).await?;
            let mut held = shared.held.subscribe();
            // An error means that the test is over.
            let _ = held.wait_for(|held| !held).await;
            out.send_reset(match segment {
                "stop" => Reason::NO_ERROR,
                _ => Reason::INTERNAL_ERROR,
            });
            return Ok(Ended::BrokenOff);
        }
        "busy" => {
            respond.send_response(status(503), true)?;
        }
        "whole" => {
            // Answers only after the last byte of the request.
            while body.piece().await?.is_some() {}
            respond.send_response(status(200), true)?;
        }
        "endless" => {
            let mut out = respond.send_response(Response::new(()), false)?;
            loop {
                send(&mut out, Bytes::from_static(&[b'x'; 8192]), false).await?;
            }
        }
        "large" => {
            let mut out = respond.send_response(Response::new(()), false)?;
            for _ in 0..64 {
                send(&mut out, Bytes::from_static(&[b'x'; 1 << 16]), false).await?;
            }
            send(&mut out, Bytes::new(), true).await?;
        }
        "socket" => {
            let mut out = respond.send_response(Response::new(()), false)?;
            while let Some(piece) = body.piece().await? {
                send(&mut out, piece, false).await?;
            }
            send(&mut out, Bytes::new(), true).await?;
        }
        _ if path.starts_with("/grpc.") => return grpc::answer(segment, body, respond).await,
        _ => echo(&mut body, respond).await?,
    }
    Ok(Ended::Answered)
}

/// Sends back what it receives, including trailers.
async fn echo(body: &mut Incoming<'_>, respond: &mut SendResponse<Bytes>) -> Result<()> {
    let mut out = respond.send_response(Response::new(()), false)?;
    while let Some(piece) = body.piece().await? {
        send(&mut out, piece, false).await?;
    }
    match body.trailers().await? {
        Some(trailers) => out.send_trailers(trailers),
        None => send(&mut out, Bytes::new(), true).await,
    }
}

fn status(code: u16) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = code.try_into().expect("a status");
    response
}

/// Body of a request; each received piece is recorded.
pub(super) struct Incoming<'a> {
    stream: RecvStream,
    shared: &'a Shared,
    index: usize,
}

impl Incoming<'_> {
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>> {
        let Some(piece) = self.stream.data().await.transpose()? else {
            return Ok(None);
        };
        self.stream.flow_control().release_capacity(piece.len())?;
        self.shared.received(self.index, piece.len());
        Ok(Some(piece))
    }

    pub(super) async fn trailers(&mut self) -> Result<Option<HeaderMap>> {
        let trailers = self.stream.trailers().await?;
        if let Some(trailers) = &trailers {
            self.shared.trailed(self.index, trailers.clone());
        }
        Ok(trailers)
    }
}

/// Sends data as fast as the other side accepts it.
pub(super) async fn send(out: &mut SendStream<Bytes>, data: Bytes, is_last: bool) -> Result<()> {
    let sent = send_all(out, data, is_last).await;
    match sent {
        Ok(()) => Ok(()),
        Err(error) => match out.poll_reset(&mut Context::from_waker(Waker::noop())) {
            // The stream was reset for this reason.
            Poll::Ready(Ok(reason)) => Err(reason.into()),
            _ => Err(error),
        },
    }
}

async fn send_all(out: &mut SendStream<Bytes>, mut data: Bytes, is_last: bool) -> Result<()> {
    while !data.is_empty() {
        out.reserve_capacity(data.len());
        let room = poll_fn(|cx| out.poll_capacity(cx)).await.transpose()?;
        let piece = data.split_to(room.unwrap_or(data.len()).min(data.len()));
        out.send_data(piece, is_last && data.is_empty())?;
        if data.is_empty() {
            return Ok(());
        }
    }
    out.send_data(data, is_last)
}
