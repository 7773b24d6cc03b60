//! Computes for how long an answer may be used again (RFC 9111 section 4.2), when it must be asked for again, and whether
//! it may be stored at all (section 3).
//!
//! Times are measured on the monotonic clock from the moment at which the answer came; the `Date` of the answer counts
//! only for the age that it had then.

use std::time::{Duration, SystemTime};

use http::header::{AGE, DATE, ETAG, EXPIRES, LAST_MODIFIED, SET_COOKIE, VARY};
use http::{HeaderValue, StatusCode};
use policies::Moment;

use super::directives::{AnswerDirectives, RequestDirectives, items, seconds};
use crate::message::FieldMap;

/// Times that a route sets for answers that state none themselves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DefaultTimes {
    pub ttl: Option<Duration>,
    pub stale_while_revalidate: Option<Duration>,
    pub stale_if_error: Option<Duration>,
}

/// Moment on both clocks at which an answer came.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    pub moment: Moment,
    pub wall: SystemTime,
    /// Time from sending the request to the head of the answer.
    pub delay: Duration,
}

/// Time for which an answer may be used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    arrived: Moment,
    /// Age at the arrival.
    initial_age: Duration,
    lifetime: Duration,
    stale_while_revalidate: Duration,
    stale_if_error: Duration,
    /// Whether every use needs a word of the backend.
    no_cache: bool,
    /// Whether the answer may not be used when it is stale, whatever the caller accepts.
    must_revalidate: bool,
}

/// Callers that may get a stored answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Callers of every tenant.
    All,
    /// Those that the route names: the caller, or its tenant.
    Usual,
    /// The caller alone.
    Caller,
}

/// Terms on which an answer that has come may be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Storable {
    pub audience: Audience,
    pub freshness: Freshness,
    /// Whether it is worth storing: it may be used later. Otherwise it answers only requests that wait for it now.
    pub is_reusable: bool,
}

/// Use of a stored answer at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Answers the request.
    Fresh,
    /// Answers the request, while the backend is asked for a newer one.
    WhileRevalidating,
    /// Answers the request although it is stale, because its caller accepts that.
    Accepted,
    /// Answers the request once the backend has confirmed it.
    Validate,
}

impl Freshness {
    fn of(
        headers: &FieldMap,
        said: &AnswerDirectives,
        lifetime: Duration,
        arrival: Arrival,
        times: &DefaultTimes,
    ) -> Self {
        let date = headers.get(DATE).and_then(date);
        let apparent = date
            .and_then(|date| arrival.wall.duration_since(date).ok())
            .unwrap_or_default();
        let stated = age(headers) + arrival.delay;
        let window =
            |said: Option<u64>, usual: Option<Duration>| said.map(Duration::from_secs).or(usual).unwrap_or_default();
        Self {
            arrived: arrival.moment,
            initial_age: apparent.max(stated),
            lifetime,
            stale_while_revalidate: window(said.stale_while_revalidate, times.stale_while_revalidate),
            stale_if_error: window(said.stale_if_error, times.stale_if_error),
            no_cache: said.no_cache,
            // `s-maxage` implies it (RFC 9111 section 5.2.2.10).
            must_revalidate: said.must_revalidate || said.s_maxage.is_some(),
        }
    }

    pub fn age(&self, now: Moment) -> Duration {
        self.initial_age.saturating_add(now.since(self.arrived))
    }

    /// Seconds for which the answer stays fresh; negative if it is stale.
    pub fn ttl(&self, now: Moment) -> i64 {
        let (lifetime, age) = (self.lifetime.as_secs(), self.age(now).as_secs());
        i64::try_from(lifetime).unwrap_or(i64::MAX) - i64::try_from(age).unwrap_or(i64::MAX)
    }

    fn staleness(&self, now: Moment) -> Duration {
        self.age(now).saturating_sub(self.lifetime)
    }

    /// Returns when the stored answer is of no more use. An answer that can be confirmed is kept for an hour more.
    pub fn useful_until(&self, can_be_confirmed: bool) -> Moment {
        const CONFIRMABLE: Duration = Duration::from_secs(3_600);
        let windows = self.stale_while_revalidate.max(self.stale_if_error);
        let after = if can_be_confirmed {
            windows.max(CONFIRMABLE)
        } else {
            windows
        };
        self.arrived + self.lifetime.saturating_sub(self.initial_age).saturating_add(after)
    }

