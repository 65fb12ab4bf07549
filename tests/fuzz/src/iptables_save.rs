//! Any text as saved iptables rules: it is read, and packets get their marks by it.

use std::net::IpAddr;

use xlvs::config::marks::parse_marks;
use xlvs::config::names::Names;
use xlvs::config::report::check_marks;
use xlvs::ipvs::mark::MarkPacket;
use xlvs::net::addr::Protocol;

/// Plays an input.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let outcome = check_marks("iptables", &text, Names::NONE);
    assert!(!outcome.text.is_empty(), "a check always says something");
    let Ok(rules) = parse_marks(&text, Names::NONE) else { return };
    let known = rules.destinations();
    let addresses: [(IpAddr, IpAddr); 2] = [
        ([192, 0, 2, 10].into(), [10, 10, 1, 30].into()),
        ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 16].into(), [0xfd00, 16, 0, 0, 0, 0, 0, 48].into()),
    ];
    for (source, destination) in addresses {
        for port in [20, 80, 443] {
            let ports = Some((1000, port));
            let packet =
                MarkPacket { source, destination, protocol: Protocol::TCP, ports, interface: "eth0" };
            let mark = rules.mark(&packet);
            let told = known.iter().any(|(known, (net, range))| {
                known.is_none_or(|known| known == mark)
                    && net.is_none_or(|net| net.contains(&destination))
                    && range.contains(Protocol::TCP, port)
            });
            assert!(mark == 0 || told, "mark {mark} of port {port} of {destination} is not among {known:?}");
        }
    }
}
