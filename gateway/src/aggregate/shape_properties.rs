//! Property tests of shaping: for any rules and any document, the fast way gives what the naive way gives.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::embed::ElementPlace;
use super::naive;
use super::shape::{MapDraft, Shape, ShapeDraft};
use crate::json::Document;

/// A document of few names, so that paths often lead somewhere.
pub(super) fn documents() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        Just(json!(7)),
        Just(json!("text")),
        Just(json!({})),
        Just(json!([])),
    ];
    leaf.prop_recursive(5, 40, 4, |inner| {
        prop_oneof![
            2 => prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            3 => prop::collection::vec((names(), inner), 0..4).prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn names() -> impl Strategy<Value = String> {
    // The second has to be escaped in JSON, and is as long as the others in a path.
    prop::sample::select(vec!["a", "b\"", "c", "é"]).prop_map(str::to_owned)
}

fn path(most: usize) -> impl Strategy<Value = String> {
    let word = prop_oneof![5 => names(), 1 => Just("*".to_owned())];
    prop::collection::vec(word, 1..=most).prop_map(|words| words.join("."))
}

fn steps() -> impl Strategy<Value = String> {
    let word = prop_oneof![5 => names(), 1 => Just("0".to_owned())];
    prop::collection::vec(word, 1..=2).prop_map(|words| words.join("."))
}

fn pairs() -> impl Strategy<Value = Vec<(String, String)>> {
    prop::collection::vec((path(3), path(3)), 0..3)
}

/// Up to the given number of entries of each kind, so that most sets of rules are accepted.
fn rules() -> impl Strategy<Value = ShapeDraft> {
    let keep = prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(path(3), 1..5)];
    (
        prop::option::weighted(0.2, steps()),
        keep,
        prop::collection::vec(path(3), 0..2),
        pairs(),
        pairs(),
        pairs(),
        prop::collection::vec(
            (
                path(2),
                prop::sample::select(vec![json!(1), json!({ "c": [] }), json!(null)]),
            ),
            0..3,
        ),
    )
        .prop_map(|(target, keep, drop, rename, copies, moves, defaults)| ShapeDraft {
            target,
            keep,
            drop,
            rename,
            copies,
            moves,
            maps: Vec::new(),
            defaults: defaults
                .into_iter()
                .map(|(path, value)| (path, Document::of(&value)))
                .collect(),
        })
}

/// Rules that may shape the elements of arrays, too.
pub(super) fn drafts() -> impl Strategy<Value = ShapeDraft> {
    let maps = prop::collection::vec((prop::option::of(path(2)), rules()), 0..2);
    (rules(), maps).prop_map(|(rules, maps)| ShapeDraft {
        maps: maps.into_iter().map(|(at, shape)| MapDraft { at, shape }).collect(),
        ..rules
    })
}

/// Takes out of the rules what is not accepted, so that few cases test nothing.
pub(super) fn accepted(draft: ShapeDraft) -> (ShapeDraft, Shape) {
    let mut draft = draft;
    loop {
        let found = match Shape::compile(&draft) {
            Ok(shape) => return (draft, shape),
            Err(mistakes) => mistakes,
        };
        for wrong in found {
            let without = |texts: &mut Vec<String>| texts.retain(|text| *text != wrong.path);
            let without_pair = |pairs: &mut Vec<(String, String)>| pairs.retain(|(from, _)| *from != wrong.path);
            match wrong.key {
                "rename" => without_pair(&mut draft.rename),
                "copy" => without_pair(&mut draft.copies),
                "move" => without_pair(&mut draft.moves),
                "defaults" => draft.defaults.retain(|(path, _)| *path != wrong.path),
                "keep" => without(&mut draft.keep),
                "drop" => without(&mut draft.drop),
                _ => {}
            }
            let of_maps: Vec<_> = draft.maps.drain(..).map(accepted_map).collect();
            draft.maps = of_maps;
        }
    }
}

fn accepted_map(map: MapDraft) -> MapDraft {
    MapDraft {
        shape: accepted(map.shape).0,
        ..map
    }
}

fn text(value: &Value) -> Document {
    Document::check(&Bytes::from(value.to_string()), usize::MAX).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..cases::counted() })]

    #[test]
    fn shaping_is_what_the_naive_way_gives(draft in drafts(), value in documents(), room in 0..400_usize) {
        let (draft, shape) = accepted(draft);
        let input = text(&value);
        let mut found = Vec::new();
        shape.apply(input.value(), usize::MAX, &mut found).unwrap();
        // No name appears twice.
        let found = Document::check(&Bytes::from(found), usize::MAX).unwrap();
        let expected = naive::shape(&draft, &value);
        prop_assert_eq!(&serde_json::from_slice::<Value>(found.bytes()).unwrap(), &expected, "{:?} on {}", draft, value);
        prop_assert_eq!(shape.kind(input.value()), found.value().kind());
        if shape.is_identity() {
            prop_assert_eq!(found.bytes(), input.bytes());
        }
        // With less room, the result is the same or there is none.
        let mut bounded = Vec::new();
        if shape.apply(input.value(), room, &mut bounded).is_ok() {
            prop_assert_eq!(&bounded[..], &found.bytes()[..]);
        } else {
            prop_assert!(draft.rename.len() + draft.copies.len() + draft.moves.len() + draft.maps.len() + draft.defaults.len() > 0);
        }
    }

    #[test]
    fn embedding_is_what_the_naive_way_gives(
        value in documents(),
        list in prop_oneof![Just(String::new()), steps()],
        names in prop::collection::vec(names(), 0..3),
        values in prop::collection::vec(documents(), 0..5),
        leaves_out_null in any::<bool>(),
    ) {
        let words = || list.split('.').filter(|word| !word.is_empty());
        let path: Vec<_> = words().chain(["*"]).chain(names.iter().map(String::as_str)).collect();
        let path = path.join(".");
        let steps: Vec<Box<str>> = words().map(Into::into).collect();
        let place = ElementPlace::parse(&path, &steps, leaves_out_null).unwrap();
        let found = place.embed(text(&value).value(), text(&Value::Array(values.clone())).value());
        let found = Document::check(&Bytes::from(found), usize::MAX).unwrap();
        let mut expected = value.clone();
        naive::embed(&mut expected, &path, &values, leaves_out_null);
        prop_assert_eq!(&serde_json::from_slice::<Value>(found.bytes()).unwrap(), &expected, "{} in {}", path, value);
    }
}

#[test]
fn an_answer_cannot_make_the_config_fill_the_memory() {
    let long = Document::of(&"x".repeat(10_000));
    let many = json!(vec![json!({}); 100_000]);
    let room = 2 * many.to_string().len();
    let fills = ShapeDraft {
        defaults: vec![("a".into(), long)],
        ..ShapeDraft::default()
    };
    let in_map = ShapeDraft {
        maps: vec![MapDraft {
            at: None,
            shape: fills.clone(),
        }],
        ..ShapeDraft::default()
    };
    for draft in [fills, in_map] {
        let mut out = Vec::new();
        let shape = Shape::compile(&draft).unwrap();
        assert!(shape.apply(text(&many).value(), room, &mut out).is_err());
        assert!(out.capacity() < 4 * room, "{} bytes", out.capacity());
    }
}
