//! Checks that a measured answer costs the same however it is cut into pieces, and within what was reserved unless it says
//! more itself.

use std::num::NonZeroU64;
use std::sync::Arc;

use gateway::message::FieldMap;
use gateway::metering::{AnswerEnd, AnswerMeter, AnswerPath, Metering, Paths, Reserve, Reserved, Settlement, Source};
use gateway::setting::SettingId;
use http::{HeaderValue, StatusCode, header};

const TYPES: [&str; 3] = ["text/event-stream", "application/x-ndjson", "application/json"];
const ENDS: [AnswerEnd; 3] = [AnswerEnd::Complete, AnswerEnd::BrokeOff, AnswerEnd::CallerLeft];
const RESERVED: Reserved = Reserved {
    prompt: 10,
    generated: 90,
};

/// Checks a flag byte, and a body.
pub fn check(data: &[u8]) {
    let Some((flags, body)) = crate::split_flags(data) else {
        return;
    };
    let flags = usize::from(flags);
    let (media_type, end) = (TYPES[flags % 3], ENDS[flags / 3 % 3]);
    let length = 1 + flags / 9;
    let whole = settle([body].into_iter(), media_type, end);
    assert_eq!(
        whole,
        settle(body.chunks(length), media_type, end),
        "in pieces of {length}"
    );
    let most = RESERVED.units();
    assert_eq!(most + whole.beyond(RESERVED), whole.units + whole.refunded(RESERVED));
    match whole.by {
        Source::Usage => {}
        Source::Estimate | Source::Reservation => assert!(whole.units >= 1 || body.is_empty(), "{whole:?}"),
        Source::Refund => panic!("a good answer is not free"),
    }
}

fn settle<'b>(pieces: impl Iterator<Item = &'b [u8]>, media_type: &'static str, end: AnswerEnd) -> Settlement {
    let path = |text: &str| AnswerPath::parse(text).expect("a path");
    let metering = Metering {
        paths: Paths::new(
            [
                vec![path("usage.in"), path("message.usage.in")],
                vec![path("usage.out")],
            ],
            [path("choices.*.text"), path("delta")],
        ),
        reserve: Reserve {
            bytes_per_unit: NonZeroU64::new(4).expect("not 0"),
            most: Vec::new(),
            default: None,
            ceiling: None,
            times: Vec::new(),
        },
        quotas: Vec::new(),
        setting: SettingId::URI,
    };
    let mut headers = FieldMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    let mut meter = AnswerMeter::begin(Arc::new(metering), RESERVED, StatusCode::OK, &headers);
    pieces.for_each(|piece| meter.read(piece));
    meter.settle(end)
}
