//! The file of tenants: the terms of each, by name. People and the gateway write it.
//!
//! A file may have a million tenants, so a long one is read entry by entry: a tree of all of it would fill gigabytes.
//! An entry of one line that only names a tier is read without a parser. Every other entry is parsed alone, as if it
//! stood in a file of its own. So in a long file a value in braces or quotes cannot go on in a line that looks like the
//! next entry: that is refused, and never read as something else.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::entry_lines::{self, Layout, Lines, Part};
use super::mistake::{Code, Mistake, Mistakes};
use super::model::Tenant;
use super::named::NamedMap;
use super::reader::{Read, keyed, read_as};
use super::sources::Sources;
use super::span::Span;
use super::value::Value;
use crate::config::asked::Shape;
use crate::files;
use crate::setting::Location;

/// The file of tenants.
#[derive(Debug, Clone, PartialEq)]
pub struct TenantFile {
    /// All tenants by name; a file without any says `{}`.
    pub tenants: NamedMap<Tenant>,
}

/// An entry of the file.
pub enum Entry<'a> {
    /// A tenant of which only the tier is written.
    OfTier(&'a str),
    Whole(&'a Tenant),
}

/// Receives each entry with its name and the number of its line. Returns what is wrong with it, as a message and a hint.
pub type Each<'a> = dyn FnMut(&str, Entry<'_>) -> Result<(), (Code, String, Option<String>)> + 'a;

/// Largest file that is read, in bytes.
pub const MAX_BYTES: u64 = 512 << 20;
/// Longest file that is parsed as a whole, in bytes.
const WHOLE: usize = 64 << 10;
/// Longest run of entries that is parsed at once, in bytes.
const RUN: usize = 64 << 10;
/// Number of mistakes after which the reading ends.
const MOST_MISTAKES: usize = 100;
/// Longest file in which the line of an entry is looked for, in bytes.
const MOST_SEARCHED: u64 = 8 << 20;

/// Name of the section.
pub const SECTION: &str = "tenants";
/// Form of the entries in the file.
pub const LAYOUT: Layout = Layout {
    section: SECTION,
    is_list: false,
};

impl Read for TenantFile {
    const BEGINNING: Option<&'static str> =
        Some("a file of tenants begins with `tenants:`, and its entries stand under it: `NAME: { tier: premium }`");

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let mut tenants = NamedMap::default();
            let value = f.required_value_of(SECTION, Shape::Named(&Shape::Section))?;
            keyed(&value, &mut tenants, super::model::check_tenant, |_, value| {
                read_as::<Tenant>(value)
            });
            Some(Self { tenants })
        })?
    }
}

/// Parses a whole file, or some of its entries below their section.
///
/// # Errors
/// Every mistake.
pub fn parse(name: &str, text: &str, sources: &mut Sources) -> Result<TenantFile, Mistakes> {
    let source = sources.add(name, text)?;
    super::read(source, sources, Path::new("."), &super::environment).map(|(file, _)| file)
}

/// Reads the terms of a tenant from JSON, whose names are those of the file. The JSON must have been checked.
///
/// # Errors
/// Every mistake, as a sentence, and what could be read all the same.
pub fn parse_json(name: &str, json: &str) -> Result<Tenant, (Vec<String>, Option<Box<Tenant>>)> {
    let mut key = Vec::new();
    crate::json::write_string(name, &mut key);
    let text = format!("{{\"{SECTION}\": {{{}: {json}}}}}", String::from_utf8_lossy(&key));
    let mut sources = Sources::default();
    let source = match sources.add("the body", &text) {
        Ok(source) => source,
        Err(mistake) => return Err((vec![mistake.sentence()], None)),
    };
    let reading = super::read_parts::<TenantFile>(source, &sources, Path::new("."), &|_| None);
    let tenants = reading.value.map(|file| file.tenants);
    match tenants.as_ref().and_then(|tenants| tenants.get(name)) {
        Some(tenant) if reading.mistakes.is_empty() => Ok(tenant.clone()),
        _ => {
            let readable = tenants.as_ref().and_then(|tenants| tenants.unsound().next());
            let mistakes = reading.mistakes.iter().map(Mistake::sentence).collect();
            Err((mistakes, readable.map(|(_, tenant)| Box::new(tenant.clone()))))
        }
    }
}

