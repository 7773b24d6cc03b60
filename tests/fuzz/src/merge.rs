//! Checks that for any backend answers the merged document is an object, or there is a failure with its status.

use std::sync::Arc;

use bytes::Bytes;
use gateway::aggregate::{
    Conflict, Errors, IntoDraft, PartDraft, PartResult, Partial, Recipe, RecipeDraft, ShapeDraft, Splice, fan_out,
    merge,
};
use gateway::json::{Document, Refusal, Workspace};
use gateway::setting::{Configured, SettingId};
use http::StatusCode;
use policies::Moment;

/// Checks a flag byte for the whole, then parts separated by 0xFF: a flag byte, a line of paths, and the body.
pub fn check(data: &[u8]) {
    let Some((flags, rest)) = crate::split_flags(data) else {
        return;
    };
    let (drafts, bodies): (Vec<_>, Vec<_>) = rest
        .split(|byte| *byte == 0xFF)
        .take(6)
        .enumerate()
        .filter_map(|(index, part)| read_part(index, part))
        .unzip();
    let draft = RecipeDraft {
        parts: drafts,
        partial: if flags & 1 == 1 { Partial::Deny } else { Partial::Allow },
        conflict: [
            Conflict::Last,
            Conflict::First,
            Conflict::Deep,
            Conflict::Concat,
            Conflict::Error,
        ][usize::from(flags >> 2) % 5],
        errors: if flags & 2 == 2 {
            Errors::Listed
        } else {
            Errors::Unlisted
        },
        ..RecipeDraft::default()
    };
    let Ok(recipe) = Recipe::compile(draft) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let room = Arc::new(Workspace::new(1)).reserve(u64::MAX, 0, (Moment::MAX, None));
    let outcomes = runtime.block_on(fan_out(
        &recipe,
        &room,
        |index, _| Ok(bodies[index].clone()),
        |_, body| async move { PartResult::of(StatusCode::OK, &body, usize::MAX, None) },
    ));
    match merge(&recipe, outcomes, None) {
        Ok(answer) => {
            // The merged document may be two levels deeper than a part.
            let text = String::from_utf8(answer.body.to_vec()).expect("an answer is Unicode");
            assert!(text.starts_with('{'), "{text}");
            crate::json::compare(&answer.body);
            if let Err(error) = Document::check(&answer.body, usize::MAX) {
                assert_eq!(error, Refusal::TooDeep, "{text}");
            }
        }
        Err(failure) => assert!(failure.status().is_client_error() || failure.status().is_server_error()),
    }
}

fn read_part(index: usize, part: &[u8]) -> Option<(PartDraft, Bytes)> {
    let (flags, rest) = crate::split_flags(part)?;
    let (paths, body) = rest.split_at(rest.iter().position(|byte| *byte == b'\n')?);
    let paths: Vec<String> = std::str::from_utf8(paths)
        .ok()?
        .split(',')
        .filter(|path| !path.is_empty())
        .map(str::to_owned)
        .collect();
    let mut shape = ShapeDraft::default();
    match flags >> 5 {
        0 => {}
        1 => shape.target = paths.first().cloned(),
        2 => shape.drop = paths,
        3 => shape.rename = paths.into_iter().map(|path| (path, "renamed".to_owned())).collect(),
        4 => shape.moves = pairs(&paths),
        5 => shape.copies = pairs(&paths),
        6 => {
            let value = Document::of(&[0]);
            shape.defaults = paths.into_iter().map(|path| (path, value.clone())).collect();
        }
        _ => shape.keep = paths,
    }
    // Its answers go into the list of the part before it.
    let into = (flags & 16 == 16 && index > 0).then(|| IntoDraft {
        path: "*.a.b".to_owned(),
        list: Some(Splice::from(format!("p{}", index - 1).as_str())),
        leaves_out_null: flags & 1 == 1,
    });
    let draft = PartDraft {
        name: format!("p{index}"),
        each: into.is_some(),
        splices: into.iter().filter_map(|into| into.list.clone()).collect(),
        required: flags & 1 == 1,
        group: [None, Some("."), Some("shared"), Some("shared.a.b")][usize::from(flags >> 1) % 4]
            .filter(|_| into.is_none())
            .map(str::to_owned),
        collection: (flags & 8 == 8 && into.is_none()).then(|| "items".to_owned()),
        shape,
        into,
        room: Some(Configured {
            value: 1 << 16,
            by: SettingId::URI,
        }),
        ..PartDraft::default()
    };
    Some((draft, Bytes::copy_from_slice(&body[1..])))
}

/// Takes the paths by twos: from where, and to where.
fn pairs(paths: &[String]) -> Vec<(String, String)> {
    let twos = paths.chunks_exact(2);
    twos.map(|two| (two[0].clone(), two[1].clone())).collect()
}
