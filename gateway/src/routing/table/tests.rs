use http::header::HeaderName;
use proptest::prelude::*;

use super::*;
use crate::routing::condition::PathParameters;
use crate::routing::{Is, Regex};

/// Parses a route from a line: name, hosts, paths, and methods followed by conditions, as in
/// `GET,PUT?h:x-canary=yes,q:beta,p:id~[0-9]+`. A path that ends in `**` is a prefix. A `-` leaves a column out. The
/// target is the name.
fn spec(line: &str) -> Spec<String> {
    let [name, hosts, paths, last] = *line.split_whitespace().collect::<Vec<_>>() else {
        panic!("{line}: four words")
    };
    let list = |text: &str| -> Vec<String> { text.split(',').filter(|item| *item != "-").map(str::to_owned).collect() };
    let (methods, conditions) = last.split_once('?').unwrap_or((last, "-"));
    Spec {
        name: name.into(),
        hosts: list(hosts),
        paths: list(paths).into_iter().filter(|path| !path.ends_with("**")).collect(),
        prefixes: list(paths)
            .iter()
            .filter_map(|path| path.strip_suffix("**").map(str::to_owned))
            .collect(),
        methods: list(methods)
            .iter()
            .map(|method| method.parse().expect("a token"))
            .collect(),
        conditions: list(conditions).iter().map(|text| condition(text)).collect(),
        target: name.to_owned(),
    }
}

fn condition(text: &str) -> Condition {
    let (kind, rest) = text.split_once(':').expect("a kind");
    let (name, is) = match (rest.split_once('='), rest.split_once('~')) {
        (_, Some((name, regex))) => (name, Is::Matching(Regex::parse(regex).expect("well formed"))),
        (Some((name, value)), None) => (name, Is::Exactly(value.to_owned())),
        (None, None) => (rest, Is::Present),
    };
    match kind {
        "h" => Condition::Header {
            name: HeaderName::from_bytes(name.as_bytes()).expect("a name"),
            is,
        },
        "p" => Condition::Path {
            name: name.to_owned(),
            is,
        },
        _ => Condition::Query {
            name: name.to_owned(),
            is,
        },
    }
}

fn table(lines: &[&str]) -> Table<String> {
    Table::build(lines.iter().map(|line| spec(line)).collect()).expect("no mistakes")
}

/// Returns the result for `METHOD host path?query` as `name key=capture...`, `none`, or `allow METHODS`.
fn find(table: &Table<String>, request: &str, headers: &FieldMap) -> String {
    let [method, host, target] = *request.split_whitespace().collect::<Vec<_>>() else {
        panic!("{request}")
    };
    let (path, query) = target
        .split_once('?')
        .map_or((target, None), |(path, query)| (path, Some(query)));
    let path = NormalPath::parse(path).expect("a normal path");
    let host = if host == "-" { "" } else { host };
    match table.find(
        host,
        &path,
        &method.parse().expect("a token"),
        headers,
        &Query::new(query),
    ) {
        Ok(found) => found
            .captures
            .iter()
            .fold(found.target.clone(), |out, (name, text)| format!("{out} {name}={text}")),
        Err(NotFound::NoRoute) => "none".to_owned(),
        Err(NotFound::TooManyParameters) => "too many".to_owned(),
        Err(NotFound::TwoRoutes) => "two routes".to_owned(),
        Err(NotFound::MethodNotAllowed { allow, .. }) => format!("allow {}", allow.to_str().expect("ASCII")),
    }
}

fn check(table: &Table<String>, request: &str, expected: &str) {
    assert_eq!(find(table, request, &FieldMap::new()), expected, "{request}");
}

