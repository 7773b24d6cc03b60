//! What holds for every request, answer and way in which a body arrives.

use bytes::Bytes;
use http::HeaderValue;
use http::header::ACCEPT_ENCODING;
use proptest::prelude::*;

use super::encoder::tests::{decoded, rules};
use super::{AcceptedCodings, Coding, Encoder, PIECE};
use crate::message::FieldMap;

/// An element of a list, well written: name and weight in thousandths.
fn elements() -> impl Strategy<Value = Vec<(&'static str, Option<u16>)>> {
    let names = prop::sample::select(vec!["gzip", "br", "zstd", "identity", "*", "deflate"]);
    prop::collection::vec((names, prop::option::of(0..=1000u16)), 0..8)
}

fn text(elements: &[(&str, Option<u16>)]) -> String {
    let texts = elements.iter().map(|(name, weight)| match weight {
        None => (*name).to_owned(),
        Some(1000) => format!("{name};q=1"),
        Some(weight) => format!("{name} ; q=0.{weight:03}"),
    });
    texts.collect::<Vec<_>>().join(" , ")
}

/// Weight of a name, read straight from RFC 9110 section 12.5.3: what lists it, else the star.
fn weight(elements: &[(&str, Option<u16>)], wanted: &str) -> Option<u16> {
    let of = |wanted: &str| {
        elements
            .iter()
            .find(|(name, _)| *name == wanted)
            .map(|(_, weight)| weight.unwrap_or(1000))
    };
    of(wanted).or_else(|| of("*"))
}

fn bodies() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let piece = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..50),
        (any::<u8>(), 0..3 * PIECE).prop_map(|(byte, length)| vec![byte; length]),
        prop::collection::vec(prop::sample::select(b"abc {}\":,".to_vec()), 0..5000),
    ];
    prop::collection::vec(piece, 0..6)
}

proptest! {
    #![proptest_config(cases::counted())]

    #[test]
    fn the_choice_is_acceptable_and_none_on_offer_is_wanted_more(
        elements in elements(),
        offered in prop::sample::subsequence(Coding::ALL.to_vec(), 0..=3).prop_shuffle(),
    ) {
        let mut headers = FieldMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::try_from(text(&elements)).unwrap());
        let chosen = AcceptedCodings::read(&headers).choose(&offered);
        let weight = |name: &str| weight(&elements, name);
        let of = |coding: Coding| weight(coding.as_str()).unwrap_or(0);
        match chosen {
            Some(chosen) => {
                prop_assert!(of(chosen) > 0 && of(chosen) >= weight("identity").unwrap_or(0));
                let place = offered.iter().position(|coding| *coding == chosen).unwrap();
                for (other, coding) in offered.iter().enumerate() {
                    prop_assert!(of(*coding) < of(chosen) || (of(*coding) == of(chosen) && place <= other));
                }
            }
            None => {
                for coding in offered {
                    prop_assert!(of(coding) == 0 || weight("identity").is_some_and(|identity| identity > of(coding)));
                }
            }
        }
    }

    #[test]
    fn no_request_is_misread(line in prop::collection::vec(any::<u8>(), 0..60)) {
        if let Ok(value) = HeaderValue::from_bytes(&line) {
            let headers = FieldMap::from_iter([(ACCEPT_ENCODING, value)]);
            let accepted = AcceptedCodings::read(&headers);
            if let Some(coding) = accepted.choose(&Coding::ALL) {
                let text = String::from_utf8_lossy(&line).to_ascii_lowercase();
                prop_assert!(text.contains(coding.as_str()) || text.contains('*'));
            }
        }
    }

    /// However a body arrives, it comes back whole; what was flushed comes back before the next piece; and what is cut
    /// anywhere before the end is never taken for whole.
    #[test]
    fn a_body_comes_back_and_a_cut_one_does_not(pieces in bodies(), place in any::<prop::sample::Index>()) {
        for coding in Coding::ALL {
            let mut encoder = Encoder::begin(coding, &rules()).unwrap();
            let (mut plain, mut out) = (Vec::new(), Vec::new());
            for piece in &pieces {
                plain.extend_from_slice(piece);
                encoder.feed(Bytes::from(piece.clone()));
                while encoder.has_input() {
                    prop_assert!(encoder.work() <= PIECE);
                }
                encoder.flush();
                out.extend(encoder.take_output().into_iter().flatten());
                let (so_far, _) = decoded(coding, &out);
                prop_assert!(so_far == plain, "{:?}", coding);
            }
            encoder.finish();
            out.extend(encoder.take_output().into_iter().flatten());
            prop_assert!(!encoder.has_output(1));
            prop_assert!(decoded(coding, &out) == (plain.clone(), true), "{:?}", coding);
            let cut = place.index(out.len());
            let (_, is_whole) = decoded(coding, &out[..cut]);
            prop_assert!(!is_whole || cut == 0, "{:?} {} of {}", coding, cut, out.len());
        }
    }
}
