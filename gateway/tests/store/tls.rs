//! A store that speaks TLS.

use fixtures::redis_cluster::RedisCluster;
use fixtures::redis_server::Tls;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::{ClientConfig, RootCertStore};

use super::*;

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // A certificate whose subject is its issuer would be taken for one that is signed by itself.
    params.distinguished_name.push(DnType::CommonName, "authority");
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn trust(authority: &CertifiedIssuer<'static, KeyPair>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Arc::new(config.unwrap().with_root_certificates(roots).with_no_client_auth())
}

/// Certificate of a server on this machine.
fn certificate(authority: &CertifiedIssuer<'static, KeyPair>) -> Tls {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    Tls {
        certificate: certificate.signed_by(&key, authority).unwrap().pem(),
        key: key.serialize_pem(),
        authority: authority.pem(),
    }
}

#[tokio::test]
async fn a_cluster_over_tls() {
    let (own, other) = (authority(), authority());
    let Some(cluster) = RedisCluster::start_with(Some(&certificate(&own))) else {
        return;
    };
    let of = |authority: &CertifiedIssuer<'static, KeyPair>| {
        let mut settings = settings(&cluster.tls_url());
        settings.tls = Some(trust(authority));
        settings.pem.authorities = Some(authority.pem().into_bytes());
        Store::start(settings, &Handle::current())
    };
    let store = of(&own);
    up(&store).await;
    take(&store, "a", 1).await.unwrap();

    let store = of(&other);
    let mut watch = store.watch();
    let unreached = watch.wait_for(|state| {
        matches!(
            state.health,
            Health::Down {
                trouble: Trouble::Unreached,
                ..
            }
        )
    });
    timeout(CURED, unreached)
        .await
        .expect("an unknown authority is not trusted")
        .unwrap();
}

#[tokio::test]
async fn a_store_over_tls() {
    let (own, other) = (authority(), authority());
    let options = Options {
        tls: Some(certificate(&own)),
        ..Options::default()
    };
    let Some(server) = RedisServer::start_with(options) else {
        return;
    };
    let mut trusting = settings(&server.url());
    trusting.tls = Some(trust(&own));
    let store = Store::start(trusting, &Handle::current());
    up(&store).await;
    take(&store, "a", 1).await.unwrap();

    let mut doubting = settings(&server.url());
    doubting.tls = Some(trust(&other));
    let store = Store::start(doubting, &Handle::current());
    let mut watch = store.watch();
    let unreached = watch.wait_for(|state| {
        matches!(
            state.health,
            Health::Down {
                trouble: Trouble::Unreached,
                ..
            }
        )
    });
    timeout(CURED, unreached)
        .await
        .expect("an unknown authority is not trusted")
        .unwrap();
    let failure = store.last_failure().unwrap();
    assert!(failure.contains("TLS"), "{failure}");
}
