//! What command lines ask of the tables, and listings of numbers that no sample reached.

use std::net::IpAddr;

use xlvs::admin;
use xlvs::director::protocol::{Reply, Request};
use xlvs::ipvs::edit::{
    ClientMask, Edit, Forward, Persistence, SchedulerFlags, ServerId, ServerSpec, ServiceId, ServiceSpec,
};
use xlvs::ipvs::view::{ConnectionView, RateView, ServiceView, StatsView, TableInfo};
use xlvs::net::addr::{Family, Protocol};
use xlvs::net::tunnel::{Encapsulation, GueChecksum};

use super::tables::{bare, server_view};
use super::{Scripted, run};
use crate::support::names::SampleNames;

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn tcp(host: &str, port: u16) -> ServiceId {
    ServiceId::Address { protocol: Protocol::TCP, address: address(host), port }
}

fn asked(line: &str) -> Edit {
    let (output, asked) = run(line, "", None);
    match asked.as_slice() {
        [Request::Edit(edit)] if output.code == 0 => edit.clone(),
        other => panic!("{line}: asked {other:?}, answered {output:?}"),
    }
}

fn server(host: &str, port: u16, forward: Forward) -> ServerSpec {
    let id = ServerId { address: address(host), port };
    ServerSpec { id, forward, ..server_view(id).spec }
}

#[test]
fn a_service_is_what_was_typed_and_defaults_for_the_rest() {
    let persistent = |timeout, mask| Some(Persistence { timeout, mask: ClientMask::V4(mask) });
    let plain = bare(tcp("1.2.3.4", 80));
    let rr = ServiceSpec { scheduler: "rr".into(), ..plain.clone() };
    for (line, spec) in [
        ("-A -t 1.2.3.4:80", plain.clone()),
        ("-A -t=1.2.3.4:80 -s \"\"", plain.clone()),
        ("-A -t1.2.3.4:80 -srr", rr.clone()),
        ("-At 1.2.3.4:+80 -s=rr", rr),
        ("-A --tcp-service=1.2.3.4:080", plain.clone()),
        ("-A -t 0x1.2.3:http", bare(tcp("1.2.0.3", 80))),
        ("-A -t 010.2.3:80", bare(tcp("8.2.0.3", 80))),
        ("-A -t 1:80", bare(tcp("0.0.0.1", 80))),
        ("-A -t localhost:80", bare(tcp("127.0.0.1", 80))),
        ("-A -p -t 1.2.3.4:80", ServiceSpec { persistence: persistent(360, u32::MAX), ..plain.clone() }),
        (
            "-A -t [1.2.3.4]:80 -p60 -M 255.255.255.0",
            ServiceSpec { persistence: persistent(60, 0xffff_ff00), ..bare(tcp("1.2.3.4", 0)) },
        ),
        (
            "-A -t 1.2.3.4:80 --persistent 7 -M 24",
            ServiceSpec { persistence: persistent(7, 24), ..plain.clone() },
        ),
        (
            "-A -t 1.2.3.4:80 -s abcdefghijklmnopqrstuvwxyz",
            ServiceSpec { scheduler: "abcdefghijklmno".into(), ..plain.clone() },
        ),
        (
            "-A -t 1.2.3.4:80 -b sh-port -s sh",
            ServiceSpec {
                scheduler: "sh".into(),
                flags: SchedulerFlags { flag1: false, flag2: true, flag3: false },
                ..plain
            },
        ),
        (
            "-A -f 7 -6 -p 9 -M 64 -o",
            ServiceSpec {
                persistence: Some(Persistence { timeout: 9, mask: ClientMask::V6(64) }),
                one_packet: true,
                ..bare(ServiceId::FwMark { mark: 7, family: Family::V6 })
            },
        ),
    ] {
        assert_eq!(asked(line), Edit::AddService(spec), "{line}");
    }
}

