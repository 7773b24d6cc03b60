//! Changes to the header fields of every answer of a route, whether it comes from the backend or is a rejection.
//!
//! An answer without a route has the CORS policy at the top of the config. If only the method fits no route of the
//! path, the answer has the CORS policy of those routes.
//!
//! A route without such changes has no [`ResponseHeaders`] and costs nothing here.

use std::sync::Arc;

use crate::message::FieldMap;

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

/// The header changes for one answer, collected once its route is known.
#[derive(Debug)]
pub struct PendingResponseHeaders {
    pub finish: Arc<ResponseHeaders>,
    pub verdict: Verdict,
    pub is_preflight: bool,
    /// Whether the answer depends on the origin even if the chosen CORS policy does not.
    varies: bool,
    /// Values for the templates of the rules.
    filled: FilledValues,
}

impl PendingResponseHeaders {
    pub fn begin(finish: &Arc<ResponseHeaders>, request: &FieldMap, is_preflight: bool) -> Self {
        let verdict = finish.cors.as_ref().map_or(Verdict::Silent, |cors| cors.judge(request));
        Self {
            finish: Arc::clone(finish),
            verdict,
            is_preflight,
            varies: false,
            filled: FilledValues::new(),
        }
    }

    /// Returns the changes for an answer that gets only CORS fields, with the index of the policy that they come from:
    /// the first of `all` that allows the request's origin, else the first one. `None` if `all` is empty.
    pub fn of_first_allowed(
        all: &[(usize, &Arc<Cors>)],
        request: &FieldMap,
        is_preflight: bool,
    ) -> Option<(usize, Self)> {
        let judged = all.iter().map(|(index, cors)| (*index, *cors, cors.judge(request)));
        let allowed = judged
            .clone()
            .find(|(.., verdict)| matches!(verdict, Verdict::Allowed(_)));
        let (index, cors, verdict) = allowed.or_else(|| judged.clone().next())?;
        let pending = Self {
            finish: Arc::new(ResponseHeaders {
                cors: Some(Arc::clone(cors)),
                ..ResponseHeaders::default()
            }),
            verdict,
            is_preflight,
            varies: all.iter().any(|(_, cors)| cors.depends_on_origin()),
            filled: FilledValues::new(),
        };
        Some((index, pending))
    }

    /// Fills the rules' templates from the request: first when its route is known, and again when its caller is.
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

    pub fn apply(&self, scheme: Scheme, headers: &mut FieldMap) {
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
