//! Holds the table to a naive model over random schedules, and to its bound.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use policies::Moment;
use proptest::prelude::*;

use super::table::Table;
use super::{Begun, Claim, Ending, Fingerprint, Release, StateWord, StoredAnswer, Subject};
use crate::message::FieldMap;

const LEASE: Duration = Duration::from_secs(10);
const KEEP: Duration = Duration::from_secs(100);

fn claim(tenant: &str, key: u32, print: u8, token: u64) -> Claim {
    let subject = Arc::new(Subject {
        route: "checkout".into(),
        tenant: tenant.into(),
        caller: "".into(),
        key: key.to_string().into(),
    });
    Claim {
        id: subject.id(),
        subject,
        fingerprint: Fingerprint([print; 32]),
        token,
        lease: LEASE,
        keep_for: KEEP,
    }
}

fn answer(length: usize) -> StoredAnswer {
    StoredAnswer::of(StatusCode::OK, &FieldMap::new(), &vec![b'a'; length], usize::MAX).expect("it fits")
}

fn table(most: u64, forgets: bool) -> Table {
    let mut table = Table::default();
    table.set(most, forgets);
    table
}

fn at(seconds: u64) -> Moment {
    Moment::ZERO + Duration::from_secs(seconds)
}

#[test]
fn a_request_is_sent_once_and_its_answer_given_again() {
    let mut table = table(1 << 20, false);
    let (first, second) = (claim("acme", 1, 1, 1), claim("acme", 1, 1, 2));
    assert_eq!(table.begin(&first, at(0)), Begun::First);
    assert_eq!(table.begin(&first, at(0)), Begun::First, "told twice, by one request");
    assert_eq!(table.begin(&second, at(1)), Begun::Running);
    assert_eq!(table.begin(&claim("acme", 1, 2, 3), at(1)), Begun::Reused);
    assert_eq!(
        table.begin(&claim("other", 1, 2, 3), at(1)),
        Begun::First,
        "another tenant's"
    );
    assert!(table.finish(&first, Ending::Answered(answer(3)), at(2)));
    assert_eq!(table.begin(&second, at(3)), Begun::Answered(answer(3)));
    assert_eq!(table.begin(&claim("acme", 1, 2, 3), at(3)), Begun::Reused);
    assert_eq!(table.begin(&second, at(101)), Begun::Answered(answer(3)));
    assert_eq!(table.begin(&second, at(102)), Begun::First, "the key is forgotten");
    assert!(!table.finish(&first, Ending::Unknown, at(103)), "late news");
    assert_eq!(table.begin(&first, at(103)), Begun::Running);
}

#[test]
fn a_request_that_was_lost_is_never_sent_again_unless_an_operator_says_so() {
    let mut table = table(1 << 20, false);
    let (first, second) = (claim("acme", 1, 1, 1), claim("acme", 1, 1, 2));
    assert_eq!(table.begin(&first, at(0)), Begun::First);
    assert_eq!(table.free(&first.id, at(9)), Release::Running);
    let kept_for = Duration::from_secs(90);
    assert_eq!(
        table.begin(&second, at(10)),
        Begun::Unknown { kept_for },
        "the lease is over"
    );
    assert_eq!(table.open(at(10), 9)[0].state, StateWord::Unknown);
    assert!(
        table.finish(&first, Ending::Answered(answer(1)), at(11)),
        "late, but its own"
    );
    assert_eq!(table.begin(&second, at(11)), Begun::Answered(answer(1)));
    assert_eq!(table.free(&first.id, at(12)), Release::Released(StateWord::Answered));
    assert_eq!(table.free(&first.id, at(12)), Release::NoSuchKey);
    assert_eq!(table.begin(&second, at(12)), Begun::First);
    table.release(&first);
    assert_eq!(
        table.begin(&first, at(12)),
        Begun::Running,
        "another request's key is not released"
    );
    table.release(&second);
    assert_eq!(table.begin(&first, at(12)), Begun::First);
}

#[test]
fn a_hundred_thousand_keys_stay_within_the_bound_and_leave_room_for_others() {
    for forgets in [false, true] {
        let most = 8 << 20;
        let mut table = table(most, forgets);
        let mut firsts = 0_u32;
        for key in 0..100_000 {
            let claim = claim("greedy", key, 1, u64::from(key));
            match table.begin(&claim, at(0)) {
                Begun::First => {
                    firsts += 1;
                    assert!(table.finish(&claim, Ending::Answered(answer(1_000)), at(0)));
                }
                Begun::Full { retry_after } => assert_eq!(retry_after, KEEP),
                other => panic!("{other:?}"),
            }
            assert!(table.size().bytes <= most / 2);
        }
        assert_eq!(firsts == 100_000, forgets, "{firsts}");
        assert!(firsts > 2_000, "{firsts}");
        assert_eq!(table.begin(&claim("modest", 1, 1, 1), at(0)), Begun::First);
        // Without room for the answer, its status is kept.
        let last = claim("modest", 2, 1, 2);
        assert_eq!(table.begin(&last, at(0)), Begun::First);
        assert!(table.finish(&last, Ending::Answered(answer(most as usize)), at(0)));
        assert_eq!(
            table.begin(&claim("modest", 2, 1, 3), at(0)),
            Begun::NotKept { status: 200 }
        );
    }
}

