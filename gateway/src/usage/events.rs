//! Writes minutes of usage as events of CloudEvents 1.0, in its JSON batch format.
//!
//! The id of an event is made of the replica, the run of its process, the names of the series and the minute. A minute is
//! over when it is delivered and never changes, so two events with one id are the same event.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::counts::Counts;
use super::ledger::Record;
use crate::identity;

/// `Content-Type` of a batch.
pub const CONTENT_TYPE: &str = "application/cloudevents-batch+json";
const TYPE: &str = "gateway.usage.minute";

/// Writes a batch of events.
pub fn batch(replica: &str, records: &[Record], time: impl Fn(Duration) -> String) -> Vec<u8> {
    let events: Vec<_> = records.iter().map(|record| event(replica, record, &time)).collect();
    serde_json::to_vec(&events).expect("values are JSON")
}

fn event(replica: &str, record: &Record, time: impl Fn(Duration) -> String) -> Value {
    let Record {
        epoch,
        minute,
        names,
        counts,
    } = record;
    let replica = identity::encoded(replica).replace('/', "%2F");
    let begin = Duration::from_secs(minute * 60);
    let mut data = Map::new();
    data.insert("tenant".to_owned(), json!(names.tenant));
    data.insert("route".to_owned(), json!(names.route));
    data.insert("key".to_owned(), json!(names.key));
    if names.is_other {
        data.insert("other".to_owned(), json!(true));
    }
    data.insert("minute".to_owned(), json!(time(begin)));
    data.extend(numbers(counts));
    let mut event = json!({
        "specversion": "1.0",
        "type": TYPE,
        "source": format!("/gateway/{replica}"),
        "id": format!("{replica}/{epoch}/{}/{minute}", names.id()),
        "time": time(begin + Duration::from_secs(60)),
        "datacontenttype": "application/json",
        "data": data,
    });
    // The specification allows no empty subject.
    if let Some(tenant) = &names.tenant {
        event["subject"] = json!(tenant);
    }
    event
}

/// Returns the members of a JSON object that tell the counts.
pub fn numbers(counts: &Counts) -> Map<String, Value> {
    let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"];
    let by_class = classes.into_iter().zip(counts.by_class).filter(|(_, count)| *count > 0);
    let by_class: Map<_, _> = by_class
        .map(|(class, count)| (class.to_owned(), json!(count)))
        .collect();
    let refused = counts.refused().iter();
    let refused: Map<_, _> = refused
        .map(|(reason, count)| (reason.as_str().to_owned(), json!(count)))
        .collect();
    let members = [
        ("requests", json!(counts.requests)),
        ("answers", Value::Object(by_class)),
        ("refused", Value::Object(refused)),
        ("cost", json!(counts.cost)),
        ("bytes_in", json!(counts.bytes_in)),
        ("bytes_out", json!(counts.bytes_out)),
    ];
    members
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::rejection::Reason;
    use crate::usage::Names;

    #[test]
    fn an_event_tells_its_minute_and_who_used_what() {
        let mut counts = Counts {
            requests: 3,
            by_class: [0, 2, 0, 1, 0],
            cost: 2,
            bytes_in: 10,
            bytes_out: 20,
            ..Counts::default()
        };
        counts.add_refused(Reason::RateLimited, 1);
        let names = Names {
            tenant: Some("a/b".into()),
            route: Some("users".into()),
            key: Some("k1".into()),
            is_other: false,
        };
        let record = |names: Names| Record {
            epoch: "e1".into(),
            minute: 29_412_345,
            names: Arc::new(names),
            counts: counts.clone(),
        };
        let time = |time: Duration| time.as_secs().to_string();
        let body = batch("edge 1", &[record(names), record(Names::other(None))], time);
        let events: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            events[0],
            json!({
                "specversion": "1.0", "type": "gateway.usage.minute", "source": "/gateway/edge%201",
                "id": "edge%201/e1/a%2Fb/users/k1/29412345", "subject": "a/b", "time": "1764740760",
                "datacontenttype": "application/json",
                "data": { "tenant": "a/b", "route": "users", "key": "k1", "minute": "1764740700", "requests": 3,
                    "answers": { "2xx": 2, "4xx": 1 }, "refused": { "rate_limited": 1 },
                    "cost": 2, "bytes_in": 10, "bytes_out": 20 }
            })
        );
        assert_eq!(
            (events[1].get("subject"), &events[1]["data"]["other"]),
            (None, &json!(true))
        );
    }
}
