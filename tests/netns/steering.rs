//! What the steering program lets come up, packet by packet: the loaded program is asked, nothing is sent.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{EtherType, IpNumber, Ipv4Header, Ipv6Header, ip_number};
use xlvs::ipvs::steering::Steering;
use xlvs::ipvs::verdict::Verdict;
use xlvs::net::addr::{PortIndex, PortRange, Protocol};
use xlvs::xdp::{AttachSetting, Steered, Xdp};

use super::rig::{Rig, stop_and_check};

const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 9);
const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// Every port and protocol of this subnet is balanced, as by a fwmark rule.
const MARKED: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 130);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 11);
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// A service of key exchange (UDP port 500) and SCTP.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 3);
const ANY_ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);

const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 9);
const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 3);
const SERVER6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 11);
const ROUTER6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);

/// The group of neighbours that [`VIP6`] may belong to.
const SOLICITED: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 1);

/// Offset fields: a first fragment, a later one.
const FIRST: u16 = 0x2000;
const LAST: u16 = 0x0010;
const FIRST6: u16 = 1;
const LAST6: u16 = 0x0080;

/// Extension headers and their lengths in bytes.
const HOP_BY_HOP: (IpNumber, usize) = (ip_number::IPV6_HEADER_HOP_BY_HOP, 8);
const ROUTING: (IpNumber, usize) = (ip_number::IPV6_ROUTE_HEADER, 24);
const OPTIONS: (IpNumber, usize) = (ip_number::IPV6_DEST_OPTIONS, 16);
const AUTHENTICATION: (IpNumber, usize) = (ip_number::AUTH, 24);

fn ports(protocol: Protocol, low: u16, high: u16) -> PortRange {
    PortRange { protocol, ports: low..=high }
}

fn steering() -> Steering {
    let web =
        vec![ports(Protocol::TCP, 80, 80), ports(Protocol::TCP, 443, 443), ports(Protocol::UDP, 5000, 5010)];
    let servers = vec![
        ports(Protocol::TCP, 8080, 8080),
        ports(Protocol::UDP, 500, 500),
        ports(Protocol::UDP, 5000, 5010),
    ];
    let gateway = vec![ports(Protocol::UDP, 500, 500), ports(Protocol::SCTP, 36412, 36412)];
    Steering {
        destinations: vec![
            (IpAddr::V4(VIP).into(), web.clone()),
            (IpAddr::V6(VIP6).into(), web),
            (IpAddr::V4(GATEWAY).into(), gateway.clone()),
            (IpAddr::V6(GATEWAY6).into(), gateway),
            ("203.0.113.128/25".parse().unwrap(), vec![ports(Protocol::IP, 0, 65535)]),
        ],
        servers: vec![(SERVER.into(), servers.clone()), (SERVER6.into(), servers)],
        own: vec![ROUTER.into(), ROUTER6.into()],
    }
}

fn ethernet(ether_type: EtherType, payload: &[u8]) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2][..], &ether_type.0.to_be_bytes(), payload].concat()
}

/// The same frame with a tag.
fn tagged(tag_type: EtherType, frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &tag_type.0.to_be_bytes(), &[0, 5], &frame[12..]].concat()
}

/// An IP packet; each payload starts with its ports.
fn ip(
    protocol: IpNumber,
    source: impl Into<IpAddr>,
    destination: impl Into<IpAddr>,
    payload: &[u8],
) -> Vec<u8> {
    let mut bytes = Vec::new();
    match (source.into(), destination.into()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let len = payload.len() as u16;
            let header = Ipv4Header::new(len, 64, protocol, source.octets(), destination.octets()).unwrap();
            header.write(&mut bytes).unwrap();
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let header = Ipv6Header {
                payload_length: payload.len() as u16,
                next_header: protocol,
                hop_limit: 64,
                source: source.octets(),
                destination: destination.octets(),
                ..Ipv6Header::default()
            };
            header.write(&mut bytes).unwrap();
        }
        mixed => panic!("{mixed:?}"),
    }
    bytes.extend_from_slice(payload);
    bytes
}