    /// Decides on the use of the answer for a request.
    pub fn decide(&self, asked: &RequestDirectives, now: Moment) -> Use {
        let age = self.age(now);
        let is_fresh = age < self.lifetime;
        let within =
            |limit: Option<u64>, value: Duration| limit.is_none_or(|limit| value <= Duration::from_secs(limit));
        if self.no_cache || asked.no_cache || !within(asked.max_age, age) {
            return Use::Validate;
        }
        let left = self.lifetime.saturating_sub(age);
        if asked.min_fresh.is_some_and(|wanted| left < Duration::from_secs(wanted)) {
            return Use::Validate;
        }
        if is_fresh {
            return Use::Fresh;
        }
        let stale = self.staleness(now);
        if self.must_revalidate {
            return Use::Validate;
        }
        if stale <= self.stale_while_revalidate && !self.stale_while_revalidate.is_zero() {
            return Use::WhileRevalidating;
        }
        match asked.max_stale {
            Some(most) if most == u64::MAX || stale <= Duration::from_secs(most) => Use::Accepted,
            _ => Use::Validate,
        }
    }

    /// Whether the answer may be used because the backend fails (RFC 5861 section 4).
    pub fn stands_in_for_error(&self, now: Moment) -> bool {
        let may = !self.no_cache && !self.must_revalidate && !self.stale_if_error.is_zero();
        may && self.staleness(now) <= self.stale_if_error
    }
}

/// Returns what may be done with the answer to a GET. `None` if it may be used for no other request.
pub fn storable(status: StatusCode, headers: &FieldMap, arrival: Arrival, times: &DefaultTimes) -> Option<Storable> {
    let said = AnswerDirectives::read(headers);
    // An answer that is only understood by its status may be stored in spite of `no-store` (section 5.2.2.3).
    let is_forbidden = if said.must_understand {
        !is_understood(status)
    } else {
        said.no_store
    };
    let is_partial = matches!(status, StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED);
    // A cookie belongs to one client.
    if is_forbidden
        || is_partial
        || status.is_informational()
        || headers.contains_key(SET_COOKIE)
        || varies_always(headers)
    {
        return None;
    }
    let stated = stated_lifetime(headers, &said, arrival);
    let usual = times.ttl.filter(|_| is_cacheable_by_default(status));
    let lifetime = stated.or(usual);
    if lifetime.is_none() && !is_cacheable_by_default(status) {
        return None;
    }
    let audience = if said.private {
        Audience::Caller
    } else if (said.public || said.s_maxage.is_some()) && !varies_by_credential(headers) {
        Audience::All
    } else {
        Audience::Usual
    };
    let freshness = Freshness::of(headers, &said, lifetime.unwrap_or_default(), arrival, times);
    let can_be_confirmed = can_be_confirmed(headers);
    let has_time = freshness.useful_until(false) > arrival.moment;
    Some(Storable {
        audience,
        freshness,
        is_reusable: can_be_confirmed || (has_time && !said.no_cache),
    })
}

/// Whether the backend can be asked if the answer is still good.
pub fn can_be_confirmed(headers: &FieldMap) -> bool {
    headers.contains_key(ETAG) || headers.contains_key(LAST_MODIFIED)
}

/// Returns the lifetime that an answer states (section 4.2.1).
fn stated_lifetime(headers: &FieldMap, said: &AnswerDirectives, arrival: Arrival) -> Option<Duration> {
    if let Some(seconds) = said.s_maxage.or(said.max_age) {
        return Some(Duration::from_secs(seconds));
    }
    let expires = headers.get(EXPIRES)?;
    // An invalid date is one in the past (section 5.3), and so is a repeated field, which says two things.
    let is_single = headers.get_all(EXPIRES).iter().count() == 1;
    let date_of_answer = headers.get(DATE).and_then(date).unwrap_or(arrival.wall);
    let expires = date(expires).filter(|_| is_single);
    let lifetime = expires.and_then(|expires| expires.duration_since(date_of_answer).ok());
    Some(lifetime.unwrap_or_default())
}

/// Reads the first value of `Age`; anything else than a number counts as zero.
fn age(headers: &FieldMap) -> Duration {
    let first = headers.get(AGE).and_then(|line| items(line).next());
    first.and_then(seconds).map(Duration::from_secs).unwrap_or_default()
}

pub(super) fn date(value: &HeaderValue) -> Option<SystemTime> {
    httpdate::parse_http_date(value.to_str().ok()?).ok()
}

/// Statuses that may be stored without a stated lifetime (RFC 9110 section 15.1), partial content left out.
fn is_cacheable_by_default(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501
    )
}

/// Statuses that HTTP defines and the gateway passes on with their meaning.
fn is_understood(status: StatusCode) -> bool {
    status.canonical_reason().is_some()
}

fn names(headers: &FieldMap) -> impl Iterator<Item = &[u8]> {
    headers.get_all(VARY).iter().flat_map(items)
}

fn varies_always(headers: &FieldMap) -> bool {
    names(headers).any(|name| name == b"*")
}

