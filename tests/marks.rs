//! Saved iptables rules to the marks of packets.

use std::net::IpAddr;
use std::path::Path;

use xlvs::config::mark_command::{apply_command, rule_line};
use xlvs::config::marks::{MarkError, family_of, parse_marks, parse_marks_of};
use xlvs::config::names::Names;
use xlvs::ipvs::mark::{MarkPacket, MarkRules};
use xlvs::net::addr::{Family, Protocol};

use crate::lvscf::random_text;

mod errors;

fn names() -> Names<'static> {
    Names { host: &|_| None, service: &|name, _| (name == "http").then_some(80) }
}

fn rules(text: &str) -> MarkRules {
    parse_marks(text, names()).unwrap_or_else(|errors| panic!("{text}\n{}", render(&errors)))
}

fn table(lines: &str) -> String {
    format!("*mangle\n:PREROUTING ACCEPT [0:0]\n{lines}\nCOMMIT\n")
}

fn render(errors: &[MarkError]) -> String {
    errors.iter().map(|error| format!("{error}\n")).collect()
}

/// "tcp 192.0.2.10:1000 > 10.10.1.30:80 eth0"; without ports for a protocol that has none.
fn mark(rules: &MarkRules, packet: &str) -> u32 {
    let words: Vec<&str> = packet.split(' ').collect();
    let protocol = match words[0] {
        "tcp" => Protocol::TCP,
        "udp" => Protocol::UDP,
        number => Protocol(number.parse().unwrap()),
    };
    let end = |word: &str| -> (IpAddr, Option<u16>) {
        match word.rsplit_once('@') {
            Some((address, port)) => (address.parse().unwrap(), Some(port.parse().unwrap())),
            None => (word.parse().unwrap(), None),
        }
    };
    let ((source, sport), (destination, dport)) = (end(words[1]), end(words[3]));
    let packet = MarkPacket { source, destination, protocol, ports: sport.zip(dport), interface: words[4] };
    rules.mark(&packet)
}

const CLIENT: &str = "tcp 192.0.2.10@1000 > 10.10.1.30@80 eth0";

#[test]
fn the_articles_file_marks_web_traffic_to_the_virtual_address() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/iptables");
    let rules = rules(&std::fs::read_to_string(path).unwrap());
    for (packet, expected) in [
        (CLIENT, 80),
        ("tcp 192.0.2.10@1000 > 10.10.1.30@443 eth0", 80),
        ("tcp 192.0.2.10@1000 > 10.10.1.30@22 eth0", 0),
        ("udp 192.0.2.10@1000 > 10.10.1.30@80 eth0", 0),
        ("tcp 192.0.2.10@1000 > 10.10.1.31@80 eth0", 0),
        ("1 192.0.2.10 > 10.10.1.30 eth0", 0),
        ("tcp 192.0.2.10 > 10.10.1.30 eth0", 0),
        ("tcp fd00::1@1000 > fd00::2@80 eth0", 0),
    ] {
        assert_eq!(mark(&rules, packet), expected, "{packet}");
    }
    let found: Vec<String> = rules.destinations().iter().map(|found| format!("{found:?}")).collect();
    assert_eq!(
        found,
        [
            "(Some(80), (Some(10.10.1.30/32), PortRange { protocol: Protocol(6), ports: 80..=80 }))",
            "(Some(80), (Some(10.10.1.30/32), PortRange { protocol: Protocol(6), ports: 443..=443 }))"
        ]
    );
}

