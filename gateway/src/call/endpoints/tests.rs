//! Helpers of the tests of this folder.

use std::sync::Arc;

use super::*;

/// Member at a port of this machine.
pub(super) fn member(port: u16) -> Member {
    let url = format!("http://127.0.0.1:{port}");
    of_url(&url, &format!("127.0.0.1:{port}"))
}

/// Member at an address of a URL.
pub(super) fn of_url(url: &str, address: &str) -> Member {
    Member::new(origin(url), address.parse().expect("an address"), 1)
}

pub(super) fn origin(url: &str) -> Arc<Origin> {
    let authority = url.trim_start_matches("http://");
    Arc::new(Origin::new(url.into(), authority, None).expect("a URL"))
}

pub(super) fn settings() -> EndpointSettings {
    EndpointSettings {
        tls: None,
        in_http2: false,
        workers: 1,
    }
}

pub(super) fn set(members: impl IntoIterator<Item = Member>) -> EndpointSet {
    EndpointSet::new(Arc::default(), settings(), members.into_iter().collect())
}

impl Member {
    pub(super) fn weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }
}
