//! The request that is to be explained, as an operator describes it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use http::header::HOST;
use http::uri::InvalidUri;
use http::{HeaderName, HeaderValue, Method, Uri};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::assumed::AssumedCaller;
use crate::auth::caller::{ANONYMOUS, is_tenant_name};
use crate::headers::Scheme;
use crate::message::{FieldMap, RequestHead};
use crate::plan::Plan;
use crate::template::percent;

/// Path of explanations in the admin API.
pub const LINK: &str = "/api/v1/explain";

/// Host of a request whose URL is only a path, where no header names it.
const NO_HOST: &str = "localhost";

/// Description of a request.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Described {
    /// Default: GET.
    pub method: Option<String>,
    /// An absolute URL, or a path with its query.
    pub url: String,
    /// Header fields, each as `name: value`.
    pub headers: Vec<String>,
    /// API key, sent in the field that the config names.
    pub key: Option<String>,
    /// Tenant, in place of a credential.
    pub tenant: Option<String>,
    /// Tier that the credential of the tenant names.
    pub tier: Option<String>,
    /// Claims of a token, in place of a token.
    pub claims: Option<Map<String, Value>>,
    /// Client address; default: 127.0.0.1.
    pub from: Option<IpAddr>,
}

impl Described {
    /// Returns the address of the explanation in the admin API; `None` if the description has what does not belong into
    /// an address: header fields, a key or claims.
    pub fn link(&self) -> Option<String> {
        let Self {
            method,
            url,
            headers,
            key,
            tenant,
            tier,
            claims,
            from,
        } = self;
        if !headers.is_empty() || key.is_some() || claims.is_some() {
            return None;
        }
        let from = from.map(|from| from.to_string());
        let mut link = format!("{LINK}?url={}", encoded(url));
        for (name, value) in [("method", method), ("tenant", tenant), ("tier", tier), ("from", &from)] {
            if let Some(value) = value {
                link.push_str(&format!("&{name}={}", encoded(value)));
            }
        }
        Some(link)
    }
}

fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    percent::encode(text, &mut encoded);
    encoded
}

/// A request to explain.
pub struct Question {
    pub(super) parts: RequestHead,
    pub(super) scheme: Scheme,
    pub(super) caller: Option<AssumedCaller>,
    pub(super) from: IpAddr,
}

impl Question {
    /// Reads the description.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn read(described: &Described, plan: &Plan) -> Result<Self, String> {
        let method = described.method.as_deref().unwrap_or("GET");
        let method: Method = method.parse().map_err(|_| format!("`{method}` is not a method"))?;
        let url: Option<Uri> = described.url.parse().ok();
        let is_path = |url: &Uri| url.authority().is_none() && url.path().starts_with('/');
        let url = url.filter(|url| url.scheme().is_some() || is_path(url));
        let url = url.ok_or_else(|| format!("`{}` is neither a URL nor a path that begins with `/`", described.url))?;
        let scheme = match url.scheme_str() {
            Some("https") => Scheme::Https,
            Some("http") | None => Scheme::Http,
            Some(other) => return Err(format!("`{other}:` is not http or https")),
        };
        let mut headers = FieldMap::new();
        for line in &described.headers {
            let (name, value) = read_field(line)?;
            headers.append(name, value);
        }
        if !headers.contains_key(HOST) {
            let host = url.authority().map_or(NO_HOST, |authority| authority.as_str());
            headers.insert(
                HOST,
                HeaderValue::from_str(host).map_err(|_| format!("`{host}` is not a host"))?,
            );
        }
        if let Some(key) = &described.key {
            let Some(field) = plan.authenticator.api_key_header() else {
                return Err("the config has no API keys (`callers.api_keys`)".to_owned());
            };
            let key = HeaderValue::from_str(key).map_err(|_| "the key has characters that no key has".to_owned())?;
            headers.insert(field.clone(), key);
        }
        let target = url.path_and_query().map_or("/", |target| target.as_str());
        Ok(Self {
            parts: RequestHead {
                method,
                uri: target.parse().map_err(|error: InvalidUri| error.to_string())?,
                headers,
                ..RequestHead::default()
            },
            scheme,
            caller: assumed_caller(described)?,
            from: described.from.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        })
    }
}

/// Returns the caller that a description assumes in place of credentials; `None` if its credentials are in the request.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub fn assumed_caller(described: &Described) -> Result<Option<AssumedCaller>, String> {
    let Described {
        key,
        tenant,
        tier,
        claims,
        ..
    } = described;
    match (key, tenant, claims) {
        (Some(_), Some(_), _) | (Some(_), _, Some(_)) | (_, Some(_), Some(_)) => {
            Err("a request has one caller: a key, a tenant or claims".to_owned())
        }
        (_, Some(tenant), None) if tenant == ANONYMOUS => Ok(None),
        (_, Some(tenant), None) if !is_tenant_name(tenant) => Err(format!("`{tenant}` is not a tenant's name")),
        (_, Some(tenant), None) => Ok(Some(AssumedCaller::Tenant {
            tenant: tenant.as_str().into(),
            tier: tier.as_deref().map(Arc::from),
        })),
        _ if tier.is_some() => Err("a tier needs a tenant".to_owned()),
        (_, None, Some(claims)) => Ok(Some(AssumedCaller::Claims(claims.clone()))),
        (_, None, None) => Ok(None),
    }
}

/// Reads a header field written as `name: value`.
fn read_field(line: &str) -> Result<(HeaderName, HeaderValue), String> {
    let wrong = || format!("`{line}` is not a header field: write `name: value`");
    let (name, value) = line.split_once(':').ok_or_else(wrong)?;
    let name = name.trim().parse().map_err(|_| wrong())?;
    let value = HeaderValue::from_str(value.trim()).map_err(|_| wrong())?;
    Ok((name, value))
}