#[test]
fn each_option_decides() {
    let packets: [(&str, &str, u32); 44] = [
        ("-j MARK --set-mark 0x50", CLIENT, 80),
        ("-j MARK --set-mark 0120", CLIENT, 80),
        ("-j MARK --set-mark 4294967295", CLIENT, u32::MAX),
        ("-d 10.10.1.0/24 -j MARK --set-mark 1", CLIENT, 1),
        ("-d 10.10.1.0/255.255.255.0 -j MARK --set-mark 1", CLIENT, 1),
        ("-d 10.0.1.30/255.0.255.255 -j MARK --set-mark 1", CLIENT, 1),
        ("! -d 10.10.1.30 -j MARK --set-mark 1", CLIENT, 0),
        ("-d ! 10.10.1.31 -j MARK --set-mark 1", CLIENT, 1),
        ("! -d 10.10.1.30 -j MARK --set-mark 1", "tcp fd00::1@1 > fd00::2@2 eth0", 0),
        ("--source 192.0.2.0/28 --destination 10.10.1.30 -j MARK --set-mark 1", CLIENT, 1),
        ("--src 192.0.2.11 -j MARK --set-mark 1", CLIENT, 0),
        ("-d 0.0.0.0/0 -j MARK --set-mark 1", CLIENT, 1),
        ("-i eth0 -j MARK --set-mark 1", CLIENT, 1),
        ("-i eth+ -j MARK --set-mark 1", CLIENT, 1),
        ("-i + -j MARK --set-mark 1", CLIENT, 1),
        ("--in-interface eth -j MARK --set-mark 1", CLIENT, 0),
        ("! -i eth+ -j MARK --set-mark 1", CLIENT, 0),
        ("-p 6 -j MARK --set-mark 1", CLIENT, 1),
        ("--protocol TCP -j MARK --set-mark 1", CLIENT, 1),
        ("-p all -j MARK --set-mark 1", CLIENT, 1),
        ("! -p tcp -j MARK --set-mark 1", CLIENT, 0),
        ("-p gre -j MARK --set-mark 1", "47 192.0.2.10 > 10.10.1.30 eth0", 1),
        ("-p tcp --dport 80 -j MARK --set-mark 1", CLIENT, 1),
        ("-p tcp -m tcp --destination-port http -j MARK --set-mark 1", CLIENT, 1),
        ("-p tcp -m tcp ! --dport 80 -j MARK --set-mark 1", CLIENT, 0),
        ("-p tcp -m tcp ! --dport 81 -j MARK --set-mark 1", "tcp 192.0.2.10 > 10.10.1.30 eth0", 0),
        ("-p tcp -m tcp --dport :1024 -j MARK --set-mark 1", CLIENT, 1),
        ("-p tcp -m tcp --dport 81: -j MARK --set-mark 1", CLIENT, 0),
        ("-p tcp -m tcp --sport 1000:1001 -j MARK --set-mark 1", CLIENT, 1),
        ("-p tcp -m multiport --dports 79,80:90,443 -j MARK --set-mark 1", CLIENT, 1),
        ("-p tcp -m multiport ! --dports 79,80:90 -j MARK --set-mark 1", CLIENT, 0),
        ("-p tcp -m multiport --sports 999,1000 -j MARK --set-mark 1", CLIENT, 1),
        ("-p tcp -m multiport --ports 1000 -j MARK --set-mark 1", CLIENT, 1),
        ("-p tcp --dport=80 --jump MARK --set-mark=1", CLIENT, 1),
        ("-m comment --comment \"it is \\\"web\\\" -j DROP\" -j MARK --set-mark 1", CLIENT, 1),
        ("-6 -p tcp --dport 80 -j MARK --set-mark 1", "tcp fd00::1@1 > fd00::2@80 eth0", 1),
        ("-6 -p tcp --dport 80 -j MARK --set-mark 1", CLIENT, 0),
        ("-d fd00::/64 -j MARK --set-mark 1", "tcp fd00::1@1 > fd00::2@80 eth0", 1),
        ("-j MARK --set-mark 0xff\n-A PREROUTING -j MARK --set-mark 0x3/0xf", CLIENT, 0xf3),
        ("-j MARK --set-mark 0xff\n-A PREROUTING -j MARK --set-xmark 0x30/0xf", CLIENT, 0xc0),
        ("-j MARK --set-mark 0xff\n-A PREROUTING -j MARK --and-mark 0xf0", CLIENT, 0xf0),
        ("-j MARK --set-mark 1\n-A PREROUTING -j MARK --or-mark 8", CLIENT, 9),
        ("-j MARK --set-mark 3\n-A PREROUTING -j MARK --xor-mark 1", CLIENT, 2),
        (
            "-j MARK --set-mark 0x13\n-A PREROUTING -m mark --mark 0x3/0xf -j MARK --set-mark 7\n\
             -A PREROUTING -m mark ! --mark 7 -j MARK --set-mark 9",
            CLIENT,
            7,
        ),
    ];
    for (lines, packet, expected) in packets {
        let text = table(&format!("-A PREROUTING {lines}"));
        assert_eq!(mark(&rules(&text), packet), expected, "{text}{packet}");
    }
}

