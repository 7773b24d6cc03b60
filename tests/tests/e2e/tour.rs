//! Checks that every command in the demo's banner does what its label says.

use tests::{Setup, cli};

#[test]
fn the_tour_sees_what_the_banner_promises() {
    let toured = cli(&["demo", "--tour"], &Setup::new(""));
    assert_eq!(toured.code, Some(0), "{}\n{}", toured.stdout, toured.stderr);
}
