//! One part of a recipe: what it waits for, and what of its backend's answer goes where.
//!
//! Invariant: a body becomes a tree only if it is to be shaped, spliced from or merged into; otherwise it is checked
//! once and its bytes go into the answer as they came.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::document::{Document, Members, split_object};
use super::draft::OnMissing;
use super::fault::Cause;
use super::shape::Shape;

#[derive(Debug, Clone)]
pub struct Part {
    pub(super) name: Arc<str>,
    pub(super) required: bool,
    pub(super) on_missing: OnMissing,
    /// Its answer is an array of those to several calls.
    pub(super) each: bool,
    /// Ascending, each once.
    pub(super) needs: Vec<usize>,
    /// `needs`, and the parts that must have ended however they did; ascending, each once.
    pub(super) awaits: Vec<usize>,
    /// The parts that await this one.
    pub(super) awaited_by: Vec<usize>,
    /// Another part's request takes values from this one's answer.
    pub(super) spliced: bool,
    /// Its answer has to become a tree, to be shaped or merged into.
    pub(super) tree: bool,
    pub(super) shape: Shape,
    pub(super) place: Place,
    pub(super) collection: Option<Arc<str>>,
    pub(super) fallback: Option<Members>,
}

/// Where in the answer a part goes.
#[derive(Debug, Clone)]
pub(super) enum Place {
    Group(Arc<str>),
    Root,
}

impl Part {
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Indexes of the parts that must have succeeded before this one starts.
    pub fn needs(&self) -> &[usize] {
        &self.needs
    }

    /// Indexes of the parts that must have ended, and of those it needs among them.
    pub fn awaits(&self) -> &[usize] {
        &self.awaits
    }

    /// Whether there is no answer without it, be it by its own word or by `partial: deny`.
    pub fn is_required(&self) -> bool {
        self.required
    }

    /// Checks and shapes what the backend sent: what goes into the answer, and what other parts may splice from.
    ///
    /// Splicing sees the document as it came, so that a value can be used and yet not be shown.
    pub(super) fn read(&self, body: &Bytes) -> Result<(Members, Option<Value>), Cause> {
        let parse = || serde_json::from_slice::<Value>(body).map_err(|_| Cause::InvalidJson);
        if !self.tree {
            let members = self.place_raw(body)?;
            let spliced = if self.spliced { Some(parse()?) } else { None };
            return Ok((members, spliced));
        }
        let value = parse()?;
        let spliced = self.spliced.then(|| value.clone());
        Ok((self.place_tree(self.shaped(value))?, spliced))
    }

    /// A null in the place of an element stays one, so that the others keep theirs.
    fn shaped(&self, value: Value) -> Value {
        let shape = |item: Value| if item.is_null() { item } else { self.shape.apply(item) };
        match value {
            Value::Array(items) if self.each => items.into_iter().map(shape).collect(),
            value => self.shape.apply(value),
        }
    }

    fn place_raw(&self, body: &Bytes) -> Result<Members, Cause> {
        let is_object = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
        if is_object && matches!(self.place, Place::Root) {
            return split_object(body).map_err(|_| Cause::InvalidJson);
        }
        self.place(Document::raw(body).map_err(|_| Cause::InvalidJson)?)
    }

    fn place_tree(&self, value: Value) -> Result<Members, Cause> {
        match (value, &self.place) {
            (Value::Object(fields), Place::Root) => Ok(fields
                .into_iter()
                .map(|(name, field)| (name.into(), Document::Tree(field)))
                .collect()),
            (value, _) => self.place(Document::Tree(value)),
        }
    }

    /// Gives a name to anything but an object at the root, which brings its own.
    fn place(&self, document: Document) -> Result<Members, Cause> {
        let is_array = document.is_array();
        let member = match (&self.place, &self.collection) {
            (Place::Group(name), Some(collection)) if is_array => (name.clone(), document.wrapped(collection)),
            (Place::Group(name), _) => (name.clone(), document),
            (Place::Root, collection) if is_array => (collection.as_ref().unwrap_or(&self.name).clone(), document),
            (Place::Root, _) => return Err(Cause::NotMergeable),
        };
        Ok(Members::from_iter([member]))
    }

    /// The fallback as an answer would be: shaped, placed, and as bytes unless it may be merged into.
    pub(super) fn prepare_fallback(&self, value: Value, merges_trees: bool) -> Result<Members, Cause> {
        let members = self.place_tree(self.shaped(value))?;
        let freeze = |(name, document): (_, Document)| (name, document.frozen());
        Ok(if merges_trees {
            members
        } else {
            members.into_iter().map(freeze).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::draft::{PartDraft, Partial, RecipeDraft};
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
        Recipe::compile(recipe).unwrap().parts()[0].clone()
    }

    fn check(part: &Part, body: &'static str, expected: Result<&str, Cause>) {
        let members = part.read(&Bytes::from_static(body.as_bytes())).map(|(members, _)| {
            let lines: Vec<_> = members
                .into_iter()
                .map(|(name, document)| match document.frozen() {
                    Document::Raw(text) => format!("{name}={}", String::from_utf8_lossy(&text)),
                    Document::Tree(_) => unreachable!("frozen"),
                })
                .collect();
            lines.join(";")
        });
        assert_eq!(members.as_deref(), expected.as_deref(), "{part:?} reads {body}");
    }

    /// Raw and shaped documents are placed alike; `keep` names everything that the bodies hold.
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
        check_both(&own, r#"{"a":1.0}"#, Ok(r#"p={"a":1.0}"#));
        check_both(&own, " [1] ", Ok("p=[1]"));
        check_both(&own, "null", Ok("p=null"));

        let group = PartDraft {
            group: Some("g".into()),
            collection: Some("items".into()),
            ..PartDraft::default()
        };
        check_both(&group, r#"{"a":1}"#, Ok(r#"g={"a":1}"#));
        check_both(&group, "[1]", Ok(r#"g={"items":[1]}"#));

        let root = PartDraft {
            group: Some(".".into()),
            ..PartDraft::default()
        };
        check_both(&root, r#"{"a":1,"b":[],"a":2}"#, Ok("a=2;b=[]"));
        check_both(&root, "{}", Ok(""));
        check_both(&root, "[1]", Ok("p=[1]"));
        check_both(&root, "7", Err(Cause::NotMergeable));

        let named = PartDraft {
            collection: Some("items".into()),
            ..root.clone()
        };
        check_both(&named, "[1]", Ok("items=[1]"));

        for draft in [own, group, root, named] {
            for body in ["", "{", "{\"a\":1}}", "[1", "<html>"] {
                check_both(&draft, body, Err(Cause::InvalidJson));
            }
        }
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
        check(&part(stock.clone()), body, Ok(r#"p=[{"id":1.0},null,{}]"#));
        check(&part(stock), "[]", Ok("p=[]"));
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
        let body = Bytes::from_static(br#"{"name":"Ada","account":7}"#);
        let (members, spliced) = recipe.parts()[0].read(&body).unwrap();
        assert!(matches!(&members[0].1, Document::Tree(value) if value["account"].is_null()));
        assert_eq!(spliced.unwrap()["account"], 7);
        let (_, spliced) = recipe.parts()[1].read(&body).unwrap();
        assert!(spliced.is_none(), "nobody splices from it");
    }
}
