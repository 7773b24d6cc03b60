//! Shows where the endpoints of backends are looked up while the gateway runs.

use crate::call::endpoints::Source;
use crate::config::duration_text;
use crate::plan::Plan;

/// Returns a line for each backend whose endpoints the config does not list.
pub(super) fn lines(plan: &Plan) -> Vec<String> {
    let found = plan.backends.iter().filter_map(|backend| {
        let discovery = backend.endpoints.discovery()?;
        let source = &discovery.source;
        let how = match source {
            Source::Dns(settings) => format!("every {}, by the system's resolver", duration_text(settings.refresh)),
            Source::Srv(settings) => match settings.name_server {
                Some(server) => format!("as its records expire, by {server}"),
                None => "as its records expire, by the system's name servers".to_owned(),
            },
            Source::File(_) => {
                let count = backend.endpoints.load().all().len();
                format!(
                    "as it changes; {count} {} now",
                    if count == 1 { "address" } else { "addresses" }
                )
            }
            Source::Kubernetes(settings) => match &settings.api.url {
                Some(url) => format!("as it changes, by {url}"),
                None => "as it changes, by the API of the cluster".to_owned(),
            },
        };
        let keep = match discovery.keep {
            Some(keep) => format!("kept for {} when it fails", duration_text(keep)),
            None => "kept for as long as it is wrong".to_owned(),
        };
        Some((&backend.name, source.kind(), source.to_string(), how, keep))
    });
    let found: Vec<_> = found.collect();
    let widest = found.iter().map(|(name, ..)| name.len()).max().unwrap_or_default();
    found
        .iter()
        .map(|(name, kind, looked_up, how, keep)| format!("{name:widest$}  {kind} {looked_up}, {how}; {keep}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::compile::test_plan;

    const CONFIG: &str = r#"listeners: { public: { address: "127.0.0.1:0" } }
callers: { anonymous: { by: client_address } }
backends:
  listed: { endpoints: [{ url: "http://127.0.0.1:1" }] }
  users: { endpoints: { dns: users.internal, port: 8080 } }
  stock: { endpoints: { srv: _http._tcp.stock.internal, keep: 1h } }
  carts: { endpoints: { srv: carts.internal, name_server: "10.0.0.2:53" } }
  offers: { endpoints: { kubernetes: { namespace: shop, service: offers, port: http } } }
routes:
  all: { match: { path: /all }, access: { any_of: [anonymous] }, backend: users }
"#;

    #[test]
    fn every_source_is_told_with_how_long_its_endpoints_are_kept() {
        assert_eq!(
            lines(&test_plan::plan(CONFIG, &test_plan::state())),
            [
                "users   dns users.internal:8080, every 10s, by the system's resolver; kept for 10m when it fails",
                "stock   srv _http._tcp.stock.internal, as its records expire, by the system's name servers; kept for 1h when it fails",
                "carts   srv carts.internal, as its records expire, by 10.0.0.2:53; kept for 10m when it fails",
                "offers  kubernetes shop/offers:http, as it changes, by the API of the cluster; kept for 10m when it fails",
            ]
        );
    }
}
