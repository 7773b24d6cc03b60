//! What every answer of a route is given on its way out, whoever made it: the backend, or we who refuse.
//!
//! An answer that no route gives says what the config's top says to pages of other origins; where the routes of a path
//! lack the method alone, what they say.
//!
//! Routes that ask for none of it have no [`ResponseHeaders`], and pay for none.

use std::sync::Arc;

use http::HeaderMap;

use crate::headers::Scheme;
use crate::headers::cors::{self, Cors, Verdict};
use crate::headers::rules::{FilledValues, HeaderRules};
use crate::headers::security::SecurityHeaders;
use crate::template::Sources;

#[derive(Debug, Default)]
pub struct ResponseHeaders {
    pub cors: Option<Arc<Cors>>,
    pub rules: HeaderRules,
    pub security: Option<SecurityHeaders>,
}

/// The finish of one answer, from when its route is known.
#[derive(Debug)]
pub struct PendingResponseHeaders {
    pub finish: Arc<ResponseHeaders>,
    pub verdict: Verdict,
    pub is_preflight: bool,
    /// Another origin is answered otherwise, whatever the finish itself says.
    varies: bool,
    /// What its rules fill in.
    filled: FilledValues,
}

impl PendingResponseHeaders {
    pub fn begin(finish: &Arc<ResponseHeaders>, request: &HeaderMap, is_preflight: bool) -> Self {
        let verdict = finish.cors.as_ref().map_or(Verdict::Silent, |cors| cors.judge(request));
        Self {
            finish: Arc::clone(finish),
            verdict,
            is_preflight,
            varies: false,
            filled: FilledValues::new(),
        }
    }

    /// Of an answer that says nothing but what pages may do with it, in the words of the first that allows the request's
    /// origin; which of `all` that is comes back with it.
    pub fn of_first_allowed(
        all: &[(usize, &Arc<Cors>)],
        request: &HeaderMap,
        is_preflight: bool,
    ) -> Option<(usize, Self)> {
        let judged = all.iter().map(|(index, cors)| (*index, *cors, cors.judge(request)));
        let allowed = judged
            .clone()
            .find(|(.., verdict)| matches!(verdict, Verdict::Allowed(_)));
        let (index, cors, verdict) = allowed.or_else(|| judged.clone().next())?;
        let finishing = Self {
            finish: Arc::new(ResponseHeaders {
                cors: Some(Arc::clone(cors)),
                ..ResponseHeaders::default()
            }),
            verdict,
            is_preflight,
            varies: all.iter().any(|(_, cors)| cors.depends_on_origin()),
            filled: FilledValues::new(),
        };
        Some((index, finishing))
    }

    /// Takes from the request what the rules fill in: once when its route is known, and again when its caller is.
    pub fn fill(&mut self, sources: &Sources<'_>) {
        let rules = &self.finish.rules;
        let is_due = match sources.claims {
            Some(_) => rules.uses_claims(),
            None => rules.has_templates(),
        };
        if is_due {
            self.filled = rules.fill(sources);
        }
    }

    pub fn apply(&self, scheme: Scheme, headers: &mut HeaderMap) {
        self.finish.rules.apply(headers, &self.filled);
        if let Some(security) = self.finish.security {
            security.stamp(scheme, headers);
        }
        if let Some(cors) = &self.finish.cors {
            cors.stamp(&self.verdict, self.is_preflight, headers);
        }
        if self.varies {
            cors::vary_by_origin(headers);
        }
    }
}