#[test]
fn what_stands_behind_a_blank_after_an_address_in_numbers_does_not_count() {
    let mut transport = Scripted::default();
    for (address, id) in [("1.2.3.4 :80", tcp("1.2.3.4", 80)), ("1.2.3.4 x:80", tcp("1.2.3.4", 80))] {
        let words = ["-A", "-t", address].map(Into::into);
        let outcome = admin::run(&words, &mut &b""[..], &mut Vec::new(), &mut transport, &SampleNames);
        assert_eq!(outcome.code, 0, "{address}: {outcome:?}");
        assert_eq!(transport.asked.pop(), Some(Request::Edit(Edit::AddService(bare(id)))), "{address}");
    }
}

#[test]
fn an_edit_forgets_what_it_does_not_repeat() {
    assert_eq!(asked("-E -t 1.2.3.4:80"), Edit::EditService(bare(tcp("1.2.3.4", 80))));
    let spec = server("1.2.3.5", 80, Forward::Route);
    assert_eq!(asked("-e -t 1.2.3.4:80 -r 1.2.3.5:8080"), Edit::EditServer(tcp("1.2.3.4", 80), spec));
}

#[test]
fn the_port_of_a_server_depends_on_method_and_order() {
    let service = tcp("1.2.3.4", 80);
    let mark = ServiceId::FwMark { mark: 4, family: Family::V4 };
    for (line, id, spec) in [
        ("-a -t 1.2.3.4:80 -r 1.2.3.5 -m", service, server("1.2.3.5", 80, Forward::Masquerade)),
        ("-a -r 1.2.3.5 -t 1.2.3.4:80 -m", service, server("1.2.3.5", 0, Forward::Masquerade)),
        ("-a -t 1.2.3.4:80 -r 1.2.3.5:90 -m", service, server("1.2.3.5", 90, Forward::Masquerade)),
        ("-a -t 1.2.3.4:80 -r 1.2.3.5:90 -i", service, server("1.2.3.5", 80, Forward::Tunnel)),
        ("-a -t 1.2.3.4:80 -r [::1]:90 -i", service, server("::1", 80, Forward::Tunnel)),
        ("-a -f 4 -r 1.2.3.5:88", mark, server("1.2.3.5", 88, Forward::Route)),
        ("-a -f 4 -r 1.2.3.5", mark, server("1.2.3.5", 0, Forward::Route)),
    ] {
        assert_eq!(asked(line), Edit::AddServer(id, spec), "{line}");
    }
    let full = ServerSpec {
        weight: 2,
        upper_threshold: 3,
        lower_threshold: 1,
        ..server("1.2.3.5", 80, Forward::Masquerade)
    };
    assert_eq!(asked("-a -t 1.2.3.4:80 -x 3 -y 1 -r 1.2.3.5 -m -w +2"), Edit::AddServer(service, full));
}

#[test]
fn tunnel_options_say_how_packets_are_wrapped() {
    let service = tcp("1.2.3.4", 80);
    let gue = |checksum| Encapsulation::Gue { port: 6080, checksum };
    for (options, tunnel) in [
        ("", Encapsulation::Ipip),
        ("--tun-type ipip", Encapsulation::Ipip),
        ("--tun-type gue --tun-port 6080", gue(GueChecksum::None)),
        ("--tun-type gue --tun-port 6080 --tun-nocsum", gue(GueChecksum::None)),
        ("--tun-type gue --tun-port 6080 --tun-csum", gue(GueChecksum::Udp)),
        ("--tun-type gue --tun-port 6080 --tun-remcsum", gue(GueChecksum::Remote)),
        ("--tun-type gre", Encapsulation::Gre { checksum: false }),
        ("--tun-type gre --tun-csum", Encapsulation::Gre { checksum: true }),
    ] {
        let line = format!("-e -t 1.2.3.4:80 -r 1.2.3.5 -i {options}");
        let spec = ServerSpec { tunnel, ..server("1.2.3.5", 80, Forward::Tunnel) };
        assert_eq!(asked(line.trim()), Edit::EditServer(service, spec), "{line}");
    }
}

