//! Compares the scripts with the model: random requests at random times, executed by a real server and by
//! `policies::lease`, have equal replies.
//!
//! The scripts of these tests read the time from one more argument. Everything else is the text that is used.

use std::time::Duration;

use fastrand::Rng;
use fixtures::redis_server::RedisServer;
use policies::lease::{Central, CentralBucket, CentralQuota, CentralSlots, Count, Reply, Request, SlotRequest};
use policies::{CalendarQuota, Every, Quota, WallTime, WindowQuota};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Pipeline, RedisConnectionInfo};
use tokio::net::TcpStream;

use super::super::command::StoreKey;
use super::*;

const EPOCH: u64 = 9_007_199_254_740_993;
/// Requests in one pipeline.
const TOGETHER: usize = 100;

fn at(micros: u64) -> WallTime {
    WallTime::since_epoch(Duration::from_micros(micros))
}

/// A server and a connection to it.
struct Executor {
    _server: RedisServer,
    connection: MultiplexedConnection,
    name: String,
    keys: usize,
}

impl Executor {
    async fn start() -> Option<Executor> {
        let server = RedisServer::start()?;
        let stream = TcpStream::connect(server.address()).await.unwrap();
        let login = RedisConnectionInfo::default();
        let (mut connection, driver) = {
            let config = AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(20)));
            MultiplexedConnection::new_with_config(&login, stream, config)
                .await
                .unwrap()
        };
        tokio::spawn(driver);
        let mut load = redis::cmd("SCRIPT");
        load.arg("LOAD").arg(Script::TEXT_OF_TESTS);
        let name = load.query_async(&mut connection).await.unwrap();
        Some(Executor {
            _server: server,
            connection,
            name,
            keys: 0,
        })
    }

    /// Forgets everything, and names the memory.
    async fn begin(&mut self) -> StoreKey {
        let mut begin = Pipeline::new();
        begin.cmd("FLUSHALL").cmd("SET").arg("x:epoch").arg(EPOCH);
        begin.exec_async(&mut self.connection).await.unwrap();
        self.keys += 1;
        StoreKey::new("t:acme", &self.keys.to_string())
    }

    /// Executes commands at their times. Returns each answer, and the time in milliseconds for which the key is kept.
    async fn execute(&mut self, common: &Common, commands: &[(u64, Command)]) -> Vec<(Answer, u64)> {
        let (mut pipeline, keys) = (Pipeline::new(), SpreadKeys::new(&common.prefix));
        for (now, command) in commands {
            assert!(command.fits());
            let mut call = redis::cmd("EVALSHA");
            call.arg(&self.name);
            common.arguments(&mut call, &keys, std::iter::once(command));
            call.arg(*now);
            pipeline.add_command(call);
            // Virtual time passes faster than that of the server, so a key must not end by the latter.
            let key = command.key.full(&common.prefix, &command.terms);
            pipeline.cmd("PTTL").arg(&key).cmd("PERSIST").arg(&key);
        }
        let replies = self.connection.req_packed_commands(&pipeline, 0, pipeline.len());
        let replies = replies.await.unwrap();
        assert_eq!(replies.len(), 3 * commands.len());
        let replies = replies.chunks_exact(3).zip(commands);
        let read = replies.map(|(reply, (_, command))| {
            let answer = super::replies(&reply[0], 1).and_then(|replies| answer(&command.ask, &replies.counts[0]));
            let answer = answer.unwrap_or_else(|_| panic!("{:?} to {command:?}", reply[0]));
            (answer, whole(&reply[1]).unwrap())
        });
        read.collect()
    }
}