/// Reads a file of tenants.
///
/// # Errors
/// Why it cannot be read.
pub fn read(path: &Path) -> Result<(String, files::Stamp), Mistake> {
    let unreadable = |why: &str| Mistake::new(Code::Unreadable, None, format!("cannot read {}: {why}", path.display()));
    let content = files::read_up_to(path, MAX_BYTES).map_err(|error| {
        let mistake = unreadable(&error.to_string());
        match error.kind() {
            std::io::ErrorKind::NotFound => mistake.hint("begin with a file that says `tenants: {}`"),
            _ => mistake,
        }
    })?;
    let text = String::from_utf8(content.bytes).map_err(|_| unreadable("it is not UTF-8"))?;
    Ok((text, content.stamp))
}

/// Calls `each` with every entry of the text.
///
/// # Errors
/// Every mistake, up to a hundred of them. Entries that were passed to `each` are then not all of the file.
pub fn read_each(path: &Path, text: &str, sources: &mut Sources, each: &mut Each<'_>) -> Result<(), Mistakes> {
    let mut reading = Reading {
        path: path.to_owned(),
        sources,
        mistakes: Mistakes::default(),
        each,
    };
    match Lines::new(text, LAYOUT).filter(|_| text.len() > WHOLE) {
        None => reading.whole(text),
        Some(lines) => {
            if !reading.entries(text, lines) && reading.mistakes.is_empty() {
                let message = format!("{} can only have the key `tenants`", path.display());
                reading.mistakes.push(Mistake::new(Code::Syntax, None, message));
            }
        }
    }
    if reading.mistakes.is_empty() {
        Ok(())
    } else {
        Err(reading.mistakes)
    }
}

struct Reading<'a, 'e> {
    path: PathBuf,
    sources: &'a mut Sources,
    mistakes: Mistakes,
    each: &'a mut Each<'e>,
}

impl Reading<'_, '_> {
    fn whole(&mut self, text: &str) {
        match parse(&self.path.display().to_string(), text, self.sources) {
            Ok(file) => {
                for (name, tenant) in file.tenants.iter() {
                    if let Err(wrong) = (self.each)(&name.value, Entry::Whole(tenant)) {
                        self.mistakes.push(mistake(wrong, name.span()));
                    }
                }
            }
            Err(mistakes) => self.mistakes.append(mistakes),
        }
    }

    /// Reads the entries one after the other. Returns false if something else stands after them.
    fn entries(&mut self, text: &str, mut lines: Lines<'_>) -> bool {
        let (mut run, mut length) = (Vec::new(), 0);
        while let Some(part) = lines.next_entry() {
            let simple = part.is_one_line.then(|| simple(&text[part.start..part.end])).flatten();
            if let Some((name, tier)) = simple {
                if let Err(wrong) = (self.each)(name, Entry::OfTier(tier)) {
                    let span = self.place(text, &part);
                    self.mistakes.push(mistake(wrong, span));
                }
            } else {
                length += part.end - part.start;
                run.push(part);
                if length > RUN {
                    self.parse_run(text, &run);
                    run.clear();
                    length = 0;
                }
            }
            if self.mistakes.len() >= MOST_MISTAKES {
                return true;
            }
        }
        self.parse_run(text, &run);
        lines.is_over()
    }

    /// Returns the place of the first line of an entry.
    fn place(&mut self, text: &str, part: &Part) -> Option<Span> {
        let line = text[part.start..part.end].lines().next().unwrap_or_default();
        let source = self
            .sources
            .add_lines(&self.path.display().to_string(), part.line, line)
            .ok()?;
        let start = u32::try_from(part.line - 1 + (line.len() - line.trim_start().len())).ok()?;
        let end = u32::try_from(part.line - 1 + line.len()).ok()?;
        Some(Span { source, start, end })
    }