#[test]
fn chains_return_accept_and_goto() {
    let chains = ":WEB - [0:0]\n:DEEP - [0:0]\n:UNUSED - [0:0]\n";
    for (lines, expected) in [
        ("-A PREROUTING -j WEB\n-A WEB -j MARK --set-mark 1", 1),
        ("-A PREROUTING -j WEB\n-A PREROUTING -j MARK --or-mark 2\n-A WEB -j MARK --set-mark 1", 3),
        (
            "-A PREROUTING -j WEB\n-A PREROUTING -j MARK --or-mark 2\n-A WEB -j RETURN\n-A WEB -j MARK --set-mark 1",
            2,
        ),
        ("-A PREROUTING -j WEB\n-A PREROUTING -j MARK --or-mark 2\n-A WEB -j ACCEPT", 0),
        ("-A PREROUTING -g WEB\n-A PREROUTING -j MARK --or-mark 2\n-A WEB -j MARK --set-mark 1", 1),
        (
            "-A PREROUTING -j WEB\n-A PREROUTING -j MARK --or-mark 2\n-A WEB -g DEEP\n-A WEB -j MARK --or-mark 4\n\
             -A DEEP -j MARK --or-mark 8",
            10,
        ),
        (
            "-A PREROUTING -j MARK --set-mark 5\n-A PREROUTING -j ACCEPT\n-A PREROUTING -j MARK --set-mark 6",
            5,
        ),
        (
            "-A PREROUTING -j MARK --set-mark 5\n-A PREROUTING -j RETURN\n-A PREROUTING -j MARK --set-mark 6",
            5,
        ),
        ("-A UNUSED -j LOG\n-A UNUSED -j UNUSED\n-A PREROUTING -j MARK --set-mark 5", 5),
        ("[12:3456] -A PREROUTING -p tcp\n[0:0] -A PREROUTING -j MARK --set-mark 5", 5),
        ("-A INPUT -j DROP\n-A FORWARD -m state --state NEW\n-A POSTROUTING -j TTL --ttl-inc 1", 0),
    ] {
        let text = table(&format!("{chains}{lines}"));
        assert_eq!(mark(&rules(&text), CLIENT), expected, "{text}");
    }
}

/// Each rule stands between two that mark, so neither the mark nor the walk may change.
#[test]
fn rules_that_cannot_concern_the_mark_are_passed_over() {
    for rule in [
        "-p tcp -m conntrack --ctstate NEW -m limit --limit 3/min -j LOG --log-prefix \"-p DROP: \" --log-level 4",
        "-m state --state INVALID -j NFLOG --nflog-group 5",
        "-j ULOG --ulog-nlgroup 1",
        "-p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu",
        "-p tcp -m tcp --dport 22 -j TOS --set-tos 0x10/0x3f",
        "-m dscp --dscp 0x08 -j DSCP --set-dscp-class AF21",
        "-i eth0 -j TTL --ttl-inc 1",
        "-j CLASSIFY --set-class 0001:0010",
        "-j TRACE",
        "-m set --match-set seen src -j SET --add-set seen src",
        "--jump=CONNMARK --save-mark --nfmask 0xff --ctmask 0xff",
        "-m comment --comment \"to the connection\" -j CONNMARK --set-xmark 0x9/0xffffffff",
        "-p icmp -m icmp --icmp-type 8 -j ACCEPT",
        "-p icmp --icmp-type any -j RETURN",
        "-p ipv6-icmp -m icmp6 --icmpv6-type 135 -j ACCEPT",
        "-p 1 -m length --length 1000: -j MARK --set-mark 9",
    ] {
        let around = format!(
            "-A PREROUTING -j MARK --set-mark 1\n-A PREROUTING {rule}\n-A PREROUTING -j MARK --or-mark 2"
        );
        assert_eq!(mark(&rules(&table(&around)), CLIENT), 3, "{rule}");
    }
    let chain = table(":TOS - [0:0]\n-A PREROUTING -j TOS\n-A TOS -j MARK --set-mark 4");
    assert_eq!(mark(&rules(&chain), CLIENT), 4, "a chain by the name of a target is a chain");
}

