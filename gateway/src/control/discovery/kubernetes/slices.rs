//! Reads EndpointSlices and merges them into the endpoints of a service.
//!
//! Does no IO. Of an endpoint, the first address counts, because the others have no meaning (Kubernetes API,
//! EndpointSlice v1). An endpoint that stands in two slices, as it may for a moment when slices are rearranged, counts
//! once.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use serde::Deserialize;

use super::lines::MAX_LINE;
use crate::call::endpoints::{Readiness, SlicePort};
use crate::json::{self, Document};

/// Maximum number of slices of a service.
pub(super) const MOST_SLICES: usize = 256;
/// Maximum number of endpoints of a slice, as in the Kubernetes API.
const MOST_IN_SLICE: usize = 1000;
/// Maximum length in bytes of a name or a version.
const MAX_TEXT: usize = 1024;

/// Slices of a service.
pub(super) struct Slices {
    port: SlicePort,
    by_name: BTreeMap<String, Content>,
    /// Whether there are more than [`MOST_SLICES`].
    has_rest: bool,
}

/// Part of a slice that matters.
#[derive(Default)]
struct Content {
    endpoints: Vec<(SocketAddr, Readiness)>,
    /// Number of endpoints that get no calls now.
    unready: usize,
    /// Number of endpoints beyond [`MOST_IN_SLICE`].
    left_out: usize,
    /// What makes the whole slice unusable.
    flaw: Option<Flaw>,
}

enum Flaw {
    /// The addresses are names.
    Names,
    /// The slice does not have the port, but these.
    Ports(Vec<WrittenPort>),
}

/// Slice as the API server gives it.
#[derive(Debug)]
pub(super) struct Slice {
    pub(super) name: String,
    pub(super) version: String,
    written: Written,
}

/// Page of a list of slices.
pub(super) struct Page {
    pub(super) slices: Vec<Slice>,
    pub(super) version: String,
    /// Position of the next page. Empty for the last.
    pub(super) rest: String,
}

/// Event of a watch.
#[derive(Debug)]
pub(super) enum Event {
    /// The slice is new or has changed.
    Put(Slice),
    Deleted {
        name: String,
        version: String,
    },
    /// All changes up to this version have been sent.
    Bookmark {
        version: String,
    },
    Error {
        code: u16,
        message: String,
    },
    Unknown,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    metadata: Metadata,
    address_type: String,
    endpoints: Option<Vec<WrittenEndpoint>>,
    ports: Option<Vec<WrittenPort>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    resource_version: Option<String>,
    r#continue: Option<String>,
}

#[derive(Debug, Deserialize)]
struct WrittenEndpoint {
    addresses: Option<Vec<String>>,
    conditions: Option<Conditions>,
}

#[derive(Debug, Default, Deserialize)]
struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct WrittenPort {
    name: Option<String>,
    port: Option<u16>,
    protocol: Option<String>,
}

#[derive(Deserialize)]
struct WrittenPage {
    metadata: Metadata,
    items: Option<Vec<Written>>,
}

#[derive(Deserialize)]
struct Status {
    code: Option<u16>,
    message: Option<String>,
}

/// Object of which only the metadata are read.
#[derive(Deserialize)]
struct Bare {
    metadata: Metadata,
}

impl Slices {
    pub(super) const fn new(port: SlicePort) -> Self {
        Self {
            port,
            by_name: BTreeMap::new(),
            has_rest: false,
        }
    }

    /// Adds a slice, or replaces that of the same name. Slices beyond [`MOST_SLICES`] are left out.
    pub(super) fn put(&mut self, slice: Slice) {
        if self.by_name.len() >= MOST_SLICES && !self.by_name.contains_key(&slice.name) {
            self.has_rest = true;
            return;
        }
        let content = Content::of(slice.written, &self.port);
        self.by_name.insert(slice.name, content);
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.by_name.remove(name);
    }

    /// Notes that the API server has more slices.
    pub(super) const fn note_rest(&mut self) {
        self.has_rest = true;
    }