    /// Parses entries, which need not stand together.
    fn parse_run(&mut self, text: &str, run: &[Part]) {
        let parts = run.iter().map(|part| &text[part.start..part.end]);
        let lines: String = std::iter::once("tenants:\n").chain(parts).collect();
        let parsed = parse("", &lines, &mut Sources::default());
        match parsed.ok().filter(|file| file.tenants.len() == run.len()) {
            Some(file) => {
                for ((name, tenant), part) in file.tenants.iter().zip(run) {
                    if let Err(wrong) = (self.each)(&name.value, Entry::Whole(tenant)) {
                        let span = self.place(text, part);
                        self.mistakes.push(mistake(wrong, span));
                    }
                }
            }
            None => {
                for part in run {
                    if self.mistakes.len() < MOST_MISTAKES {
                        self.parse_alone(text, part);
                    }
                }
            }
        }
    }

    /// Parses one entry, so that a mistake has its line.
    fn parse_alone(&mut self, text: &str, part: &Part) {
        let lines = format!("{SECTION}:\n{}", &text[part.start..part.end]);
        if let Ok(file) = parse("", &lines, &mut Sources::default()) {
            for (name, tenant) in file.tenants.iter() {
                if let Err(wrong) = (self.each)(&name.value, Entry::Whole(tenant)) {
                    let span = self.place(text, part);
                    self.mistakes.push(mistake(wrong, span));
                }
            }
            return;
        }
        // Once more, with as many lines before it as in the file.
        let name = self.path.display().to_string();
        let found = match self.sources.add_lines(&name, part.line - 1, &lines) {
            Ok(source) => super::read::<TenantFile>(source, self.sources, Path::new("."), &super::environment),
            Err(mistake) => Err(mistake.into()),
        };
        if let Err(mistakes) = found {
            self.mistakes.append(mistakes);
        }
    }
}

fn mistake((code, message, hint): (Code, String, Option<String>), at: Option<Span>) -> Mistake {
    let mistake = Mistake::new(code, at, message);
    Mistake { hint, ..mistake }
}

/// Reads an entry of the form `name: { tier: word }`, followed by at most comments and empty lines.
fn simple(entry: &str) -> Option<(&str, &str)> {
    let entry = entry.trim_start_matches(' ');
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let length = entry.bytes().take_while(|byte| is_word(*byte)).count();
    let (name, rest) = entry.split_at(length);
    if !name.starts_with(|first: char| first.is_ascii_alphanumeric()) || name.len() > 128 {
        return None;
    }
    let rest = rest.strip_prefix(": { tier: ")?;
    let length = rest.bytes().take_while(|byte| is_word(*byte)).count();
    let (tier, rest) = rest.split_at(length);
    let rest = rest.strip_prefix(" }")?;
    let is_plain = tier.starts_with(|first: char| first.is_ascii_alphabetic()) && tier != "null";
    let rest = rest.trim_start_matches([' ', '\r']);
    (is_plain && (rest.is_empty() || rest.starts_with('\n'))).then_some((name, tier))
}

/// Returns the place of a field of a tenant, or of the tenant, for a mistake.
pub fn place(path: &Path, text: &str, name: &str, field: &str, sources: &mut Sources) -> Option<Span> {
    let part = entry_lines::find(text, LAYOUT, name).unwrap_or(Part {
        start: 0,
        end: text.len(),
        line: 1,
        is_one_line: false,
    });
    let lines = &text[part.start..part.end];
    let source = sources.add_lines(&path.display().to_string(), part.line, lines).ok()?;
    let (at, length) = field_in(lines, field).or_else(|| Some((lines.find(&format!("{name}:"))?, name.len())))?;
    let start = u32::try_from(part.line - 1 + at).ok()?;
    let end = start + u32::try_from(length).ok()?;
    Some(Span { source, start, end })
}