#[test]
fn the_other_commands_ask_for_themselves() {
    let service = tcp("1.2.3.4", 80);
    let id = ServerId { address: address("1.2.3.5"), port: 99 };
    for (line, edit) in [
        ("-D -t 1.2.3.4:80", Edit::DeleteService(service)),
        ("-d -t 1.2.3.4:80 -r 1.2.3.5:99", Edit::DeleteServer(service, id)),
        ("-C", Edit::Flush),
        ("-Z", Edit::Zero(None)),
        ("-Z -t 1.2.3.4:80", Edit::Zero(Some(service))),
        ("--set 1 0 2678400", Edit::SetTimeouts { tcp: 1, tcp_fin: 0, udp: 2_678_400 }),
    ] {
        assert_eq!(asked(line), edit, "{line}");
    }
}

fn busy_table() -> Reply {
    let mut first = server_view(ServerId { address: address("200.8.8.34"), port: 80 });
    first.stats = StatsView { conns: 123_456_789, outbytes: 99_999_999_999, ..StatsView::default() };
    first.rates = RateView { cps: 123_456_789, inpps: 999, inbps: 4_000_000_000, ..RateView::default() };
    first.spec.forward = Forward::Tunnel;
    let mut second = first.clone();
    second.spec.id.address = address("10.8.8.33");
    second.spec.forward = Forward::Local;
    let service = |id| ServiceView {
        spec: bare(id),
        servers: vec![second.clone(), first.clone()],
        stats: StatsView {
            conns: 123_456,
            inpkts: 98_765_432,
            outpkts: 123_456_789,
            inbytes: 1_234_567_890_123,
            outbytes: 123_456_789_012_345,
        },
        rates: RateView {
            cps: 999_999_999,
            inpps: 100_000_000,
            outpps: 678,
            inbps: 99_999_999,
            outbps: 4_000_000_000,
        },
    };
    let services =
        vec![service(ServiceId::FwMark { mark: 7, family: Family::V4 }), service(tcp("10.10.1.30", 80))];
    Reply::Services { info: TableInfo { conn_tab_size: 4096 }, services }
}

fn listing(line: &str) -> String {
    let (output, _) = run(line, "", Some(busy_table()));
    assert_eq!((output.stderr.as_str(), output.code), ("", 0), "{line}");
    output.stdout
}

#[test]
fn long_numbers_are_shortened_except_counts_of_a_servers_rates() {
    assert_eq!(
        listing("-Ln --stats"),
        "IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes
  -> RemoteAddress:Port
TCP  10.10.1.30:80                  123456 98765432  123456K    1234G     123T
  -> 200.8.8.34:80                 123456K        0        0        0   99999M
  -> 10.8.8.33:80                  123456K        0        0        0   99999M
FWM  7                              123456 98765432  123456K    1234G     123T
  -> 200.8.8.34:80                 123456K        0        0        0   99999M
  -> 10.8.8.33:80                  123456K        0        0        0   99999M
"
    );
    assert_eq!(
        listing("-Ln --rate -t 10.10.1.30:80").lines().take(4).collect::<Vec<_>>(),
        [
            "Prot LocalAddress:Port                 CPS    InPPS   OutPPS    InBPS   OutBPS",
            "  -> RemoteAddress:Port",
            "TCP  10.10.1.30:80                 999999K  100000K      678 99999999    4000M",
            "  -> 200.8.8.34:80                123456789      999        0    4000M        0",
        ]
    );
    assert_eq!(
        listing("-Ln --rate --exact -t 10.10.1.30:80").lines().skip(2).take(2).collect::<Vec<_>>(),
        [
            "TCP  10.10.1.30:80                999999999 100000000      678 99999999 4000000000",
            "  -> 200.8.8.34:80                123456789      999        0 4000000000        0",
        ]
    );
}

#[test]
fn tunnel_columns_stand_between_method_and_weight() {
    assert_eq!(
        listing("-Ln --tun-info -t 10.10.1.30:80").lines().take(5).collect::<Vec<_>>(),
        [
            "Prot LocalAddress:Port Scheduler Flags",
            "  -> RemoteAddress:Port           Forward TunnelInfo    Weight ActiveConn InActConn",
            "TCP  10.10.1.30:80 wlc",
            "  -> 200.8.8.34:80                Tunnel  ipip          1      0          0         ",
            "  -> 10.8.8.33:80                 Local   n/a           1      0          0         ",
        ]
    );
}