fn with_ports(source_port: u16, destination_port: u16) -> Vec<u8> {
    [&source_port.to_be_bytes()[..], &destination_port.to_be_bytes(), &[0; 16]].concat()
}

/// A packet of a protocol with ports.
fn packet<A: Into<IpAddr>>(protocol: IpNumber, source: (A, u16), destination: (A, u16)) -> Vec<u8> {
    ip(protocol, source.0, destination.0, &with_ports(source.1, destination.1))
}

fn tcp<A: Into<IpAddr>>(source: (A, u16), destination: (A, u16)) -> Vec<u8> {
    packet(ip_number::TCP, source, destination)
}

fn udp<A: Into<IpAddr>>(source: (A, u16), destination: (A, u16)) -> Vec<u8> {
    packet(ip_number::UDP, source, destination)
}

/// An ICMP or ICMPv6 message of this type about `quoted`.
fn icmp<A: Into<IpAddr> + Copy>(source: A, destination: A, kind: u8, quoted: &[u8]) -> Vec<u8> {
    let protocol = if source.into().is_ipv4() { ip_number::ICMP } else { ip_number::IPV6_ICMP };
    ip(protocol, source, destination, &[&[kind, 0, 0, 0, 0, 0, 0, 0], quoted].concat())
}

/// An IPv4 packet made a fragment with this offset field (more-fragments flag included).
fn fragment(mut packet: Vec<u8>, offset: u16) -> Vec<u8> {
    packet[6..8].copy_from_slice(&offset.to_be_bytes());
    packet
}

/// An IPv6 packet with extension headers of these kinds in front of its payload, each of so many bytes.
fn extended(mut packet: Vec<u8>, headers: &[(IpNumber, usize)]) -> Vec<u8> {
    for (kind, len) in headers.iter().rev() {
        let unit = if *kind == ip_number::AUTH { 4 } else { 8 };
        let units = len / unit - if *kind == ip_number::AUTH { 2 } else { 1 };
        let mut header = vec![0; *len];
        header[..2].copy_from_slice(&[packet[6], units as u8]);
        packet[6] = kind.0;
        packet.splice(40..40, header);
    }
    let len = packet.len() - 40;
    packet[4..6].copy_from_slice(&(len as u16).to_be_bytes());
    packet
}

/// An IPv6 packet made a fragment with this offset field (more-fragments flag included).
fn fragment6(packet: Vec<u8>, offset: u16) -> Vec<u8> {
    let mut packet = extended(packet, &[(ip_number::IPV6_FRAG, 8)]);
    // What is reserved may be anything.
    packet[41] = 0xff;
    packet[42..44].copy_from_slice(&offset.to_be_bytes());
    packet
}

/// An IPv4 packet with 8 bytes of options.
fn with_options(mut packet: Vec<u8>) -> Vec<u8> {
    packet[0] = 0x47;
    packet.splice(20..20, [1; 8]);
    packet
}

fn v4(packet: &[u8]) -> Vec<u8> {
    ethernet(EtherType::IPV4, packet)
}

fn v6(packet: &[u8]) -> Vec<u8> {
    ethernet(EtherType::IPV6, packet)
}

/// On interfaces with this MTU.
fn with_steering(mtu: u32, check: impl FnOnce(&Rig, &mut Xdp)) {
    let rig = Rig::new();
    rig.set_mtu(mtu, mtu);
    let (mut xdp, _handed_over) = rig.start(&rig.config(AttachSetting::Auto), |_| Verdict::Pass).unwrap();
    xdp.apply_steering(&steering()).unwrap();
    check(&rig, &mut xdp);
    assert_eq!(stop_and_check(xdp).received, 0, "asking sends nothing");
}

