//! Converts between the list of revocations and the text of its file.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use crate::auth::revocations::{List, MOST, NotRevocable, Revoked, RevokedKind, Terms};
use crate::config::edit::{Editor, Entry, NotEdited};
use crate::config::revocations::{Revocation, RevocationFile, What};
use crate::config::{Code, Mistake, Mistakes, Sources, revocations, written};
use crate::files::LARGEST;
use crate::observe::timestamp::Timestamp;

/// Name of the section.
const SECTION: &str = "revocations";
/// Largest number of entries that are changed one by one. More are written anew, all of them.
const MOST_EDITS: usize = 100;

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

/// Returns the text of the file for `list`, with as few changes of `old`, whose list is `said`, as possible. `None` if the
/// text is written in a form that is not understood, or if much has changed.
pub(super) fn edited(old: &str, said: &List, list: &List) -> Option<String> {
    let gone: Vec<_> = said.keys().filter(|revoked| !list.contains_key(revoked)).collect();
    let new: Vec<_> = list
        .iter()
        .filter(|(revoked, terms)| said.get(revoked) != Some(terms))
        .collect();
    if gone.len() + new.len() > MOST_EDITS {
        return None;
    }
    let mut text = old.to_owned();
    let mut edit = |change: &dyn Fn(&mut Editor<'_>) -> Result<(), NotEdited>| {
        let mut editor = Editor::new(&text).ok()?;
        change(&mut editor).ok()?;
        text = editor.finish();
        Some(())
    };
    for revoked in gone {
        edit(&|editor| editor.remove(SECTION, Entry::Having(&named(revoked))))?;
    }
    for (revoked, terms) in new {
        let (all, has_entry) = (fields(revoked, terms), said.contains_key(revoked));
        edit(&|editor| match has_entry {
            true => {
                let [until, reason] = ["until", "reason"].map(|name| {
                    let value = all.iter().find(|(field, _)| *field == name);
                    (name, value.map(|(_, value)| value.clone()))
                });
                editor.change(SECTION, Entry::Having(&named(revoked)), &[until, reason])
            }
            false => editor.insert(SECTION, None, &all),
        })?;
    }
    let found = parse("", &text, &mut Sources::default()).ok()?;
    (found == *list && text.len() as u64 <= LARGEST).then_some(text)
}

/// Returns what tells an entry from others.
fn named(revoked: &Revoked) -> [(&str, Option<&str>); 2] {
    let issuer = revoked.issuer().map(|issuer| &**issuer);
    [(revoked.kind().as_str(), Some(revoked.name())), ("issuer", issuer)]
}

/// Returns the fields of an entry as YAML.
fn fields<'a>(revoked: &'a Revoked, terms: &Terms) -> Vec<(&'a str, String)> {
    let mut fields = vec![(revoked.kind().as_str(), written(revoked.name()))];
    fields.extend(revoked.issuer().map(|issuer| ("issuer", written(issuer))));
    fields.extend(terms.until.map(|until| {
        let until = Timestamp(Duration::from_secs(until)).whole_seconds();
        ("until", until)
    }));
    fields.extend(terms.reason.as_ref().map(|reason| ("reason", written(reason))));
    fields
}

/// Returns the text of a new file for this list.
pub(super) fn text(list: &List) -> String {
    let mut text = String::from(
        "# Written by the gateway, because its admin API has changed much of the list at once.\nrevocations:",
    );
    text.push_str(if list.is_empty() { " []\n" } else { "\n" });
    for (revoked, terms) in list {
        let fields = fields(revoked, terms);
        let fields: Vec<_> = fields.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let _ = writeln!(text, "  - {{ {} }}", fields.join(", "));
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
        fn an_edit_leads_from_any_list_to_any_other(
            before in prop::collection::btree_map(revoked(), terms(), 0..6),
            after in prop::collection::btree_map(revoked(), terms(), 0..6),
            both in prop::collection::btree_map(revoked(), terms(), 0..6),
        ) {
            let with = |mut list: List| {
                list.extend(both.clone());
                list
            };
            let (before, after) = (with(before), with(after));
            let old = format!("# A comment.\n{}", text(&before));
            let new = edited(&old, &before, &after).unwrap();
            prop_assert_eq!(read(&new), after);
            prop_assert!(new.starts_with("# A comment.\n"));
        }

        #[test]
        fn whatever_is_written_is_what_is_read(list in prop::collection::btree_map(revoked(), terms(), 0..8)) {
            prop_assert_eq!(read(&text(&list)), list);
        }
    }
}
