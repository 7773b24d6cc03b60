//! Property tests of random recipes, with any results of the backends, in any order.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use policies::Moment;
use proptest::prelude::*;
use tokio::runtime::{Builder, Runtime};
use tokio::time::sleep;

use super::draft::{Conflict, Errors, IntoDraft, OnMissing, PartDraft, Partial, RecipeDraft, Splice};
use super::fan_out::{NotCalled, Outcome, PartResult, fan_out};
use super::fault::{Cause, Missing, PartFault};
use super::merge::merge;
use super::recipe::Recipe;
use super::{Answer, Failure};
use crate::json::{Document, Workspace};
use crate::message::FieldMap;
use crate::rejection::Reason;
use crate::setting::{Configured, SettingId};

/// Action of a part when its turn comes.
#[derive(Debug, Clone)]
enum Act {
    Call(PartResult),
    /// The part's request cannot be made.
    Lack,
    /// The part's condition is false.
    Unwanted,
}

fn paused() -> Runtime {
    Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
}

fn answer(text: &'static str) -> PartResult {
    PartResult::of(StatusCode::OK, &Bytes::from_static(text.as_bytes()), usize::MAX, None)
}

async fn run(recipe: &Recipe, acts: &[Act], delays: &[u64]) -> Result<Answer, Failure> {
    let render = |index: usize, _: super::EndedParts<'_>| match &acts[index] {
        Act::Call(result) => Ok(result.clone()),
        Act::Lack => Err(Missing::InRequest.into()),
        Act::Unwanted => Err(NotCalled::Unwanted),
    };
    let call = |index: usize, result| async move {
        sleep(Duration::from_millis(delays[index])).await;
        result
    };
    let room = Arc::new(Workspace::new(1)).reserve(u64::MAX, 0, (Moment::MAX, None));
    merge(recipe, fan_out(recipe, &room, render, call).await, None)
}

/// Model without time: every part is judged after the parts that it needs, and a failed required part cancels only the
/// parts that need it. Returns the outcome of each part, and the parts whose failure may be the reported one.
fn judge(recipe: &Recipe, acts: &[Act]) -> (Vec<Outcome>, BTreeSet<String>) {
    let parts = recipe.parts();
    let mut ended: Vec<Option<Outcome>> = vec![None; parts.len()];
    let mut fatal = vec![false; parts.len()];
    let mut culprits = BTreeSet::new();
    while let Some(index) = (0..parts.len())
        .find(|index| ended[*index].is_none() && parts[*index].awaits().iter().all(|other| ended[*other].is_some()))
    {
        let part = &parts[index];
        let failed_need = part.needs().iter().find_map(|need| match &ended[*need] {
            Some(Outcome::Failed(fault)) => Some(fault.passed_on(parts[*need].name())),
            _ => None,
        });
        let skips = part
            .needs()
            .iter()
            .any(|need| matches!(ended[*need], Some(Outcome::Skipped)));
        let follows = part.awaits().iter().any(|other| fatal[*other]);
        let outcome = match (failed_need, &acts[index]) {
            _ if follows => Outcome::Cancelled,
            (Some(fault), _) => Outcome::Failed(fault),
            (None, _) if skips => Outcome::Skipped,
            (None, Act::Lack) if part.on_missing == OnMissing::Skip => Outcome::Skipped,
            (None, Act::Lack) => Outcome::Failed(PartFault::new(Cause::ValueMissing(Missing::InRequest))),
            (None, Act::Unwanted) => Outcome::Skipped,
            (None, Act::Call(PartResult::Some(body, fault))) => match part.read(body) {
                Ok((members, _)) => Outcome::Incomplete(members, Box::new(fault.clone())),
                Err(cause) => Outcome::Failed(PartFault::new(cause)),
            },
            (None, Act::Call(PartResult::Absent)) => Outcome::Absent,
            (None, Act::Call(PartResult::Failed(fault))) => Outcome::Failed(fault.clone()),
            (None, Act::Call(PartResult::Body(body))) => match part.read(body) {
                Ok((members, _)) => Outcome::Data(members),
                Err(cause) => Outcome::Failed(PartFault::new(cause)),
            },
        };
        if let Outcome::Failed(fault) = &outcome
            && part.is_required()
        {
            culprits.insert(fault.origin(part.name()).0.to_string());
            fatal[index] = true;
        }
        fatal[index] |= follows;
        ended[index] = Some(outcome);
    }
    let mut ended: Vec<_> = ended
        .into_iter()
        .map(|outcome| outcome.expect("a recipe has no cycles"))
        .collect();
    let mut total = 0;
    for (outcome, act) in ended.iter_mut().zip(acts).filter(|_| culprits.is_empty()) {
        let (Outcome::Data(_) | Outcome::Incomplete(..), Act::Call(PartResult::Body(body) | PartResult::Some(body, _))) =
            (&*outcome, act)
        else {
            continue;
        };
        let length = body.bytes().len();
        if let Some(limit) = recipe.body_limit.filter(|limit| total + length > limit.value) {
            *outcome = Outcome::Failed(PartFault::new(Cause::TooLarge).by(limit.by));
        } else {
            total += length;
        }
    }
    (ended, culprits)
}