#[test]
fn literal_beats_parameter_beats_wildcard() {
    let table = table(&[
        "root - / -",
        "all - /{*rest} -",
        "user - /users/{id} -",
        "me - /users/me -",
        "below - /users/{id}/{*rest} -",
        "orders - /users/{id}/orders -",
        "mine - /users/me/orders -",
        "files - /files/{*rest} -",
        "file - /files/{name} -",
    ]);
    check(&table, "GET - /", "root");
    check(&table, "GET - /users/17", "user id=17");
    check(&table, "GET - /users/me", "me");
    check(&table, "GET - /users/m%65", "me");
    check(&table, "GET - /users/17/orders", "orders id=17");
    check(&table, "GET - /users/me/orders", "mine");
    check(&table, "GET - /users/me/carts", "below id=me rest=carts");
    check(&table, "GET - /users/me/carts/1/", "below id=me rest=carts/1/");
    check(&table, "GET - /files/a.txt", "file name=a.txt");
    check(&table, "GET - /files/a/b.txt", "files rest=a/b.txt");
    check(&table, "GET - /files/", "all rest=files/");
    check(&table, "GET - /users/", "all rest=users/");
    check(&table, "GET - /USERS/17", "all rest=USERS/17");
}

/// A server that cuts path parameters off applies the rules of the same route.
#[test]
fn no_parameter_of_a_path_leads_around_a_route() {
    let table = table(&[
        "all - /{*rest} -",
        "admin - /admin/{*rest} -",
        "root - /admin GET",
        "user - /users/{id} -",
        "me - /users/me -",
        "matrix - /matrix;v=1/{x} -",
        "shop shop.example /{*rest} -",
    ]);
    for path in [
        "/admin;x/users",
        "/admin;/users",
        "/admin%3Bx/users",
        "/;x/admin/users",
        "/admin;x",
        "/admin/;x",
        "/users/me;x=1",
        "/users;v=2/7",
        "/users;a;b/7;c",
        "/ad%6Din;x/users",
    ] {
        check(&table, &format!("GET - {path}"), "two routes");
    }
    // The check holds for every method.
    check(&table, "POST - /admin;x", "two routes");
    check(&table, "GET - /admin/a;x/b", "admin rest=a;x/b");
    check(&table, "GET - /users/7;x=1", "user id=7;x=1");
    check(&table, "GET - /other;x", "all rest=other;x");
    check(&table, "GET - /matrix;v=1/7", "matrix x=7");
    check(&table, "GET - /matrix;v=1/7;y", "matrix x=7;y");
    check(&table, "GET shop.example /admin;x/users", "shop rest=admin;x/users");
}

#[test]
fn the_left_segment_decides_and_the_search_turns_back() {
    let table = table(&[
        "a - /a/{*rest} -",
        "xb - /{x}/b -",
        "xbc - /{x}/b/c -",
        "abd - /a/b/d -",
    ]);
    check(&table, "GET - /a/b", "a rest=b");
    check(&table, "GET - /a/b/c", "a rest=b/c");
    check(&table, "GET - /a/b/d", "abd");
    check(&table, "GET - /z/b", "xb x=z");
    check(&table, "GET - /z/b/c", "xbc x=z");
    check(&table, "GET - /z/b/d", "none");
    check(&table, "GET - /a", "none");
}

#[test]
fn captures_stay_raw() {
    let table = table(&["files - /caf\u{e9}/{a}/{*rest} -"]);
    check(
        &table,
        "GET - /caf%c3%a9/%41%20|/b%7c/%3F",
        "files a=%41%20| rest=b%7c/%3F",
    );
}

#[test]
fn exact_host_beats_wildcard_host_beats_any() {
    let table = table(&[
        "exact api.example.com /{*rest} -",
        "wild *.example.com /a,/w -",
        "deep *.eu.example.com /a -",
        "any - /a,/w,/any -",
        "address [::1] /a -",
    ]);
    check(&table, "GET api.example.com /a", "exact rest=a");
    check(&table, "GET API.Example.com.:8443 /a", "exact rest=a");
    check(&table, "GET www.example.com /a", "wild");
    check(&table, "GET x.y.example.com /a", "wild");
    check(&table, "GET x.eu.example.com /a", "deep");
    check(&table, "GET x.eu.example.com /w", "wild");
    check(&table, "GET eu.example.com /a", "wild");
    check(&table, "GET example.com /a", "any");
    check(&table, "GET badexample.com /a", "any");
    check(&table, "GET www.example.com /any", "any");
    check(&table, "GET [::1]:80 /a", "address");
    check(&table, "GET - /a", "any");
}

