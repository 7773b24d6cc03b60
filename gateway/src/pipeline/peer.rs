//! The connection that a request came on.

use std::net::SocketAddr;
use std::sync::Arc;

use super::explain::AssumedCaller;
use crate::auth::mtls::caller_certificate::CallerCertificate;
use crate::headers::{ForwardedLines, Scheme};
use crate::overload::WorkerLoad;
use crate::wire::interim::InterimAnswers;

/// A client connection, as the pipeline sees it.
#[derive(Debug)]
pub struct Peer {
    pub address: SocketAddr,
    /// False if a load balancer sits in front and did not name its client; `address` is then the load balancer's.
    pub client_is_known: bool,
    pub worker: usize,
    /// Load of that worker.
    pub load: Arc<WorkerLoad>,
    pub scheme: Scheme,
    pub forwarded: ForwardedLines,
    /// The client certificate of the TLS handshake, if one was presented.
    pub certificate: Option<Arc<CallerCertificate>>,
    /// Takes interim answers of backends, where they can be passed on to the whole connection, as on HTTP/1.1.
    pub interim: Option<Arc<InterimAnswers>>,
    /// The caller of each request in place of credentials. Only a connection of virtual time has one.
    pub assumed: Option<Box<AssumedCaller>>,
}
