//! What requests cost that are charged by what their answers say.

use std::fmt;
use std::num::NonZeroU64;

use crate::config::asked::Shape;
use crate::config::fields::Fields;
use crate::config::mistake::{Code, Mistake};
use crate::config::reader::Read;
use crate::config::scalar::{Scalar, Wrong};
use crate::config::single::Single;
use crate::config::span::At;
use crate::config::value::Value;
use crate::metering::{AnswerPath, RequestPath};

/// Cost in units that the JSON of the answer says, such as the tokens of a language model. They are reserved before the
/// request is sent.
#[derive(Debug, Clone, PartialEq)]
pub struct MeasuredCost {
    /// Numbers in the answer that are added up; the last value of each counts. `a|b` is one number that stands at either
    /// place.
    pub body: Vec<At<UsagePath>>,
    /// Texts in the answer that were generated. They count where an answer does not say what was used.
    pub text: Vec<At<AnswerPath>>,
    /// What a request takes before it is sent.
    pub reserve: ReservedCost,
    /// Quotas of tiers and tenants that count these units, and no other requests.
    pub quotas: Vec<At<String>>,
}

/// What a request takes before it is sent: its own bytes, and what may be generated.
#[derive(Debug, Clone, PartialEq)]
pub struct ReservedCost {
    /// Bytes of a request's body, or of generated text, that count as a unit.
    pub bytes_per_unit: At<u64>,
    /// Where the request's body says how much may be generated, as in `body.max_tokens`. The largest one counts. Left out,
    /// nothing is generated.
    pub max: Vec<At<RequestPath>>,
    /// What counts where a body says nothing. Left out, such a request is refused.
    pub default: Option<At<NonZeroU64>>,
    /// Largest number that a body may say.
    pub most: Option<At<NonZeroU64>>,
    /// Numbers in the body by which it is multiplied, such as how many answers are wanted.
    pub times: Vec<At<RequestPath>>,
}

/// One number of an answer, with the paths at which it may stand.
#[derive(Clone, PartialEq, Eq)]
pub struct UsagePath(pub Vec<AnswerPath>);

/// Kind of value of a route's `cost`.
pub(super) const SHAPE: Shape = Shape::Either(&[Shape::Value("a whole number of at least 1"), Shape::Section]);

/// Texts of the answers of common language models.
const TEXTS: [&str; 16] = [
    "choices.*.delta.content",
    "choices.*.delta.reasoning_content",
    "choices.*.delta.reasoning",
    "choices.*.delta.refusal",
    "choices.*.delta.tool_calls.*.function.arguments",
    "choices.*.message.content",
    "choices.*.text",
    "delta",
    "delta.text",
    "delta.thinking",
    "delta.partial_json",
    "content.*.text",
    "output.*.content.*.text",
    "candidates.*.content.parts.*.text",
    "message.content",
    "response",
];

/// Most places at which one number may stand.
const MOST_PLACES: usize = 4;

/// Reads the `cost` of a route: a number, or how it is measured.
pub(super) fn cost(f: &mut Fields<'_>) -> (At<NonZeroU64>, Option<MeasuredCost>) {
    let written = f.value_of("cost", SHAPE);
    let measured = written.as_ref().filter(|value| value.is_map());
    let Some(value) = measured else {
        let fixed = f.or("cost", NonZeroU64::MIN);
        f.value_of("cost", SHAPE);
        return (fixed, None);
    };
    (At::unwritten(NonZeroU64::MIN), MeasuredCost::read(value))
}

impl Read for MeasuredCost {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ body: [$], reserve: { max: body.max_tokens } }"],
        sample: "{ body: usage.total_tokens, reserve: { max: body.max_tokens } }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let body: Option<Vec<At<UsagePath>>> = f.required_list("body");
            let texts = TEXTS.map(|text| AnswerPath::parse(text).expect("a good path"));
            let text = f.list_or("text", &texts);
            let reserve = f.section("reserve");
            let quotas = f.list("quotas");
            if let Some(body) = &body {
                check_body(f, body);
            }
            check_text(f, &text);
            Some(Self {
                body: body?,
                text,
                reserve: reserve?,
                quotas,
            })
        })?
    }
}

impl Read for ReservedCost {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ max: [$] }", "{ bytes_per_unit: $ }"],
        sample: "{ max: body.max_tokens }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let max: Vec<At<RequestPath>> = f.list("max");
            let (default, most) = (f.optional("default"), f.optional("most"));
            let times = f.list_or("times", &[RequestPath::parse("body.n").expect("a good path")]);
            check_generated(f, &max, default.as_ref(), most.as_ref());
            Self {
                bytes_per_unit: f.within("bytes_per_unit", 4, 1..=1 << 20),
                max,
                default,
                most,
                times,
            }
        })
    }
}