#[test]
fn what_the_real_iptables_save_wrote_is_read() {
    let saved = "# Generated by iptables-save v1.8.9 (nf_tables)\r\n*mangle\r\n:PREROUTING ACCEPT [0:0]\r\n:FOO - [0:0]\r\n\
        [0:0] -A PREROUTING -p tcp -m tcp ! --dport 80 -j MARK --set-xmark 0x50/0xff\r\n\
        [0:0] -A PREROUTING -p udp -m multiport --ports 80,90:99 -m comment --comment \"hi \\\"there\\\"\" -j MARK --set-xmark 0x8/0x8\r\n\
        [0:0] -A PREROUTING -p esp -m mark ! --mark 0x3/0x7 -g FOO\r\n\
        [0:0] -A PREROUTING -s 10.0.0.0/255.0.255.0 -i eth+ -j MARK --set-xmark 0x3/0x0\r\n\
        [0:0] -A PREROUTING -j MARK --set-xmark 0x0/0xffffff0f\r\n\
        [0:0] -A FOO -j MARK --set-xmark 0x70/0xffffffff\r\nCOMMIT\r\n# Completed\r\n";
    let rules = rules(saved);
    assert_eq!(mark(&rules, "tcp 192.0.2.1@9 > 10.1.1.1@443 eth0"), 0x50);
    assert_eq!(mark(&rules, "50 192.0.2.1 > 10.1.1.1 eth0"), 0x70);
    assert!(rules.destinations().iter().all(|(mark, _)| mark.is_none()), "bits of marks are changed singly");
}

/// As ip6tables-save of RHEL 6 writes it.
const SAVED6: &str = "# Generated by ip6tables-save v1.4.7 on Tue Nov 24 12:00:00 2026\n*mangle\n:PREROUTING ACCEPT [0:0]\n\
    :INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n:WEB - [0:0]\n\
    -A PREROUTING -p ipv6-icmp -m icmp6 --icmpv6-type 135 -j ACCEPT \n\
    -A PREROUTING -d 2001:db8::30/128 -p tcp -m multiport --dports 80,443 -j WEB \n\
    -A PREROUTING ! -s 2001:db8:9::/48 -p udp -m udp --dport 53 -j MARK --set-xmark 0x35/0xffffffff \n\
    -A PREROUTING -4 -d 10.10.1.30/32 -j MARK --set-xmark 0x99/0xffffffff \n\
    -A WEB -j MARK --set-xmark 0x50/0xffffffff \n-A WEB -j ACCEPT \nCOMMIT\n\
    *filter\n:INPUT DROP [0:0]\n-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT \nCOMMIT\n";

#[test]
fn the_files_of_both_programs_mark_each_its_family() {
    let alone =
        parse_marks_of(Family::V6, SAVED6, names()).unwrap_or_else(|errors| panic!("{}", render(&errors)));
    let iptables = rules(&table(
        ":WEB - [0:0]\n-A PREROUTING -d 10.10.1.30/32 -p tcp -m tcp --dport 80 -j WEB\n-A WEB -j MARK --set-mark 7\n\
         -A PREROUTING -6 -d 2001:db8::30/128 -j MARK --set-mark 6",
    ));
    let both = iptables.clone().with_ipv6(alone.clone());
    let alone = MarkRules::default().with_ipv6(alone);
    for (packet, by_alone, by_both) in [
        ("tcp fd00::1@1 > 2001:db8::30@80 eth0", 0x50, 0x50),
        ("tcp fd00::1@1 > 2001:db8::30@22 eth0", 0, 6),
        ("udp fd00::1@1 > 2001:db8::31@53 eth0", 0x35, 0x35),
        ("udp 2001:db8:9::1@1 > 2001:db8::31@53 eth0", 0, 0),
        ("udp 192.0.2.10@1 > 10.10.1.31@53 eth0", 0, 0),
        ("58 fd00::1 > 2001:db8::31 eth0", 0, 0),
        (CLIENT, 0, 7),
        ("tcp 192.0.2.10@1000 > 10.10.1.30@443 eth0", 0, 0),
    ] {
        assert_eq!(mark(&alone, packet), by_alone, "ip6tables alone: {packet}");
        assert_eq!(mark(&both, packet), by_both, "both: {packet}");
    }
    let found = both.destinations();
    assert!(found.iter().all(|(_, (prefix, _))| prefix.is_some()), "a file is of one family: {found:?}");
    assert_eq!(iptables.clone().with_ipv6(MarkRules::default()), iptables);
}

