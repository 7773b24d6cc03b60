//! Combines the outcomes of the parts into one answer: a pure function of the recipe and the outcomes.
//!
//! Invariant: parts are taken in declared order, so equal outcomes give equal bytes. A failed required part never gives
//! an answer. A failed optional part is always reported.

use std::sync::Arc;

use http::StatusCode;
use serde_json::json;

use super::answer::{Answer, Failure};
use super::body::Body;
use super::contribution::{Contribution, embed};
use super::draft::Errors;
use super::fan_out::Outcome;
use super::fault::{Cause, FailedElement, PartFault, Substitute};
use super::part::Placement;
use super::recipe::Recipe;
use super::shape::Shape;
use crate::json::{self, Document};
use crate::message::FieldMap;

/// Makes the answer from `outcomes`, one for each part in declared order.
///
/// Fails with the first required part that failed. If no part has data, fails with the first failed part. Fails with a
/// colliding part if the recipe forbids collisions. `fields` are those of the document that the caller has chosen, if it
/// has.
pub fn merge(recipe: &Recipe, mut outcomes: Vec<Outcome>, fields: Option<&Shape>) -> Result<Answer, Failure> {
    debug_assert_eq!(outcomes.len(), recipe.parts().len());
    if recipe.embeds() {
        embed(recipe, &mut outcomes);
    }
    for (part, outcome) in recipe.parts().iter().zip(&outcomes) {
        if let Outcome::Failed(fault) = outcome
            && part.required
        {
            return Err(Failure::of(&part.name, fault));
        }
    }

    let mut body = Body::default();
    let mut faults: Vec<(Arc<str>, PartFault)> = Vec::new();
    let mut skipped = Vec::new();
    let mut has_data = false;
    for (index, (part, outcome)) in recipe.parts().iter().zip(outcomes).enumerate() {
        let found = match outcome {
            Outcome::Data(found) => found,
            Outcome::Incomplete(found, fault) => {
                faults.push((part.name.clone(), *fault));
                found
            }
            Outcome::Skipped => {
                skipped.push(part.name.clone());
                continue;
            }
            Outcome::Absent | Outcome::Cancelled => continue,
            Outcome::Failed(fault) => match &part.fallback {
                Some(placed) => {
                    faults.push((part.name.clone(), fault.served_by(Substitute::Value)));
                    match part.place {
                        Placement::Nowhere => Contribution::Unplaced,
                        _ => Contribution::Placed(placed.clone()),
                    }
                }
                None => {
                    faults.push((part.name.clone(), fault));
                    continue;
                }
            },
        };
        if let Contribution::Placed(placed) = found {
            has_data = true;
            body.add(index, placed);
        }
    }
    if let Err(part) = body.settle(recipe.conflict, &recipe.passages) {
        return Err(Failure::of(
            &recipe.parts()[part].name,
            &PartFault::new(Cause::Conflict),
        ));
    }
    if let Some((part, fault)) = faults.first()
        && !has_data
    {
        return Err(Failure::of(part, fault));
    }
    if let Some(part) = recipe.document.filter(|_| !has_data) {
        // Neither failed nor replaced: there is nothing, and that is the answer.
        body.add(part, recipe.parts()[part].nothing());
    }
    if let Some(fields) = fields {
        body = body.cut(recipe.wrap_of_document(), fields);
    }
    let errors = (recipe.errors != Errors::Unlisted && !faults.is_empty()).then(|| list(&faults));
    Ok(Answer {
        status: StatusCode::OK,
        headers: FieldMap::new(),
        body: body.write(recipe.wrap.as_deref(), errors.as_ref()),
        faults,
        tag: None,
        skipped,
    })
}

