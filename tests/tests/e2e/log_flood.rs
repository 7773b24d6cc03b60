//! Checks that no peer can fill the operational log: events that a peer can cause are counted, or logged a few times a
//! second.

use tests::configs::{Config, UNGUARDED};
use tests::frames::{self, PING, frame};
use tests::{Gateway, eventually};

use crate::{SOON, one_backend};

const LEFT_OUT: &str = "gateway_log_lines_left_out_total";

/// An acknowledgement of a PING that was never sent, of which the library makes a line each.
#[tokio::test]
async fn frames_that_a_library_complains_of_make_a_few_lines() {
    const ACK: u8 = 1;
    let (_fleet, api) = one_backend("api").await;
    let config = Config::default().open("api", api.address(), UNGUARDED);
    let gateway = Gateway::start(config.to_string()).await;
    assert_eq!(gateway.metric(LEFT_OUT, &[]).await, 0.0);
    for _ in 0..3 {
        let mut connection = gateway.connect().await;
        let pings: Vec<u8> = (0..1500_u64)
            .flat_map(|number| frame(PING, ACK, 0, &number.to_be_bytes()))
            .collect();
        connection.send([frames::begin(), pings].concat()).await;
        // Its answer says that all of them were read.
        connection.send(frame(PING, 0, 0, b"anybody?")).await;
        let mut bytes = Vec::new();
        while !bytes.windows(8).any(|piece| piece == b"anybody?") {
            bytes.extend(connection.piece().await.expect("the connection goes on"));
        }
    }
    eventually(SOON, "the log says how many were left out", || async {
        gateway.log().contains("lines of this log were left out").then_some(())
    })
    .await;
    let about = gateway.log().lines().filter(|line| line.contains("PING")).count();
    let left_out = gateway.metric(LEFT_OUT, &[]).await;
    assert!((1..=200).contains(&about), "{about} lines");
    assert!(left_out >= 4_000.0, "{left_out} were left out");
}
