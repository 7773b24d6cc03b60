//! Reads single values, with the basic kinds among them.
//!
//! A refused value yields a few words that fit below the marked place and, where possible, a suggestion. Values with
//! units are in `units`.

use std::num::{NonZeroU32, NonZeroU64};

use http::Method;
use ipnet::IpNet;

use super::mistake::Code;

/// A kind of single value.
pub(super) trait Scalar: Sized {
    /// Text that completes "must be ...".
    const EXPECTED: &'static str;
    /// Whether a quoted value is refused, as for numbers and booleans.
    const UNQUOTED: bool = false;
    /// Whether the text is never shown, even if it is wrong.
    const SECRET: bool = false;
    /// Hint for a list or a map in its place.
    const NO_SINGLE: Option<&'static str> = None;

    fn parse(text: &str) -> Result<Self, Wrong>;

    /// Returns the value in the form used in a config.
    fn show(&self) -> String;
}

/// Reason why a text is not a value of the kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    pub code: Code,
    /// Words for the marked place. They do not repeat the text, because it may be a secret.
    pub label: String,
    pub hint: Option<String>,
}

impl Wrong {
    pub(super) fn new(code: Code, label: impl Into<String>) -> Self {
        Self {
            code,
            label: label.into(),
            hint: None,
        }
    }

    #[must_use]
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Writes a text for a generated YAML file, so that reading returns the same text. Quotes are used unless the text is
/// unambiguous without them.
pub fn written(text: &str) -> String {
    let plain = text.bytes().next().is_some_and(|first| first.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"].contains(&&*text.to_ascii_lowercase());
    if plain {
        text.to_owned()
    } else {
        quoted(&text.replace("${", "$${"))
    }
}

/// Writes a text in double quotes (YAML 1.2 section 7.3.1). All characters but letters, digits and visible ASCII are
/// escaped, because YAML accepts some only in escaped form, and takes others as the end of a line.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            ' '..='~' => out.push(letter),
            _ if letter.is_alphanumeric() => out.push(letter),
            _ => out.push_str(&format!("\\U{:08X}", u32::from(letter))),
        }
    }
    out.push('"');
    out
}

impl Scalar for String {
    const EXPECTED: &'static str = "text";

    fn parse(text: &str) -> Result<Self, Wrong> {
        Ok(text.to_owned())
    }

    fn show(&self) -> String {
        self.clone()
    }
}

impl Scalar for bool {
    const EXPECTED: &'static str = "`true` or `false`";
    const UNQUOTED: bool = true;

