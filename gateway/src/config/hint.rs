//! Suggests the nearest valid word for an invalid one.

use std::path::Path;

/// Largest number of equally near words that are suggested.
const NEAREST: usize = 4;

/// Returns the nearest candidates as a question, or `None` if none is near enough.
pub fn did_you_mean<'a>(written: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    let best: Vec<_> = closest(written, candidates)
        .into_iter()
        .map(|best| format!("`{best}`"))
        .collect();
    match best.as_slice() {
        [] => None,
        [first @ .., last] if !first.is_empty() => Some(format!("did you mean {} or {last}?", first.join(", "))),
        only => Some(format!("did you mean {}?", only.concat())),
    }
}

/// Leaves out suggestions of a question that do not fit, unless none fits.
pub(super) fn within(question: &str, fits: impl Fn(&str) -> bool) -> String {
    let all: Vec<_> = question.split('`').skip(1).step_by(2).collect();
    let fitting: Vec<_> = all
        .iter()
        .filter(|text| fits(text))
        .map(|text| format!("`{text}`"))
        .collect();
    if !question.starts_with("did you mean `") || fitting.is_empty() || fitting.len() == all.len() {
        return question.to_owned();
    }
    format!("did you mean {}?", fitting.join(" or "))
}

/// Returns whether a file of this name may be a config.
pub(super) fn is_config(name: &str) -> bool {
    name.ends_with(".yaml") || name.ends_with(".yml")
}

/// Returns the files beside one that does not exist whose names are near its own, as a question; `None` if there are
/// none.
pub(super) fn like_missing_file(path: &Path, fits: impl Fn(&str) -> bool) -> Option<String> {
    const LISTED: usize = 1000;
    let missing = path.file_name()?.to_str()?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let listed = std::fs::read_dir(folder.unwrap_or(Path::new("."))).ok()?;
    let names: Vec<_> = listed
        .take(LISTED)
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.') && fits(name) && is_near_file(missing, name))
        .collect();
    did_you_mean(missing, names.iter().map(String::as_str))
}

/// Returns whether one name of a file may have been written for the other: their endings aside, a letter differs, or two
/// of seven at least, or one begins with the other.
fn is_near_file(written: &str, name: &str) -> bool {
    let parts = |name: &'_ str| {
        let (stem, ending) = name.rsplit_once('.').unwrap_or((name, ""));
        (stem.to_lowercase(), ending.to_lowercase().replace("yml", "yaml"))
    };
    let ((one, one_ending), (other, other_ending)) = (parts(written), parts(name));
    let begins = |long: &str, short: &str| short.len() >= 4 && long.starts_with(short);
    let is_stem = is_one_slip(&one, &other) && one.len() >= 4
        || are_two_slips(&one, &other)
        || begins(&one, &other)
        || begins(&other, &one);
    one == other || is_stem && one_ending == other_ending
}

/// Returns a hint for the name of a file that does not exist.
pub fn for_missing_file(path: &Path) -> String {
    if path.iter().any(|part| part == "~") {
        return "`~` is not replaced here: write the whole path".to_owned();
    }
    match like_missing_file(path, |_| true) {
        Some(question) => format!("{question} Files are found relative to the folder of the config file"),
        None => "files are found relative to the folder of the config file".to_owned(),
    }
}

/// Returns all candidates as a list, or `None` if there are none.
pub(super) fn one_of<'a>(candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    const SHOWN: usize = 24;
    let mut words: Vec<_> = candidates.map(|word| format!("`{word}`")).collect();
    if words.len() > SHOWN {
        words.truncate(SHOWN);
        words.push("...".to_owned());
    }
    match words.as_slice() {
        [] => None,
        [only] => Some(format!("the only one is {only}")),
        all => Some(format!("one of {}", all.join(", "))),
    }
}

/// Returns whether `written` differs from the word only in case and separators, as `timeLimit` differs from
/// `time_limit`.
pub(super) fn is_spelling_of(written: &str, word: &str) -> bool {
    let letters = |text: &str| -> String { text.to_lowercase().replace(['-', '_', ' '], "") };
    letters(written) == letters(word)
}

/// Returns whether one typing error turns a candidate into `written`.
pub(super) fn is_slip<'a>(written: &str, mut candidates: impl Iterator<Item = &'a str>) -> bool {
    written.len() >= 4 && candidates.any(|candidate| is_one_slip(written, candidate))
}

/// Returns whether one typing error turns the word, of three letters at least, into `written`.
pub(super) fn is_one_slip(written: &str, word: &str) -> bool {
    written.len() >= 3 && strsim::damerau_levenshtein(written, word) == 1
}

/// Returns whether two typing errors turn the word, of seven letters at least, into `written`.
pub(super) fn are_two_slips(written: &str, word: &str) -> bool {
    word.len() >= 7 && strsim::damerau_levenshtein(written, word) == 2
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

/// Returns the nearest candidates, in alphabetical order and at most [`NEAREST`]. A candidate is near if at most a third of the letters (at least one) differ, where a
/// swap of neighbours counts as one, or if one word begins with the other. Parts that both names begin or end with do
/// not count: `rate_limit` is not near `time_limit`.
fn closest<'a>(written: &str, candidates: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let written = written.to_lowercase().replace('-', "_");
    let near = |candidate: &'a str| {
        let (one, other) = differing(&written, candidate);
        let distance = strsim::damerau_levenshtein(&one, &other.to_lowercase());
        let is_ending = |rest: &str| rest.len() <= 3 && !rest.starts_with('_');
        let begun = (written.len() >= 3 && candidate.starts_with(&written))
            || (candidate.len() >= 4 && written.strip_prefix(candidate).is_some_and(is_ending));
        (begun || distance <= (one.len().max(other.len()) / 3).max(1)).then_some((distance, candidate))
    };
    let mut all: Vec<_> = candidates.filter_map(near).collect();
    all.sort_unstable();
    all.dedup();
    let least = all.first().map(|(distance, _)| *distance);
    let nearest = all.into_iter().filter(|(distance, _)| Some(*distance) == least);
    nearest.map(|(_, candidate)| candidate).take(NEAREST).collect()
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
    fn files_are_near_by_their_own_names() {
        for (written, name, expected) in [
            ("gateway.yaml", "gatway.yaml", true),
            ("gateway.yaml", "gateway.yml", true),
            ("gateway.yml", "getaway.yaml", true),
            ("gateway.yaml", "gateway.prod.yaml", true),
            ("gateway", "gateway.yaml", true),
            ("keys.yaml", "key.yaml", true),
            ("keys.yaml", "try1.yaml", false),
            ("gateway.yaml", "compose.yaml", false),
            ("a.pem", "b.pem", false),
            ("edge.key", "edge.pem", true),
            ("edge.key", "edgy.pem", false),
        ] {
            assert_eq!(is_near_file(written, name), expected, "{written} {name}");
        }
    }

    #[test]
    fn suggests_only_what_is_near() {
        let keys = ["rate", "burst", "weight", "time_limit", "attempt_limit"];
        let check = |written, expected: Option<&str>| {
            assert_eq!(
                closest(written, keys.iter().copied()),
                Vec::from_iter(expected),
                "{written}"
            );
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
        assert_eq!(closest("v3", ["v2", "v1", "users"].into_iter()), ["v1", "v2"]);
    }
}
