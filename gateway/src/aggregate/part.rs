//! One part of a recipe: the parts that it waits for, and the place of its backend's answer in the whole.
//!
//! Invariant: an answer without shaping is copied as it was received.

use std::sync::Arc;

use bytes::Bytes;

use super::contribution::Contribution;
use super::draft::OnMissing;
use super::embed::ElementPlace;
use super::fault::{Cause, PartFault};
use super::placed_member::{MemberName, PlacedMember};
use super::shape::{Shape, TooLong};
use crate::json::{Document, Kind, Paths, Selection, Value};
use crate::setting::Configured;

#[derive(Debug, Clone)]
pub struct Part {
    pub(super) name: Arc<str>,
    pub(super) required: bool,
    pub(super) on_missing: OnMissing,
    /// The answer is an array of the answers to several calls.
    pub(super) each: bool,
    /// Indexes of needed parts, ascending, without duplicates.
    pub(super) needs: Vec<usize>,
    /// Indexes of `needs` and of the parts that must have ended, successfully or not. Ascending, without duplicates.
    pub(super) awaits: Vec<usize>,
    /// Indexes of the parts that await this one.
    pub(super) awaited_by: Vec<usize>,
    /// Paths of the values in its answer that other parts' requests use.
    pub(super) spliced: Arc<Paths>,
    pub(super) shape: Shape,
    /// Most bytes of the shaped document.
    pub(super) room: Option<Configured<usize>>,
    pub(super) place: Placement,
    /// Part with the list that the answers are put into, and their place in its elements.
    pub(super) into: Option<(usize, ElementPlace)>,
    /// Other parts' answers are put into the answer before it is shaped.
    pub(super) is_host: bool,
    /// Name for an array at the root.
    pub(super) own_name: MemberName,
    pub(super) collection: Option<Arc<[MemberName]>>,
    pub(super) fallback: Option<PlacedMember>,
}

/// Place of a part in the answer.
#[derive(Debug, Clone)]
pub(super) enum Placement {
    /// Path of at least one name.
    Group(Arc<[MemberName]>),
    Root,
    /// The part is the answer.
    Whole,
    /// Another part is the answer.
    Nowhere,
}

impl Part {
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Indexes of the parts that must have succeeded before this one starts.
    pub fn needs(&self) -> &[usize] {
        &self.needs
    }

    /// Indexes of the parts that must have ended before this one starts, including the needed parts.
    pub fn awaits(&self) -> &[usize] {
        &self.awaits
    }

    pub const fn has_fallback_value(&self) -> bool {
        self.fallback.is_some()
    }

    /// Returns whether the answer fails without this part, because the part is required or because of `partial: deny`.
    pub fn is_required(&self) -> bool {
        self.required
    }

    /// Index of the part with the list that the answers of this part are put into.
    pub fn host(&self) -> Option<usize> {
        self.into.as_ref().map(|(host, _)| *host)
    }

    /// Place of the answers in the elements of that list.
    pub fn element_place(&self) -> Option<&ElementPlace> {
        self.into.as_ref().map(|(_, place)| place)
    }

    /// Shapes a backend's answer. Returns the data for the answer and the values that other parts splice.
    ///
    /// Splicing reads the document before shaping, so that a value can be used without being shown.
    pub(super) fn read(&self, document: &Document) -> Result<(Contribution, Option<Selection>), Cause> {
        let spliced = (!self.spliced.is_empty()).then(|| Selection::of(document, &self.spliced));
        if self.is_host {
            // Said now, so that the parts that need this one are not called for nothing.
            if matches!(self.place, Placement::Root) && !is_mergeable(self.shape.kind(document.value())) {
                return Err(Cause::NotMergeable);
            }
            return Ok((Contribution::Unshaped(document.clone()), spliced));
        }
        Ok((self.contribution(document)?, spliced))
    }

    /// Shapes an answer that is complete.
    pub(super) fn contribution(&self, document: &Document) -> Result<Contribution, Cause> {
        Ok(match (&self.into, &self.place) {
            (Some(_), _) => Contribution::OfElements(self.shaped(document)?),
            (None, Placement::Nowhere) => Contribution::Unplaced,
            (None, _) => Contribution::Placed(self.placed(document)?),
        })
    }

    /// Returns the fault of an answer that cannot be shaped, with its setting.
    pub(super) fn shape_fault(&self, cause: Cause) -> PartFault {
        let limit = self.room.filter(|_| cause == Cause::TooLarge);
        PartFault {
            setting: limit.map(|limit| limit.by),
            ..PartFault::new(cause)
        }
    }

