//! Why a part has no answer of its own, and what that means where the part is required.
//!
//! A backend's refusal keeps its status where it is the caller's business, and is a bad gateway otherwise: a required
//! part's 404 is the caller's 404, and its 402 says that payment is required, not that something is down.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode};

use crate::json::{Document, Refusal, WorkspaceError};
use crate::observe::FallbackKind;
use crate::rejection::{Reason, Rejection, Setting};
use crate::wire::content_encoding::DecodeError;

/// One part's failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartFault {
    pub cause: Cause,
    /// When trying again makes sense, if somebody said so: the breaker, the bulkhead or the backend.
    pub retry_after: Option<Duration>,
    /// What stands in for it.
    pub served: Option<Substitute>,
    /// The setting that decided, where its cause alone does not tell.
    pub setting: Option<Setting>,
    /// What its backend says beside the status that it refuses with.
    pub error: Option<Box<ErrorAnswer>>,
}

/// What of a backend's answer outside 2xx is passed on beside its status.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ErrorAnswer {
    /// Of a 405 (RFC 9110 section 15.5.6).
    pub allow: Option<HeaderValue>,
    /// Its body, where the recipe shows such, and it is JSON of bounded size and depth.
    pub details: Option<Document>,
}

impl From<WorkspaceError> for PartFault {
    fn from(hindrance: WorkspaceError) -> Self {
        Self::of_rejection(&hindrance.into())
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

/// What stands in for a part that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Substitute {
    Value,
    /// The last good answer, of this age.
    Stale(Duration),
    /// Another backend, by name: its answer is as good as the part's own.
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
    /// The backend answered outside 2xx.
    Status(StatusCode),
    /// Not JSON, or such as no two readers read the same.
    InvalidJson,
    /// In a coding that is not known here, or not in the one that it names.
    UnsupportedEncoding,
    /// Longer than the part may be, or with more values.
    TooLarge,
    /// A string or number that would have to stand at the root of the answer, where it has no name.
    NotMergeable,
    /// A value to be spliced into the part's request does not exist.
    ValueMissing(Missing),
    /// Some of the elements that it was called for failed, the first with this fault.
    Elements {
        failed: usize,
        of: usize,
        first: Box<PartFault>,
    },
    /// It would have to be called for something that is not an array, found there.
    NotAnArray(Missing),
    /// It would have to be called for more elements than it may be.
    TooManyElements(Missing),
    /// A part that this one needs failed, with the fault that began it.
    NeedFailed(Arc<str>, Box<PartFault>),
    /// Its answer has nothing where its `target` leads.
    TargetMissing,
    /// Its backend, a gateway itself, says that something is missing in its answer.
    Incomplete,
    /// Another part has put the same name at the root, and the recipe takes that for an error.
    Conflict,
}

/// Where a value was looked for, and so whose fault it is that it does not serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// In what the caller sent: path, query, header, claim.
    InRequest,
    /// In the answer of another part.
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

    /// Of a call that was refused, or of what we could not do for it.
    pub fn of_rejection(rejection: &Rejection) -> Self {
        let retry_after = match rejection {
            Rejection::BulkheadFull { retry_after }
            | Rejection::BulkheadTimeout { retry_after }
            | Rejection::BreakerOpen { retry_after }
            | Rejection::NoEndpoint { retry_after }
            | Rejection::Overloaded { retry_after, .. } => Some(*retry_after),
            _ => None,
        };
        Self {
            retry_after,
            setting: rejection.setting(),
            ..Self::new(Cause::Call(rejection.reason()))
        }
    }

    /// Decided by this setting.
    #[must_use]
    pub const fn by(mut self, setting: Setting) -> Self {
        self.setting = Some(setting);
        self
    }

    pub fn served_by(self, served: Substitute) -> Self {
        Self {
            served: Some(served),
            ..self
        }
    }

    /// Whether it says nothing about what was asked for, only that it could not be had: another answer may stand in. A
    /// refusal (4xx) is an answer; to show what is gone, or not for this caller, would be a lie.
    pub fn is_outage(&self) -> bool {
        match &self.cause {
            Cause::Call(Reason::CallerGone) => false,
            Cause::Call(_) | Cause::InvalidJson | Cause::UnsupportedEncoding | Cause::TooLarge => true,
            Cause::Status(status) => status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS,
            _ => false,
        }
    }

    /// The fault of a part that needs the part `name`, which failed with this one.
    pub(super) fn passed_on(&self, name: &Arc<str>) -> Self {
        let (name, origin) = self.origin(name);
        Self {
            retry_after: origin.retry_after,
            ..Self::new(Cause::NeedFailed(name.clone(), Box::new(origin.clone())))
        }
    }

    /// The part in which the trouble began, and its fault; `name` is the part that has this fault.
    pub(super) fn origin<'a>(&'a self, name: &'a Arc<str>) -> (&'a Arc<str>, &'a Self) {
        match &self.cause {
            Cause::NeedFailed(name, fault) => (name, fault),
            _ => (name, self),
        }
    }

    /// The stable word for it.
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

    /// The setting that decided that this part failed, where the reason alone does not tell.
    pub fn decided_by(&self) -> Option<Setting> {
        match &self.cause {
            Cause::NeedFailed(_, fault) | Cause::Elements { first: fault, .. } => fault.decided_by(),
            Cause::TooManyElements(_) => Some(Setting::ElementLimit),
            Cause::Conflict => Some(Setting::Conflict),
            Cause::NotMergeable | Cause::ValueMissing(_) | Cause::NotAnArray(_) => Some(Setting::Part),
            _ => self.setting,
        }
    }

    /// The reason under which a request is counted that could not do without this part.
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

    /// What the caller gets if the part is required.
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

    /// Whether its backend refuses what was asked, and the caller is told so: nothing is out of order.
    pub fn is_refusal(&self) -> bool {
        self.backend_status().is_some() && self.status().is_client_error()
    }

    /// What the backend says beside its status, where that is passed on.
    pub fn error(&self) -> Option<&ErrorAnswer> {
        match &self.cause {
            Cause::Elements { first, .. } => first.error(),
            _ => self.error.as_deref(),
        }
    }

    /// The JSON body of its backend's error, where the recipe shows such.
    pub fn details(&self) -> Option<&Document> {
        self.error()?.details.as_ref()
    }

    /// What the backend answered, where it did.
    pub fn backend_status(&self) -> Option<StatusCode> {
        match &self.cause {
            Cause::Status(status) => Some(*status),
            Cause::Elements { first, .. } => first.backend_status(),
            _ => None,
        }
    }
}

/// What is the caller's business is passed on: what the request as a whole asks for is refused, or not now.
///
/// A 4xx that is about the connection or the exchange between us and the backend is ours: 401 and 407 have to carry
/// the challenge of whoever refuses (RFC 9110 sections 15.5.2 and 15.5.8), and the caller has satisfied ours; 408, 421,
/// 425, 426 and 431 speak of how *we* have asked. So is a redirect that nobody follows, and any 5xx but one that says
/// when to come back.
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

    /// Another variant has no place here before it has one in `refusals.md`.
    const fn stands_in_the_table(cause: &Cause) -> bool {
        match cause {
            // These are the reasons of any refusal.
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
