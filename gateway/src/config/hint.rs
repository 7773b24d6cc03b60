//! What was probably meant: the nearest of the words that would have been right.

/// The nearest candidate, as a question; `None` when nothing is near enough to be worth suggesting.
pub(super) fn did_you_mean<'a>(written: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    closest(written, candidates).map(|best| format!("did you mean `{best}`?"))
}

/// All candidates in a row; `None` when there are none.
pub(super) fn one_of<'a>(candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    const SHOWN: usize = 24;
    let mut words: Vec<_> = candidates.map(|word| format!("`{word}`")).collect();
    if words.len() > SHOWN {
        words.truncate(SHOWN);
        words.push("...".to_owned());
    }
    (!words.is_empty()).then(|| format!("one of {}", words.join(", ")))
}

/// Near is: a third of the letters may differ, a swap of neighbours counting as one; or the beginning is right.
fn closest<'a>(written: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let written = written.to_lowercase().replace('-', "_");
    candidates
        .map(|candidate| {
            (
                strsim::damerau_levenshtein(&written, &candidate.to_lowercase()),
                candidate,
            )
        })
        .filter(|(distance, candidate)| {
            let begun = written.len() >= 3 && candidate.starts_with(&written);
            begun || *distance <= (candidate.len().max(written.len()) / 3).max(1)
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_only_what_is_near() {
        let keys = ["rate", "burst", "weight", "time_limit", "attempt_limit"];
        let check = |written, expected: Option<&str>| {
            assert_eq!(closest(written, keys.iter().copied()), expected, "{written}");
        };
        check("brust", Some("burst"));
        check("time-limit", Some("time_limit"));
        check("timelimit", Some("time_limit"));
        check("Rate", Some("rate"));
        check("wieght", Some("weight"));
        check("wei", Some("weight"));
        check("timeout", None);
        check("x", None);
        check("", None);
    }
}
