//! Measures the cost of finding a route among many that differ in one condition, and the cost with one route.
//!
//! Prints Markdown, and fails if the cost among 10,000 routes is more than three times the cost with one.
//! `cargo bench -p load --bench routing`.

use std::hint::black_box;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Instant;

use gateway::message::FieldMap;
use gateway::routing::{Condition, Is, NormalPath, Spec, Table};
use gateway::template::Query;
use http::{HeaderName, HeaderValue, Method};

/// Number of routes that are compared with one.
const MANY: usize = 10_000;
const MOST_TIMES: f64 = 3.0;
const ROUNDS: usize = 15;
const REQUESTS: u32 = 2_000;

struct Case {
    name: &'static str,
    /// Returns the condition of the route with this number.
    condition: fn(usize) -> Condition,
    query: String,
    headers: FieldMap,
}

fn main() -> io::Result<ExitCode> {
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "Microseconds to find a route, its query taken apart anew each time; medians of {ROUNDS} interleaved rounds.\n"
    )?;
    writeln!(
        out,
        "| request | one route | {MANY} routes | times |\n|---|--:|--:|--:|"
    )?;
    let mut is_slow = false;
    for case in cases() {
        let (one, many) = (table(1, case.condition), table(MANY, case.condition));
        let (mut of_one, mut of_many) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            of_one.push(time(&one, &case));
            of_many.push(time(&many, &case));
        }
        let (of_one, of_many) = (median(of_one), median(of_many));
        let times = of_many / of_one;
        is_slow |= times > MOST_TIMES;
        writeln!(out, "| {} | {of_one:.2} | {of_many:.2} | {times:.2} |", case.name)?;
    }
    if is_slow {
        writeln!(out, "\nMore than {MOST_TIMES} times.")?;
    }
    Ok(ExitCode::from(u8::from(is_slow)))
}

fn cases() -> Vec<Case> {
    let in_query = |number: usize| Condition::Query {
        name: "v".to_owned(),
        is: Is::Exactly(number.to_string()),
    };
    let in_header = |number: usize| Condition::Header {
        name: HeaderName::from_static("x-v"),
        is: Is::Exactly(number.to_string()),
    };
    let names = |number: usize| Condition::Header {
        name: HeaderName::try_from(format!("x-{number}")).expect("a name"),
        is: Is::Exactly("1".to_owned()),
    };
    let usual = [
        ("host", "a"),
        ("accept", "*/*"),
        ("user-agent", "b"),
        ("x-v", "0"),
        ("x-0", "1"),
    ];
    let headers: FieldMap = usual
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .into_iter()
        .collect();
    let case = |name, condition, query: &str| Case {
        name,
        condition,
        query: query.to_owned(),
        headers: headers.clone(),
    };
    let others = |pair: &str| pair.repeat(7_600 / pair.len());
    vec![
        case("one parameter", in_query, "v=0"),
        case("a few parameters", in_query, "page=2&sort=name&v=0&limit=20"),
        case("7.6 KB of other parameters", in_query, &(others("abcdefg=&") + "v=0")),
        case("7.6 KB of encoded ones", in_query, &(others("%61%62%63=%64&") + "v=0")),
        case("7.6 KB of the same", in_query, &(others("v=123456&") + "v=0")),
        case("7.6 KB of different values", in_query, &different()),
        case("a header", in_header, ""),
        case("headers of different names", names, ""),
    ]
}

/// Returns a request's values, each of which matches a route if there are many.
fn different() -> String {
    let values: Vec<String> = (0..900).map(|value| format!("v={}", value * 11)).collect();
    values.join("&")
}

fn table(routes: usize, condition: fn(usize) -> Condition) -> Table<usize> {
    let specs = (0..routes).map(|number| Spec {
        name: format!("r{number}").into(),
        hosts: Vec::new(),
        paths: vec!["/search".to_owned()],
        prefixes: Vec::new(),
        // Methods differ, so that routes with conditions on different header fields do not tie.
        methods: vec![Method::from_bytes(format!("M{number}").as_bytes()).expect("a token")],
        conditions: vec![condition(number)],
        target: number,
    });
    Table::build(specs.collect()).expect("no mistakes")
}

/// Returns the microseconds for one lookup.
fn time(table: &Table<usize>, case: &Case) -> f64 {
    let path = NormalPath::parse("/search").expect("it is normal");
    let method = Method::from_bytes(b"M0").expect("a token");
    let began = Instant::now();
    for _ in 0..REQUESTS {
        let query = Query::new(black_box(Some(&case.query)));
        let found = table.find("a", &path, &method, &case.headers, &query);
        assert_eq!(found.map(|found| *found.target).ok(), Some(0), "{}", case.name);
    }
    began.elapsed().as_secs_f64() * 1e6 / f64::from(REQUESTS)
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}
