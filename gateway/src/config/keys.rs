//! The file of API keys. It holds only digests, so a person who reads it cannot use any key.
//!
//! A tenant may have several live keys, so that a key can be replaced without a gap. Ids and digests are unique.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use super::entry_lines::Layout;
use super::mistake::{Code, Mistake, Mistakes};
use super::model::check_tenant;
use super::reader::Read;
use super::scalar::{Scalar, Wrong};
use super::sources::Sources;
use super::span::At;
use super::value::Value;

/// `gateway key new --into FILE` prints a key once, and adds its entry to this file.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyFile {
    /// All keys.
    pub keys: Vec<ApiKey>,
}

/// One key. A tenant may have several, so that one can be replaced without a gap.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiKey {
    /// Name of the key in logs.
    pub id: At<String>,
    /// Tenant of the caller.
    pub tenant: At<String>,
    /// SHA-256 of the whole key.
    pub digest: At<Digest>,
    /// Tier of the caller, unless `tenants` names one.
    pub tier: Option<At<String>>,
    /// Scopes of the caller.
    pub scopes: Vec<At<String>>,
    /// Purpose of the key, for people.
    pub label: Option<At<String>>,
    /// Time before which the key is not taken.
    pub not_before: Option<At<Timestamp>>,
    /// Time from which on the key is not taken.
    pub expires: Option<At<Timestamp>>,
    /// Whether the key is not taken.
    pub disabled: At<bool>,
}

/// SHA-256 of the whole key as it is presented.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

/// Seconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Latest time that can be written: 9999-12-31T23:59:59Z.
    pub const LAST: Self = Self(253_402_300_799);

    /// Parses a day or an instant in UTC; `None` if the text is neither.
    pub fn read_instant(text: &str) -> Option<Self> {
        Self::parse(text).ok()
    }

    /// Parses a day or an instant in UTC, as in the key file, or a time from now such as `90d`.
    ///
    /// # Errors
    /// Returns a text that says what may be written.
    pub fn read_from(text: &str, unix_now: u64) -> Result<Self, &'static str> {
        match Duration::parse(text) {
            Ok(from_now) => Some(Self(unix_now.saturating_add(from_now.as_secs()))).filter(|at| *at <= Self::LAST),
            Err(_) => Self::parse(text).ok(),
        }
        .ok_or(
            "use a day (`2027-01-31`), an instant in UTC (`2027-01-31T12:00:00Z`), or a time from now (`90d`), up to \
             the year 9999",
        )
    }
}

/// Reads a key file into `sources`, so that later mistakes can point into it.
pub fn load(path: &Path, sources: &mut Sources) -> Result<KeyFile, Mistakes> {
    let source = sources.read(path)?;
    let base_dir = path.parent().unwrap_or(Path::new("."));
    super::read(source, sources, base_dir, &super::environment).map(|(file, _)| file)
}

/// Parses a key file from a text. Variables come from `env`.
pub fn parse(
    name: &str,
    text: &str,
    sources: &mut Sources,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<KeyFile, Mistakes> {
    let source = sources.add(name, text)?;
    super::read(source, sources, Path::new("."), env).map(|(file, _)| file)
}

/// Reads a digest as it is written in a key file.
pub fn read_digest(text: &str) -> Option<[u8; 32]> {
    Digest::parse(text).ok().map(|digest| digest.0)
}

/// Form of the entries in the file.
pub const LAYOUT: Layout = Layout {
    section: "keys",
    is_list: true,
};

/// Reads a key from JSON, whose names are those of the file. The JSON must have been checked.
///
/// # Errors
/// Every mistake, as a sentence.
pub fn parse_json(json: &str) -> Result<ApiKey, Vec<String>> {
    let mut sources = Sources::default();
    let read = parse("the body", &format!("{{\"keys\": [{json}]}}"), &mut sources, &|_| None);
    match read {
        Ok(mut file) => file.keys.pop().ok_or_else(Vec::new),
        Err(mistakes) => Err(mistakes.iter().map(Mistake::sentence).collect()),
    }
}

impl Read for KeyFile {
    const BEGINNING: Option<&'static str> = Some(
        "a file of API keys begins with `keys:`, and its entries stand under it; `gateway key new --tenant NAME --into FILE` writes both",
    );

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let keys: Vec<ApiKey> = f.required("keys")?;
            let mut ids = HashMap::new();
            let mut digests = HashMap::new();
            for key in &keys {
                if let Some(first) = ids.insert(&key.id.value, &key.id) {
                    let message = format!("two keys are called `{}`", key.id);
                    f.push(
                        Mistake::new(Code::DuplicateKey, key.id.span(), message).related(first.span(), "the other one"),
                    );
                }
                if let Some(first) = digests.insert(&key.digest.value, &key.digest) {
                    let message = format!("`{}` has the digest of another key", key.id);
                    f.push(
                        Mistake::new(Code::DuplicateKey, key.digest.span(), message)
                            .related(first.span(), "the other one"),
                    );
                }
            }
            Some(Self { keys })
        })?
    }
}