fn list(faults: &[(Arc<str>, PartFault)]) -> Document {
    let mut out = vec![b'['];
    for (index, (part, fault)) in faults.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        let mut entry = json!({ "part": &**part, "reason": fault.reason(), "status": fault.status().as_u16() });
        if let Some(served) = &fault.served {
            entry["served"] = served.kind().as_str().into();
        }
        if let Some(status) = fault.backend_status() {
            entry["backend_status"] = status.as_u16().into();
        }
        if let Cause::Elements {
            failed, of, elements, ..
        } = &fault.cause
        {
            entry["failed"] = (*failed).into();
            entry["of"] = (*of).into();
            let listed = elements.iter().map(
                |FailedElement { index, reason, status }| json!({ "index": index, "reason": reason, "status": status.as_u16() }),
            );
            entry["elements"] = listed.collect();
        }
        out.extend_from_slice(entry.to_string().as_bytes());
        if let Some(details) = fault.details() {
            json::add_member(&mut out, "details", details.value());
        }
    }
    out.push(b']');
    Document::from_checked(out.into())
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use bytes::Bytes;

    use super::super::draft::{Conflict, PartDraft, Partial, RecipeDraft};
    use super::*;
    use crate::aggregate::{MemberName, Part};
    use crate::rejection::Reason;

    /// Merges results of parts named `a`, `b`, `c`. Each result is a JSON text or a cause.
    fn answer(recipe: &Recipe, results: &[Result<&str, Cause>]) -> Result<Answer, Failure> {
        let outcome = |(part, result): (&Arc<Part>, &Result<&str, Cause>)| match result {
            Ok("") => Outcome::Absent,
            Ok(text) => {
                let document = Document::check(&Bytes::copy_from_slice(text.as_bytes()), usize::MAX).unwrap();
                Outcome::Data(part.read(&document).unwrap().0)
            }
            Err(cause) => Outcome::Failed(PartFault::new(cause.clone())),
        };
        merge(recipe, recipe.parts().iter().zip(results).map(outcome).collect(), None)
    }

    fn recipe(parts: Vec<PartDraft>, conflict: Conflict) -> Recipe {
        let name = |(index, part): (usize, PartDraft)| PartDraft {
            name: ["a", "b", "c"][index].into(),
            ..part
        };
        let parts = parts.into_iter().enumerate().map(name).collect();
        Recipe::compile(RecipeDraft {
            parts,
            conflict,
            partial: Partial::Allow,
            ..RecipeDraft::default()
        })
        .unwrap()
    }

    fn root() -> PartDraft {
        PartDraft {
            group: Some(".".into()),
            ..PartDraft::default()
        }
    }

    fn text(answer: &Answer) -> &str {
        std::str::from_utf8(&answer.body).unwrap()
    }

    #[test]
    fn parts_stand_in_declared_order_as_they_came() {
        let group = PartDraft {
            group: Some("g\"".into()),
            ..PartDraft::default()
        };
        let recipe = recipe(vec![PartDraft::default(), group, root()], Conflict::Last);
        let answer = answer(
            &recipe,
            &[Ok(r#"{"id": 1.00}"#), Ok("[1e400]"), Ok(r#" {"x":{ }, "y":2} "#)],
        )
        .unwrap();
        assert_eq!(text(&answer), r#"{"a":{"id": 1.00},"g\"":[1e400],"x":{ },"y":2}"#);
        assert!(answer.is_complete());
    }

    #[test]
    fn conflicts_are_settled_in_declared_order() {
        let check = |conflict, expected: Option<&str>| {
            let recipe = recipe(vec![root(), root(), root()], conflict);
            let results = [
                r#"{"k":{"x":1,"l":[1]},"s":1,"a":[1.0]}"#,
                r#"{"\u0073":2,"a":[2],"k":{"y":2,"l":[2]}}"#,
                r#"{"z":0}"#,
            ];
            let found = answer(&recipe, &results.map(Ok));
            assert_eq!(found.as_ref().ok().map(text), expected, "{conflict:?}");
            // Objects with many names take another code path.
            let many: Vec<String> = (0..50).map(|number| format!("\"n{number}\":{number}")).collect();
            let many = format!("{{\"z\":0,{}}}", many.join(","));
            let found = answer(&recipe, &[Ok(results[0]), Ok(results[1]), Ok(&many)]);
            let expected = expected.map(|expected| format!("{},{}", &expected[..expected.len() - 1], &many[7..]));
            assert_eq!(found.as_ref().ok().map(text), expected.as_deref(), "{conflict:?}");
        };
        check(Conflict::Last, Some(r#"{"k":{"y":2,"l":[2]},"s":2,"a":[2],"z":0}"#));
        check(Conflict::First, Some(r#"{"k":{"x":1,"l":[1]},"s":1,"a":[1.0],"z":0}"#));
        check(
            Conflict::Deep,
            Some(r#"{"k":{"x":1,"l":[2],"y":2},"s":2,"a":[2],"z":0}"#),
        );
        check(
            Conflict::Concat,
            Some(r#"{"k":{"x":1,"l":[1,2],"y":2},"s":2,"a":[1.0,2],"z":0}"#),
        );
        check(Conflict::Error, None);
    }

    #[test]
    fn a_group_is_a_path_and_what_it_leads_through_is_one_object() {
        let group = |path: &str| PartDraft {
            group: Some(path.into()),
            ..PartDraft::default()
        };
        let check = |groups: [&str; 3], conflict, results: [&str; 3], expected: Option<&str>| {
            let recipe = recipe(groups.map(group).to_vec(), conflict);
            let found = answer(&recipe, &results.map(Ok));
            assert_eq!(found.as_ref().ok().map(text), expected, "{groups:?} {conflict:?}");
        };
        let all = [
            Conflict::Last,
            Conflict::First,
            Conflict::Deep,
            Conflict::Concat,
            Conflict::Error,
        ];
        for conflict in all {
            let expected = Some(r#"{"p":{"q":1.0,"r":{"s":[2]}},"o":{"p":{"q":{}}}}"#);
            check(["p.q", "p.r.s", "o.p.q"], conflict, ["1.0", "[2]", "{}"], expected);
            // Merged with other parts' members of the same object, in a group or at the root.
            let expected = Some(r#"{"p":{"q":1,"a":2},"z":{"p":3}}"#);
            check(["p.q", "p", "z.p"], conflict, ["1", r#"{"a":2}"#, "3"], expected);
            let expected = Some(r#"{"p":{"a":{"x":1},"q":2},"b":3,"c":4}"#);
            check(
                [".", "p.q", "c"],
                conflict,
                [r#"{"p":{"a":{"x":1}},"b":3}"#, "2", "4"],
                expected,
            );
        }
        for (conflict, expected) in [
            (Conflict::Last, Some(r#"{"p":{"q":{"m":2}},"z":0}"#)),
            (Conflict::First, Some(r#"{"p":{"q":{"n":1}},"z":0}"#)),
            (Conflict::Deep, Some(r#"{"p":{"q":{"n":1,"m":2}},"z":0}"#)),
            (Conflict::Error, None),
        ] {
            check(
                ["p.q", "p.q", "z"],
                conflict,
                [r#"{"n":1}"#, r#"{"m":2}"#, "0"],
                expected,
            );
        }
        for (conflict, expected) in [
            (Conflict::Last, Some(r#"{"p":{"q":2},"z":0}"#)),
            (Conflict::First, Some(r#"{"p":7,"z":0}"#)),
            (Conflict::Error, None),
        ] {
            check(["p", "p.q", "z"], conflict, ["7", "2", "0"], expected);
        }
        let mut recipe = recipe(["p.q", "p.r", "z"].map(group).to_vec(), Conflict::Last);
        recipe.wrap = Some(["a", "b"].map(MemberName::from).into());
        recipe.errors = Errors::Listed;
        let found = answer(&recipe, &[Ok("1"), Ok("2"), Err(Cause::TooLarge)]).unwrap();
        let expected = r#"{"a":{"b":{"p":{"q":1,"r":2}}},"_errors":[{"part":"c","reason":"too_large","status":502}]}"#;
        assert_eq!(text(&found), expected);
        // The deepest allowed part, inside a group.
        let nested = format!("{}{}", "[".repeat(128), "]".repeat(128));
        recipe.wrap = None;
        let found = answer(&recipe, &[Ok(&nested), Ok("2"), Ok("3")]).unwrap();
        assert_eq!(text(&found), format!(r#"{{"p":{{"q":{nested},"r":2}},"z":3}}"#));
    }

    #[test]
    fn everything_but_the_errors_can_go_under_a_name() {
        let mut recipe = recipe(vec![root(), PartDraft::default()], Conflict::Last);
        recipe.wrap = Some([MemberName::from("data")].into());
        recipe.errors = Errors::Listed;
        let found = answer(&recipe, &[Ok(r#"{"k":1.0}"#), Err(Cause::TooLarge)]).unwrap();
        let expected = r#"{"data":{"k":1.0},"_errors":[{"part":"b","reason":"too_large","status":502}]}"#;
        assert_eq!(text(&found), expected);
    }

    #[test]
    fn a_forbidden_conflict_is_the_later_parts_fault() {
        let recipe = recipe(vec![root(), root()], Conflict::Error);
        let failure = answer(&recipe, &[Ok(r#"{"k":1}"#), Ok(r#"{"k":1}"#)]).unwrap_err();
        assert_eq!(
            (&*failure.part, failure.status(), failure.reason()),
            ("b", StatusCode::BAD_GATEWAY, "conflict")
        );
        let failure = answer(&recipe, &[Ok(r#"{"k":1}"#), Ok(r#"{"x":1,"\u006b":1}"#)]).unwrap_err();
        assert_eq!(&*failure.part, "b");
    }

    #[test]
    fn a_failed_part_is_absent_or_falls_back_and_said_to_be_so() {
        let shape = crate::aggregate::ShapeDraft {
            keep: vec!["items".into()],
            ..Default::default()
        };
        let fallback = Some(Document::of(&json!({ "items": [], "hidden": 1 })));
        let parts = vec![
            PartDraft::default(),
            PartDraft {
                fallback,
                shape,
                ..PartDraft::default()
            },
            PartDraft::default(),
        ];
        let mut recipe = recipe(parts, Conflict::Last);
        let down = || Err(Cause::Call(Reason::BreakerOpen));
        let answer_to =
            |recipe: &Recipe| answer(recipe, &[Ok("1"), down(), Err(Cause::Status(StatusCode::NOT_FOUND))]).unwrap();

        let partial = answer_to(&recipe);
        assert_eq!(text(&partial), r#"{"a":1,"b":{"items":[]}}"#);
        let mut headers = crate::message::FieldMap::new();
        partial.write_headers(&mut headers);
        assert_eq!(headers["x-gateway-complete"], "false");
        assert_eq!(headers["cache-control"], "no-store");
        let entries: Vec<_> = headers.get_all("proxy-status").iter().collect();
        let expected = [
            r#"gateway;error=destination_unavailable;details="b: breaker_open; served value""#,
            r#"gateway;received-status=404;details="c: backend_status""#,
        ];
        assert_eq!(entries, expected);

        recipe.errors = Errors::Listed;
        let expected = r#"{"a":1,"b":{"items":[]},"_errors":[{"part":"b","reason":"breaker_open","status":503,"served":"value"},{"part":"c","reason":"backend_status","status":404,"backend_status":404}]}"#;
        assert_eq!(text(&answer_to(&recipe)), expected);

        let complete = answer(&recipe, &[Ok("1"), Ok("{}"), Ok("")]).unwrap();
        assert_eq!(text(&complete), r#"{"a":1,"b":{}}"#);
        let mut headers = crate::message::FieldMap::new();
        complete.write_headers(&mut headers);
        assert_eq!(headers["x-gateway-complete"], "true");
        assert_eq!(headers["content-length"], complete.body.len().to_string());
        assert!(!headers.contains_key("proxy-status") && !headers.contains_key("cache-control"));
    }

    #[test]
    fn a_required_parts_failure_is_the_answer() {
        let required = || PartDraft {
            required: true,
            ..PartDraft::default()
        };
        let recipe = recipe(vec![PartDraft::default(), required(), required()], Conflict::Last);
        let fault = |status| Err(Cause::Status(StatusCode::from_u16(status).unwrap()));
        let failure = answer(&recipe, &[fault(410), fault(404), fault(500)]).unwrap_err();
        assert_eq!((&*failure.part, failure.status().as_u16()), ("b", 404));
        let mut headers = crate::message::FieldMap::new();
        failure.write_headers(&mut headers);
        assert_eq!(headers["x-gateway-complete"], "false");
        assert_eq!(
            headers["proxy-status"],
            r#"gateway;received-status=404;details="b: backend_status""#
        );
    }

    #[test]
    fn without_any_data_the_first_failure_is_the_answer() {
        let with_fallback = PartDraft {
            fallback: Some(Document::of(&json!(null))),
            ..PartDraft::default()
        };
        let recipe = recipe(
            vec![PartDraft::default(), PartDraft::default(), with_fallback],
            Conflict::Last,
        );
        let down = || Err(Cause::Call(Reason::BackendTimeout));
        let late = answer(&recipe, &[Ok(""), down(), Ok("")]).unwrap_err();
        assert_eq!((&*late.part, late.status()), ("b", StatusCode::GATEWAY_TIMEOUT));
        assert_eq!(
            text(&answer(&recipe, &[Ok(""), down(), down()]).unwrap()),
            r#"{"c":null}"#
        );
        assert_eq!(text(&answer(&recipe, &[Ok(""), Ok(""), Ok("")]).unwrap()), "{}");
    }
}