#[test]
fn what_is_unknown_makes_room_for_nothing() {
    let mut table = table(100_000, true);
    let mut unknown = Vec::new();
    for key in 0..1_000 {
        let claim = claim("acme", key, 1, u64::from(key));
        if table.begin(&claim, at(0)) == Begun::First {
            assert!(table.finish(&claim, Ending::Unknown, at(0)));
            unknown.push(claim);
        }
    }
    assert!((10..1_000).contains(&unknown.len()));
    for claim in &unknown {
        let again = Claim {
            token: u64::MAX,
            ..claim.clone()
        };
        assert!(matches!(table.begin(&again, at(1)), Begun::Unknown { .. }));
    }
}

/// A step of a schedule.
#[derive(Debug, Clone)]
enum Act {
    Begin { key: u32, print: u8 },
    Finish { nth: usize, ending: u8 },
    Release { nth: usize },
    Free { key: u32 },
    Pass { seconds: u64 },
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0_u32..4, 0_u8..2).prop_map(|(key, print)| Act::Begin { key, print }),
        2 => (any::<prop::sample::Index>(), 0_u8..3).prop_map(|(nth, ending)| Act::Finish { nth: nth.index(64), ending }),
        1 => any::<prop::sample::Index>().prop_map(|nth| Act::Release { nth: nth.index(64) }),
        1 => (0_u32..4).prop_map(|key| Act::Free { key }),
        2 => (0_u64..40).prop_map(|seconds| Act::Pass { seconds }),
    ]
}

/// What the model remembers of a key.
struct Known {
    print: u8,
    token: u64,
    state: StateWord,
    until: u64,
    ends: u64,
}

proptest! {
    #![proptest_config(cases::counted())]

    /// The model is a plain map that removes a key only at its end, by its own request or by an operator.
    #[test]
    fn the_table_does_what_the_model_does(acts in prop::collection::vec(act(), 1..80)) {
        let (mut table, mut now) = (table(1 << 20, false), 0_u64);
        let mut known: HashMap<u32, Known> = HashMap::new();
        let mut claims: Vec<(u32, u8, Claim)> = Vec::new();
        for (number, act) in acts.into_iter().enumerate() {
            known.retain(|_, record| now < record.ends);
            match act {
                Act::Pass { seconds } => now += seconds,
                Act::Begin { key, print } => {
                    let token = number as u64;
                    let own = claim("acme", key, print, token);
                    let begun = table.begin(&own, at(now));
                    match known.get(&key) {
                        None => {
                            prop_assert_eq!(begun, Begun::First);
                            known.insert(key, Known {
                                print, token, state: StateWord::Running, until: now + 10, ends: now + 100,
                            });
                            claims.push((key, print, own));
                        }
                        Some(record) if record.print != print => prop_assert_eq!(begun, Begun::Reused),
                        Some(record) => match record.state {
                            StateWord::Running if now < record.until => prop_assert_eq!(begun, Begun::Running),
                            StateWord::Running | StateWord::Unknown => {
                                let kept_for = Duration::from_secs(record.ends - now);
                                prop_assert_eq!(begun, Begun::Unknown { kept_for });
                            }
                            StateWord::Answered => prop_assert_eq!(begun, Begun::Answered(answer(2))),
                            StateWord::NotKept => prop_assert_eq!(begun, Begun::NotKept { status: 201 }),
                        },
                    }
                }
                Act::Finish { nth, ending } => {
                    let Some((key, print, own)) = claims.get(nth % claims.len().max(1)) else { continue };
                    let (ending, state) = match ending {
                        0 => (Ending::Unknown, StateWord::Unknown),
                        1 => (Ending::NotKept { status: 201 }, StateWord::NotKept),
                        _ => (Ending::Answered(answer(2)), StateWord::Answered),
                    };
                    // A record past its end may be removed by now or not.
                    let is_anothers = known.get(key).is_some_and(|record| record.token != own.token);
                    let is_taken = table.finish(own, ending, at(now));
                    if is_anothers {
                        prop_assert!(!is_taken);
                    } else if is_taken {
                        known.insert(*key, Known {
                            print: *print, token: own.token, state, until: 0, ends: now + 100,
                        });
                    }
                }
                Act::Release { nth } => {
                    let Some((key, _, own)) = claims.get(nth % claims.len().max(1)) else { continue };
                    table.release(own);
                    let is_own = |record: &Known| record.token == own.token && record.state == StateWord::Running;
                    if known.get(key).is_some_and(is_own) {
                        known.remove(key);
                    }
                }
                Act::Free { key } => {
                    let freed = table.free(&claim("acme", key, 0, 0).id, at(now));
                    match known.get(&key) {
                        None => prop_assert_eq!(freed, Release::NoSuchKey),
                        Some(record) if record.state == StateWord::Running && now < record.until => {
                            prop_assert_eq!(freed, Release::Running);
                        }
                        Some(record) => {
                            let was = if record.state == StateWord::Running { StateWord::Unknown } else { record.state };
                            prop_assert_eq!(freed, Release::Released(was));
                            known.remove(&key);
                        }
                    }
                }
            }
            let size = table.size();
            prop_assert_eq!(size.bytes == 0, size.counts == [0; 4]);
            prop_assert_eq!(size.tenants, usize::from(size.bytes > 0));
        }
    }
}