fn check_body(f: &Fields<'_>, body: &[At<UsagePath>]) {
    if let Some(more) = body.get(crate::metering::MOST_SUMMANDS) {
        let message = format!(
            "`{}.body` adds up more than {} numbers",
            f.path,
            crate::metering::MOST_SUMMANDS
        );
        f.push(Mistake::new(Code::OutOfRange, more.span(), message));
    }
    for (place, path) in body.iter().enumerate() {
        if let Some(first) = body[..place]
            .iter()
            .find(|first| first.0.iter().any(|one| path.0.contains(one)))
        {
            let message = format!("`{}.body` counts the same number twice", f.path);
            f.push(
                Mistake::new(Code::Conflict, path.span(), message)
                    .related(first.span(), "the first time")
                    .hint("take one of the two out"),
            );
        }
    }
}

fn check_text(f: &Fields<'_>, text: &[At<AnswerPath>]) {
    const MOST: usize = 32;
    if let Some(more) = text.get(MOST) {
        let message = format!("`{}.text` has more than {MOST} paths", f.path);
        f.push(Mistake::new(Code::OutOfRange, more.span(), message));
    }
}

fn check_generated(
    f: &Fields<'_>,
    max: &[At<RequestPath>],
    default: Option<&At<NonZeroU64>>,
    most: Option<&At<NonZeroU64>>,
) {
    for (key, written) in [("default", default), ("most", most)] {
        if let (Some(written), []) = (written, max) {
            let message = format!("`{}.{key}` goes with `max` only", f.path);
            f.push(
                Mistake::new(Code::Conflict, written.span(), message)
                    .hint("write where a body says it, as in `max: body.max_tokens`"),
            );
        }
    }
    if let (Some(default), Some(most)) = (default, most)
        && default.value > most.value
    {
        let message = format!("`{}.default` is more than `most`", f.path);
        f.push(
            Mistake::new(Code::OverParent, default.span(), message)
                .related(most.span(), format!("this is {}", most.value))
                .hint(format!("lower it to {}, or raise `most`", most.value)),
        );
    }
}

impl Scalar for UsagePath {
    const EXPECTED: &'static str =
        "a path in the answer such as `usage.total_tokens`, or several with `|` between them";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let paths = text.split('|').map(|path| answer_path(path.trim()));
        let paths = paths.collect::<Result<Vec<_>, _>>()?;
        if paths.len() > MOST_PLACES {
            return Err(Wrong::new(Code::OutOfRange, "has more than 4 paths"));
        }
        if text.contains('*') {
            return Err(
                Wrong::new(Code::BadValue, "has a `*`").hint("name each number: it is one value that is counted")
            );
        }
        Ok(Self(paths))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for UsagePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths: Vec<_> = self.0.iter().map(AnswerPath::to_string).collect();
        f.write_str(&paths.join("|"))
    }
}

/// As it is written, for comparisons of configs.
impl fmt::Debug for UsagePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Scalar for AnswerPath {
    const EXPECTED: &'static str = "a path in the answer such as `choices.*.delta.content`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        answer_path(text)
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

fn answer_path(text: &str) -> Result<AnswerPath, Wrong> {
    AnswerPath::parse(text).map_err(|why| {
        let wrong = Wrong::new(Code::BadValue, why);
        let meant = text
            .trim_start_matches("$.")
            .trim_start_matches("body.")
            .trim_start_matches('/');
        let meant = meant.replace("[*]", ".*").replace("[]", ".*").replace('/', ".");
        match AnswerPath::parse(&meant) {
            Ok(_) if meant != text => wrong.hint(format!("did you mean `{meant}`?")),
            _ => wrong,
        }
    })
}

impl Scalar for RequestPath {
    const EXPECTED: &'static str = "a path in the request's body such as `body.max_tokens`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        Self::parse(text).map_err(|why| {
            let wrong = Wrong::new(Code::BadValue, why);
            let meant = format!(
                "body.{}",
                text.trim_start_matches("$.").trim_start_matches('/').replace('/', ".")
            );
            match Self::parse(&meant) {
                Ok(_) => wrong.hint(format!("did you mean `{meant}`?")),
                Err(_) => wrong,
            }
        })
    }

    fn show(&self) -> String {
        self.to_string()
    }
}