fn expect(expected: Steered, table: &[(&str, Vec<u8>)]) {
    expect_in_parts(expected, table);
    with_steering(1500, |rig, xdp| {
        for (what, frame) in table {
            for port in [PortIndex(0), PortIndex(1)] {
                let steered = rig.router.enter(|| xdp.ask(port, frame)).unwrap();
                assert_eq!(steered, expected, "{what} on port {}: {frame:02x?}", port.0);
            }
        }
    });
}

/// The same where packets may lie in several buffers, and little of the headers in the first one (from Linux 6.18 on).
fn expect_in_parts(expected: Steered, table: &[(&str, Vec<u8>)]) {
    with_steering(9000, |rig, xdp| {
        let syn = v4(&tcp((CLIENT, 4000), (VIP, 80)));
        let can_part = rig.router.enter(|| xdp.ask_in_parts(PortIndex(0), &syn, 20)).is_ok();
        for (what, frame) in table {
            for first in [14, 15, 20, 34, 36, 54, 60, frame.len()] {
                let first = if can_part { first.min(frame.len()) } else { frame.len() };
                let steered = rig.router.enter(|| xdp.ask_in_parts(PortIndex(0), frame, first)).unwrap();
                assert_eq!(steered, expected, "{what}, the first {first} bytes apart: {frame:02x?}");
            }
        }
    });
}

#[test]
fn packets_to_a_service_come_up() {
    let syn = v4(&tcp((CLIENT, 4000), (VIP, 80)));
    expect(
        Steered::Up,
        &[
            ("TCP to a port", syn.clone()),
            ("TCP to another port", v4(&tcp((CLIENT, 4000), (VIP, 443)))),
            ("UDP to the first port of a range", v4(&udp((CLIENT, 4000), (VIP, 5000)))),
            ("UDP to the last port of a range", v4(&udp((CLIENT, 4000), (VIP, 5010)))),
            ("IPv4 options", v4(&with_options(tcp((CLIENT, 4000), (VIP, 80))))),
            ("a VLAN tag", tagged(EtherType::VLAN_TAGGED_FRAME, &syn)),
            (
                "two VLAN tags",
                tagged(EtherType::PROVIDER_BRIDGING, &tagged(EtherType::VLAN_TAGGED_FRAME, &syn)),
            ),
            ("any TCP to a marked subnet", v4(&tcp((CLIENT, 4000), (MARKED, 12345)))),
            ("any UDP to a marked subnet", v4(&udp((CLIENT, 4000), (MARKED, 1)))),
            ("SCTP to a marked subnet", v4(&packet(ip_number::SCTP, (CLIENT, 4000), (MARKED, 1)))),
            ("IPv6 TCP", v6(&tcp((CLIENT6, 4000), (VIP6, 80)))),
            ("IPv6 UDP", v6(&udp((CLIENT6, 4000), (VIP6, 5003)))),
            ("SCTP", v4(&packet(ip_number::SCTP, (CLIENT, 4000), (GATEWAY, 36412)))),
            ("IPv6 SCTP", v6(&packet(ip_number::SCTP, (CLIENT6, 4000), (GATEWAY6, 36412)))),
        ],
    );
}

