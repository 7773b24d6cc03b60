//! Describes why a part has no answer of its own, and which status the caller receives if the part is required.
//!
//! A backend's refusal keeps its status if it concerns the caller, and becomes 502 otherwise. A required part's 404 is
//! the caller's 404; its 402 says that payment is required, not that something is down.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode};

use super::part_call::PartSettingIds;
use crate::json::{Document, Refusal, WorkspaceError};
use crate::observe::FallbackKind;
use crate::rejection::{Reason, Rejection};
use crate::setting::SettingId;
use crate::wire::content_encoding::DecodeError;

/// Failure of one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartFault {
    pub cause: Cause,
    /// Time until a retry makes sense, if the breaker, the bulkhead or the backend gave one.
    pub retry_after: Option<Duration>,
    /// Fallback that replaced the part's own answer.
    pub served: Option<Substitute>,
    /// Setting that caused the failure, unless the cause tells which of the part's settings it is.
    pub setting: Option<SettingId>,
    /// Details of the backend's error answer.
    pub error: Option<Box<ErrorAnswer>>,
}

/// Details of a backend's answer outside 2xx that are passed on beside its status.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ErrorAnswer {
    /// `Allow` field of a 405 (RFC 9110 section 15.5.6).
    pub allow: Option<HeaderValue>,
    /// Error body, if the recipe shows such bodies and this one is JSON of bounded size and depth.
    pub details: Option<Document>,
}

impl From<WorkspaceError> for PartFault {
    fn from(blocked_outcome: WorkspaceError) -> Self {
        Self::of_rejection(&blocked_outcome.into())
    }
}

impl From<Refusal> for PartFault {
    fn from(refusal: Refusal) -> Self {
        Self::new(match refusal {
            Refusal::TooLarge => Cause::TooLarge,
            Refusal::NotJson | Refusal::TooDeep | Refusal::DuplicateName => Cause::InvalidJson,
        })
    }
}

/// Replacement for the answer of a failed part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Substitute {
    Value,
    /// Last good answer, with its age.
    Stale(Duration),
    /// Name of another backend. Its answer counts as good as the part's own.
    Backend(Arc<str>),
}

impl Substitute {
    pub const fn kind(&self) -> FallbackKind {
        match self {
            Self::Value => FallbackKind::Value,
            Self::Stale(_) => FallbackKind::Stale,
            Self::Backend(_) => FallbackKind::Backend,
        }
    }
}

impl fmt::Display for Substitute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value => f.write_str("value"),
            Self::Stale(age) => write!(f, "stale by {} s", age.as_secs()),
            Self::Backend(name) => write!(f, "backend {name}"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// The guarded call gave no answer.
    Call(Reason),
    /// The backend's status is outside 2xx.
    Status(StatusCode),
    /// The answer is not JSON, or is JSON that two readers could read differently.
    InvalidJson,
    /// The answer has an unsupported content coding, or does not decode with the coding that it declares.
    UnsupportedEncoding,
    /// The answer has more bytes or more values than the part may have.
    TooLarge,
    /// The answer is a string, number or boolean that would be merged at the root, where it has no name.
    NotMergeable,
    /// A value to be spliced into the part's request does not exist.
    ValueMissing(Missing),
    /// Some of the called elements failed. `first` is the fault of the first failed element; `elements` lists the first
    /// of them.
    Elements {
        failed: usize,
        of: usize,
        first: Box<PartFault>,
        elements: Box<[FailedElement]>,
    },
    /// The value for `for_each` is not an array. The field tells where that value comes from.
    NotAnArray(Missing),
    /// The array has more elements than `for_each` allows.
    TooManyElements(Missing),
    /// A needed part failed. Holds the name and the fault of the part in which the failure began.
    NeedFailed(Arc<str>, Box<PartFault>),
    /// The answer has nothing at the path of `target`.
    TargetMissing,
    /// The backend, a gateway itself, declares its answer incomplete.
    Incomplete,
    /// Another part has put the same name at the root, and the recipe treats that as an error.
    Conflict,
}

/// Failure of the call for one element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailedElement {
    /// Position in the list, from 0.
    pub index: usize,
    /// Stable code of the cause.
    pub reason: &'static str,
    pub status: StatusCode,
}

/// Source of a missing or unusable value. It decides whether the caller or a backend is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// Caller's request: path, query, header, claim or body.
    InRequest,
    /// Answer of another part.
    InAnswer,
}

