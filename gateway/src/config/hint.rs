//! Suggests the nearest valid word for an invalid one.

/// Returns the nearest candidate as a question, or `None` if none is near enough.
pub(super) fn did_you_mean<'a>(written: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    closest(written, candidates).map(|best| format!("did you mean `{best}`?"))
}

/// Returns all candidates as a list, or `None` if there are none.
pub(super) fn one_of<'a>(candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    const SHOWN: usize = 24;
    let mut words: Vec<_> = candidates.map(|word| format!("`{word}`")).collect();
    if words.len() > SHOWN {
        words.truncate(SHOWN);
        words.push("...".to_owned());
    }
    (!words.is_empty()).then(|| format!("one of {}", words.join(", ")))
}

/// Returns whether `written` differs from the word only in case and separators, as `timeLimit` differs from
/// `time_limit`.
pub(super) fn is_spelling_of(written: &str, word: &str) -> bool {
    let letters = |text: &str| -> String { text.to_lowercase().replace(['-', '_', ' '], "") };
    letters(written) == letters(word)
}

/// Returns whether one typing error turns a candidate into `written`.
pub(super) fn is_slip<'a>(written: &str, mut candidates: impl Iterator<Item = &'a str>) -> bool {
    written.len() >= 4 && candidates.any(|candidate| strsim::damerau_levenshtein(written, candidate) == 1)
}

/// Returns a hint for a word that only switches on or off a section that is on unless it is `off`.
pub(super) fn for_switch(text: &str) -> Option<String> {
    match text.to_lowercase().as_str() {
        text if is_yes(text) => {
            Some("it is on as long as it is not `off`: leave it out, or write what is to be different".to_owned())
        }
        text => for_no(text),
    }
}

/// Returns a hint for a word that means `off`.
pub(super) fn for_no(text: &str) -> Option<String> {
    is_no(text).then(|| "did you mean `off`?".to_owned())
}

/// Returns whether a word means no.
pub(super) fn is_no(text: &str) -> bool {
    matches!(
        text.to_lowercase().as_str(),
        "off" | "false" | "no" | "n" | "none" | "never" | "disabled" | "disable" | "unlimited" | "infinite"
    )
}

/// Returns whether a word means yes.
pub(super) fn is_yes(text: &str) -> bool {
    matches!(
        text.to_lowercase().as_str(),
        "on" | "true" | "yes" | "y" | "enabled" | "enable"
    )
}

/// Returns the nearest candidate. A candidate is near if at most a third of the letters (at least one) differ, where a
/// swap of neighbours counts as one, or if one word begins with the other. Parts that both names begin or end with do
/// not count: `rate_limit` is not near `time_limit`.
fn closest<'a>(written: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let written = written.to_lowercase().replace('-', "_");
    let near = |candidate: &'a str| {
        let (one, other) = differing(&written, candidate);
        let distance = strsim::damerau_levenshtein(&one, &other.to_lowercase());
        let is_ending = |rest: &str| rest.len() <= 3 && !rest.starts_with('_');
        let begun = (written.len() >= 3 && candidate.starts_with(&written))
            || (candidate.len() >= 4 && written.strip_prefix(candidate).is_some_and(is_ending));
        (begun || distance <= (one.len().max(other.len()) / 3).max(1)).then_some((distance, candidate))
    };
    candidates
        .filter_map(near)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Returns two names without the `_`-separated parts that both begin and end with.
fn differing(one: &str, other: &str) -> (String, String) {
    let (mut one, mut other): (Vec<_>, Vec<_>) = (one.split('_').collect(), other.split('_').collect());
    while one.len() > 1 && other.len() > 1 && one.last() == other.last() {
        one.pop();
        other.pop();
    }
    while one.len() > 1 && other.len() > 1 && one.first() == other.first() {
        one.remove(0);
        other.remove(0);
    }
    (one.join("_"), other.join("_"))
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
        check("rate_limit", None);
        check("date_limit", None);
        check("time_limits", Some("time_limit"));
        check("tme_limit", Some("time_limit"));
        check("atempt_limt", Some("attempt_limit"));
        check("x", None);
        check("", None);
    }
}
