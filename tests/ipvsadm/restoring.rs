//! `-S`, `-R` and `-L -c` against the real tables: what is saved comes back, what is wrong changes nothing, and long lists come in
//! pages.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use xlvs::admin::client::Transport as _;
use xlvs::director::protocol::{Reply, Request};

use crate::support::device::Side;
use crate::support::engine::Router;
use crate::support::ethernet;
use crate::support::packet::{self, PacketSpec};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 10, 1, 30);

/// `-t ADDRESS:PORT` and the like.
fn service() -> impl Strategy<Value = String> {
    let address = prop_oneof![
        (1..224_u8, any::<[u8; 3]>()).prop_map(|(a, [b, c, d])| IpAddr::V4(Ipv4Addr::new(a, b, c, d))),
        any::<[u16; 4]>().prop_map(|[a, b, c, d]| IpAddr::V6(Ipv6Addr::new(0xfd00, a, b, c, d, 0, 0, 1))),
    ];
    let by_address = (select(vec!["-t", "-u", "--sctp-service"]), address, any::<u16>()).prop_map(
        |(option, address, port)| match address {
            IpAddr::V4(address) => format!("{option} {address}:{port}"),
            IpAddr::V6(address) => format!("{option} [{address}]:{port}"),
        },
    );
    let by_mark = (1..=u32::MAX, any::<bool>())
        .prop_map(|(mark, v6)| format!("-f {mark}{}", if v6 { " -6" } else { "" }));
    prop_oneof![4 => by_address, 1 => by_mark]
}

/// What `-A` may say of a service: scheduler with flags, persistence, one-packet scheduling.
fn options() -> impl Strategy<Value = (String, bool)> {
    let scheduler = select(vec![
        "-s rr",
        "-s wrr",
        "-s lc",
        "-s wlc",
        "-s sed -b flag-1",
        "-s nq -b flag-2,flag-3",
        "-s dh",
        "-s lblc",
        "-s lblcr",
        "-s fo",
        "-s ovf",
        "-s twos",
        "-s sh -b sh-port",
        "-s sh -b sh-fallback,sh-port",
        "-s mh -b mh-fallback",
        "-s mh",
    ]);
    let persistence = prop::option::of((1..2_678_400_u32, 0..3_u8, any::<bool>()));
    (scheduler, persistence, any::<bool>()).prop_map(|(scheduler, persistence, ops)| {
        let Some((seconds, mask, engine)) = persistence else { return (scheduler.to_owned(), ops) };
        let mask = ["", " -M MASK8", " -M MASK24"][usize::from(mask)];
        let engine = if engine { " --pe sip" } else { "" };
        (format!("{scheduler} -p {seconds}{mask}{engine}"), ops)
    })
}

fn servers() -> impl Strategy<Value = Vec<(u8, u16, &'static str, u16)>> {
    let forward = select(vec![
        "-m",
        "-g",
        "-i",
        "-i --tun-type gre --tun-csum",
        "-i --tun-type gre --tun-nocsum",
        "-i --tun-type gue --tun-port 6080 --tun-remcsum",
        "-i --tun-type gue --tun-port 1 --tun-nocsum",
    ]);
    prop::collection::vec((1..250_u8, any::<u16>(), forward, any::<u16>()), 0..6)
}

/// The commands that make a table. Those that are no good for their service are refused, and so are not in it.
fn commands() -> impl Strategy<Value = Vec<String>> {
    let one = (service(), options(), servers()).prop_map(|(service, (options, ops), servers)| {
        let v6 = service.contains('[') || service.ends_with("-6");
        let masks = if v6 { ["56", "64"] } else { ["255.0.0.0", "255.255.255.0"] };
        let options = options.replace("MASK8", masks[0]).replace("MASK24", masks[1]);
        let ops = if ops && (service.starts_with("-u") || service.starts_with("-f")) { " -o" } else { "" };
        let server = |(host, port, forward, weight)| {
            let address = if v6 { format!("[fd00:8::{host:x}]") } else { format!("10.8.8.{host}") };
            format!("-a {service} -r {address}:{port} {forward} -w {weight}")
        };
        let servers: Vec<String> = servers.into_iter().map(server).collect();
        [vec![format!("-A {service} {options}{ops}")], servers].concat()
    });
    prop::collection::vec(one, 0..8).prop_map(|services| services.concat())
}

/// Services with their servers, in no order.
fn table(router: &mut Router) -> BTreeSet<(String, BTreeSet<String>)> {
    let Ok(Reply::Services { services, .. }) = router.call(Request::ListServices) else {
        panic!("no services")
    };
    let servers = |service: &xlvs::ipvs::view::ServiceView| {
        service.servers.iter().map(|server| format!("{:?}", server.spec)).collect()
    };
    services.iter().map(|service| (format!("{:?}", service.spec), servers(service))).collect()
}