    /// Shapes a document and gives it its place in the answer. A fallback is treated like a backend's answer.
    pub(super) fn placed(&self, document: &Document) -> Result<PlacedMember, Cause> {
        self.place(self.shaped(document)?)
    }

    /// Makes what stands for the document of a part that has none.
    pub(super) fn nothing(&self) -> PlacedMember {
        let null = Document::from_checked(Bytes::from_static(b"null"));
        match &self.place {
            Placement::Group(path) => at(path, null),
            Placement::Root | Placement::Whole | Placement::Nowhere => PlacedMember::Whole(null),
        }
    }

    fn shaped(&self, document: &Document) -> Result<Document, Cause> {
        if self.shape.is_identity() {
            return Ok(document.clone());
        }
        let value = document.value();
        let room = self.room.map_or(usize::MAX, |room| room.value);
        let mut out = Vec::new();
        let shaped = match self.each && value.kind() == Kind::Array {
            true => self.shape_elements(value, room, &mut out),
            false => self.shape.apply(value, room, &mut out),
        };
        match shaped {
            Ok(()) => Ok(Document::from_checked(out.into())),
            Err(TooLong) => Err(Cause::TooLarge),
        }
    }

    fn shape_elements(&self, array: Value<'_>, room: usize, out: &mut Vec<u8>) -> Result<(), TooLong> {
        out.push(b'[');
        for (index, element) in array.elements().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            // A null element stays null, so that the other elements keep their positions.
            if element.is_null() {
                out.extend_from_slice(element.raw());
            } else {
                self.shape.apply(element, room, out)?;
            }
            if out.len() > room {
                return Err(TooLong);
            }
        }
        out.push(b']');
        Ok(())
    }

    /// Places the document. At the root, anything except an object gets a name; an object brings its own names.
    fn place(&self, document: Document) -> Result<PlacedMember, Cause> {
        let kind = document.value().kind();
        Ok(match (&self.place, &self.collection, kind) {
            (Placement::Root, _, Kind::Object) => PlacedMember::Members(document),
            // A null at the root adds no members.
            (Placement::Root, _, Kind::Null) => PlacedMember::Members(Document::empty_object()),
            (Placement::Root, Some(collection), Kind::Array) => at(collection, document),
            (Placement::Root, None, Kind::Array) => PlacedMember::Member(self.own_name.clone(), document),
            (Placement::Root, ..) => return Err(Cause::NotMergeable),
            (Placement::Group(path), Some(collection), Kind::Array) => {
                PlacedMember::Within(path.iter().chain(&**collection).cloned().collect(), document)
            }
            (Placement::Group(path), ..) => at(path, document),
            (Placement::Whole | Placement::Nowhere, ..) => PlacedMember::Whole(document),
        })
    }
}

/// Returns whether a value can be merged at the root: its members, or as an array under a name.
const fn is_mergeable(kind: Kind) -> bool {
    matches!(kind, Kind::Object | Kind::Array | Kind::Null)
}

fn at(path: &Arc<[MemberName]>, document: Document) -> PlacedMember {
    match &**path {
        [name] => PlacedMember::Member(name.clone(), document),
        _ => PlacedMember::Within(Arc::clone(path), document),
    }
}

#[cfg(test)]
mod tests {
    use super::super::draft::{PartDraft, Partial, RecipeDraft};
    use super::super::placed_member::wrapped;
    use super::super::recipe::Recipe;
    use super::super::shape::ShapeDraft;
    use super::*;

    fn part(draft: PartDraft) -> Part {
        let draft = PartDraft {
            name: "p".into(),
            ..draft
        };
        let recipe = RecipeDraft {
            parts: vec![draft],
            partial: Partial::Allow,
            ..RecipeDraft::default()
        };
        Recipe::compile(recipe).unwrap().parts()[0].as_ref().clone()
    }

    fn document(text: &str) -> Document {
        Document::check(&Bytes::copy_from_slice(text.as_bytes()), usize::MAX).unwrap()
    }

    fn check(part: &Part, body: &'static str, expected: Result<&str, Cause>) {
        let placed = part.placed(&document(body)).map(|placed| match placed {
            PlacedMember::Whole(value) => value.value().to_string(),
            PlacedMember::Member(name, value) => format!("{name:?}={}", value.value()),
            PlacedMember::Within(path, value) => {
                let text = wrapped(&path[1..], value.bytes());
                format!("{:?}={}", path[0], String::from_utf8(text).unwrap())
            }
            PlacedMember::Members(object) => object.value().to_string(),
        });
        assert_eq!(placed.as_deref(), expected.as_deref(), "{part:?} reads {body}");
    }

