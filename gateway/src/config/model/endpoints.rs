//! Where the endpoints of a backend come from: a list in the config, or a source that is asked while the gateway runs.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use http::uri::Authority;

use super::endpoint::Endpoint;
use super::ranges::{HOUR, MS};
use crate::config::asked::Shape;
use crate::config::fields::Fields;
use crate::config::hint;
use crate::config::mistake::{Code, Mistake};
use crate::config::reader::Read;
use crate::config::scalar::{Scalar, Wrong, words};
use crate::config::single::Single;
use crate::config::span::{At, Span};
use crate::config::tree::Kind;
use crate::config::value::Value;

/// Where the endpoints of a backend come from.
#[derive(Debug, Clone, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one for each backend, and only while a config is read"
)]
pub enum Endpoints {
    /// At least one.
    Listed(Vec<Endpoint>),
    Found(EndpointSource),
}

/// A source that tells, while the gateway runs, where the service is. Exactly one of `dns`, `srv`, `file` and
/// `kubernetes`.
#[derive(Debug, Clone, PartialEq)]
pub struct EndpointSource {
    /// Place of the key that says which source it is.
    pub at: Span,
    /// Name whose addresses are the endpoints, each one of its own. The resolver of the system is asked.
    pub dns: Option<At<HostName>>,
    /// DNS service (RFC 2782) whose records have the hosts, ports and weights of the endpoints. Name servers are asked
    /// for it directly, again when the records expire: after 1 to 60 seconds.
    pub srv: Option<At<HostName>>,
    /// File with `endpoints: [{ url, weight }]`, which is read again when it changes.
    pub file: Option<At<PathBuf>>,
    /// Kubernetes service whose ready pods are the endpoints. Its endpoint slices are watched.
    pub kubernetes: Option<KubernetesService>,
    /// `dns` alone: the port; that of the scheme unless it is written.
    pub port: Option<At<u16>>,
    /// Whether the endpoints are spoken to in TLS: `http` or `https`. In a `file` each URL says it. The certificate must
    /// be one of the name that is looked up, or of `tls.server_name`.
    pub scheme: At<Scheme>,
    /// `dns` alone: time between two lookups, 10 % more or less. When a connection to an endpoint fails, the name is
    /// looked up at once, but not more than once a second.
    pub refresh: At<Duration>,
    /// `srv` alone: name server that is asked, as `address:port`; those of the system unless it is written.
    pub name_server: Option<At<SocketAddr>>,
    /// How long the last endpoints are kept while the source fails or lists none. Those of a `file` are kept for as long
    /// as it is wrong, unless this is written.
    pub keep: At<Duration>,
}

/// A Kubernetes service.
#[derive(Debug, Clone, PartialEq)]
pub struct KubernetesService {
    /// Namespace of the service.
    pub namespace: At<String>,
    /// Name of the service.
    pub service: At<String>,
    /// Port of the pods: its name in the service, or its number in the pods.
    pub port: At<SlicePort>,
    /// URL of the Kubernetes API; the one that a pod is told unless it is written.
    pub api: Option<At<String>>,
    /// File with the token that is shown to the API, read again for each request; that of the pod unless it is written.
    pub token_file: Option<At<PathBuf>>,
    /// Certificate authorities of the API; those of the pod unless it is written.
    pub ca_file: Option<At<PathBuf>>,
}

words! {
    /// Whether endpoints are spoken to in TLS.
    pub enum Scheme { Http = "http", Https = "https" }
}

/// Name that DNS can be asked for, without a dot at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostName(pub String);

/// Port in an endpoint slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlicePort {
    Name(String),
    Number(u16),
}

/// Keys of which a source has exactly one.
const SOURCES: [&str; 4] = ["dns", "srv", "file", "kubernetes"];
/// Keys of an endpoint.
const OF_ENDPOINTS: [&str; 2] = ["url", "weight"];

impl Endpoints {
    /// Kind of value: a list, or the section of a source.
    pub(super) const SHAPE: Shape = Shape::Either(&[Shape::List(&Shape::Section), Shape::Section]);

    /// Returns the endpoints that the config lists.
    pub fn listed(&self) -> &[Endpoint] {
        match self {
            Self::Listed(all) => all,
            Self::Found(_) => &[],
        }
    }

    /// Returns the source, if they are not listed.
    pub const fn source(&self) -> Option<&EndpointSource> {
        match self {
            Self::Listed(_) => None,
            Self::Found(source) => Some(source),
        }
    }

    /// Returns whether TLS is spoken with any endpoint; `None` if only a file of endpoints says it.
    pub fn is_secure(&self) -> Option<bool> {
        match self {
            Self::Listed(all) => Some(all.iter().any(|endpoint| endpoint.url.is_secure)),
            Self::Found(source) => source.is_secure(),
        }
    }