    /// Returns the endpoints that may get calls: each once, the ready ones first, in the order of their addresses.
    pub(super) fn members(&self) -> Vec<(SocketAddr, Readiness)> {
        let mut found = BTreeMap::new();
        for (address, readiness) in self.by_name.values().flat_map(|slice| &slice.endpoints) {
            let merged = found.entry(*address).or_insert(*readiness);
            if *readiness == Readiness::Ready {
                *merged = Readiness::Ready;
            }
        }
        let mut members: Vec<_> = found.into_iter().collect();
        members.sort_by_key(|(_, readiness)| *readiness != Readiness::Ready);
        members
    }

    /// Returns the number of endpoints that are left out because there are too many. A slice too many counts as one.
    pub(super) fn left_out(&self) -> usize {
        let in_slices: usize = self.by_name.values().map(|slice| slice.left_out).sum();
        in_slices + usize::from(self.has_rest)
    }

    /// Returns why no endpoint may get calls.
    pub(super) fn why_none(&self) -> String {
        let slices = self.by_name.values();
        let unready: usize = slices.clone().map(|slice| slice.unready).sum();
        let mut ports = Vec::new();
        let mut has_names = false;
        for flaw in slices.filter_map(|slice| slice.flaw.as_ref()) {
            match flaw {
                Flaw::Names => has_names = true,
                Flaw::Ports(found) => ports.extend(found),
            }
        }
        ports.dedup();
        if self.by_name.is_empty() {
            "there is no EndpointSlice of this service".to_owned()
        } else if unready > 0 {
            format!("none of the {unready} endpoints of this service is ready")
        } else if !ports.is_empty() {
            let ports: Vec<_> = ports.iter().take(10).map(ToString::to_string).collect();
            format!(
                "no endpoint has the port `{}`; there are {}",
                self.port,
                ports.join(", ")
            )
        } else if has_names {
            "the endpoints of this service have names, not addresses".to_owned()
        } else {
            "this service has no endpoints".to_owned()
        }
    }
}

impl Content {
    fn of(written: Written, port: &SlicePort) -> Self {
        let mut content = Self::default();
        let is_v6 = match &*written.address_type {
            "IPv4" => false,
            "IPv6" => true,
            _ => {
                content.flaw = Some(Flaw::Names);
                return content;
            }
        };
        let Some(port) = within(port, written.ports.as_deref()) else {
            content.flaw = Some(Flaw::Ports(written.ports.unwrap_or_default()));
            return content;
        };
        let endpoints = written.endpoints.unwrap_or_default();
        content.left_out = endpoints.len().saturating_sub(MOST_IN_SLICE);
        for endpoint in endpoints.into_iter().take(MOST_IN_SLICE) {
            let addresses = endpoint.addresses.unwrap_or_default();
            let address = addresses.first().and_then(|address| address.parse::<IpAddr>().ok());
            let Some(address) = address.filter(|address| is_usable(*address) && address.is_ipv6() == is_v6) else {
                continue;
            };
            match endpoint.conditions.unwrap_or_default().readiness() {
                Some(readiness) => content.endpoints.push((SocketAddr::new(address, port), readiness)),
                None => content.unready += 1,
            }
        }
        content
    }
}

/// Whether connections to an address can be made at all.
const fn is_usable(address: IpAddr) -> bool {
    !address.is_unspecified() && !address.is_multicast()
}

impl Conditions {
    /// Returns whether the endpoint may get calls; `None` if not. Without `ready`, an endpoint is ready; without
    /// `serving`, it serves exactly if it is ready.
    fn readiness(&self) -> Option<Readiness> {
        let is_ready = self.ready.unwrap_or(true);
        let serves = self.serving.unwrap_or(is_ready);
        match self.terminating.unwrap_or(false) {
            _ if is_ready => Some(Readiness::Ready),
            true if serves => Some(Readiness::Serving),
            _ => None,
        }
    }
}