impl Read for ApiKey {
    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let (id, tenant, digest) = (f.required("id"), f.required("tenant"), f.required("digest"));
            if let Some((tenant, why)) = tenant
                .as_ref()
                .and_then(|name: &At<String>| Some((name, check_tenant(name).err()?)))
            {
                let message = format!("`{}.tenant` cannot be called that", f.path);
                f.push(Mistake::new(Code::BadValue, tenant.span(), message).label(why));
            }
            let key = Self {
                tier: f.optional("tier"),
                scopes: f.list("scopes"),
                label: f.optional("label"),
                not_before: f.optional("not_before"),
                expires: f.optional("expires"),
                disabled: f.or("disabled", false),
                id: id?,
                tenant: tenant?,
                digest: digest?,
            };
            if let (Some(not_before), Some(expires)) = (&key.not_before, &key.expires)
                && not_before.value >= expires.value
            {
                let message = format!("`{}` expires before it begins", key.id);
                f.push(
                    Mistake::new(Code::OutOfRange, expires.span(), message)
                        .related(not_before.span(), "it begins here"),
                );
            }
            Some(key)
        })?
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.show())
    }
}

impl Scalar for Digest {
    const EXPECTED: &'static str = "`sha256:` and 64 hexadecimal digits";
    const SECRET: bool = true;

    fn parse(text: &str) -> Result<Self, Wrong> {
        let wrong = |label| Wrong::new(Code::BadValue, label);
        let Some(hex) = text.strip_prefix("sha256:") else {
            return Err(
                wrong("does not begin with `sha256:`").hint("a key itself does not belong here, only its digest")
            );
        };
        if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong("does not have 64 hexadecimal digits"));
        }
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).expect("hexadecimal digits are ASCII");
            *byte = u8::from_str_radix(pair, 16).expect("both digits were checked");
        }
        Ok(Self(digest))
    }

    fn show(&self) -> String {
        self.0
            .iter()
            .fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
    }
}

impl Scalar for Timestamp {
    const EXPECTED: &'static str = "an instant such as `2027-01-31T00:00:00Z`, or a day";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let text = if text.len() == 10 {
            format!("{text}T00:00:00Z")
        } else {
            text.to_owned()
        };
        instant(&text)
            .map(Self)
            .ok_or_else(|| Wrong::new(Code::BadValue, "is not an instant in UTC"))
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

/// Parses an RFC 3339 time with `Z`, from 1970 to 9999.
fn instant(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    let shape = b"dddd-dd-ddTdd:dd:ddZ";
    let fits = |(byte, pattern): (&u8, &u8)| {
        if *pattern == b'd' {
            byte.is_ascii_digit()
        } else {
            byte == pattern
        }
    };
    if bytes.len() != shape.len() || !bytes.iter().zip(shape).all(fits) {
        return None;
    }
    let number = |from: usize, to: usize| text[from..to].parse::<u64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let lengths = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let length = *lengths.get(usize::try_from(month).ok()?.checked_sub(1)?)?;
    if year < 1970 || day < 1 || day > length || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let leaps_before = |year: u64| (year - 1) / 4 - (year - 1) / 100 + (year - 1) / 400;
    let days = (year - 1970) * 365 + leaps_before(year) - leaps_before(1970)
        + lengths.iter().take(usize::try_from(month).ok()? - 1).sum::<u64>()
        + day
        - 1;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}