impl From<DecodeError> for Cause {
    fn from(undecodable: DecodeError) -> Self {
        match undecodable {
            DecodeError::Unsupported(_) | DecodeError::Damaged(_) => Self::UnsupportedEncoding,
            DecodeError::TooLarge => Self::TooLarge,
        }
    }
}

impl PartFault {
    pub const fn new(cause: Cause) -> Self {
        Self {
            cause,
            retry_after: None,
            served: None,
            setting: None,
            error: None,
        }
    }

    /// Makes the fault of a call that this gateway rejected.
    pub fn of_rejection(rejection: &Rejection) -> Self {
        let retry_after = match rejection {
            Rejection::BulkheadFull { retry_after, .. }
            | Rejection::BulkheadTimeout { retry_after, .. }
            | Rejection::BreakerOpen { retry_after, .. }
            | Rejection::NoEndpoint { retry_after, .. }
            | Rejection::Overloaded { retry_after, .. } => Some(*retry_after),
            _ => None,
        };
        Self {
            retry_after,
            setting: rejection.setting(),
            ..Self::new(Cause::Call(rejection.reason()))
        }
    }

    /// Sets the setting that caused the failure.
    #[must_use]
    pub const fn by(mut self, setting: SettingId) -> Self {
        self.setting = Some(setting);
        self
    }

    pub fn served_by(self, served: Substitute) -> Self {
        Self {
            served: Some(served),
            ..self
        }
    }

    /// Returns whether the answer could not be obtained, so that a fallback may replace it. A refusal (4xx) is itself
    /// an answer: showing a deleted or forbidden resource from a fallback would be wrong.
    pub fn is_outage(&self) -> bool {
        match &self.cause {
            Cause::Call(Reason::CallerGone) => false,
            Cause::Call(_) | Cause::InvalidJson | Cause::UnsupportedEncoding | Cause::TooLarge => true,
            Cause::Status(status) => status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS,
            _ => false,
        }
    }

    /// Makes the fault of a part that needs the part `name`, which failed with this fault.
    pub(super) fn passed_on(&self, name: &Arc<str>) -> Self {
        let (name, origin) = self.origin(name);
        Self {
            retry_after: origin.retry_after,
            ..Self::new(Cause::NeedFailed(name.clone(), Box::new(origin.clone())))
        }
    }