#[test]
fn a_wrong_method_is_405_without_looking_further() {
    let table = table(&[
        "read - /users/{id} GET",
        "write - /users/{user} PUT,PATCH",
        "all - /{*rest} -",
        "head - /users/{id} HEAD",
        "cors - /cors OPTIONS,GET",
        "odd - /odd PURGE,GET",
    ]);
    check(&table, "GET - /users/1", "read id=1");
    check(&table, "PUT - /users/1", "write user=1");
    check(&table, "HEAD - /users/1", "head id=1");
    check(&table, "HEAD - /cors", "cors");
    check(&table, "DELETE - /users/1", "allow GET, HEAD, PUT, PATCH");
    check(&table, "OPTIONS - /users/1", "allow GET, HEAD, PUT, PATCH");
    check(&table, "OPTIONS - /else", "allow GET, HEAD, POST, PUT, PATCH, DELETE");
    check(&table, "OPTIONS - /cors", "cors");
    check(&table, "POST - /odd", "allow GET, HEAD, PURGE");
    check(&table, "PURGE - /else", "all rest=else");
    for refused in ["CONNECT", "TRACE"] {
        check(
            &table,
            &format!("{refused} - /else"),
            "allow GET, HEAD, POST, PUT, PATCH, DELETE",
        );
    }
}

#[test]
fn conditions_beat_none_and_let_others_through() {
    let table = table(&[
        "plain - /a GET",
        "canary - /a GET?h:x-canary=yes",
        "beta - /a GET?q:beta,h:x-canary",
        "v1 - /b GET?q:v=1",
        "v2 - /b POST?q:v=2",
        "all - /{*rest} -",
    ]);
    let mut headers = FieldMap::new();
    check(&table, "GET - /a", "plain");
    headers.append("x-canary", HeaderValue::from_static("no"));
    assert_eq!(find(&table, "GET - /a", &headers), "plain");
    headers.append("x-canary", HeaderValue::from_static("yes"));
    assert_eq!(find(&table, "GET - /a", &headers), "canary");
    assert_eq!(find(&table, "GET - /a?x&b%65ta", &headers), "beta");
    check(&table, "GET - /b?v=1", "v1");
    check(&table, "GET - /b?v=0&%76=%31", "v1");
    check(&table, "POST - /b?v=2", "v2");
    check(&table, "GET - /b?v=2", "allow POST");
    check(&table, "GET - /b?v=3", "all rest=b");
}

#[test]
fn conditions_are_found_among_thousands() {
    let lines: Vec<String> = (0..3000)
        .flat_map(|number| {
            [
                format!("q{number} - /a GET?q:v={number}"),
                format!("qp{number} - /a POST?q:v={number}"),
                format!("both{number} - /a GET?q:v={number},q:beta"),
                format!("h{number} - /b GET?h:x-v={number}"),
                format!("many{number} - /c GET?q:same=1,q:n={number},h:x-same=1"),
            ]
        })
        .chain(["plain - /a GET".to_owned(), "all - /{*rest} -".to_owned()])
        .collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let table = table(&lines);
    check(&table, "GET - /a?v=7", "q7");
    check(&table, "POST - /a?x=1&v=2999", "qp2999");
    check(&table, "GET - /a?beta=&v=2999", "both2999");
    check(&table, "GET - /a?v=3000", "plain");
    check(&table, "PUT - /a?v=7", "allow GET, HEAD, POST");
    check(&table, "PUT - /a?v=x", "allow GET, HEAD");
    // If several routes hold, the first in the config is taken.
    check(&table, "GET - /a?v=9&v=8&v=9", "q8");
    let mut headers = FieldMap::new();
    check(&table, "GET - /b", "all rest=b");
    headers.append("x-v", HeaderValue::from_static("5"));
    assert_eq!(find(&table, "GET - /b", &headers), "h5");
    assert_eq!(find(&table, "GET - /c?same=1&n=5", &headers), "all rest=c");
    headers.append("x-same", HeaderValue::from_static("1"));
    assert_eq!(find(&table, "GET - /c?same=1&n=5", &headers), "many5");
    assert_eq!(find(&table, "GET - /c?same=2&n=5", &headers), "all rest=c");
}

