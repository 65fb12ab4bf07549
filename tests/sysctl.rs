//! IPVS settings whose effect takes longer than a recording.

use std::time::Duration;

use serde_json::json;

use crate::support::decode::decode;
use crate::support::device::{Device, Side};
use crate::support::engine::Router;
use crate::support::packet::{PacketSpec, build};
use crate::support::text::{Identities, line};

/// A router with a service of this scheduler on two servers, of which 10.8.8.34 is given the first client.
fn router(scheduler: &str, setting: &str) -> Router {
    let mut router = Router::new();
    for command in [
        &format!("ipvsadm -A -t 10.10.1.30:80 -s {scheduler}"),
        "ipvsadm -a -t 10.10.1.30:80 -r 10.8.8.33:80 -m",
        "ipvsadm -a -t 10.10.1.30:80 -r 10.8.8.34:80 -m",
        "ipvsadm --set 100000 0 0",
        &format!("sysctl -qw net.ipv4.vs.{setting}"),
    ] {
        let output = router.run(command);
        assert_eq!(output.code, 0, "{command}: {}", output.stderr);
    }
    router
}

/// A client's segment, as it comes out.
fn send(router: &mut Router, port: u16, flags: &str) -> String {
    let spec: PacketSpec =
        serde_json::from_value(json!({"src": "192.0.2.1", "dst": "10.10.1.30", "proto": "tcp",
        "id": 7, "sport": port, "dport": 80, "flags": flags}))
        .unwrap();
    let out = router.send(Side::Client, &build(&spec, None).remove(0));
    out.iter().map(|(_, packet)| line(&decode(packet), &Identities::of(7, 0))).collect()
}

/// Where a client goes after this many minutes of which its address's server was in use by somebody else.
fn server_after(router: &mut Router, minutes: u64) -> String {
    send(router, 1000, "S");
    assert!(send(router, 1000, "A").contains("> 10.8.8.34:80 "));
    router.advance(Duration::from_secs(60 * minutes));
    send(router, 1001, "S")
}

#[test]
fn an_address_that_expired_is_forgotten_every_half_hour() {
    for (setting, minutes, server) in [
        ("lblc_expiration=86400", 31, "10.8.8.34"),
        ("lblc_expiration=600", 20, "10.8.8.34"),
        ("lblc_expiration=600", 31, "10.8.8.33"),
        ("lblc_expiration=3600", 59, "10.8.8.34"),
        ("lblc_expiration=3500", 61, "10.8.8.33"),
    ] {
        let out = server_after(&mut router("lblc", setting), minutes);
        assert!(out.contains(&format!("> {server}:80 ")), "{setting}, {minutes} minutes: {out}");
        let setting = setting.replace("lblc", "lblcr");
        let out = server_after(&mut router("lblcr", &setting), minutes);
        assert!(out.contains(&format!("> {server}:80 ")), "{setting}, {minutes} minutes: {out}");
    }
}
