//! Converts between the list of revocations and the text of its file.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use crate::auth::revocations::{List, MOST, NotRevocable, Revoked, RevokedKind, Terms};
use crate::config::revocations::{Revocation, RevocationFile, What};
use crate::config::{Code, Mistake, Mistakes, Sources, revocations, written};
use crate::files::LARGEST;
use crate::observe::timestamp::Timestamp;

/// Reads the list from a file, or returns every mistake in it.
pub(in crate::plan) fn load(path: &Path, sources: &mut Sources) -> Result<List, Mistakes> {
    meant(&revocations::load(path, sources)?)
}

/// Reads the list from a text that is not in the file.
pub(super) fn parse(name: &str, text: &str, sources: &mut Sources) -> Result<List, Mistakes> {
    meant(&revocations::parse(name, text, sources)?)
}

fn meant(file: &RevocationFile) -> Result<List, Mistakes> {
    let (mut list, mut mistakes) = (List::new(), Mistakes::default());
    for entry in &file.revocations {
        match revoked(entry) {
            Ok(revoked) => {
                let terms = Terms {
                    until: entry.until.as_ref().map(|until| until.0),
                    reason: entry.reason.as_ref().map(|reason| reason.as_str().into()),
                };
                // Of two entries for the same name, the one that ends later counts.
                match list.get(&revoked) {
                    Some(other) if lasts(other) >= lasts(&terms) => {}
                    _ => {
                        list.insert(revoked, terms);
                    }
                }
            }
            Err(why) => {
                mistakes.push(Mistake::new(Code::BadValue, entry.name.span(), "this cannot be revoked").label(why.0));
            }
        }
    }
    if list.len() > MOST {
        let at = file.revocations.get(MOST).and_then(|entry| entry.name.span());
        let message = format!("more than {MOST} revocations");
        let hint = "a revoked tenant or subject stands for all of its tokens; give entries an `until`";
        mistakes.push(Mistake::new(Code::OutOfRange, at, message).hint(hint));
    }
    if mistakes.is_empty() { Ok(list) } else { Err(mistakes) }
}

fn lasts(terms: &Terms) -> u64 {
    terms.until.unwrap_or(u64::MAX)
}

fn revoked(entry: &Revocation) -> Result<Revoked, NotRevocable> {
    let kind = match entry.what {
        What::Key => RevokedKind::Key,
        What::Jti => RevokedKind::Token,
        What::Subject => RevokedKind::Subject,
        What::Tenant => RevokedKind::Tenant,
    };
    Revoked::new(kind, &entry.name, entry.issuer.as_ref().map(|issuer| issuer.as_str()))
}

/// Returns the text of the file for this list.
pub(super) fn text(list: &List) -> String {
    let mut text = String::from(
        "# Written by the gateway when the list is changed through its admin API: comments are lost then.\nrevocations:",
    );
    text.push_str(if list.is_empty() { " []\n" } else { "\n" });
    for (revoked, terms) in list {
        let _ = write!(text, "  - {{ {}: {}", revoked.kind().as_str(), written(revoked.name()));
        if let Some(issuer) = revoked.issuer() {
            let _ = write!(text, ", issuer: {}", written(issuer));
        }
        if let Some(until) = terms.until {
            let until = Timestamp(Duration::from_secs(until)).whole_seconds();
            let _ = write!(text, ", until: {until}");
        }
        if let Some(reason) = &terms.reason {
            let _ = write!(text, ", reason: {}", written(reason));
        }
        text.push_str(" }\n");
    }
    text
}

/// Returns true if the file for this list would exceed the size that is read.
pub(super) fn is_too_long(list: &List) -> bool {
    // Upper bounds: characters per entry beside its texts, and characters per escaped byte (`\U00000001`).
    const PUNCTUATION: usize = 128;
    const ESCAPED: usize = 10;
    let length = |(revoked, terms): (&Revoked, &Terms)| {
        let texts = [
            Some(&**revoked.name()),
            revoked.issuer().map(|issuer| &**issuer),
            terms.reason.as_deref(),
        ];
        PUNCTUATION + ESCAPED * texts.into_iter().flatten().map(str::len).sum::<usize>()
    };
    let most: usize = list.iter().map(length).sum();
    most as u64 > LARGEST && text(list).len() as u64 > LARGEST
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::keys::Timestamp as Written;

    #[track_caller]
    fn read(text: &str) -> List {
        let mut sources = Sources::default();
        parse("revoked.yaml", text, &mut sources)
            .unwrap_or_else(|mistakes| panic!("{}", sources.render(&mistakes, false)))
    }

    #[test]
    fn of_two_entries_for_one_the_longer_holds() {
        let check = |one: &str, two: &str, expected: Option<u64>| {
            for (first, second) in [(one, two), (two, one)] {
                let list = read(&format!(
                    "revocations:\n - {{ key: a{first} }}\n - {{ key: a{second} }}\n"
                ));
                let until: Vec<_> = list.values().map(|terms| terms.until).collect();
                assert_eq!(until, [expected], "{first} {second}");
            }
        };
        check("", ", until: 2027-01-01", None);
        check(", until: 2028-01-01", ", until: 2027-01-01", Some(1_830_297_600));
        check(", reason: one", ", reason: two", None);
    }

    fn revoked() -> impl Strategy<Value = Revoked> {
        let (name, issuer) = (".{1,12}", prop::option::of("[a-z]{1,5}"));
        (0..4_usize, name, issuer).prop_filter_map("no credential is called that", |(kind, name, issuer)| {
            let kind = RevokedKind::ALL[kind];
            Revoked::new(kind, &name, issuer.as_deref()).ok()
        })
    }

    fn terms() -> impl Strategy<Value = Terms> {
        let until = prop::option::of(0..=Written::LAST.0);
        (until, prop::option::of("\\PC{0,20}|(?s).{0,20}")).prop_map(|(until, reason)| Terms {
            until,
            reason: reason.map(Into::into),
        })
    }

    proptest! {
        #![proptest_config(cases::counted())]

        #[test]
        fn whatever_is_written_is_what_is_read(list in prop::collection::btree_map(revoked(), terms(), 0..8)) {
            prop_assert_eq!(read(&text(&list)), list);
        }
    }
}