#[test]
fn more_parameters_than_are_looked_at_are_refused_where_one_is_asked_for() {
    let table = table(&[
        "any - /a GET",
        "guarded - /a GET?q:admin",
        "free - /b GET",
        "header - /c GET?h:x",
    ]);
    let most = "p&".repeat(crate::template::MOST_PARAMETERS - 1);
    check(&table, &format!("GET - /a?{most}"), "any");
    check(&table, &format!("GET - /a?{most}admin"), "guarded");
    check(&table, &format!("GET - /a?{most}p&admin"), "too many");
    check(&table, &format!("GET - /a?{most}p&q"), "too many");
    check(&table, &format!("POST - /a?{most}p&q"), "too many");
    check(&table, &format!("GET - /b?{most}p&admin"), "free");
    check(&table, &format!("GET - /c?{most}p&admin"), "none");
}

#[test]
fn every_mistake_is_reported() {
    let check = |lines: &[&str], expected: &[&str]| {
        let specs = lines.iter().map(|line| spec(line)).collect();
        let mistakes: Vec<_> = Table::build(specs)
            .expect_err("a mistake")
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(mistakes.len(), expected.len(), "{mistakes:?}");
        for (mistake, part) in mistakes.iter().zip(expected) {
            assert!(mistake.contains(part), "{mistake:?} has no {part:?}");
        }
    };
    check(
        &["a - /x/{id} GET", "b - /x/{name} GET,PUT"],
        &["`a` and `b` both take `/x/{name}` on host `*`"],
    );
    check(&["a - /x -", "b - /x GET"], &["`a` and `b`"]);
    check(&["a H.example. /x -", "b h.example /x -"], &["`a` and `b`"]);
    check(&["a - /caf\u{e9} -", "b - /caf%c3%a9 -"], &["`a` and `b`"]);
    check(&["a - /x -?h:x-a", "b - /x -?q:b"], &["`a` and `b`"]);
    check(&["a - /x,/x GET"], &["`a` has the same host and path twice"]);
    check(
        &["a - - GET", "b - x TRACE", "c h:80,a..b /{ -"],
        &[
            "`a` has no path",
            "`b`: TRACE",
            "`b`, path `x`",
            "`c`, path `/{`",
            "`c`, host `h:80`",
            "`c`, host `a..b`",
        ],
    );
    for fine in [
        &["a - /x GET", "b - /x PUT"],
        &["a - /x -?h:x-a=1", "b - /x -?h:x-a=2"],
        &["a - /x -", "b h /x -"],
        &["a - /x GET", "b - /x HEAD"],
        &["a - /x -", "b - /x OPTIONS"],
        &["a - /x -", "b - /x -?q:b"],
    ] {
        table(fine);
    }
}

/// A simple model: whether a path matches a pattern, and with what precedence.
fn model(pattern: &str, path: &str) -> Option<Vec<u8>> {
    let (mut pattern, mut path) = (pattern[1..].split('/'), path[1..].split('/'));
    let mut ranks = Vec::new();
    loop {
        match (pattern.next(), path.next()) {
            (None, None) => return Some(ranks),
            (Some("{*r}"), Some(first)) => {
                ranks.push(2);
                return (!first.is_empty() || path.next().is_some()).then_some(ranks);
            }
            (Some("{p}" | "{q}"), Some(segment)) if !segment.is_empty() => ranks.push(1),
            (Some(literal), Some(segment)) if literal == segment => ranks.push(0),
            _ => return None,
        }
    }
}

