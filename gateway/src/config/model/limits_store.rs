//! The store in which several processes count limits together.

use std::path::PathBuf;
use std::time::Duration;

use super::ranges::MS;
use super::tls::CertificateFiles;
use crate::config::fields::Fields;
use crate::config::mistake::{Code, Mistake};
use crate::config::reader::Read;
use crate::config::scalar::words;
use crate::config::span::At;
use crate::config::units::Ratio;
use crate::config::value::Value;

/// Store in which all processes with the same one count limits together, and how they lease tokens from it.
#[derive(Debug, Clone, PartialEq)]
pub struct LimitsStore {
    /// Server in which they are counted.
    pub redis: Redis,
    /// Most of a limit that all processes together hold on lease. So much more may be admitted than by one process.
    pub lease_share: At<Ratio>,
    /// Time for which tokens are leased. What is not used by then is given back.
    pub lease_time: At<Duration>,
    /// Longest time that a request waits for the store. After it, `when_down` decides.
    pub call_limit: At<Duration>,
    /// Treatment of requests that the tokens on lease do not cover, while the store cannot be reached.
    pub when_down: At<WhenDown>,
}

/// Connection to a Redis or Valkey server.
#[derive(Debug, Clone, PartialEq)]
pub struct Redis {
    /// `redis://host:port/database`, `redis-sentinel://host,host/primary` or `redis-cluster://host,host`, with `rediss` for
    /// TLS. Port 6379 (of sentinels 26379) and database 0 can be left out.
    pub url: At<String>,
    /// Begin of the names of all keys, so that other gateways can use the same server.
    pub prefix: At<String>,
    /// Name of the user.
    pub username: Option<At<String>>,
    /// File with the password; read again for each connection.
    pub password_file: Option<At<PathBuf>>,
    /// Certificates for a URL that begins with `rediss`.
    pub tls: Option<StoreTls>,
}

/// TLS to the store. Its certificate is always verified.
#[derive(Debug, Clone, PartialEq)]
pub struct StoreTls {
    /// Certificate authorities that are trusted. Left out: those of the system.
    pub ca_file: Option<At<PathBuf>>,
    /// Certificate that is shown to the store (`cert_file` with `key_file`).
    pub certificate: Option<CertificateFiles>,
}

words! {
    /// Treatment of requests while the store cannot be reached.
    pub enum WhenDown {
        /// Each process admits its part: the limit divided by the number of processes.
        Bounded = "bounded",
        /// All requests are admitted.
        Open = "open",
        /// All requests that need tokens are refused with `limits_unavailable`.
        Closed = "closed",
    }

    /// Where a limit is counted.
    pub enum Counted {
        /// For all processes together, in the store; each process holds some tokens and decides alone.
        Leased = "leased",
        /// For all processes together, and each decision asks the store.
        Exact = "exact",
        /// In each process alone.
        Local = "local",
    }
}

impl Read for LimitsStore {
    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let redis = f.required("redis");
            let ratio = |share| Ratio::new(share).expect("it is between 0 and 1");
            let store = Self {
                redis: redis?,
                lease_share: f.within("lease_share", ratio(0.1), ratio(0.001)..=ratio(1.0)),
                lease_time: f.within("lease_time", Duration::from_secs(2), 100 * MS..=Duration::from_secs(60)),
                call_limit: f.within("call_limit", 20 * MS, MS..=Duration::from_secs(1)),
                when_down: f.or("when_down", WhenDown::Bounded),
            };
            Some(store)
        })?
    }
}

impl Read for Redis {
    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let url = f.required("url");
            let prefix = f.or("prefix", "gateway:".to_owned());
            if prefix.len() > 100 || prefix.contains(['{', '}']) {
                let message = format!("`{}.prefix` must have at most 100 bytes and no braces", f.path);
                f.push(Mistake::new(Code::BadValue, prefix.span(), message));
            }
            let redis = Self {
                prefix,
                username: f.optional("username"),
                password_file: f.path("password_file"),
                tls: f.optional("tls"),
                url: url?,
            };
            let is_plain = redis.url.starts_with("redis") && !redis.url.starts_with("rediss");
            if let (true, Some(tls)) = (is_plain, f.value("tls")) {
                let message = format!("`{}.tls` does nothing", f.path);
                f.push(
                    Mistake::new(Code::Conflict, tls.key, message)
                        .related(redis.url.span(), "has no TLS")
                        .hint(format!("write `\"{}\"`", redis.url.replacen("redis", "rediss", 1))),
                );
            }
            if let (Some(name), None) = (&redis.username, &redis.password_file) {
                let message = format!("`{}` needs the key `password_file`", f.path);
                f.push(
                    Mistake::new(Code::MissingKey, f.at, message)
                        .related(name.span(), "a user has a password")
                        .hint("write the file that holds it: `password_file: redis.password`"),
                );
            }
            Some(redis)
        })?
    }
}

impl Read for StoreTls {
    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| Self {
            ca_file: f.path("ca_file"),
            certificate: certificate(f),
        })
    }
}

fn certificate(f: &mut Fields<'_>) -> Option<CertificateFiles> {
    let (cert_file, key_file) = (f.path("cert_file"), f.path("key_file"));
    let half = match (&cert_file, &key_file) {
        (Some(file), None) => Some((file, "key_file")),
        (None, Some(file)) => Some((file, "cert_file")),
        _ => None,
    };
    if let Some((file, missing)) = half {
        let message = format!("`{}` needs the key `{missing}`", f.path);
        f.push(Mistake::new(Code::MissingKey, f.at, message).related(file.span(), "belongs to it"));
    }
    let (cert_file, key_file) = cert_file.zip(key_file)?;
    Some(CertificateFiles { cert_file, key_file })
}