#[test]
fn what_ipsec_protects_goes_the_way_of_its_key_exchange() {
    let [esp, ah] = [ip_number::ENCAP_SEC, ip_number::AUTH];
    let quote = ip(esp, GATEWAY, CLIENT, &[0; 8]);
    let quote6 = ip(esp, GATEWAY6, CLIENT6, &[0; 8]);
    expect(
        Steered::Up,
        &[
            ("ESP", v4(&ip(esp, CLIENT, GATEWAY, &[0; 8]))),
            ("AH", v4(&ip(ah, CLIENT, GATEWAY, &[0; 24]))),
            ("IPv6 ESP", v6(&ip(esp, CLIENT6, GATEWAY6, &[0; 8]))),
            (
                "IPv6 ESP behind an extension header",
                v6(&extended(ip(esp, CLIENT6, GATEWAY6, &[0; 8]), &[HOP_BY_HOP])),
            ),
            ("ESP of a server", v4(&ip(esp, SERVER, CLIENT, &[0; 8]))),
            ("AH of a server", v4(&ip(ah, SERVER, CLIENT, &[0; 24]))),
            ("IPv6 ESP of a server", v6(&ip(esp, SERVER6, CLIENT6, &[0; 8]))),
            ("ESP to a marked subnet", v4(&ip(esp, CLIENT, MARKED, &[0; 8]))),
            ("a first fragment of ESP", v4(&fragment(ip(esp, CLIENT, GATEWAY, &[0; 8]), FIRST))),
            ("a last fragment of ESP", v4(&fragment(ip(esp, CLIENT, GATEWAY, &[0; 8]), LAST))),
            ("a last fragment of IPv6 ESP", v6(&fragment6(ip(esp, CLIENT6, GATEWAY6, &[0; 8]), LAST6))),
            ("an error about ESP", v4(&icmp(ANY_ROUTER, GATEWAY, 3, &quote))),
            ("an error about IPv6 ESP", v6(&icmp(CLIENT6, GATEWAY6, 2, &quote6))),
        ],
    );
    expect(
        Steered::Kernel,
        &[
            ("ESP to another service", v4(&ip(esp, CLIENT, VIP, &[0; 8]))),
            ("AH to another service", v4(&ip(ah, CLIENT, VIP, &[0; 24]))),
            ("IPv6 ESP to another service", v6(&ip(esp, CLIENT6, VIP6, &[0; 8]))),
            ("a server's ESP to the router", v4(&ip(esp, SERVER, ROUTER, &[0; 8]))),
            (
                "an error about the other service's ESP",
                v4(&icmp(ANY_ROUTER, VIP, 3, &ip(esp, VIP, CLIENT, &[0; 8]))),
            ),
        ],
    );
}

#[test]
fn extension_headers_are_looked_behind() {
    let web = || tcp((CLIENT6, 4000), (VIP6, 80));
    let ssh = || tcp((CLIENT6, 4000), (VIP6, 22));
    let chains: [&[(IpNumber, usize)]; 8] = [
        &[HOP_BY_HOP],
        &[ROUTING],
        &[OPTIONS],
        &[AUTHENTICATION],
        &[(ip_number::IPV6_DEST_OPTIONS, 1024)],
        &[HOP_BY_HOP, OPTIONS, ROUTING, AUTHENTICATION, OPTIONS],
        &[HOP_BY_HOP, OPTIONS, ROUTING, OPTIONS, AUTHENTICATION, OPTIONS],
        &[(ip_number::IPV6_FRAG, 8), OPTIONS],
    ];
    let (mut up, mut kernel) = (Vec::new(), Vec::new());
    for chain in chains {
        let reply = tcp((SERVER6, 8080), (CLIENT6, 4000));
        let quote = extended(tcp((VIP6, 80), (CLIENT6, 4000)), chain);
        let request = extended(tcp((CLIENT6, 4000), (SERVER6, 8080)), chain);
        up.push(("to a service", v6(&extended(web(), chain))));
        up.push(("of a server", v6(&extended(reply, chain))));
        up.push(("quoted reply", v6(&icmp(CLIENT6, VIP6, 1, &quote))));
        up.push(("quoted request", v6(&extended(icmp(SERVER6, CLIENT6, 2, &request), chain))));
        let quote = extended(tcp((VIP6, 22), (CLIENT6, 4000)), chain);
        let (web, ping) = (extended(web(), chain), icmp(CLIENT6, VIP6, 128, &[0; 32]));
        kernel.push(("ssh", v6(&extended(ssh(), chain))));
        kernel.push(("ping", v6(&extended(ping, chain))));
        kernel.push(("quoted ssh", v6(&icmp(CLIENT6, VIP6, 1, &quote))));
        kernel.push(("cut in the headers", v6(&web[..46])));
        kernel.push(("cut in the ports", v6(&web[..web.len() - 17])));
    }
    up.push(("eight headers", v6(&extended(web(), &[OPTIONS; 8]))));
    kernel.push(("nine headers", v6(&extended(web(), &[OPTIONS; 9]))));
    expect(Steered::Up, &up);
    expect(Steered::Kernel, &kernel);
}