#[test]
fn what_is_saved_comes_back() {
    let config = Config { cases: 1000, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::XorShift, &[5; 16]));
    let outcome = runner.run(&commands(), |commands| {
        let mut router = Router::new();
        router.ipvsadm_reading(&["-R", "--compat"], &commands.join("\n"));
        let before = table(&mut router);
        let saved = router.ipvsadm_reading(&["-Sn"], "");
        prop_assert_eq!((saved.code, saved.stderr.as_str()), (0, ""));

        let mut other = Router::new();
        let restored = other.ipvsadm_reading(&["-R"], &saved.stdout);
        prop_assert_eq!((restored.code, restored.stderr.as_str()), (0, ""), "{}", saved.stdout);
        prop_assert_eq!(&table(&mut other), &before, "{}", saved.stdout);
        // The order is the original's, which is none for addresses far apart.
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
        prop_assert_eq!(lines(&other.ipvsadm_reading(&["-Sn"], "").stdout), lines(&saved.stdout));
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

/// Standard error and exit code of a restore on a table with one service, which must be the same afterwards.
fn refused(input: &str) -> (String, i32) {
    let mut router = Router::new();
    router.ipvsadm_reading(&["-A", "-t", "10.10.1.30:80", "-s", "rr"], "");
    let before = table(&mut router);
    let output = router.ipvsadm_reading(&["-R"], input);
    assert_eq!(table(&mut router), before, "{input}");
    assert_eq!(output.stdout, "", "{input}");
    (output.stderr, output.code)
}

#[test]
fn a_line_that_is_wrong_changes_nothing_and_is_named() {
    let nothing = "nothing has been changed (--compat carries out the lines before and after it)\n";
    let cases = [
        ("-C\n-A -t 10.10.1.30:80 -s nosuch\n", "Scheduler or persistence engine not found", 2, 255),
        ("-A -t 10.10.1.30:81\n\n-A -t 10.10.1.30:80\n", "Service already exists", 3, 255),
        ("-A -t 10.10.1.30:81\n-a -t 10.10.1.30:82 -r 10.8.8.33 -m\n-C\n", "Service not defined", 2, 255),
        ("-C\n-A -t 10.10.1.30:99999\n", "illegal virtual server address[:port] specified", 2, 2),
        ("-C\n-A --bogus\n", "--bogus: unknown option", 2, 255),
        ("-C\n# comment\n", "Try `ipvsadm -h' or 'ipvsadm --help' for more information.", 2, 255),
        ("-C\n-d -t 10.10.1.30:80 -r 10.8.8.33\n", "Service not defined", 2, 255),
        ("-L -n\n-D -t 10.10.1.30:83\n", "No such service", 2, 255),
    ];
    for (input, reason, line, code) in cases {
        assert_eq!(refused(input), (format!("{reason}\nline {line}: {nothing}"), code), "{input:?}");
    }
}

#[test]
fn listings_among_the_lines_show_what_all_of_them_make() {
    let mut router = Router::new();
    let output =
        router.ipvsadm_reading(&["-R"], "-A -t 10.10.1.30:80 -s rr\n-Sn\n-A -t 10.10.1.30:81 -s wlc\n");
    assert_eq!(output.stdout, "-A -t 10.10.1.30:80 -s rr\n-A -t 10.10.1.30:81 -s wlc\n");
    assert_eq!((output.stderr.as_str(), output.code), ("", 0));
}

#[test]
fn however_many_connections_there_are_a_page_has_a_thousand_or_some_more() {
    let mut router = Router::new();
    router
        .ipvsadm_reading(&["-R"], "-A -u 10.10.1.30:53 -s rr -p 100\n-a -u 10.10.1.30:53 -r 10.8.8.33 -m\n");
    for client in 0..20_000_u32 {
        let mut spec = PacketSpec::new(Ipv4Addr::from(0x1400_0000 + client / 2).into(), VIP.into(), "udp");
        (spec.sport, spec.dport) = (1000 + (client % 2) as u16, 53);
        router.process(Side::Client, &ethernet::frame(Side::Client, &packet::build(&spec, None).remove(0)));
    }
    let (mut seen, mut place) = (BTreeSet::new(), Some(0));
    while let Some(from) = place {
        let Ok(Reply::Connections { connections, next }) =
            router.call(Request::ListConnections { place: from })
        else {
            panic!("no connections")
        };
        assert!(connections.len() < 2000, "a page of {}", connections.len());
        seen.extend(connections.iter().map(|connection| format!("{:?}", connection.client)));
        place = next;
    }
    assert_eq!(seen.len(), 30_000, "20,000 connections and 10,000 templates");
    let rows = router.ipvsadm_reading(&["-Lnc"], "").stdout.lines().count();
    assert_eq!(rows, 30_002);
    let json = router.ipvsadm_reading(&["-L", "-c", "--json"], "").stdout;
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["connections"].as_array().map(Vec::len), Some(30_000));
}