    fn parse(text: &str) -> Result<Self, Wrong> {
        match text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(match text.to_lowercase().as_str() {
                word if super::hint::is_yes(word) || word == "1" => {
                    wrong("is not a boolean").hint("did you mean `true`?")
                }
                word if super::hint::is_no(word) || word == "0" => {
                    wrong("is not a boolean").hint("did you mean `false`?")
                }
                _ => wrong("is not a boolean"),
            }),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

macro_rules! whole_numbers {
    ($($kind:ty: $expected:literal),* $(,)?) => {$(
        impl Scalar for $kind {
            const EXPECTED: &'static str = $expected;
            const UNQUOTED: bool = true;

            fn parse(text: &str) -> Result<Self, Wrong> {
                let digits = text.replace('_', "");
                digits.parse().map_err(|_| {
                    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
                        Wrong::new(Code::OutOfRange, if digits.bytes().all(|b| b == b'0') { "is too small" } else { "is too large" })
                    } else if digits.strip_prefix('-').is_some_and(|rest| rest.parse::<f64>().is_ok()) {
                        Wrong::new(Code::OutOfRange, "is negative")
                    } else if digits.parse::<f64>().is_ok() {
                        Wrong::new(Code::OutOfRange, "is not a whole number")
                    } else {
                        wrong("is not a whole number")
                    }
                })
            }

            fn show(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

whole_numbers! {
    u8: "a whole number from 0 to 255",
    u16: "a whole number from 0 to 65535",
    u32: "a whole number",
    u64: "a whole number",
    NonZeroU32: "a whole number of at least 1",
    NonZeroU64: "a whole number of at least 1",
}

/// A factor such as `2` or `1.5`; never negative.
impl Scalar for f64 {
    const EXPECTED: &'static str = "a number such as `2` or `1.5`";
    const UNQUOTED: bool = true;

    fn parse(text: &str) -> Result<Self, Wrong> {
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
            return Err(match text.strip_prefix('-') {
                Some(rest) if rest.parse::<Self>().is_ok() => Wrong::new(Code::OutOfRange, "is negative"),
                _ => wrong("is not a number"),
            });
        }
        text.parse().map_err(|_| wrong("is not a number"))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// Returns the IPv4 network if the network is IPv4 mapped into IPv6.
fn without_mapping(net: IpNet) -> Option<IpNet> {
    let std::net::IpAddr::V4(address) = net.addr().to_canonical() else {
        return None;
    };
    let prefix = net.prefix_len().checked_sub(96)?;
    IpNet::new(address.into(), prefix).ok().filter(|plain| *plain != net)
}

/// A network; a single address is a network of one.
impl Scalar for IpNet {
    const EXPECTED: &'static str = "a network such as `10.0.0.0/8` or `fd00::/8`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let net: Self = match text.parse::<std::net::IpAddr>() {
            Ok(address) => Self::from(address),
            Err(_) => text
                .parse()
                .map_err(|_| Wrong::new(Code::BadValue, "is not a network"))?,
        };
        if let Some(plain) = without_mapping(net) {
            // Callers' addresses are compared in IPv4 form, so a mapped network would match none.
            let hint = format!("did you mean `{}`?", plain.trunc());
            return Err(Wrong::new(Code::BadValue, "is IPv4 mapped into IPv6").hint(hint));
        }
        if net.addr() == net.network() {
            Ok(net)
        } else {
            let hint = format!("did you mean `{}` or `{}`?", net.trunc(), net.addr());
            Err(Wrong::new(Code::BadValue, "has bits set beyond its prefix").hint(hint))
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Scalar for Method {
    const EXPECTED: &'static str = "an HTTP method such as `GET`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let method = Self::from_bytes(text.as_bytes()).map_err(|_| Wrong::new(Code::BadValue, "is not a method"))?;
        if method == Self::CONNECT || method == Self::TRACE {
            return Err(Wrong::new(Code::BadValue, "is refused on every route").hint("write another, such as `GET`"));
        }
        let upper = text.to_ascii_uppercase();
        if upper != text {
            return Err(Wrong::new(Code::BadValue, "is not in capitals").hint(format!("did you mean `{upper}`?")));
        }
        Ok(method)
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// Declares enums whose variants are written as words.
macro_rules! words {
    ($($(#[$meta:meta])* $vis:vis enum $name:ident { $($(#[$vmeta:meta])* $variant:ident = $word:literal),+ $(,)? })*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        $vis enum $name { $($(#[$vmeta])* $variant),+ }

        impl $name {
            $vis const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl $crate::config::scalar::Scalar for $name {
            const EXPECTED: &'static str = $crate::config::scalar::listed!($($word),+);

            fn parse(text: &str) -> Result<Self, $crate::config::scalar::Wrong> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => match $crate::config::scalar::switched_off(text, &[$($word),+]) {
                        Some(off) => Self::parse(off),
                        None => Err($crate::config::scalar::unknown_word(text, &[$($word),+])),
                    },
                }
            }

            fn show(&self) -> String {
                self.as_str().to_owned()
            }
        }
    )*};
}

macro_rules! listed {
    ($only:literal) => { concat!("`", $only, "`") };
    ($last_but_one:literal, $last:literal) => { concat!("`", $last_but_one, "` or `", $last, "`") };
    ($first:literal, $($rest:literal),+) => { concat!("`", $first, "`, ", $crate::config::scalar::listed!($($rest),+)) };
}

pub(super) use {listed, words};

/// Returns `off` if it is one of the words and `text` is another spelling of it.
pub(super) fn switched_off(text: &str, words: &[&str]) -> Option<&'static str> {
    (text != "off" && is_off(text) && words.contains(&"off")).then_some("off")
}

/// Describes a text that is not one of `words`, with a hint.
pub(super) fn unknown_word(text: &str, words: &[&str]) -> Wrong {
    let wrong = Wrong::new(Code::BadValue, "is not one of these");
    if words.contains(&"off") && super::hint::is_no(text) {
        return wrong.hint("did you mean `off`?");
    }
    if words.contains(&"off") && super::hint::is_yes(text) {
        let on: Vec<_> = words
            .iter()
            .filter(|word| **word != "off")
            .map(|word| format!("`{word}`"))
            .collect();
        return wrong.hint(format!("did you mean {}?", on.join(" or ")));
    }
    if let Some(word) = words.iter().find(|word| super::hint::is_spelling_of(text, word)) {
        return wrong.hint(format!("did you mean `{word}`?"));
    }
    if words.contains(&"http1") && ["https", "tls", "ssl", "grpcs"].contains(&&*text.to_lowercase()) {
        return wrong.hint(
            "TLS is no protocol here: a listener speaks it with `tls: { certificates: [{ cert_file: edge.pem, key_file: \
             edge.key }] }`, and to a backend the URLs begin with `https://`",
        );
    }
    if let Some(word) = super::foreign::value_meant_by(text, words) {
        return wrong.hint(format!("did you mean `{word}`?"));
    }
    if words.contains(&"omit") {
        return wrong.hint("`omit` and `null` go on without the element: they need `partial: allow` beside `parts`");
    }
    match super::hint::did_you_mean(text, words.iter().copied()) {
        Some(hint) => wrong.hint(hint),
        None => wrong,
    }
}

fn wrong(label: &str) -> Wrong {
    Wrong::new(Code::WrongType, label)
}

/// Returns whether the text is a spelling of `off`.
pub(super) fn is_off(text: &str) -> bool {
    matches!(text, "off" | "Off" | "OFF" | "false" | "False" | "FALSE")
}
