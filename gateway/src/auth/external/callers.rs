//! Identifies the caller of a request by the external service.
//!
//! Invariant: without an answer of the service that was understood, nobody is identified. The one exception is
//! `stale_if_error`, which the operator has to write.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use policies::Moment;
use tokio::sync::watch;

use super::answer;
use super::known_answers::{Found, KnownAnswers, KnownCaller, Lifetimes, Verdict};
use super::question::{Question, QuestionForm, QuestionKey, RequestFacts};
use super::{Service, ServiceRefusal, Unavailable};
use crate::auth::check::Check;
use crate::clock;
use crate::message::FieldMap;
use crate::observe::{ExternalLookup, ExternalOutcome};
use crate::setting::SettingId;

/// Wait after an answer that cannot be used.
const SOON: Duration = Duration::from_secs(1);

/// The external service, with everything that is known by it.
pub struct ExternalCallers {
    settings: Arc<ExternalSettings>,
    known: Arc<KnownAnswers>,
    service: Arc<dyn Service>,
}

/// Settings of questions and answers.
#[derive(Debug)]
pub struct ExternalSettings {
    pub form: QuestionForm,
    /// How long answers are used again; `None` stores none.
    pub lifetimes: Option<Lifetimes>,
    /// Most callers that are stored.
    pub entries: usize,
    /// Names of all tiers.
    pub tiers: Box<[Arc<str>]>,
    pub setting: SettingId,
}

/// What is known of a request before the service is asked.
pub(crate) enum Step {
    /// The request presents nothing to the service.
    Nothing,
    Caller(QuestionKey, Arc<KnownCaller>),
    Refused(Arc<ServiceRefusal>),
    Ask(Box<PendingQuestion>),
}

/// A question that has no stored answer.
pub(crate) struct PendingQuestion {
    pub key: QuestionKey,
    question: Question,
    worker: usize,
    client: IpAddr,
}

/// What came of a question.
pub(crate) enum Answered {
    Caller(Arc<KnownCaller>),
    Refused(Arc<ServiceRefusal>),
    Unavailable(Unavailable),
    /// The request has no time left to wait.
    OutOfTime,
}

impl ExternalCallers {
    pub fn new(settings: ExternalSettings, known: Arc<KnownAnswers>, service: Arc<dyn Service>) -> Self {
        settings.form.prepare();
        Self {
            settings: Arc::new(settings),
            known,
            service,
        }
    }

    pub fn settings(&self) -> &ExternalSettings {
        &self.settings
    }

    pub fn known(&self) -> &Arc<KnownAnswers> {
        &self.known
    }

    /// Whether a request has any of the fields of a question.
    pub(crate) fn is_presented(&self, headers: &FieldMap) -> bool {
        self.settings.form.fields.iter().any(|field| field.is_in(headers))
    }

    /// Whether an answer may be used again, now or while the service fails.
    pub(crate) fn is_stored(&self, known: &KnownCaller) -> bool {
        known.is_stored()
    }

    pub(crate) fn count_hit(&self) {
        self.known.count(ExternalLookup::Hit);
    }

    /// Looks for a stored answer to the question of a request.
    ///
    /// # Errors
    /// If a field of the question comes twice.
    pub(crate) fn look_up(&self, headers: &FieldMap, facts: RequestFacts<'_>, unix_now: u64) -> Result<Step, Check> {
        let Some(presented) = self.settings.form.read(headers, facts)? else {
            return Ok(Step::Nothing);
        };
        let key = presented.key();
        match self.known.find(&key, clock::now(), unix_now) {
            Found::Fresh(known) if self.has_its_tier(&known) => return Ok(Step::Caller(key, known)),
            Found::Fresh(_) => self.known.forget(&key),
            Found::Refused(refusal) => {
                self.known.count(ExternalLookup::Refused);
                return Ok(Step::Refused(refusal));
            }
            Found::Nothing => {}
        }
        Ok(Step::Ask(Box::new(PendingQuestion {
            key,
            question: presented.question(),
            worker: facts.worker,
            client: facts.client,
        })))
    }

    /// Whether the tier that an earlier plan had is there still.
    fn has_its_tier(&self, known: &KnownCaller) -> bool {
        let tier = known.caller.tier.as_ref();
        tier.is_none_or(|tier| self.settings.tiers.contains(tier))
    }

    /// Asks the service, or waits for the answer to the same question of another request, until `until` at most.
    pub(crate) async fn ask(&self, pending: PendingQuestion, until: Moment) -> Answered {
        let PendingQuestion {
            key,
            question,
            worker,
            client,
        } = pending;
        let begin = || {
            let (service, settings) = (Arc::clone(&self.service), Arc::clone(&self.settings));
            async move {
                let answered = service.ask(question, worker, client).await?;
                let is_tier = |name: &str| settings.tiers.iter().any(|tier| **tier == *name);
                answer::read(&answered, is_tier, clock::unix_seconds()).map_err(|unusable| {
                    let detail = unusable.to_string();
                    tracing::warn!(status = answered.status.as_u16(), %detail, "the external service gave no answer that can be used");
                    Unavailable {
                        outcome: match unusable {
                            answer::Unusable::Status(_) => ExternalOutcome::Status,
                            _ => ExternalOutcome::Invalid,
                        },
                        detail: detail.into(),
                        retry_after: SOON,
                        by: settings.setting,
                    }
                })
            }
        };
        let joined = self.known.join(key, self.settings.lifetimes, begin);
        match self.wait(joined, &key, until).await {
            Answered::Unavailable(unavailable) => {
                let stale = self.known.find_stale(&key, clock::now(), clock::unix_seconds());
                match stale.filter(|known| self.has_its_tier(known)) {
                    Some(known) => {
                        self.known.count(ExternalLookup::Stale);
                        Answered::Caller(known)
                    }
                    None => Answered::Unavailable(unavailable),
                }
            }
            answered => answered,
        }
    }

    async fn wait(
        &self,
        joined: Option<watch::Receiver<Option<Verdict>>>,
        key: &QuestionKey,
        until: Moment,
    ) -> Answered {
        let Some(mut verdict) = joined else {
            return match self.known.find(key, clock::now(), clock::unix_seconds()) {
                Found::Fresh(known) if self.has_its_tier(&known) => Answered::Caller(known),
                Found::Refused(refusal) => Answered::Refused(refusal),
                _ => Answered::Unavailable(self.gone()),
            };
        };
        let come = tokio::time::timeout_at(clock::instant(until), verdict.wait_for(Option::is_some)).await;
        match come {
            Err(_) => Answered::OutOfTime,
            // The task has panicked, or its worker has ended.
            Ok(Err(_)) => Answered::Unavailable(self.gone()),
            Ok(Ok(verdict)) => match &*verdict {
                Some(Verdict::Caller(known)) if self.has_its_tier(known) => Answered::Caller(Arc::clone(known)),
                Some(Verdict::Refused(refusal)) => Answered::Refused(Arc::clone(refusal)),
                Some(Verdict::Unavailable(unavailable)) => Answered::Unavailable(unavailable.clone()),
                // A reload has removed the tier since the question was asked.
                Some(Verdict::Caller(_)) | None => Answered::Unavailable(self.gone()),
            },
        }
    }

    /// The answer was there, and is so no longer.
    fn gone(&self) -> Unavailable {
        Unavailable {
            outcome: ExternalOutcome::Broken,
            detail: "the question was broken off".into(),
            retry_after: SOON,
            by: self.settings.setting,
        }
    }
}