    /// Returns the part in which the failure began, and its fault. `name` is the part that has this fault.
    pub(super) fn origin<'a>(&'a self, name: &'a Arc<str>) -> (&'a Arc<str>, &'a Self) {
        match &self.cause {
            Cause::NeedFailed(name, fault) => (name, fault),
            _ => (name, self),
        }
    }

    /// Stable code of the cause.
    pub const fn reason(&self) -> &'static str {
        match &self.cause {
            Cause::Call(reason) => reason.as_str(),
            Cause::Status(_) => "backend_status",
            Cause::InvalidJson => "invalid_json",
            Cause::UnsupportedEncoding => "unsupported_encoding",
            Cause::TooLarge => "too_large",
            Cause::NotMergeable => "not_mergeable",
            Cause::ValueMissing(_) => "value_missing",
            Cause::Elements { .. } => "elements_failed",
            Cause::NotAnArray(_) => "not_an_array",
            Cause::TooManyElements(_) => "too_many_elements",
            Cause::NeedFailed(..) => "need_failed",
            Cause::TargetMissing => "target_missing",
            Cause::Incomplete => "incomplete",
            Cause::Conflict => "conflict",
        }
    }

    /// Returns the setting that caused the failure; `None` if no setting would change the answer. `part` are the ids of
    /// the part in which the failure began, `conflict` is the id of the aggregate's own setting.
    pub(super) fn setting_in(&self, part: &PartSettingIds, conflict: SettingId) -> Option<SettingId> {
        match &self.cause {
            Cause::NeedFailed(_, fault) | Cause::Elements { first: fault, .. } => fault.setting_in(part, conflict),
            Cause::TooManyElements(_) => Some(part.element_limit),
            Cause::Conflict => Some(conflict),
            Cause::NotMergeable | Cause::ValueMissing(_) | Cause::NotAnArray(_) => Some(part.part),
            Cause::Call(_)
            | Cause::Status(_)
            | Cause::InvalidJson
            | Cause::UnsupportedEncoding
            | Cause::TooLarge
            | Cause::TargetMissing
            | Cause::Incomplete => self.setting,
        }
    }

    /// Reason under which a request is counted that failed because of this part.
    pub fn rejection(&self) -> Reason {
        match &self.cause {
            Cause::Call(reason) => *reason,
            Cause::NeedFailed(_, fault) | Cause::Elements { first: fault, .. } => fault.rejection(),
            Cause::ValueMissing(Missing::InRequest)
            | Cause::NotAnArray(Missing::InRequest)
            | Cause::TooManyElements(Missing::InRequest) => Reason::MalformedRequest,
            _ => Reason::BackendInvalid,
        }
    }

    /// Status that the caller receives if the part is required.
    pub fn status(&self) -> StatusCode {
        match &self.cause {
            Cause::Call(reason) => reason.status(),
            Cause::Status(status) => passed_or_bad_gateway(*status, self.retry_after),
            Cause::NeedFailed(_, fault) | Cause::Elements { first: fault, .. } => fault.status(),
            Cause::ValueMissing(Missing::InRequest)
            | Cause::NotAnArray(Missing::InRequest)
            | Cause::TooManyElements(Missing::InRequest) => StatusCode::BAD_REQUEST,
            Cause::ValueMissing(Missing::InAnswer)
            | Cause::NotAnArray(Missing::InAnswer)
            | Cause::TooManyElements(Missing::InAnswer)
            | Cause::InvalidJson
            | Cause::UnsupportedEncoding
            | Cause::TooLarge
            | Cause::NotMergeable
            | Cause::TargetMissing
            | Cause::Incomplete
            | Cause::Conflict => StatusCode::BAD_GATEWAY,
        }
    }

    /// Returns whether the backend refuses the request and the caller is told so. Such an answer is no malfunction.
    pub fn is_refusal(&self) -> bool {
        self.backend_status().is_some() && self.status().is_client_error()
    }

    /// Details of the backend's error answer that are passed on.
    pub fn error(&self) -> Option<&ErrorAnswer> {
        match &self.cause {
            Cause::Elements { first, .. } => first.error(),
            _ => self.error.as_deref(),
        }
    }

    /// JSON body of the backend's error answer, if the recipe shows such bodies.
    pub fn details(&self) -> Option<&Document> {
        self.error()?.details.as_ref()
    }

    /// Status of the backend's answer, if it answered.
    pub fn backend_status(&self) -> Option<StatusCode> {
        match &self.cause {
            Cause::Status(status) => Some(*status),
            Cause::Elements { first, .. } => first.backend_status(),
            _ => None,
        }
    }
}