#[test]
fn of_several_kinds_of_columns_one_is_shown() {
    assert_eq!(listing("-Ln --tun-info --rate --stats"), listing("-Ln --stats"));
    assert_eq!(listing("-Ln --persistent-conn --thresholds"), listing("-Ln --thresholds"));
    assert_eq!(listing("-Ln --tun-info --persistent-conn"), listing("-Ln --persistent-conn"));
    assert_eq!(listing("-ln --sort"), listing("--list --numeric"));
}

#[test]
fn a_call_is_shown_with_the_template_that_goes_by_it() {
    let end = |text: &str| text.parse().unwrap();
    let connection = |state: &str, client, expires, call_id: Option<&str>| ConnectionView {
        protocol: Protocol::UDP,
        state: state.to_owned(),
        client: end(client),
        virtual_address: end("10.10.1.30:5060"),
        server: end("10.8.8.33:5060"),
        expires,
        synced: false,
        call_id: call_id.map(str::to_owned),
    };
    let rows = || {
        let template = connection("NONE", "192.0.2.10:0", 59, Some("one@host"));
        listed(vec![template, connection("UDP", "192.0.2.10:5060", 299, None)])
    };
    assert_eq!(
        run("-Lnc --persistent-conn", "", Some(rows())).0.stdout,
        "IPVS connection entries
pro expire state       source             virtual            destination        pe name          pe_data
UDP 00:59  NONE        192.0.2.10:0       10.10.1.30:5060    10.8.8.33:5060   sip                one@host
UDP 04:59  UDP         192.0.2.10:5060    10.10.1.30:5060    10.8.8.33:5060
"
    );
    assert!(!run("-Lnc", "", Some(rows())).0.stdout.contains("one@host"));
}

#[test]
fn a_long_life_and_a_long_protocol_push_the_row_to_the_right() {
    let end = |text: &str| text.parse().unwrap();
    let connection = |protocol, state: &str, expires| ConnectionView {
        protocol,
        state: state.to_owned(),
        client: end("10.10.1.100:43586"),
        virtual_address: end("10.10.1.30:2"),
        server: end("10.8.8.33:80"),
        expires,
        synced: false,
        call_id: None,
    };
    let rows = vec![
        connection(Protocol::SCTP, "S-ACK-SENT", 6000),
        connection(Protocol::IP, "ASSURED", 36000),
        connection(Protocol::TCP, "TIME_WAIT", 109),
    ];
    let (output, _) = run("-Lnc", "", Some(listed(rows)));
    assert_eq!(
        output.stdout,
        "IPVS connection entries
pro expire state       source             virtual            destination
SCTP 100:00 S-ACK-SENT  10.10.1.100:43586  10.10.1.30:2       10.8.8.33:80
IP  600:00 ASSURED     10.10.1.100:43586  10.10.1.30:2       10.8.8.33:80
TCP 01:49  TIME_WAIT   10.10.1.100:43586  10.10.1.30:2       10.8.8.33:80
"
    );
}

#[test]
fn names_that_are_too_long_for_the_column_are_cut() {
    let long = server_view(ServerId { address: address("10.10.1.100"), port: 80 });
    let (stats, rates) = (StatsView::default(), RateView::default());
    let services =
        vec![ServiceView { spec: bare(tcp("10.10.1.100", 80)), servers: vec![long], stats, rates }];
    let info = TableInfo { conn_tab_size: 4096 };
    let (output, _) = run("-L", "", Some(Reply::Services { info, services }));
    assert_eq!(
        output.stdout.lines().skip(3).collect::<Vec<_>>(),
        [
            "TCP  a-client-with-a-rather-long- wlc",
            "  -> a-client-with-a-rather-long- Masq    1      0          0         ",
        ]
    );
}

fn listed(connections: Vec<ConnectionView>) -> Reply {
    Reply::Connections { connections, next: None }
}