#[test]
fn an_ipv4_address_in_a_file_of_ip6tables_is_told() {
    let lines = "-A PREROUTING -d 10.10.1.30/32 -j MARK --set-mark 1";
    let errors = parse_marks_of(Family::V6, &table(lines), names()).unwrap_err();
    let reason = "line 3: an IPv4 address cannot be compared with by a rule of ip6tables: ";
    assert_eq!(render(&errors), format!("{reason}{lines}\n"));
    assert_eq!(family_of("/etc/sysconfig/ip6tables", ""), Family::V6);
    assert_eq!(family_of("/etc/ip6tables.d/iptables", ""), Family::V4);
    assert_eq!(family_of("rules", SAVED6), Family::V6);
}

#[test]
fn chains_that_multiply_or_nest_without_end_are_refused() {
    let name = |index: usize| if index == 0 { "PREROUTING".to_owned() } else { format!("C{index}") };
    let build = |chains: usize, calls: usize| {
        let heads: String = (1..=chains).map(|index| format!(":C{index} - [0:0]\n")).collect();
        let call = |index: usize| format!("-A {} -j C{}\n", name(index), index + 1).repeat(calls);
        table(&(heads + &(0..chains).map(call).collect::<String>()))
    };
    assert!(parse_marks(&build(10, 2), names()).is_ok());
    let errors = parse_marks(&build(40, 2), names()).unwrap_err();
    assert!(render(&errors).contains("more than 65536 rules"), "{}", render(&errors));
    assert!(parse_marks(&build(60, 1), names()).is_ok());
    let errors = parse_marks(&build(20_000, 1), names()).unwrap_err();
    assert!(render(&errors).contains("more than 64 chains"), "{}", render(&errors));
}

#[test]
fn destinations_cover_what_can_be_marked() {
    let shape = |lines: &str| {
        let text = table(&format!(":WEB - [0:0]\n{lines}"));
        let found = rules(&text).destinations();
        let one = |(mark, (prefix, range)): &(Option<u32>, xlvs::ipvs::mark::MarkedDestination)| {
            let prefix = prefix.map_or("any".to_owned(), |prefix| prefix.to_string());
            let mark = mark.map_or("?".to_owned(), |mark| mark.to_string());
            format!("{mark} {prefix} {} {}-{}", range.protocol.0, range.ports.start(), range.ports.end())
        };
        found.iter().map(one).collect::<Vec<_>>().join("; ")
    };
    for (lines, expected) in [
        ("-A PREROUTING -j MARK --set-mark 0", ""),
        ("-A PREROUTING -j MARK --set-mark 7", "7 0.0.0.0/0 0 0-65535"),
        ("-A PREROUTING -6 -p tcp -j MARK --set-mark 7", "7 ::/0 6 0-65535"),
        ("-A PREROUTING ! -d 10.0.0.1 -p udp -j MARK --set-mark 7", "7 any 17 0-65535"),
        ("-A PREROUTING -d 10.1.2.0/255.0.255.0 -j MARK --set-mark 7", "7 10.0.0.0/8 0 0-65535"),
        ("-A PREROUTING -p tcp -m multiport --ports 80 -j MARK --set-mark 7", "7 0.0.0.0/0 6 0-65535"),
        ("-A PREROUTING -p tcp --sport 80 -j MARK --set-mark 7", "7 0.0.0.0/0 6 0-65535"),
        (
            "-A PREROUTING -d 10.0.0.0/8 -p tcp -m multiport --dports 80:90,443 -j WEB\n\
             -A WEB -d 10.1.0.0/16 -p tcp --dport 85:500 -j MARK --set-mark 7\n\
             -A WEB -d 11.0.0.0/8 -j MARK --set-mark 8\n-A WEB -p udp -j MARK --set-mark 9",
            "7 10.1.0.0/16 6 85-90; 7 10.1.0.0/16 6 443-443",
        ),
        ("-A PREROUTING -d 10.0.0.1 -j MARK --or-mark 7", "? 10.0.0.1/32 0 0-65535"),
        ("-A PREROUTING -d fd00::1 -j MARK --set-mark 7", "7 fd00::1/128 0 0-65535"),
    ] {
        assert_eq!(shape(lines), expected, "{lines}");
    }
}

