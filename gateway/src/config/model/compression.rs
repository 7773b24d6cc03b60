//! Which answers are compressed for callers, and how.

use crate::compression::{Coding, MediaRange};
use crate::config::fields::Fields;
use crate::config::hint;
use crate::config::mistake::{Code, Mistake};
use crate::config::reader::Read;
use crate::config::scalar::{Scalar, Wrong, unknown_word};
use crate::config::single::Single;
use crate::config::span::At;
use crate::config::units::ByteSize;
use crate::config::value::Value;

/// Answers that are compressed for callers that accept it. It is off unless it is written.
#[derive(Debug, Clone, PartialEq)]
pub struct Compression {
    /// Codings on offer. A caller gets the one that it wants most, the first among equals.
    pub codings: Vec<At<Coding>>,
    /// How hard each coding tries.
    pub levels: CompressionLevels,
    /// Media types of answers that are compressed. Event streams and gRPC never are.
    pub types: Vec<At<MediaRange>>,
    /// Length from which on an answer is compressed. An answer of unknown length always is.
    pub minimum: At<ByteSize>,
    /// Memory of all answers that are being compressed. Beyond it, answers are sent as they are.
    pub memory: At<ByteSize>,
}

/// Level of each coding: more makes answers smaller and takes more time.
#[derive(Debug, Clone, PartialEq)]
pub struct CompressionLevels {
    /// Level of gzip.
    pub gzip: At<u32>,
    /// Level of Brotli.
    pub br: At<u32>,
    /// Level of Zstandard.
    pub zstd: At<u32>,
}

/// What a route writes in place of the whole section at the top.
#[derive(Debug, Clone, PartialEq)]
pub enum OwnCompression {
    Off,
    On(Compression),
}

/// Types that are compressed unless `types` says otherwise.
const TYPES: [&str; 10] = [
    "text/*",
    "application/json",
    "application/*+json",
    "application/xml",
    "application/*+xml",
    "application/javascript",
    "application/x-ndjson",
    "application/x-javascript",
    "application/wasm",
    "image/svg+xml",
];

impl Read for OwnCompression {
    const OFF: bool = true;
    const SINGLE: Option<Single> = Compression::SINGLE;

    fn read(value: &Value<'_>) -> Option<Self> {
        if value.is_off() {
            return Some(Self::Off);
        }
        Compression::read(&value.switchable(hint::for_no)).map(Self::On)
    }
}

impl Read for Compression {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ codings: [$] }", "{ types: [$] }"],
        sample: "{ codings: [zstd, gzip, br] }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let codings = f.list_or("codings", &[Coding::Zstd, Coding::Gzip, Coding::Brotli]);
            let types = f.list_or(
                "types",
                &TYPES.map(|text| MediaRange::parse(text).expect("a good range")),
            );
            check_codings(f, &codings);
            check_types(f, &types);
            let levels = f.section("levels");
            Some(Self {
                codings,
                levels: levels?,
                types,
                minimum: f.within("minimum", ByteSize(1 << 10), ByteSize(0)..=ByteSize(1 << 30)),
                memory: f.within("memory", ByteSize(128 << 20), ByteSize(4 << 20)..=ByteSize(64 << 30)),
            })
        })?
    }
}

impl Read for CompressionLevels {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ gzip: $ }"],
        sample: "{ gzip: 5 }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| Self {
            gzip: f.within("gzip", 5, 1..=9),
            br: f.within("br", 5, 0..=6),
            zstd: f.within("zstd", 3, 1..=6),
        })
    }
}

fn check_codings(f: &Fields<'_>, codings: &[At<Coding>]) {
    for (place, coding) in codings.iter().enumerate() {
        if let Some(first) = codings[..place].iter().find(|first| first.value == coding.value) {
            let message = format!("`{}.codings` names `{}` twice", f.path, coding.as_str());
            f.push(Mistake::new(Code::Conflict, coding.span(), message).related(first.span(), "the first time"));
        }
    }
}

fn check_types(f: &Fields<'_>, types: &[At<MediaRange>]) {
    for range in types.iter().filter(|range| range.is_of_streams()) {
        let message = format!("`{}.types` names `{}`, which is never compressed", f.path, range.value);
        f.push(
            Mistake::new(Code::Conflict, range.span(), message)
                .label("its reader takes it piece by piece")
                .hint("take it out"),
        );
    }
}

impl Scalar for Coding {
    const EXPECTED: &'static str = "`zstd`, `gzip` or `br`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let found = Self::ALL.into_iter().find(|coding| coding.as_str() == text);
        found.ok_or_else(|| match text.to_ascii_lowercase().as_str() {
            "brotli" => Wrong::new(Code::BadValue, "is not one of these").hint("did you mean `br`?"),
            "zstandard" => Wrong::new(Code::BadValue, "is not one of these").hint("did you mean `zstd`?"),
            "gz" | "x-gzip" | "deflate" => {
                Wrong::new(Code::BadValue, "is not one of these").hint("did you mean `gzip`?")
            }
            "identity" | "none" => Wrong::new(Code::BadValue, "is not one of these")
                .hint("every caller may have an answer as it is; to compress nothing, leave `compression` out"),
            _ => unknown_word(text, &Self::ALL.map(Self::as_str)),
        })
    }

    fn show(&self) -> String {
        self.as_str().to_owned()
    }
}

impl Scalar for MediaRange {
    const EXPECTED: &'static str = "a media type such as `application/json`, `text/*` or `application/*+json`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        Self::parse(text).ok_or_else(|| {
            let wrong = Wrong::new(Code::BadValue, "is not a media type");
            match text.trim() {
                "*" | "*/*" => wrong.hint(
                    "name the types: pictures, videos and archives are compressed already, and would only cost time",
                ),
                "json" | "xml" | "javascript" | "wasm" => {
                    wrong.hint(format!("did you mean `application/{}`?", text.trim()))
                }
                "html" | "css" | "csv" | "plain" => wrong.hint(format!("did you mean `text/{}`?", text.trim())),
                "text" | "text/" => wrong.hint("did you mean `text/*`?"),
                text if text.contains(';') => {
                    let bare = text.split(';').next().unwrap_or_default().trim();
                    match Self::parse(bare) {
                        Some(_) => wrong.hint(format!("did you mean `{bare}`? Parameters do not matter")),
                        None => wrong,
                    }
                }
                _ => wrong,
            }
        })
    }

    fn show(&self) -> String {
        self.to_string()
    }
}
