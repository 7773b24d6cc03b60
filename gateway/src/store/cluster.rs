//! Connects to a Redis Cluster. The client library keeps the connections to its nodes, learns which node has which slot,
//! and follows slots that move.
//!
//! All keys of one owner have one hash tag, so a call goes to one node. The notices and the replicas have one too.

use std::time::Duration;

use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::io::tcp::TcpSettings;
use redis::{ClientTlsConfig, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo, TlsCertificates};

use super::settings::{ServerAddress, StoreSettings};
use super::trouble::{Failure, Trouble};

/// Longest time to connect to one node.
const NODE_LIMIT: Duration = Duration::from_millis(500);
/// Times that the library sends a command again, to another node or after a pause. What has failed then is trouble.
const RETRIES: u32 = 3;
/// Shortest and longest pause before that, in milliseconds.
const PAUSES: (u64, u64) = (1, 5);

/// Opens connections to the nodes of the cluster, and logs in.
pub(super) async fn open(settings: &StoreSettings, login: &RedisConnectionInfo) -> Result<ClusterConnection, Failure> {
    let (address, pem) = (&settings.address, &settings.pem);
    let node = |ServerAddress { host, port }: &ServerAddress| {
        let (host, port) = (host.to_string(), *port);
        let address = if address.is_tls {
            ConnectionAddr::TcpTls {
                host,
                port,
                insecure: false,
                tls_params: None,
            }
        } else {
            ConnectionAddr::Tcp(host, port)
        };
        address.into_connection_info()
    };
    let nodes: Vec<_> = address.servers.iter().map(node).collect::<Result<_, _>>()?;
    let (least, most) = PAUSES;
    let mut builder = ClusterClientBuilder::new(nodes)
        .tcp_settings(TcpSettings::default().set_nodelay(true))
        .connection_timeout(NODE_LIMIT)
        // Calls end by themselves within the call limit; the library forgets them a bit later.
        .response_timeout(settings.call_limit * 2)
        .retries(RETRIES)
        .min_retry_wait(least)
        .max_retry_wait(most);
    if let Some(username) = login.username() {
        builder = builder.username(username);
    }
    if let Some(password) = login.password() {
        builder = builder.password(password);
    }
    if address.is_tls {
        let client_tls = pem.own.clone().map(|(client_cert, client_key)| ClientTlsConfig {
            client_cert,
            client_key,
        });
        builder = builder.certs(TlsCertificates {
            client_tls,
            root_cert: pem.authorities.clone(),
        });
    }
    let connection = builder.build()?.get_async_connection().await;
    connection.map_err(|error| match Failure::from(error) {
        Failure {
            trouble: Trouble::Closed | Trouble::Unexpected,
            detail,
        } => Failure {
            trouble: Trouble::Unreached,
            detail,
        },
        failure => failure,
    })
}