    /// Returns the place of the first endpoint, or of the source.
    pub fn span(&self) -> Option<Span> {
        match self {
            Self::Listed(all) => all.iter().filter_map(|endpoint| endpoint.url.span()).min(),
            Self::Found(source) => Some(source.at),
        }
    }
}

impl EndpointSource {
    /// Returns the word for the source: its key.
    pub const fn kind(&self) -> &'static str {
        match (&self.dns, &self.srv, &self.file) {
            (Some(_), ..) => SOURCES[0],
            (_, Some(_), _) => SOURCES[1],
            (.., Some(_)) => SOURCES[2],
            _ => SOURCES[3],
        }
    }

    /// Returns whether the endpoints are spoken to in TLS; `None` for a file, whose URLs say it.
    pub fn is_secure(&self) -> Option<bool> {
        self.file.is_none().then(|| *self.scheme == Scheme::Https)
    }
}

/// Reads the endpoints of a backend.
pub(super) fn endpoints(f: &mut Fields<'_>) -> Option<Endpoints> {
    let value = f.required_value_of("endpoints", Endpoints::SHAPE)?;
    let has = |value: &Value<'_>, names: &[&str]| keys(value).any(|key| names.contains(&key));
    if has(&value, &SOURCES) || (value.is_map() && !has(&value, &OF_ENDPOINTS)) {
        return EndpointSource::read(&value).map(Endpoints::Found);
    }
    let in_list = value.items().into_iter().find(|item| has(item, &SOURCES));
    if let Some(item) = in_list {
        let alone = value.items().len() == 1;
        let message = format!("`{}` has a source in a list", value.path);
        f.push(Mistake::new(Code::Conflict, item.node.span, message).hint(if alone {
            "a source stands alone: take the brackets out"
        } else {
            ONE_SOURCE
        }));
        return None;
    }
    f.required_list("endpoints").map(Endpoints::Listed)
}

const ONE_SOURCE: &str = "a backend has one source: keep one here, make a backend of its own for the other, and \
                          `split` the route between them";

/// Returns the keys of a map.
fn keys<'a>(value: &Value<'a>) -> impl Iterator<Item = &'a str> {
    let entries = match &value.node.kind {
        Kind::Map(entries) => entries.as_slice(),
        Kind::Scalar { .. } | Kind::List(_) => &[],
    };
    entries.iter().map(|(key, _)| key.text.as_str())
}

impl Read for EndpointSource {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ dns: $ }"],
        sample: "{ dns: users.internal, port: 8080 }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let kind = one_source(f);
            let (dns, srv, file): (Option<At<HostName>>, Option<At<HostName>>, _) =
                (f.optional("dns"), f.optional("srv"), f.path("file"));
            let kubernetes = f.optional("kubernetes");
            let port = f.optional("port").map(|port| f.held_to("port", port, 1..=u16::MAX));
            let scheme = f.or("scheme", Scheme::Http);
            let refresh = f.within("refresh", Duration::from_secs(10), 100 * MS..=24 * HOUR);
            let name_server: Option<At<SocketAddr>> = f.optional("name_server");
            let keep = f.within("keep", Duration::from_secs(600), Duration::ZERO..=30 * 24 * HOUR);
            let (kind, at) = kind?;
            for (key, of, written) in [
                ("port", "dns", port.as_ref().and_then(At::span)),
                ("refresh", "dns", refresh.span()),
                ("name_server", "srv", name_server.as_ref().and_then(At::span)),
                ("scheme", "", scheme.span().filter(|_| kind == "file")),
            ] {
                if let Some(span) = written.filter(|_| kind != of) {
                    f.push(no_use(f.path, key, span, kind, at));
                }
            }
            if dns.is_none() && srv.is_none() && file.is_none() && kubernetes.is_none() {
                return None;
            }
            Some(Self {
                at,
                dns,
                srv,
                file,
                kubernetes,
                port,
                scheme,
                refresh,
                name_server,
                keep,
            })
        })?
    }
}

/// Returns the key that says which source it is, with its place. None or several are a mistake.
fn one_source(f: &mut Fields<'_>) -> Option<(&'static str, Span)> {
    let mut written = Vec::new();
    for name in SOURCES {
        written.extend(f.value(name).map(|value| (name, value.key)));
    }
    match written.as_slice() {
        [] => {
            let choice = hint::one_of(SOURCES.into_iter()).unwrap_or_default();
            let message = format!("`{}` needs {choice}", f.path);
            f.push(Mistake::new(Code::MissingKey, f.at, message).hint("write for example `dns: users.internal`"));
            None
        }
        [only] => Some(*only),
        [(first, at), others @ ..] => {
            for (other, key) in others {
                let message = format!("`{}` cannot have both `{first}` and `{other}`", f.path);
                f.push(
                    Mistake::new(Code::Conflict, *key, message)
                        .related(*at, "and this one")
                        .hint(ONE_SOURCE),
                );
            }
            None
        }
    }
}

