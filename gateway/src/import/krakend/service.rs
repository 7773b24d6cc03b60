//! Carries over what holds for all endpoints.

use serde_json::Value;

use super::cors::cors;
use super::duration::{duration, millis};
use super::left_out::LeftOut;
use super::object::text;
use super::{Importer, USUAL_MOST};
use crate::import::yaml::{Map, Yaml};

impl Importer<'_> {
    /// Carries over what holds for all endpoints.
    pub(super) fn top(&self, top: &mut Map, left: &mut LeftOut) {
        let port = self.root.get("port").and_then(Value::as_u64).unwrap_or(8080);
        let ip = self
            .root
            .get("listen_ip")
            .and_then(Value::as_str)
            .filter(|ip| !ip.is_empty());
        let ip = ip.map_or("0.0.0.0".to_owned(), |ip| {
            if ip.contains(':') {
                format!("[{ip}]")
            } else {
                ip.to_owned()
            }
        });
        let mut listener = Map::default().with("address", Yaml::text(format!("{ip}:{port}")));
        let tls = self.root.get("tls").and_then(Value::as_object);
        let tls = tls.map(|tls| {
            tls.get("keys")
                .and_then(Value::as_array)
                .and_then(|keys| keys.first()?.as_object())
                .unwrap_or(tls)
        });
        if let Some(tls) = tls.filter(|tls| tls.get("disabled") != Some(&Value::Bool(true))) {
            match (text(tls, "public_key"), text(tls, "private_key")) {
                (Some(public), Some(private)) => {
                    let pair = Map::default()
                        .with("cert_file", Yaml::text(public))
                        .with("key_file", Yaml::text(private));
                    listener.put(
                        "tls",
                        Map::default().with("certificates", Yaml::List(vec![pair.into()])),
                    );
                }
                _ => left.add("tls", "it names no files"),
            }
        }
        top.put("listeners", Map::default().with("public", listener));
        let mut limits = Map::default();
        if self.longest > USUAL_MOST {
            limits.put("request", Yaml::plain(format!("{}ms", self.longest + 2000.0)));
        }
        for (theirs, ours) in [
            ("read_header_timeout", "head"),
            ("idle_timeout", "keep_alive"),
            ("write_timeout", "write"),
        ] {
            match self.root.get(theirs).and_then(Value::as_str).map(duration) {
                Some(Some(time)) if millis(&time) >= 1000.0 => limits.put(ours, Yaml::plain(time)),
                Some(_) => left.add(theirs, ""),
                None => {}
            }
        }
        if !limits.is_empty() {
            top.put("time_limits", limits);
        }
        let extra = self.root.get("extra_config").and_then(Value::as_object);
        for (name, value) in extra.into_iter().flatten() {
            let path = format!("extra_config.{name}");
            match name.as_str() {
                "security/cors" | "github_com/devopsfaith/krakend-cors" => match cors(value) {
                    Some(cors) => top.put("cors", cors),
                    None => left.add(&path, ""),
                },
                "telemetry/metrics" | "telemetry/opencensus" | "github_com/devopsfaith/krakend-metrics" => {
                    left.add(&path, "write `admin: { address: 127.0.0.1:9900 }`; it serves /metrics");
                }
                "telemetry/logging" | "github_com/devopsfaith/krakend-gologging" => {
                    left.add(&path, "the log goes to standard error, the access log to `access_log`");
                }
                "telemetry/opentelemetry" => left.add(&path, "write `tracing: { otlp: { url: ... } }`"),
                "auth/revoker" => left.add(&path, "write `callers.revocations: { file: revoked.yaml }`"),
                _ => left.add(&path, ""),
            }
        }
        const KNOWN: [&str; 13] = [
            "version",
            "$schema",
            "name",
            "port",
            "listen_ip",
            "host",
            "timeout",
            "endpoints",
            "extra_config",
            "tls",
            "read_header_timeout",
            "idle_timeout",
            "write_timeout",
        ];
        for name in self
            .root
            .keys()
            .filter(|name| !KNOWN.contains(&name.as_str()) && !name.starts_with('@') && !name.starts_with("//"))
        {
            left.add(
                name,
                if name == "cache_ttl" {
                    "backends say themselves how long their answers may be kept"
                } else {
                    ""
                },
            );
        }
    }
}