proptest! {
    #![proptest_config(cases::counted())]

    #[test]
    fn the_tree_agrees_with_comparing_every_pattern(
        patterns in prop::collection::btree_set("/(a|b|\\{p\\})(/(a|b|\\{q\\}))?(/[ab])?(/\\{\\*r\\})?", 1..12),
        path in "/[abc](/[abc]){0,3}/?",
    ) {
        let specs = patterns.iter().map(|pattern| spec(&format!("{pattern} - {pattern} -"))).collect();
        let table = Table::build(specs).expect("different shapes");
        let best = patterns.iter().filter_map(|pattern| Some((model(pattern, &path)?, pattern))).min();
        let found = find(&table, &format!("GET - {path}"), &FieldMap::new());
        let expected = best.map_or("none", |(_, pattern)| pattern);
        prop_assert_eq!(found.split(' ').next(), Some(expected));
    }

    #[test]
    fn what_is_filed_is_found_as_if_every_route_were_asked(
        routes in prop::collection::vec((prop::sample::select(vec!["GET", "POST", "-"]), conditions()), 1..20),
        asked in prop::sample::select(vec!["GET", "POST", "PUT", "HEAD"]),
        query in prop::collection::vec((0..3usize, 0..3usize), 0..5),
        fields in prop::collection::vec((0..2usize, 0..3usize), 0..4),
    ) {
        // A route that would tie with an earlier one is left out.
        let mut kept: Vec<Spec<String>> = Vec::new();
        for (number, (methods, conditions)) in routes.into_iter().enumerate() {
            let mut spec = spec(&format!("r{number} - /a {methods}"));
            spec.conditions = conditions;
            kept.push(spec);
            if Table::build(kept.clone()).is_err() {
                kept.pop();
            }
        }
        let query: Vec<String> = query.iter().map(|(name, value)| format!("{}={value}", NAMES[*name])).collect();
        let query = query.join("&");
        let mut headers = FieldMap::new();
        for (name, value) in fields {
            headers.append(["x-a", "x-b"][name], HeaderValue::from(value));
        }
        let parsed = Query::new(Some(&query));
        let none = PathParameters { path: "/a", names: &[], ranges: &Ranges::new() };
        let holds = |spec: &&Spec<String>| {
            spec.conditions.iter().all(|is| is.holds(&headers, &parsed, none).expect("few"))
        };
        let method: Method = asked.parse().expect("a token");
        let methods_of = |spec: &Spec<String>| Methods::new(spec.methods.clone());
        let best = kept
            .iter()
            .filter(holds)
            .filter(|spec| methods_of(spec).admits(&method))
            .min_by_key(|spec| (Reverse(spec.conditions.len()), !methods_of(spec).names(&method)));
        let is_refused = kept.iter().any(|spec| holds(&spec));
        let table = Table::build(kept.clone()).expect("no ties");
        let found = find(&table, &format!("{asked} - /a?{query}"), &headers);
        match best {
            Some(best) => prop_assert_eq!(found, best.target.clone()),
            None if is_refused => prop_assert!(found.starts_with("allow "), "{}", found),
            None => prop_assert_eq!(found, "none"),
        }
    }

    #[test]
    fn ties_are_what_comparing_every_pair_finds(
        routes in prop::collection::vec((prop::sample::select(vec!["GET", "POST", "-"]), conditions()), 2..8),
    ) {
        let specs: Vec<_> = routes
            .into_iter()
            .enumerate()
            .map(|(number, (methods, conditions))| Spec {
                conditions,
                ..spec(&format!("r{number} - /a {methods}"))
            })
            .collect();
        let tie = |one: &Spec<String>, other: &Spec<String>| {
            one.conditions.len() == other.conditions.len()
                && Methods::new(one.methods.clone()).overlap(&Methods::new(other.methods.clone()))
                && !one.conditions.iter().any(|is| other.conditions.iter().any(|other| is.excludes(other)))
        };
        let tied = (0..specs.len()).filter(|later| specs[..*later].iter().any(|earlier| tie(earlier, &specs[*later])));
        let tied: Vec<_> = tied.map(|later| specs[later].name.to_string()).collect();
        let told: Vec<_> = match Table::build(specs) {
            Ok(_) => Vec::new(),
            Err(mistakes) => mistakes.iter().map(|mistake| mistake.route().to_owned()).collect(),
        };
        prop_assert_eq!(told, tied);
    }
}

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Up to three conditions on different subjects.
fn conditions() -> impl Strategy<Value = Vec<Condition>> {
    let is = (0..6usize).prop_map(|value| match value {
        0..3 => Is::Exactly(value.to_string()),
        3 => Is::Matching(Regex::parse("[01]").expect("well formed")),
        4 => Is::Matching(Regex::parse("[^0]").expect("well formed")),
        _ => Is::Present,
    });
    let query = (0..NAMES.len()).prop_map(|name| Condition::Query {
        name: NAMES[name].to_owned(),
        is: Is::Present,
    });
    let header = prop::sample::select(vec!["x-a", "x-b"]).prop_map(|name| Condition::Header {
        name: HeaderName::from_static(name),
        is: Is::Present,
    });
    let one = (prop_oneof![query, header], is).prop_map(|(condition, is)| match condition {
        Condition::Query { name, .. } => Condition::Query { name, is },
        Condition::Header { name, .. } => Condition::Header { name, is },
        Condition::Path { name, .. } => Condition::Path { name, is },
    });
    prop::collection::vec(one, 0..4).prop_map(|mut all| {
        let subject = |condition: &Condition| match condition {
            Condition::Query { name, .. } => format!("?{name}"),
            Condition::Header { name, .. } => name.to_string(),
            Condition::Path { name, .. } => format!("{{{name}}}"),
        };
        all.sort_by_key(subject);
        all.dedup_by_key(|condition| subject(condition));
        all
    })
}