/// Returns the next time: mostly a bit later, sometimes much, sometimes earlier; often just when something ends.
fn next_time(random: &mut Rng, now: u64, lease: u64) -> u64 {
    const MINUTE: u64 = 60_000_000;
    match random.u32(..100) {
        0..10 => now,
        10..15 => now + lease,
        15..17 => now + 2 * lease,
        17..20 => now.next_multiple_of(MINUTE),
        20..60 => now + random.u64(..lease / 4),
        60..80 => now + random.u64(..lease * 3),
        80..90 => now + random.u64(..20),
        90..94 => now + random.u64(..100_000_000_000),
        94..96 => now + random.u64(..5_000_000_000_000),
        96..99 => now - random.u64(..lease * 2),
        _ => now - random.u64(..100_000_000_000),
    }
}

/// Returns an amount: mostly small, sometimes near the limit, sometimes absurd.
fn amount(random: &mut Rng, limit: u64) -> u64 {
    match random.u32(..20) {
        0..6 => 0,
        6..13 => random.u64(..=limit.min(10)),
        13..18 => random.u64(..=limit),
        18 => random.u64(..=limit.saturating_mul(3).min(1 << 40)),
        _ => random.u64(..1 << 40),
    }
}

fn seeds() -> impl Iterator<Item = u64> {
    let rounds = std::env::var("STORE_ROUNDS")
        .ok()
        .and_then(|rounds| rounds.parse().ok());
    0..rounds.unwrap_or(12)
}

/// Executes random requests on `terms`, which alternate, by the server and by the model.
#[expect(clippy::too_many_arguments, reason = "what differs by kind")]
async fn compare<C: Count + Clone + std::fmt::Debug>(
    executor: &mut Executor,
    random: &mut Rng,
    terms: &[CentralTerms],
    limit: u64,
    idle: Duration,
    fresh: impl Fn() -> C,
    change: impl Fn(&mut C, &CentralTerms),
    set_used: impl Fn(&mut Central<C>, WallTime, u64) -> Option<UsedReply>,
) {
    let mut terms_in_force = terms[0];
    let lease = *random
        .choice([100_000, 1_000_001, 2_000_000, 60_000_000].iter())
        .unwrap();
    let lease_time = Duration::from_micros(lease);
    let common = Common::new("x:", lease_time, lease_time / 2, false);
    let key = executor.begin().await;
    let mut model = Central::new(fresh(), lease_time, EPOCH);
    let names: Vec<u64> = (0..random.usize(1..6)).map(|_| random.u64(..)).collect();
    let mut last: Vec<Option<Request>> = vec![None; names.len()];
    let mut now = random.u64(1_600_000_000_000_000..2_500_000_000_000_000);
    let mut latest = now;
    for _ in 0..5 {
        let (mut commands, mut expected) = (Vec::new(), Vec::new());
        for _ in 0..TOGETHER {
            now = next_time(random, now, lease);
            let which = random.usize(..names.len());
            let before = last[which];
            let sequence = before.map_or(0, |request| request.sequence);
            let out = model.last(names[which]).map_or(0, |reply| reply.granted);
            let request = Request {
                replica: names[which],
                sequence: match random.u32(..20) {
                    0 => sequence.saturating_sub(random.u64(..3)),
                    1 => sequence + random.u64(..1 << 30),
                    _ => sequence + 1,
                },
                held: if random.bool() {
                    random.u64(..=out)
                } else {
                    amount(random, limit)
                },
                returned: if random.bool() {
                    random.u64(..=out)
                } else {
                    amount(random, limit)
                },
                charged: if random.u32(..4) == 0 { amount(random, limit) } else { 0 },
                needed: amount(random, limit),
                waiting: if random.bool() { 0 } else { amount(random, limit) },
                wanted: amount(random, limit),
                most: if random.bool() {
                    limit / 10
                } else {
                    amount(random, limit)
                },
            };
            let request = match before {
                Some(before) if random.u32(..10) == 0 => before,
                _ => request,
            };
            last[which] = Some(request);
            if terms.len() > 1 && random.u32(..8) == 0 {
                terms_in_force = *random.choice(terms).unwrap();
            }
            model.change(at(now), |count| change(count, &terms_in_force));
            let used = amount(random, limit);
            if random.u32(..25) == 0
                && let Some(reply) = set_used(&mut model, at(now), used)
            {
                let command = Command {
                    key: key.clone(),
                    terms: terms_in_force,
                    ask: Ask::SetUsed(used),
                };
                commands.push((now, command));
                expected.push((Answer::Used(reply), model.clone()));
                continue;
            }
            let reply = model.execute(at(now), &request);
            let command = Command {
                key: key.clone(),
                terms: terms_in_force,
                ask: Ask::Tokens(request),
            };
            commands.push((now, command));
            expected.push((Answer::Tokens(reply), model.clone()));
        }
        let answers = executor.execute(&common, &commands).await;
        for (((now, command), (reply, model)), (answer, kept)) in commands.iter().zip(expected).zip(answers) {
            assert_eq!(
                answer, reply,
                "{command:?} at {now}, leases of {lease_time:?}: {model:?}"
            );
            let mut forgotten = Central::new(fresh(), lease_time, EPOCH);
            forgotten.change(at(0), |count| change(count, &command.terms));
            // Keys end by the time that has really passed, also where a clock was set back.
            latest = latest.max(*now);
            if *now == latest {
                check_expiry(now + kept * 1_000, model, forgotten);
            }
            let most = (lease_time * 2).max(idle) + Duration::from_millis(1_001);
            assert!(
                u128::from(kept) <= most.as_millis(),
                "kept {kept} ms: {command:?} at {now}"
            );
        }
    }
}