/// Returns the status that the caller receives for a backend's status. A status that concerns the caller's request as a
/// whole is passed on.
///
/// A 4xx about the connection or the exchange between the gateway and the backend becomes 502. A 401 or 407 must carry
/// the challenge of the server that refuses (RFC 9110 sections 15.5.2 and 15.5.8), and the caller has already
/// authenticated to the gateway. A 408, 421, 425, 426 or 431 concerns the gateway's own request. A redirect becomes
/// 502, because the gateway does not follow it. So does a 5xx, except a 503 with `Retry-After`.
fn passed_or_bad_gateway(status: StatusCode, retry_after: Option<Duration>) -> StatusCode {
    let is_passed = match status.as_u16() {
        401 | 407 | 408 | 421 | 425 | 426 | 431 => false,
        400..=499 => true,
        503 => retry_after.is_some(),
        _ => false,
    };
    if is_passed { status } else { StatusCode::BAD_GATEWAY }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A new variant needs a row in `refusals.md` before it is added here.
    const fn stands_in_the_table(cause: &Cause) -> bool {
        match cause {
            // These have the reasons of any rejection.
            Cause::Call(_) => false,
            Cause::Status(_)
            | Cause::InvalidJson
            | Cause::UnsupportedEncoding
            | Cause::TooLarge
            | Cause::NotMergeable
            | Cause::ValueMissing(_)
            | Cause::Elements { .. }
            | Cause::NotAnArray(_)
            | Cause::TooManyElements(_)
            | Cause::NeedFailed(..)
            | Cause::TargetMissing
            | Cause::Incomplete
            | Cause::Conflict => true,
        }
    }

    #[test]
    fn every_reason_of_a_part_stands_in_the_docs_with_its_status() {
        let page = include_str!("../../docs/refusals.md");
        let boxed = || Box::new(PartFault::new(Cause::InvalidJson));
        let missing = [Missing::InRequest, Missing::InAnswer];
        let several = missing.into_iter().flat_map(|whence| {
            [
                Cause::ValueMissing(whence),
                Cause::NotAnArray(whence),
                Cause::TooManyElements(whence),
            ]
        });
        let fixed = [
            Cause::InvalidJson,
            Cause::UnsupportedEncoding,
            Cause::TooLarge,
            Cause::NotMergeable,
            Cause::TargetMissing,
            Cause::Incomplete,
            Cause::Conflict,
        ];
        let of_others = [
            Cause::Status(StatusCode::NOT_FOUND),
            Cause::NeedFailed("user".into(), boxed()),
            Cause::Elements {
                failed: 1,
                of: 2,
                first: boxed(),
                elements: Box::default(),
            },
        ];
        let row = |word: &str| {
            let begin = format!("| `{word}` |");
            let found = page.lines().find(|line| line.starts_with(&begin));
            found.unwrap_or_else(|| panic!("no row for {word}")).to_owned()
        };
        for cause in several.chain(fixed) {
            assert!(stands_in_the_table(&cause));
            let fault = PartFault::new(cause);
            let (row, status) = (row(fault.reason()), fault.status().as_u16().to_string());
            assert!(row.split('|').nth(2).unwrap().contains(&status), "{row}: {status}");
        }
        for cause in of_others {
            assert!(stands_in_the_table(&cause));
            row(PartFault::new(cause).reason());
        }
        assert!(!stands_in_the_table(&Cause::Call(Reason::BreakerOpen)));
    }

    #[test]
    fn a_required_parts_status_is_mapped() {
        let check = |cause, status| assert_eq!(PartFault::new(cause).status(), status);
        let told = |status: u16, seconds: Option<u64>| {
            let fault = PartFault {
                retry_after: seconds.map(Duration::from_secs),
                ..PartFault::new(Cause::Status(StatusCode::from_u16(status).unwrap()))
            };
            let element = PartFault::new(Cause::Elements {
                failed: 1,
                of: 2,
                first: Box::new(fault.clone()),
                elements: Box::default(),
            });
            let needed = fault.passed_on(&"a".into());
            let told = fault.status();
            assert_eq!((element.status(), needed.status()), (told, told), "{status}");
            assert_eq!(fault.is_refusal(), told.is_client_error(), "{status}");
            told.as_u16()
        };
        let ours = [401, 407, 408, 421, 425, 426, 431];
        for status in (100..200).chain(300..1000) {
            let passes = (400..500).contains(&status) && !ours.contains(&status);
            assert_eq!(told(status, None), if passes { status } else { 502 });
            let expected = if passes || status == 503 { status } else { 502 };
            assert_eq!(told(status, Some(9)), expected);
        }
        for status in [400, 402, 405, 409, 412, 415, 423, 428, 429, 451] {
            assert_eq!(told(status, None), status);
        }
        check(Cause::Call(Reason::BackendUnreached), 502);
        check(Cause::Call(Reason::BackendTimeout), 504);
        check(Cause::Call(Reason::OutOfTime), 504);
        check(Cause::Call(Reason::BreakerOpen), 503);
        check(Cause::Call(Reason::BulkheadFull), 503);
        check(Cause::InvalidJson, 502);
        check(Cause::UnsupportedEncoding, 502);
        check(Cause::TooLarge, 502);
        check(Cause::ValueMissing(Missing::InRequest), 400);
        check(Cause::ValueMissing(Missing::InAnswer), 502);
        for (whence, status) in [(Missing::InRequest, 400), (Missing::InAnswer, 502)] {
            check(Cause::NotAnArray(whence), status);
            check(Cause::TooManyElements(whence), status);
        }
    }

    #[test]
    fn a_passed_on_fault_names_where_it_began() {
        let first: Arc<str> = "user".into();
        let fault = PartFault {
            retry_after: Some(Duration::from_secs(3)),
            ..PartFault::new(Cause::Call(Reason::BreakerOpen))
        };
        let second = fault.passed_on(&first);
        let third = second.passed_on(&"account".into());
        assert_eq!(third, second);
        assert_eq!(third.origin(&"credit".into()), (&first, &fault));
        assert_eq!((third.reason(), third.status().as_u16()), ("need_failed", 503));
        assert_eq!(third.retry_after, fault.retry_after);
    }
}