    /// Checks that raw and shaped documents are placed alike. `keep` names all fields of the bodies.
    fn check_both(draft: &PartDraft, body: &'static str, expected: Result<&str, Cause>) {
        check(&part(draft.clone()), body, expected.clone());
        let drop_nothing = ShapeDraft {
            drop: vec!["no.such.field".into()],
            ..ShapeDraft::default()
        };
        check(
            &part(PartDraft {
                shape: drop_nothing,
                ..draft.clone()
            }),
            body,
            expected,
        );
    }

    #[test]
    fn documents_are_placed() {
        let own = PartDraft::default();
        check_both(&own, r#"{"a":1.0}"#, Ok(r#""p"={"a":1.0}"#));
        check_both(&own, " [1] ", Ok(r#""p"=[1]"#));
        check_both(&own, "null", Ok(r#""p"=null"#));

        let group = PartDraft {
            group: Some("g".into()),
            collection: Some("items".into()),
            ..PartDraft::default()
        };
        check_both(&group, r#"{"a":1}"#, Ok(r#""g"={"a":1}"#));
        check_both(&group, "[1]", Ok(r#""g"={"items":[1]}"#));

        let root = PartDraft {
            group: Some(".".into()),
            ..PartDraft::default()
        };
        check_both(&root, r#"{"a":1,"b":[]}"#, Ok(r#"{"a":1,"b":[]}"#));
        check_both(&root, "{}", Ok("{}"));
        check_both(&root, "null", Ok("{}"));
        check_both(&root, "[1]", Ok(r#""p"=[1]"#));
        check_both(&root, "7", Err(Cause::NotMergeable));

        let named = PartDraft {
            collection: Some("items".into()),
            ..root.clone()
        };
        check_both(&named, "[1]", Ok(r#""items"=[1]"#));

        let deep = PartDraft {
            group: Some("g.h".into()),
            collection: Some("all.items".into()),
            ..PartDraft::default()
        };
        check_both(&deep, "7", Ok(r#""g"={"h":7}"#));
        check_both(&deep, "[1]", Ok(r#""g"={"h":{"all":{"items":[1]}}}"#));
        let deep = PartDraft {
            group: Some(".".into()),
            ..deep
        };
        check_both(&deep, "[1]", Ok(r#""all"={"items":[1]}"#));
        check_both(&deep, r#"{"a":1}"#, Ok(r#"{"a":1}"#));
    }

    #[test]
    fn elements_are_shaped_one_by_one() {
        let shape = ShapeDraft {
            target: Some("data".into()),
            keep: vec!["sku".into()],
            rename: vec![("sku".into(), "id".into())],
            ..ShapeDraft::default()
        };
        let stock = PartDraft {
            each: true,
            shape,
            ..PartDraft::default()
        };
        let body = r#"[{"data":{"sku":1.0,"x":2}},null,{"data":{}}]"#;
        check(&part(stock.clone()), body, Ok(r#""p"=[{"id":1.0},null,{}]"#));
        check(&part(stock), "[]", Ok(r#""p"=[]"#));
    }

    #[test]
    fn splicing_sees_what_shaping_hides() {
        let shape = ShapeDraft {
            keep: vec!["name".into()],
            ..ShapeDraft::default()
        };
        let user = PartDraft {
            name: "user".into(),
            shape,
            ..PartDraft::default()
        };
        let credit = PartDraft {
            name: "credit".into(),
            splices: vec!["user".into()],
            ..PartDraft::default()
        };
        let recipe = Recipe::compile(RecipeDraft {
            parts: vec![user, credit],
            ..RecipeDraft::default()
        })
        .unwrap();
        let body = document(r#"{"name":"Ada","account":7}"#);
        let (placed, spliced) = recipe.parts()[0].read(&body).unwrap();
        assert_eq!(
            placed,
            Contribution::Placed(PlacedMember::Member("user".into(), document(r#"{"name":"Ada"}"#)))
        );
        let whole = spliced.unwrap().get(&[]).map(|value| value.to_string());
        assert_eq!(whole.as_deref(), Some(r#"{"name":"Ada","account":7}"#));
        let (_, spliced) = recipe.parts()[1].read(&body).unwrap();
        assert!(spliced.is_none(), "nobody splices from it");
    }
}
