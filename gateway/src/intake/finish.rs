//! What every answer of a route is given on its way out, whoever made it: the backend, or we who refuse.
//!
//! Routes that ask for none of it have no [`Finish`], and pay for none.

use std::sync::Arc;

use http::HeaderMap;

use super::cors::{Cors, Verdict};
use super::header_rules::{FilledValues, HeaderRules};
use super::headers::Scheme;
use super::security_headers::SecurityHeaders;
use crate::template::Sources;

#[derive(Debug)]
pub struct Finish {
    pub cors: Option<Cors>,
    pub rules: HeaderRules,
    pub security: Option<SecurityHeaders>,
}

/// The finish of one answer, from when its route is known.
#[derive(Debug)]
pub struct Finishing {
    pub finish: Arc<Finish>,
    pub verdict: Verdict,
    pub is_preflight: bool,
    /// What its rules fill in.
    filled: FilledValues,
}

impl Finishing {
    pub fn begin(finish: &Arc<Finish>, request: &HeaderMap, is_preflight: bool) -> Self {
        let verdict = finish.cors.as_ref().map_or(Verdict::Silent, |cors| cors.judge(request));
        Self {
            finish: Arc::clone(finish),
            verdict,
            is_preflight,
            filled: FilledValues::new(),
        }
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
    }
}