/// Returns the number of a port in a slice. A slice without ports restricts none.
fn within(port: &SlicePort, ports: Option<&[WrittenPort]>) -> Option<u16> {
    let ports = ports.unwrap_or_default();
    let mut over_tcp = ports.iter().filter(|port| port.is_tcp());
    match port {
        SlicePort::Number(number) if ports.is_empty() => Some(*number),
        SlicePort::Number(number) => over_tcp.any(|port| port.port == Some(*number)).then_some(*number),
        SlicePort::Name(name) => {
            over_tcp
                .find(|port| port.name.as_deref().unwrap_or("") == &**name)?
                .port
        }
    }
    .filter(|number| *number != 0)
}

impl WrittenPort {
    fn is_tcp(&self) -> bool {
        self.protocol.as_deref().unwrap_or("TCP") == "TCP"
    }
}

impl fmt::Display for WrittenPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.port.unwrap_or(0);
        let protocol = self.protocol.as_deref().filter(|protocol| *protocol != "TCP");
        let space = if protocol.is_some() { " " } else { "" };
        let protocol = protocol.unwrap_or("");
        match self.name.as_deref().unwrap_or("") {
            "" => write!(f, "{number}{space}{protocol}"),
            name => write!(f, "`{name}` ({number}{space}{protocol})"),
        }
    }
}

impl Slice {
    fn of(written: Written) -> Result<Self, String> {
        let (name, version) = written.metadata.identity()?;
        Ok(Self { name, version, written })
    }
}

impl Metadata {
    /// Returns the name and the version of an object.
    fn identity(&self) -> Result<(String, String), String> {
        Ok((
            short(&self.name, "name")?,
            short(&self.resource_version, "resourceVersion")?,
        ))
    }
}

/// Returns a text that must not be absent, empty or too long.
fn short(text: &Option<String>, what: &str) -> Result<String, String> {
    match text {
        Some(text) if !text.is_empty() && text.len() <= MAX_TEXT => Ok(text.clone()),
        Some(text) if text.len() > MAX_TEXT => Err(format!("its `{what}` is too long")),
        _ => Err(format!("it has no `{what}`")),
    }
}

impl Page {
    /// Reads a page of at most `limit` bytes.
    pub(super) fn read(text: &Bytes, limit: usize) -> Result<Self, String> {
        let WrittenPage { metadata, items } = json::typed(text, limit)?;
        let slices = items.unwrap_or_default().into_iter().map(Slice::of);
        Ok(Self {
            slices: slices.collect::<Result<_, _>>()?,
            version: short(&metadata.resource_version, "resourceVersion")?,
            rest: metadata.r#continue.unwrap_or_default(),
        })
    }
}

impl Event {
    /// Reads an event of a watch.
    pub(super) fn read(line: &Bytes) -> Result<Self, String> {
        let event = Document::check(line, MAX_LINE).map_err(|refusal| refusal.to_string())?;
        let member = |name: &str| {
            event
                .value()
                .get(name)
                .ok_or_else(|| format!("an event has no `{name}`"))
        };
        let kind = member("type")?.text().unwrap_or_default();
        let object = member("object")?.raw();
        Ok(match &*kind {
            "ADDED" | "MODIFIED" => Self::Put(Slice::of(json::typed(object, MAX_LINE)?)?),
            "DELETED" => {
                let (name, version) = json::typed::<Bare>(object, MAX_LINE)?.metadata.identity()?;
                Self::Deleted { name, version }
            }
            "BOOKMARK" => {
                let Bare { metadata } = json::typed(object, MAX_LINE)?;
                let version = short(&metadata.resource_version, "resourceVersion")?;
                Self::Bookmark { version }
            }
            "ERROR" => {
                let Status { code, message } = json::typed(object, MAX_LINE)?;
                Self::Error {
                    code: code.unwrap_or(500),
                    message: message.unwrap_or_default(),
                }
            }
            _ => Self::Unknown,
        })
    }
}

/// Returns the explanation of an answer that is a refusal.
pub(super) fn refusal(text: &Bytes, limit: usize) -> Option<String> {
    json::typed::<Status>(text, limit).ok()?.message
}

#[cfg(test)]
mod tests;