/// Returns the place and the length of a field in the lines of an entry.
fn field_in(lines: &str, field: &str) -> Option<(usize, usize)> {
    let field = field.split('.').next_back().unwrap_or_default();
    // A burst alone changes the rate of a tenant too.
    let names = [field, if field == "rate" { "burst" } else { field }];
    names.iter().find_map(|name| {
        let found = lines.match_indices(&format!("{name}:")).map(|(at, _)| at).find(|at| {
            let before = &lines[..*at];
            let line = &before[before.rfind('\n').map_or(0, |newline| newline + 1)..];
            before.ends_with([' ', '{', ',', '"', '\'']) && !line.contains('#')
        });
        found.map(|at| (at, name.len()))
    })
}

/// Text of a file of tenants in which the lines of entries are looked for.
pub struct EntryPlaces {
    file: Arc<str>,
    text: String,
}

impl EntryPlaces {
    /// Reads the file. `None` if it cannot be read, or is so long that a search takes too much time.
    pub fn read(path: &Path) -> Option<Self> {
        let content = files::read_up_to(path, MOST_SEARCHED).ok()?;
        Some(Self {
            file: path.display().to_string().into(),
            text: String::from_utf8(content.bytes).ok()?,
        })
    }

    /// Returns the place of a field of an entry, or of the entry if the field is left out there.
    pub fn find(&self, name: &str, field: &str) -> Option<Location> {
        // A short file may be written in another form than block style.
        let in_lines = entry_lines::find(&self.text, LAYOUT, name).map(|part| {
            let lines = &self.text[part.start..part.end];
            let at = field_in(lines, field).map_or(lines.len() - lines.trim_start().len(), |(at, _)| at);
            part.start + at
        });
        let at = in_lines.or_else(|| self.text.find(&format!("{name}:")))?;
        let before = &self.text[..at];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Some(Location {
            file: Arc::clone(&self.file),
            line: 1 + before.matches('\n').count(),
            column: 1 + before[line_start..].chars().count(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fmt::Write as _;

    use proptest::prelude::*;

    use super::*;

    /// Returns the tier, or the whole entry, of every tenant, or what is wrong.
    fn read(text: &str) -> Result<BTreeMap<String, String>, String> {
        let (mut sources, mut all) = (Sources::default(), BTreeMap::new());
        let mut add = |name: &str, entry: Entry<'_>| {
            let shown = match entry {
                Entry::OfTier(tier) => format!("Some({tier:?})"),
                Entry::Whole(tenant) if tenant.burst.is_none() => format!("{:?}", tenant.tier),
                Entry::Whole(tenant) => format!("{:?} {:?}", tenant.tier, tenant.burst),
            };
            match all.insert(name.to_owned(), shown) {
                None => Ok(()),
                Some(_) => Err((Code::DuplicateKey, format!("`{name}` is written twice"), None)),
            }
        };
        let found = read_each(Path::new("tenants.yaml"), text, &mut sources, &mut add);
        match found {
            Ok(()) => Ok(all),
            Err(mistakes) => Err(sources.render(&mistakes, false)),
        }
    }

    /// Text so long that it is not parsed as a whole.
    fn long(entries: &str) -> String {
        let mut text = format!("# Long.\ntenants:\n{entries}");
        for number in 0..4_000 {
            let _ = writeln!(text, "  filler-{number}: {{ tier: free }}");
        }
        text
    }

    #[test]
    fn a_long_file_is_read_as_a_short_one() {
        let entries = r#"
  plain: { tier: basic }
  spaced:   {tier: basic}
  # A comment.
  block: # another
    tier: premium

    burst: 9
  "quoted": { tier: 'free' }
  empty: {}
  nothing:
  null: {}
  last: { tier: basic } # with a comment
"#;
        let short = read(&format!("tenants:\n{entries}")).unwrap();
        let mut found = read(&long(entries)).unwrap();
        found.retain(|name, _| !name.starts_with("filler"));
        assert_eq!(found, short);
        assert_eq!(short["plain"], "Some(\"basic\")");
        assert_eq!(short["block"], "Some(\"premium\") Some(9)");
    }

    #[test]
    fn an_entry_and_its_fields_have_a_place() {
        let text = "# Ours.\ntenants:\n  acme: { tier: a, burst: 2 } # rate: 3\n  \"b c\":\n    # rate: none\n    quotas:\n      monthly: { limit: 1, every: month }\n    rate: 1/s\n";
        let check = |text: &str, name: &str, field: &str, expected: Option<(usize, usize)>| {
            let places = EntryPlaces {
                file: "tenants.yaml".into(),
                text: text.to_owned(),
            };
            let found = places.find(name, field).map(|at| (at.line, at.column));
            assert_eq!(found, expected, "{name} {field}");
        };
        check(text, "acme", "tier", Some((3, 11)));
        check(text, "acme", "rate", Some((3, 20)));
        check(text, "acme", "disabled", Some((3, 3)));
        check(text, "b c", "rate", Some((8, 5)));
        check(text, "b c", "quotas.monthly", Some((7, 7)));
        check(text, "nobody", "rate", None);
        check("tenants: { acme: { tier: a } }", "acme", "tier", Some((1, 12)));
    }

    #[test]
    fn a_mistake_in_a_long_file_has_its_line() {
        let check = |entries: &str, parts: &[&str]| {
            let why = read(&long(entries)).unwrap_err();
            for part in parts {
                assert!(why.contains(part), "{part}: {why}");
            }
        };
        check("  a: { tier: x }\n  b: { rate: fast }\n", &["tenants.yaml:4:", "fast"]);
        check(
            "  a: { tier: x }\n  a: { tier: y }\n",
            &["tenants.yaml:4:", "written twice"],
        );
        check(
            "  a: { burst: 1 }\n  b:\n    burst: 2\n  a: { burst: 3 }\n",
            &["tenants.yaml:6:", "written twice"],
        );
        check("  a: { tier: x }\n    burst: 1\n", &["tenants.yaml:"]);
        check("  a: { tear: x }\n", &["tenants.yaml:3:", "tear"]);
        let why = read(&(long("") + "other: 1\n")).unwrap_err();
        assert!(why.contains("can only have the key `tenants`"), "{why}");
    }

    proptest! {
        #![proptest_config(cases::counted())]

        /// Whatever stands in an entry, a long file has the same meaning as a short one, or both are refused.
        #[test]
        fn the_length_of_a_file_does_not_matter(
            entries in prop::collection::vec(
                "  [a-c\"']{1,3}:( \\{ tier: [a-c\"{}#]{0,3}( \\}|\\}|)|| \\{\\}| # c|\n    tier: [a-c]|\n    burst: [0-9a]|\n  tier: a)",
                0..5,
            ),
        ) {
            let entries: String = entries.iter().map(|entry| format!("{entry}\n")).collect();
            let mut filler = String::new();
            for number in 0..2_500 {
                let _ = writeln!(filler, "  filler-{number}: {{ tier: free }}");
            }
            let short = read(&format!("tenants:\n{entries}  filler: {{ tier: free }}\n"));
            let found = read(&format!("tenants:\n{entries}{filler}"));
            let found = found.map(|mut all| {
                all.retain(|name, _| !name.starts_with("filler-"));
                all.insert("filler".to_owned(), "Some(\"free\")".to_owned());
                all
            });
            match (short, found) {
                (Ok(short), Ok(found)) => prop_assert_eq!(short, found),
                // A value that goes on in a line which looks like an entry is refused.
                (Ok(_), Err(_)) => prop_assert!(entries.contains(['{', '"', '\'']), "{}", entries),
                (short, found) => prop_assert_eq!(short.is_ok(), found.is_ok(), "{:?} {:?}", short, found),
            }
        }
    }
}