fn acts() -> impl Strategy<Value = Act> {
    let body = |text: &'static str| Act::Call(answer(text));
    let failed = |cause| Act::Call(PartResult::Failed(PartFault::new(cause)));
    prop_oneof![
        3 => Just(body(r#"{"id":1.00,"list":[1]}"#)),
        3 => Just(body(r#"{"list":[2,3],"id":{"x":1}}"#)),
        2 => Just(body(r#"{"id":{"y":2},"z":"\u00e9"}"#)),
        1 => Just(body("[1,2]")),
        1 => Just(body("{}")),
        1 => Just(body("7")),
        1 => Just(body("<html>")),
        1 => Just(Act::Call(PartResult::Absent)),
        1 => Just(failed(Cause::Status(StatusCode::NOT_FOUND))),
        1 => Just(failed(Cause::Call(Reason::BreakerOpen))),
        1 => Just(failed(Cause::TooLarge)),
        1 => Just(Act::Lack),
        1 => Just(Act::Unwanted),
        1 => Just(Act::Call(PartResult::Some(
            Document::of(&[Some(1), None]),
            PartFault::new(Cause::Elements {
                failed: 1,
                of: 2,
                first: Box::new(PartFault::new(Cause::Call(Reason::BackendTimeout))),
                elements: Box::default(),
            }),
        ))),
    ]
}

prop_compose! {
    /// Parts of which each may need any part with a lower rank. Ranks are shuffled, so needs may be declared later.
    fn parts()(count in 1_usize..7)(
        ranks in Just((0..count).collect::<Vec<_>>()).prop_shuffle(),
        rows in prop::collection::vec(
            (prop::bits::u8::masked(0b0111_1111), any::<u8>(), prop::bool::weighted(0.2), any::<bool>(), 0..6_u8, prop::bool::weighted(0.3), prop::bool::weighted(0.3)),
            count,
        ),
        acts in prop::collection::vec(acts(), count),
        dense in any::<bool>(),
    ) -> (Vec<PartDraft>, Vec<Act>) {
        let draft = |index: usize| {
            let (needs, after, required, skips, group, falls_back, embeds) = rows[index];
            let needs = if dense { needs } else { needs & needs >> 1 & needs >> 2 };
            let need = |other: &usize| ranks[*other] < ranks[index] && needs >> ranks[*other] & 1 == 1;
            // At most one part puts its answers into a list: that of the part before it in rank.
            let host = (0..ranks.len()).find(|other| embeds && ranks[*other] + 1 == ranks[index]);
            PartDraft {
                name: format!("p{index}"),
                required,
                each: host.is_some(),
                splices: host.map(|host| Splice { part: format!("p{host}"), steps: ["list".into()].into() }).into_iter().collect(),
                into: host.map(|host| IntoDraft {
                    path: "list.*".into(),
                    list: Some(Splice { part: format!("p{host}"), steps: ["list".into()].into() }),
                    leaves_out_null: skips,
                }),
                needs: (0..ranks.len()).filter(need).map(|other| format!("p{other}")).collect(),
                after: (0..ranks.len())
                    .filter(|other| ranks[*other] < ranks[index] && after & after >> 1 >> ranks[*other] & 1 == 1)
                    .map(|other| format!("p{other}"))
                    .collect(),
                on_missing: if skips { OnMissing::Skip } else { OnMissing::Fail },
                group: [None, Some("shared"), Some("."), Some("."), Some("shared.x"), Some("shared.id.y")][usize::from(group)].filter(|_| host.is_none()).map(str::to_owned),
                fallback: (falls_back && !required && host.is_none()).then(|| Document::of(&serde_json::json!({ "id": "fallback" }))),
                ..PartDraft::default()
            }
        };
        ((0..ranks.len()).map(draft).collect(), acts)
    }
}

fn conflicts() -> impl Strategy<Value = Conflict> {
    prop::sample::select(vec![
        Conflict::Last,
        Conflict::First,
        Conflict::Deep,
        Conflict::Concat,
        Conflict::Error,
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..cases::counted() })]

    /// If several required parts fail, the first failure in time ends the others. Apart from that, neither success nor
    /// any byte of an answer depends on time.
    #[test]
    fn the_answer_depends_on_recipe_and_results_alone(
        (drafts, acts) in parts(),
        denies in prop::bool::weighted(0.2),
        conflict in conflicts(),
        errors in prop::sample::select(vec![Errors::Unlisted, Errors::Listed, Errors::Detailed]),
        wraps in prop::bool::weighted(0.2),
        body_limit in prop::option::weighted(0.3, (1..80_usize).prop_map(|value| Configured { value, by: SettingId::URI })),
        schedules in prop::collection::vec(prop::collection::vec(0..5_u64, 7), 4),
    ) {
        let partial = if denies { Partial::Deny } else { Partial::Allow };
        let mut drafts = drafts;
        if denies {
            drafts.iter_mut().for_each(|draft| draft.fallback = None);
        }
        let recipe = Recipe::compile(RecipeDraft { parts: drafts, partial, conflict, errors, wrap: wraps.then(|| "data".into()), document: None, body_limit }).unwrap();
        let (outcomes, culprits) = judge(&recipe, &acts);
        let failed = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Failed(_) | Outcome::Incomplete(..))).count();
        let skipped: Vec<_> = recipe.parts().iter().zip(&outcomes)
            .filter(|(_, outcome)| matches!(outcome, Outcome::Skipped))
            .map(|(part, _)| &**part.name())
            .collect();
        let skipped = skipped.join(", ");
        let expected = merge(&recipe, outcomes, None);
        let runtime = paused();
        for delays in schedules {
            let found = runtime.block_on(run(&recipe, &acts, &delays));
            if culprits.is_empty() {
                prop_assert_eq!(&found, &expected);
            }
            match found {
                Ok(answer) => {
                    prop_assert!(culprits.is_empty(), "a required part failed: {:?}", culprits);
                    let mut headers = FieldMap::new();
                    answer.write_headers(&mut headers);
                    prop_assert_eq!(headers.get_all("proxy-status").iter().count(), failed);
                    let said = headers.get("x-gateway-skipped").map(|names| names.to_str().unwrap());
                    prop_assert_eq!(said.unwrap_or_default(), &skipped);
                    prop_assert_eq!(&headers["x-gateway-complete"], if failed == 0 { "true" } else { "false" });
                    // No name appears twice.
                    prop_assert!(Document::check(&answer.body, usize::MAX).is_ok(), "{:?}", answer.body);
                    let document: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
                    let names: Vec<_> = document.as_object().unwrap().keys().collect();
                    prop_assert!(!wraps || names.iter().all(|name| matches!(name.as_str(), "data" | "_errors")));
                }
                Err(failure) => {
                    prop_assert!(failure.status().is_client_error() || failure.status().is_server_error());
                    if !culprits.is_empty() {
                        prop_assert!(culprits.contains(&*failure.part), "{} is not among {:?}", failure.part, culprits);
                    }
                    if culprits.len() == 1 {
                        prop_assert_eq!(&Err(failure), &expected);
                    }
                }
            }
        }
    }
}

#[test]
fn a_thousand_orders_of_arrival_give_one_answer() {
    let group = |name: &str, group: &str| PartDraft {
        name: name.into(),
        group: Some(group.into()),
        ..PartDraft::default()
    };
    let drafts = vec![
        group("user", "."),
        group("orders", "."),
        PartDraft {
            needs: vec!["user".into()],
            ..group("credit", "billing")
        },
        PartDraft {
            fallback: Some(Document::of(&serde_json::json!([]))),
            ..group("offers", "offers")
        },
        group("notes", "notes"),
    ];
    let draft = RecipeDraft {
        parts: drafts,
        partial: Partial::Allow,
        errors: Errors::Listed,
        ..RecipeDraft::default()
    };
    let recipe = Recipe::compile(draft).unwrap();
    let body = |text: &'static str| Act::Call(answer(text));
    let down = || Act::Call(PartResult::Failed(PartFault::new(Cause::Call(Reason::BackendTimeout))));
    let acts = [
        body(r#"{"id":1,"name":"Ada"}"#),
        body(r#"{"id":2.50,"total":9}"#),
        body("[7]"),
        down(),
        down(),
    ];

    let runtime = paused();
    let mut random = fastrand::Rng::with_seed(5);
    let mut delays = [1, 2, 3, 4, 5];
    for _ in 0..1_000 {
        random.shuffle(&mut delays);
        let answer = runtime.block_on(run(&recipe, &acts, &delays)).unwrap();
        let expected = concat!(
            r#"{"id":2.50,"name":"Ada","total":9,"billing":[7],"offers":[],"_errors":["#,
            r#"{"part":"offers","reason":"backend_timeout","status":504,"served":"value"},"#,
            r#"{"part":"notes","reason":"backend_timeout","status":504}]}"#,
        );
        assert_eq!(answer.body, expected, "arrival {delays:?}");
    }
}