fn varies_by_credential(headers: &FieldMap) -> bool {
    names(headers).any(|name| name.eq_ignore_ascii_case(b"authorization") || name.eq_ignore_ascii_case(b"cookie"))
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    const START: Moment = Moment::from_nanos(1 << 40);

    fn arrival() -> Arrival {
        Arrival {
            moment: START,
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000),
            delay: Duration::ZERO,
        }
    }

    fn headers(lines: &[(&'static str, &'static str)]) -> FieldMap {
        let lines = lines.iter();
        lines
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    fn of(lines: &[(&'static str, &'static str)]) -> Option<Storable> {
        storable(StatusCode::OK, &headers(lines), arrival(), &DefaultTimes::default())
    }

    #[test]
    fn only_what_says_so_is_for_everyone() {
        fn check(lines: &[(&'static str, &'static str)], expected: Option<Audience>) {
            assert_eq!(of(lines).map(|storable| storable.audience), expected, "{lines:?}");
        }
        check(&[("cache-control", "max-age=60")], Some(Audience::Usual));
        check(
            &[("cache-control", "max-age=60, must-revalidate")],
            Some(Audience::Usual),
        );
        check(&[("cache-control", "max-age=60, public")], Some(Audience::All));
        check(&[("cache-control", "s-maxage=60")], Some(Audience::All));
        check(
            &[("cache-control", "public, private, max-age=60")],
            Some(Audience::Caller),
        );
        check(
            &[("cache-control", "public, max-age=60"), ("vary", "accept, Cookie")],
            Some(Audience::Usual),
        );
        check(&[("cache-control", "public, max-age=60"), ("set-cookie", "a=b")], None);
        check(&[("cache-control", "no-store, public, max-age=60")], None);
        check(&[("cache-control", "max-age=60"), ("vary", "a, *")], None);
    }

    #[test]
    fn answers_without_a_lifetime_are_only_shared_by_those_who_wait() {
        let check =
            |status: u16, lines: &[(&'static str, &'static str)], times: DefaultTimes, expected: Option<bool>| {
                let status = StatusCode::from_u16(status).expect("a status");
                let found = storable(status, &headers(lines), arrival(), &times);
                assert_eq!(found.map(|found| found.is_reusable), expected, "{status} {lines:?}");
            };
        let none = DefaultTimes::default();
        let ttl = DefaultTimes {
            ttl: Some(Duration::from_secs(5)),
            ..none
        };
        check(200, &[], none, Some(false));
        check(200, &[], ttl, Some(true));
        check(200, &[("etag", "\"a\"")], none, Some(true));
        check(200, &[("cache-control", "max-age=0")], ttl, Some(false));
        check(403, &[], ttl, None);
        check(403, &[("cache-control", "max-age=60")], none, Some(true));
        check(206, &[("cache-control", "max-age=60")], none, None);
        check(503, &[("etag", "\"a\"")], ttl, None);
        check(599, &[("cache-control", "max-age=60, must-understand")], none, None);
        check(
            200,
            &[("cache-control", "max-age=60, no-store, must-understand")],
            none,
            Some(true),
        );
    }

    #[test]
    fn a_stale_answer_is_used_only_where_it_may() {
        fn check(answer: &'static str, asked: &'static str, after: u64, expected: Use) {
            let freshness = of(&[("cache-control", answer), ("etag", "\"a\"")])
                .expect("storable")
                .freshness;
            let asked = RequestDirectives::read(&headers(&[("cache-control", asked)]));
            let now = START + Duration::from_secs(after);
            assert_eq!(freshness.decide(&asked, now), expected, "{answer} after {after} s");
        }
        check("max-age=10", "", 9, Use::Fresh);
        check("max-age=10", "", 10, Use::Validate);
        check("max-age=10", "max-age=5", 6, Use::Validate);
        check("max-age=10", "min-fresh=5", 6, Use::Validate);
        check("max-age=10", "no-cache", 0, Use::Validate);
        check("max-age=10, no-cache", "", 0, Use::Validate);
        check("max-age=10", "max-stale=5", 15, Use::Accepted);
        check("max-age=10", "max-stale=5", 16, Use::Validate);
        check("max-age=10", "max-stale", 16_000, Use::Accepted);
        check("max-age=10, must-revalidate", "max-stale", 11, Use::Validate);
        check("s-maxage=10", "max-stale", 11, Use::Validate);
        check("max-age=10, stale-while-revalidate=5", "", 15, Use::WhileRevalidating);
        check("max-age=10, stale-while-revalidate=5", "", 16, Use::Validate);
        check(
            "max-age=10, stale-while-revalidate=5, must-revalidate",
            "",
            11,
            Use::Validate,
        );
    }

    #[test]
    fn a_failure_is_covered_for_the_stated_time() {
        fn check(answer: &'static str, after: u64, expected: bool) {
            let freshness = of(&[("cache-control", answer)]).expect("storable").freshness;
            assert_eq!(
                freshness.stands_in_for_error(START + Duration::from_secs(after)),
                expected,
                "{answer} {after}"
            );
        }
        check("max-age=10, stale-if-error=5", 15, true);
        check("max-age=10, stale-if-error=5", 16, false);
        check("max-age=10", 11, false);
        check("max-age=10, stale-if-error=5, proxy-revalidate", 11, false);
        check("max-age=10, stale-if-error=5, no-cache", 0, false);
    }
}