fn no_use(path: &str, key: &str, span: Span, kind: &str, at: Span) -> Mistake {
    let why = match (key, kind) {
        ("scheme", _) => "leave it out: each URL of the file has its own",
        ("port", "srv") => "leave it out: the records of the service have the ports",
        ("port", "kubernetes") => "leave it out: the `port` within `kubernetes` says it",
        ("port", _) => "leave it out: each URL of the file has its own",
        ("refresh", "srv") => "leave it out: the records say how long they hold",
        ("refresh", _) => "leave it out: changes are noticed at once",
        ("name_server", "dns") => {
            "leave it out: the resolver of the system is asked; `srv` in place of `dns`, without `port` and `refresh`, asks \
             another"
        }
        _ => "leave it out: no name server is asked",
    };
    Mistake::new(Code::Conflict, span, format!("`{path}.{key}` is of no use"))
        .related(at, "does not need it")
        .hint(why)
}

impl Read for KubernetesService {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ namespace: default, service: $, port: http }"],
        sample: "{ namespace: default, service: users, port: http }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let namespace: Option<At<String>> = f.required("namespace");
            let service: Option<At<String>> = f.required("service");
            let port = f.required("port");
            let api: Option<At<String>> = f.optional("api");
            let (token_file, ca_file) = (f.other_path("token_file"), f.other_path("ca_file"));
            for (key, name) in [("namespace", &namespace), ("service", &service)] {
                check_label(f, key, name.as_ref());
            }
            if let Some(url) = api.as_ref().filter(|url| !is_api(url)) {
                let message = format!("`{}.api` must be a URL such as `https://10.96.0.1:443`", f.path);
                f.push(Mistake::new(Code::BadValue, url.span(), message));
            }
            Some(Self {
                namespace: namespace?,
                service: service?,
                port: port?,
                api,
                token_file,
                ca_file,
            })
        })?
    }
}

/// Reports a name that Kubernetes could not have given (RFC 1123 label).
fn check_label(f: &Fields<'_>, key: &str, name: Option<&At<String>>) {
    let is_label = |name: &str| {
        !name.is_empty()
            && name.len() <= 63
            && name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    if let Some(wrong) = name.filter(|name| !is_label(name)) {
        let message = format!("`{}.{key}` must be a name in Kubernetes", f.path);
        f.push(
            Mistake::new(Code::BadValue, wrong.span(), message)
                .label("has other characters than small letters, digits and `-`, or too many"),
        );
    }
}

fn is_api(url: &str) -> bool {
    url.parse::<Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some() && uri.query().is_none()
    })
}

impl Scalar for HostName {
    const EXPECTED: &'static str = "a name such as `users.internal`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let wrong = |label: &str| Wrong::new(Code::BadValue, label);
        if text.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() || text.parse::<SocketAddr>().is_ok() {
            let hint = format!("write `endpoints: [{{ url: \"http://{text}\" }}]` in place of `dns`");
            return Err(wrong("is an address, not a name").hint(hint));
        }
        if let Some((_, host)) = text.split_once("://") {
            let host = host.split(['/', ':']).next().unwrap_or_default();
            return Err(wrong("is a URL, not a name").hint(format!("did you mean `{host}`?")));
        }
        if let Some((host, port)) = text.split_once(':') {
            return Err(wrong("has a port").hint(format!("did you mean `{host}`, with `port: {port}` beside it?")));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let is_label = |label: &str| (1..=63).contains(&label.len());
        let is_good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if name.len() > 253 || !name.split('.').all(is_label) || !name.bytes().all(is_good) {
            return Err(wrong("is not a name in DNS"));
        }
        match name.parse::<Authority>() {
            Ok(authority) if authority.as_str() == name => Ok(Self(name.to_owned())),
            _ => Err(wrong("is not a name in DNS")),
        }
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

impl Scalar for SlicePort {
    const EXPECTED: &'static str = "a port's name or number";

    fn parse(text: &str) -> Result<Self, Wrong> {
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return match text.parse() {
                Ok(port) if port > 0 => Ok(Self::Number(port)),
                _ => Err(Wrong::new(Code::OutOfRange, "is not between 1 and 65535")),
            };
        }
        let is_good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if text.len() > 15 || !text.bytes().all(is_good) {
            return Err(Wrong::new(Code::BadValue, "is not the name of a port in Kubernetes"));
        }
        Ok(Self::Name(text.to_owned()))
    }

    fn show(&self) -> String {
        match self {
            Self::Name(name) => name.clone(),
            Self::Number(port) => port.to_string(),
        }
    }
}
