//! Calls one part for every element of an array, a few at once, and makes an array of the answers.
//!
//! Invariant: the array's order is kept, and of several failures the one of the first element is reported, whichever
//! came first. Nothing is cut off unsaid: more elements than the limit are a failure.

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream::{self, StreamExt};

use super::document::Document;
use super::fan_out::{Called, PartResult};
use super::fault::{Cause, PartFault};
use super::render::Element;
use crate::template::Placeholder;

/// Over what a part is called, and how.
#[derive(Debug, Clone)]
pub struct ForEach {
    pub over: Placeholder,
    /// Elements, at least 1; more are a failed part.
    pub limit: usize,
    /// Calls that run at the same time, at least 1.
    pub at_once: usize,
    pub on_failure: OnFailure,
}

/// What one failed element does to its part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// The part fails with it.
    Fail,
    /// It is not in the array.
    Omit,
    /// A null stands in its place.
    Null,
}

/// Runs `call` for each element that is to be called; `limit` is the bytes that the whole array may have.
pub(super) async fn for_each<'f, F>(
    terms: &ForEach,
    elements: Vec<Element>,
    limit: usize,
    call: impl Fn(super::render::PartRequest) -> F + 'f,
) -> PartResult
where
    F: Future<Output = Called> + 'f,
{
    let count = elements.len();
    let mut answers = stream::iter(elements)
        .map(|element| {
            let called = match element {
                Element::Call(request) => Ok(call(request)),
                Element::Omitted => Err(None),
                Element::Failed(fault) => Err(Some(fault)),
            };
            async {
                match called {
                    Ok(call) => Some(read(call.await.result)),
                    Err(None) => None,
                    Err(Some(fault)) => Some(Err(fault)),
                }
            }
        })
        .buffered(terms.at_once);
    let mut array = BytesMut::from(&b"["[..]);
    let mut first = None;
    let mut failed = 0;
    while let Some(answer) = answers.next().await {
        let item = match answer {
            None => continue,
            Some(Ok(item)) => item,
            Some(Err(fault)) => {
                failed += 1;
                first.get_or_insert(fault);
                match terms.on_failure {
                    OnFailure::Fail => break,
                    OnFailure::Omit => continue,
                    OnFailure::Null => NULL,
                }
            }
        };
        if array.len() + item.len() + 2 > limit {
            return PartResult::Failed(PartFault::new(Cause::TooLarge));
        }
        if array.len() > 1 {
            array.put_u8(b',');
        }
        array.extend_from_slice(&item);
    }
    array.put_u8(b']');
    match first {
        None => PartResult::Body(array.freeze()),
        Some(fault) => {
            let fault = PartFault {
                retry_after: fault.retry_after,
                cause: Cause::Elements {
                    failed,
                    of: count,
                    first: Box::new(fault),
                },
            };
            match terms.on_failure {
                OnFailure::Fail => PartResult::Failed(fault),
                OnFailure::Omit | OnFailure::Null => PartResult::Some(array.freeze(), fault),
            }
        }
    }
}

const NULL: Bytes = Bytes::from_static(b"null");

/// One element's answer, as it will stand in the array.
fn read(result: PartResult) -> Result<Bytes, PartFault> {
    match result {
        PartResult::Body(body) | PartResult::Some(body, _) => match Document::raw(&body) {
            Ok(Document::Raw(item)) => Ok(item),
            _ => Err(PartFault::new(Cause::InvalidJson)),
        },
        PartResult::Absent => Ok(NULL),
        PartResult::Failed(fault) => Err(fault),
    }
}