#[test]
fn a_prefix_takes_its_path_and_all_below() {
    let table = table(&[
        "shop - /shop** -",
        "cart - /shop/cart -",
        "api - /api/{version}/** GET",
        "home home.example /** -",
    ]);
    check(&table, "GET - /shop", "shop rest=");
    check(&table, "GET - /shop/", "shop rest=");
    check(&table, "GET - /shop/a", "shop rest=a");
    check(&table, "GET - /shop/a/b/", "shop rest=a/b/");
    check(&table, "GET - /shop/caf%c3%a9", "shop rest=caf%c3%a9");
    check(&table, "GET - /shop/cart", "cart");
    check(&table, "GET - /shop/cart/", "shop rest=cart/");
    check(&table, "GET - /shopping", "none");
    check(&table, "GET - /sh%6Fp", "shop rest=");
    check(&table, "GET - /api/v1", "api version=v1 rest=");
    check(&table, "GET - /api/v1/users", "api version=v1 rest=users");
    check(&table, "GET - /api", "none");
    check(&table, "GET - /api/", "none");
    check(&table, "POST - /api/v1", "allow GET, HEAD");
    check(&table, "GET home.example /", "home rest=");
    check(&table, "GET home.example /a", "home rest=a");
}

#[test]
fn prefixes_and_paths_tie_where_they_take_the_same_path() {
    let tie = |lines: &[&str]| {
        let built = Table::build(lines.iter().map(|line| spec(line)).collect());
        let mistakes = built.err().unwrap_or_default();
        mistakes.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert!(tie(&["a - /shop** -", "b - /shop/{*all} -"]).len() == 1);
    assert!(tie(&["a - /shop** -", "b - /shop -"]).len() == 1);
    assert!(tie(&["a - /shop** -", "b - /shop/** -"]).len() == 3);
    assert!(tie(&["a - /shop** -", "b - /shop/{id} -", "c - /** -"]).is_empty());
    let nested = tie(&["a - /shop/{*x}/** -"]);
    assert!(nested[0].contains("a wildcard takes all that is left"), "{nested:?}");
    let repeated = tie(&["a - /shop/{rest}** -"]);
    assert!(repeated[0].contains("the name `rest` is used twice"), "{repeated:?}");
}

#[test]
fn conditions_can_be_expressions() {
    let table = table(&[
        "number - /users/{id} -?p:id~[0-9]+",
        "name - /users/{id} -?p:id~[a-z]+",
        "other - /users/{id} -",
        "v1 - /v -?h:x-v~1([.][0-9]+)?",
        "v2 - /v -?h:x-v~2([.][0-9]+)?",
        "page - /q -?q:page~[1-9][0-9]*",
        "all - /q -",
        "both - /both/{id} -?p:id~[0-9]+,h:x-v~1",
        "one - /both/{id} -?p:id~[0-9]+",
        "files - /files** -?p:rest~.*[.]txt",
    ]);
    check(&table, "GET - /users/42", "number id=42");
    check(&table, "GET - /users/%34%32", "number id=%34%32");
    check(&table, "GET - /users/ada", "name id=ada");
    check(&table, "GET - /users/Ada", "other id=Ada");
    check(&table, "GET - /q?page=12", "page");
    check(&table, "GET - /q?page=0&page=3", "page");
    check(&table, "GET - /q?page=0", "all");
    check(&table, "GET - /q?page", "all");
    check(&table, "GET - /files/a/b.txt", "files rest=a/b.txt");
    check(&table, "GET - /files", "none");
    check(&table, "GET - /files/a", "none");
    let versioned = |version: &'static str, request: &str, expected: &str| {
        let headers = FieldMap::from_iter([(HeaderName::from_static("x-v"), HeaderValue::from_static(version))]);
        assert_eq!(find(&table, request, &headers), expected, "{version} {request}");
    };
    versioned("1.7", "GET - /v", "v1");
    versioned("2", "GET - /v", "v2");
    versioned("3", "GET - /v", "none");
    versioned("1", "GET - /both/7", "both id=7");
    versioned("2", "GET - /both/7", "one id=7");
    versioned("1", "GET - /both/x", "none");
}