#[test]
fn replies_of_real_servers_come_up() {
    expect(
        Steered::Up,
        &[
            ("TCP reply", v4(&tcp((SERVER, 8080), (CLIENT, 4000)))),
            ("UDP reply", v4(&udp((SERVER, 5005), (CLIENT, 4000)))),
            ("IPv6 reply", v6(&tcp((SERVER6, 8080), (CLIENT6, 4000)))),
            ("IPv6 reply of a server with the virtual address", v6(&tcp((VIP6, 80), (CLIENT6, 4000)))),
        ],
    );
}

#[test]
fn errors_about_balanced_flows_come_up() {
    let reply = tcp((VIP, 80), (CLIENT, 4000));
    let request = tcp((CLIENT, 4000), (SERVER, 8080));
    let reply6 = tcp((VIP6, 80), (CLIENT6, 4000));
    let request6 = tcp((CLIENT6, 4000), (SERVER6, 8080));
    let mut table = Vec::new();
    for kind in [3, 4, 11] {
        table.push(("about a reply, to the service", v4(&icmp(ANY_ROUTER, VIP, kind, &reply))));
        table.push(("about a request, to the client", v4(&icmp(ANY_ROUTER, CLIENT, kind, &request))));
        table.push(("about a request, to the router", v4(&icmp(SERVER, ROUTER, kind, &request))));
    }
    for kind in [1, 2, 3, 4, 100] {
        table.push(("IPv6, about a reply", v6(&icmp(CLIENT6, VIP6, kind, &reply6))));
        table.push(("IPv6, about a request", v6(&icmp(SERVER6, CLIENT6, kind, &request6))));
    }
    table.push(("quoting options", v4(&icmp(ANY_ROUTER, VIP, 3, &with_options(reply.clone())))));
    table.push(("quoting 8 bytes beyond IP", v4(&icmp(ANY_ROUTER, VIP, 3, &reply[..28]))));
    table.push(("quoting a first fragment", v4(&icmp(ANY_ROUTER, VIP, 3, &fragment(reply, FIRST)))));
    table.push(("IPv6, quoting a first fragment", v6(&icmp(CLIENT6, VIP6, 2, &fragment6(reply6, FIRST6)))));
    expect(Steered::Up, &table);
}