/// Checks that nobody can tell a count whose key has expired from a new one.
fn check_expiry<C: Count>(now: u64, mut old: Central<C>, mut fresh: Central<C>) {
    let probe = Request {
        replica: 1,
        sequence: 1,
        held: 0,
        returned: 0,
        charged: 0,
        needed: 1,
        waiting: 0,
        wanted: 1 << 40,
        most: 1 << 40,
    };
    let both: [Option<Reply>; 2] = [old.execute(at(now), &probe), fresh.execute(at(now), &probe)];
    assert_eq!(both[0], both[1]);
}

#[tokio::test]
async fn the_script_of_a_bucket_equals_the_model() {
    let Some(mut executor) = Executor::start().await else {
        return;
    };
    for seed in seeds() {
        let mut random = Rng::with_seed(seed);
        let quotas = [
            // As slow as is exact.
            Quota::new(3, Duration::from_secs(86_400), 77),
            Quota::new(10, Duration::from_secs(1), 20),
            Quota::new(1_000, Duration::from_secs(1), 2_000),
            Quota::new(7, Duration::from_secs(3), random.u64(1..1_000)),
            Quota::new(900_000_007, Duration::from_secs(1), 123_456_789),
        ];
        let quotas = quotas.map(Result::unwrap);
        // Some runs stay with one quota, others change it.
        let count = if seed % 2 == 0 { 1 } else { random.usize(2..=3) };
        let quotas = &quotas[random.usize(..=quotas.len() - count)..][..count];
        let terms: Vec<_> = quotas.iter().map(|quota| CentralTerms::Bucket(*quota)).collect();
        assert!(terms.iter().all(CentralTerms::are_exact));
        let fill = |quota: &Quota| quota.time_to_earn(1) * u32::try_from(quota.burst()).unwrap() * 4;
        let idle = quotas.iter().map(fill).max().unwrap();
        let change = |count: &mut CentralBucket, terms: &CentralTerms| {
            if let CentralTerms::Bucket(quota) = terms {
                count.change(quota);
            }
        };
        let fresh = || CentralBucket::full(&quotas[0]);
        compare(
            &mut executor,
            &mut random,
            &terms,
            quotas[0].burst(),
            idle,
            fresh,
            change,
            |_, _, _| None,
        )
        .await;
    }
}