#[test]
fn expressions_that_have_a_value_in_common_tie() {
    let ties = |one: &str, other: &str| {
        let lines = [format!("a - /x/{{id}} -?{one}"), format!("b - /x/{{id}} -?{other}")];
        Table::build(lines.iter().map(|line| spec(line)).collect()).is_err()
    };
    for (one, other, expected) in [
        ("p:id~[0-9]+", "p:id~[a-z]+", false),
        ("p:id~[0-9]+", "p:id~[0-9a-f]+", true),
        ("h:x~a.*", "h:x=b", false),
        ("h:x~a.*", "h:x=ab", true),
        ("h:x~a.*", "h:x", true),
        ("h:x~a", "q:x~b", true),
        ("q:x~a", "q:x~b", false),
    ] {
        assert_eq!(ties(one, other), expected, "{one} {other}");
    }
}

#[test]
fn expressions_of_one_path_are_bounded() {
    let lines: Vec<_> = (0..=MOST_REGEXES)
        .map(|number| format!("r{number} - /x -?h:x~{number}"))
        .collect();
    let build = |lines: &[String]| Table::build(lines.iter().map(|line| spec(line)).collect()).err();
    assert_eq!(build(&lines[1..]), None);
    let mistakes = build(&lines).expect("one too many");
    assert!(mistakes[0].to_string().contains("one of more than 100"), "{mistakes:?}");
}