#[test]
fn fragments_of_balanced_flows_come_up() {
    let web6 = || tcp((CLIENT6, 4000), (VIP6, 80));
    let optional = || extended(web6(), &[OPTIONS]);
    expect(
        Steered::Up,
        &[
            ("first, to a service", v4(&fragment(tcp((CLIENT, 4000), (VIP, 80)), FIRST))),
            ("last, to a service", v4(&fragment(ip(ip_number::TCP, CLIENT, VIP, &[0; 4]), LAST))),
            ("last, from a server", v4(&fragment(ip(ip_number::UDP, SERVER, CLIENT, &[0; 4]), LAST))),
            ("an ICMP message's last, to a service", v4(&fragment(icmp(CLIENT, VIP, 3, &[0; 32]), LAST))),
            ("an ICMP message's last, from a server", v4(&fragment(icmp(SERVER, CLIENT, 3, &[0; 32]), LAST))),
            ("IPv6, first, to a service", v6(&fragment6(web6(), FIRST6))),
            ("IPv6, last, to a service", v6(&fragment6(ip(ip_number::UDP, CLIENT6, VIP6, &[0; 8]), LAST6))),
            (
                "IPv6, last, from a server",
                v6(&fragment6(ip(ip_number::TCP, SERVER6, CLIENT6, &[0; 8]), LAST6)),
            ),
            ("IPv6, first, with more headers inside", v6(&fragment6(optional(), FIRST6))),
            ("IPv6, last, with more headers inside", v6(&fragment6(extended(web6(), &[OPTIONS]), LAST6))),
            ("IPv6, with headers outside", v6(&extended(fragment6(web6(), LAST6), &[HOP_BY_HOP, ROUTING]))),
            ("of an ICMP error, first", v4(&fragment(icmp(ANY_ROUTER, VIP, 3, &[0; 32]), FIRST))),
            ("of an ICMP error, last", v4(&fragment(ip(ip_number::ICMP, ANY_ROUTER, VIP, &[0; 32]), LAST))),
            ("of a server's ICMP", v4(&fragment(ip(ip_number::ICMP, SERVER, CLIENT, &[0; 32]), LAST))),
            ("of an ICMPv6 error, first", v6(&fragment6(icmp(CLIENT6, VIP6, 2, &[0; 32]), FIRST6))),
            ("IPv6, SCTP", v6(&fragment6(ip(ip_number::SCTP, CLIENT6, GATEWAY6, &[0; 8]), LAST6))),
        ],
    );
    expect(
        Steered::Kernel,
        &[
            (
                "IPv6, of an unbalanced protocol",
                v6(&fragment6(ip(ip_number::SCTP, CLIENT6, VIP6, &[0; 8]), LAST6)),
            ),
            ("IPv6, to the router", v6(&fragment6(ip(ip_number::TCP, SERVER6, ROUTER6, &[0; 8]), LAST6))),
            ("IPv6, a whole packet of ssh", v6(&fragment6(tcp((CLIENT6, 4000), (VIP6, 22)), 0))),
        ],
    );
}