#[tokio::test]
async fn the_script_of_a_window_equals_the_model() {
    let Some(mut executor) = Executor::start().await else {
        return;
    };
    let windows = [
        CentralTerms::SHORTEST_WINDOW,
        Duration::from_nanos(1_234_567),
        Duration::from_millis(100),
        Duration::from_secs(1),
        Duration::from_secs(60),
        Duration::from_secs(7 * 86_400) + Duration::from_nanos(1),
        WindowQuota::LONGEST,
    ];
    for seed in seeds() {
        let mut random = Rng::with_seed(seed);
        let limit = random.u64(1..=if seed % 2 == 0 { 20 } else { WindowQuota::MOST });
        let quota = WindowQuota::new(limit, windows[seed as usize % windows.len()]).unwrap();
        let idle = quota.window().mul_f64(1.02);
        let terms = [CentralTerms::Window(quota)];
        let fresh = || CentralWindow::new(&quota);
        let (change, set_used) = (|_: &mut _, _: &_| (), |_: &mut _, _, _| None);
        compare(&mut executor, &mut random, &terms, limit, idle, fresh, change, set_used).await;
    }
}

#[tokio::test]
async fn the_script_of_a_quota_equals_the_model() {
    let Some(mut executor) = Executor::start().await else {
        return;
    };
    let periods = [Every::Minute, Every::Hour, Every::Day, Every::Week, Every::Month];
    for seed in seeds() {
        let mut random = Rng::with_seed(seed);
        let limit = *random.choice([3, 1_000, CalendarQuota::MOST].iter()).unwrap();
        let every = periods[seed as usize % periods.len()];
        let quota = CalendarQuota::new(limit, every).unwrap();
        let idle = every.end(at(0)).elapsed().max(Duration::from_secs(31 * 86_400));
        // A clock that was set back lengthens the period.
        let idle = idle * 3;
        let terms = [CentralTerms::Calendar(quota)];
        let fresh = || CentralQuota::new(quota);
        let set_used = |model: &mut Central<CentralQuota>, now, used| Some(model.set_used(now, used));
        let change = |_: &mut _, _: &_| ();
        compare(&mut executor, &mut random, &terms, limit, idle, fresh, change, set_used).await;
    }
}

#[tokio::test]
async fn the_script_of_slots_equals_the_model() {
    let Some(mut executor) = Executor::start().await else {
        return;
    };
    for seed in seeds() {
        let mut random = Rng::with_seed(seed);
        let heartbeat = Duration::from_micros(*random.choice([50_000, 1_000_000, 999_999].iter()).unwrap());
        let common = Common::new("x:", heartbeat * 2, heartbeat, false);
        let key = executor.begin().await;
        let cap = random.u32(..100);
        let mut model = CentralSlots::new(cap, heartbeat);
        let mut sequences = [0u64; 5];
        let mut now = random.u64(1_600_000_000_000_000..2_500_000_000_000_000);
        for _ in 0..5 {
            let (mut commands, mut expected) = (Vec::new(), Vec::new());
            for _ in 0..TOGETHER {
                now = next_time(&mut random, now, u64::try_from(heartbeat.as_micros()).unwrap());
                let which = random.usize(..sequences.len());
                sequences[which] += u64::from(random.u32(..10) > 0);
                let request = SlotRequest {
                    replica: u64::MAX - which as u64,
                    sequence: sequences[which] - u64::from(sequences[which] > 0 && random.u32(..20) == 0),
                    wanted: if random.u32(..50) == 0 {
                        u32::MAX
                    } else {
                        random.u32(..60)
                    },
                };
                expected.push(model.execute(at(now), &request));
                let command = Command {
                    key: key.clone(),
                    terms: CentralTerms::Slots(cap),
                    ask: Ask::Slots(request),
                };
                commands.push((now, command));
            }
            let answers = executor.execute(&common, &commands).await;
            for (((now, command), reply), (answer, kept)) in commands.iter().zip(expected).zip(answers) {
                assert_eq!(answer, Answer::Slots(reply), "{command:?} at {now}");
                let range = (heartbeat * 2).as_millis()..=(heartbeat * 2).as_millis() + 1_002;
                assert!(range.contains(&u128::from(kept)), "kept {kept} ms");
            }
        }
    }
}