#[test]
fn command_lines_become_saved_lines() {
    let article = "iptables -t mangle -A PREROUTING -d 10.10.1.30 -p tcp -m multiport --dports 80,443 -j MARK --set-mark 80";
    let mut saved = apply_command("", article).unwrap();
    assert_eq!(mark(&rules(&saved), CLIENT), 80);
    for command in [
        "/usr/sbin/iptables -w -t mangle -N 'WEB'",
        "iptables -t mangle -A PREROUTING -j WEB",
        "iptables --table mangle --append WEB -p tcp --dport 80 -m comment --comment \"two words\" -j MARK --set-mark 9",
        "ip6tables -t mangle -A PREROUTING -d fd00:10::30 -p tcp --dport 443 -j MARK --set-mark 7",
        "ip6tables -t mangle -A PREROUTING -p udp -j MARK --set-mark 8",
    ] {
        saved = apply_command(&saved, command).unwrap();
    }
    let all = rules(&saved);
    assert_eq!(mark(&all, CLIENT), 9, "{saved}");
    assert_eq!(mark(&all, "tcp fd00::1@1 > fd00:10::30@443 eth0"), 7);
    assert_eq!(mark(&all, "udp fd00::1@1 > fd00:10::30@443 eth0"), 8);
    assert_eq!(mark(&all, "udp 10.0.0.1@1 > 10.0.0.2@443 eth0"), 0);
    let flushed = apply_command(&saved, "iptables -t mangle -F").unwrap();
    assert_eq!(mark(&rules(&flushed), CLIENT), 0, "{flushed}");
    for (command, expected) in [
        ("iptables -A INPUT -j DROP", "only -t mangle gives marks"),
        ("iptables -t mangle -I PREROUTING -j X", "expected -A CHAIN RULE, -N CHAIN or -F"),
        ("nft list ruleset", "'nft' is not iptables or ip6tables"),
        ("iptables -t", "only -t mangle gives marks"),
        ("", "'' is not iptables or ip6tables"),
    ] {
        assert_eq!(rule_line(command), Err(expected.to_owned()), "{command}");
    }
}

#[test]
fn no_text_panics() {
    let pieces = [
        "*mangle\n",
        ":PREROUTING ACCEPT\n",
        ":A - [0:0]\n",
        "-A PREROUTING",
        "-A A",
        " -j ",
        "A",
        "MARK",
        " --set-mark ",
        " --dport ",
        " -p tcp",
        "80",
        ":",
        ",",
        "/",
        " ! ",
        "\"",
        "\\",
        "\n",
        "\n",
        "COMMIT\n",
        " -d ",
        "10.0.0.1",
        "fd00::",
        " -m ",
        "mark",
        "[1:2] ",
        "RETURN",
        " -g ",
    ];
    let packet = MarkPacket {
        source: IpAddr::from([10, 0, 0, 1]),
        destination: IpAddr::from([10, 0, 0, 1]),
        protocol: Protocol::TCP,
        ports: Some((80, 80)),
        interface: "eth0",
    };
    for seed in 0..20_000 {
        let text = format!("*mangle\n:A - [0:0]\n{}\nCOMMIT\n", random_text(seed, &pieces));
        if let Ok(rules) = parse_marks(&text, names()) {
            let marked = rules.mark(&packet);
            assert!(marked == 0 || !rules.destinations().is_empty(), "seed {seed}: {text}");
        }
        let _ = apply_command(&text, &text);
    }
}