#[test]
fn the_rest_stays_with_the_kernel() {
    let syn = tcp((CLIENT, 4000), (VIP, 80));
    let triple = (0..3).fold(v4(&syn), |frame, _| tagged(EtherType::VLAN_TAGGED_FRAME, &frame));
    expect(
        Steered::Kernel,
        &[
            ("ssh to the service's address", v4(&tcp((CLIENT, 4000), (VIP, 22)))),
            ("the port in another protocol", v4(&udp((CLIENT, 4000), (VIP, 80)))),
            ("just below a range", v4(&udp((CLIENT, 4000), (VIP, 4999)))),
            ("just above a range", v4(&udp((CLIENT, 4000), (VIP, 5011)))),
            ("the neighbour of the service", v4(&tcp((CLIENT, 4000), (Ipv4Addr::new(203, 0, 113, 2), 80)))),
            (
                "just outside the marked subnet",
                v4(&tcp((CLIENT, 4000), (Ipv4Addr::new(203, 0, 113, 127), 80))),
            ),
            ("an answer to a health check", v4(&tcp((SERVER, 8080), (ROUTER, 40000)))),
            ("an answer to an IPv6 health check", v6(&tcp((SERVER6, 8080), (ROUTER6, 40000)))),
            ("from the service's address, which the kernel refuses", v4(&tcp((VIP, 80), (CLIENT, 4000)))),
            ("the server's ssh", v4(&tcp((SERVER, 22), (CLIENT, 4000)))),
            ("to a server directly", v4(&tcp((CLIENT, 4000), (SERVER, 8080)))),
            ("ping of the service", v4(&icmp(CLIENT, VIP, 8, &[0; 32]))),
            ("ping of a marked address", v4(&icmp(CLIENT, MARKED, 8, &[0; 32]))),
            ("IPv6 ping", v6(&icmp(CLIENT6, VIP6, 128, &[0; 32]))),
            ("a neighbour's solicitation", v6(&icmp(CLIENT6, VIP6, 135, &[0; 32]))),
            ("a server's advertisement", v6(&icmp(SERVER6, ROUTER6, 136, &[0; 32]))),
            ("a solicitation to all that may have the address", v6(&icmp(CLIENT6, SOLICITED, 135, &[0; 32]))),
            (
                "IPv6, quoting a later fragment",
                v6(&icmp(CLIENT6, VIP6, 2, &fragment6(tcp((VIP6, 80), (CLIENT6, 4000)), LAST6))),
            ),
            ("a redirect", v4(&icmp(ANY_ROUTER, VIP, 5, &tcp((VIP, 80), (CLIENT, 4000))))),
            (
                "an error about the service's ssh",
                v4(&icmp(ANY_ROUTER, VIP, 3, &tcp((VIP, 22), (CLIENT, 4000)))),
            ),
            (
                "an error about a health check",
                v4(&icmp(SERVER, ROUTER, 3, &tcp((ROUTER, 40000), (SERVER, 8080)))),
            ),
            ("an error about an error", v4(&icmp(ANY_ROUTER, VIP, 3, &icmp(VIP, CLIENT, 3, &[0; 28])))),
            (
                "an error cut in the quoted ports",
                v4(&icmp(ANY_ROUTER, VIP, 3, &tcp((VIP, 80), (CLIENT, 4000))[..22])),
            ),
            (
                "a fragment of an unbalanced protocol",
                v4(&fragment(ip(ip_number::SCTP, CLIENT, VIP, &[0; 4]), LAST)),
            ),
            ("a ping's fragment to the router", v4(&fragment(icmp(CLIENT, ROUTER, 8, &[0; 32]), LAST))),
            (
                "a ping's fragment from a server to the router",
                v4(&fragment(icmp(SERVER, ROUTER, 0, &[0; 32]), LAST)),
            ),
            ("a fragment to the router", v4(&fragment(ip(ip_number::TCP, SERVER, ROUTER, &[0; 4]), LAST))),
            ("cut in the ports", v4(&ip(ip_number::TCP, CLIENT, VIP, &[0, 80]))),
            ("three VLAN tags", triple),
            ("ARP", ethernet(EtherType::ARP, &[0; 46])),
            ("an IPv6 packet said to be IPv4", v4(&tcp((CLIENT6, 4000), (VIP6, 80)))),
            ("no IP header", ethernet(EtherType::IPV4, &[])),
        ],
    );
}

#[test]
fn a_change_takes_effect_and_leaves_the_rest() {
    with_steering(1500, |rig, xdp| {
        let mut up = |xdp: &mut Xdp, frame: &[u8]| {
            rig.router.enter(|| xdp.ask(PortIndex(0), frame)).unwrap() == Steered::Up
        };
        let http = v4(&tcp((CLIENT, 4000), (VIP, 80)));
        let ftp = v4(&tcp((CLIENT, 4000), (VIP, 21)));
        let marked = v4(&tcp((CLIENT, 4000), (MARKED, 80)));
        let reply = v4(&tcp((SERVER, 8080), (CLIENT, 4000)));
        let check = v4(&tcp((SERVER, 8080), (ROUTER, 4000)));
        let seen = |xdp: &mut Xdp, up: &mut dyn FnMut(&mut Xdp, &[u8]) -> bool| {
            [&http, &ftp, &marked, &reply, &check].map(|frame| up(xdp, frame))
        };
        assert_eq!(seen(xdp, &mut up), [true, false, true, true, false]);
        let mut changed = steering();
        changed.destinations[0].1.push(ports(Protocol::TCP, 21, 21));
        changed.destinations.truncate(4);
        changed.own.clear();
        xdp.apply_steering(&changed).unwrap();
        assert_eq!(seen(xdp, &mut up), [true, true, false, true, true]);
        xdp.apply_steering(&Steering::default()).unwrap();
        assert_eq!(seen(xdp, &mut up), [false; 5]);
        xdp.apply_steering(&steering()).unwrap();
        assert_eq!(seen(xdp, &mut up), [true, false, true, true, false]);
    });
}
