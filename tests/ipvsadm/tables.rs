//! From a printed listing back to the tables that it shows, so that printing them again must give the same bytes. The
//! rows are read as words, which knows nothing of widths; servers come back newest first as the kernel has them.

use std::net::{IpAddr, SocketAddr};

use xlvs::director::protocol::{Reply, Request};
use xlvs::ipvs::edit::{
    ClientMask, Edit, Forward, Persistence, SchedulerFlags, ServerId, ServerSpec, ServiceId, ServiceSpec,
};
use xlvs::ipvs::sync::{SyncDaemon, SyncRole};
use xlvs::ipvs::view::{
    ConnectionView, RateView, ServerView, ServiceView, StatsView, TableInfo, TimeoutView,
};
use xlvs::net::addr::{Family, Protocol};
use xlvs::net::tunnel::Encapsulation;

use crate::support::names::{HOSTS, PORTS};
use crate::support::samples::Sample;

/// What a daemon with the sampled tables answers to the question behind a sample.
pub fn reply_behind(sample: &Sample) -> Option<Reply> {
    let text = sample.stdout.as_str();
    let info = TableInfo { conn_tab_size: 4096 };
    if let Some(timeouts) = text.strip_prefix("Timeout (tcp tcpfin udp): ") {
        let seconds: Vec<u32> = timeouts.split_whitespace().map(|word| word.parse().unwrap()).collect();
        return Some(Reply::Timeouts(TimeoutView { tcp: seconds[0], tcp_fin: seconds[1], udp: seconds[2] }));
    }
    if text.starts_with("IPVS connection entries") {
        let connections = text.lines().skip(2).map(connection).collect();
        return Some(Reply::Connections { connections, next: None });
    }
    if text.contains("sync daemon") || sample.command.contains("--daemon") {
        return Some(Reply::Daemons(text.lines().map(daemon).collect()));
    }
    let sorted = !sample.command.contains("--nosort");
    if text.contains("LocalAddress") {
        return Some(Reply::Services { info, services: listed(text, sorted) });
    }
    if text.starts_with("-A") || sample.command.starts_with("ipvsadm -S") {
        return Some(Reply::Services { info, services: saved(text) });
    }
    None
}

fn listed(text: &str, sorted: bool) -> Vec<ServiceView> {
    let rows = text.lines().skip_while(|line| !line.starts_with("  -> RemoteAddress")).skip(1);
    let mut services: Vec<ServiceView> = Vec::new();
    for row in rows {
        let words: Vec<&str> = row.split_whitespace().collect();
        match words[0] {
            "->" => {
                let server = server(text, &words[1..]);
                services.last_mut().unwrap().servers.push(server);
            }
            _ => services.push(service(text, &words)),
        }
    }
    if sorted {
        services.reverse();
        services.iter_mut().for_each(|service| service.servers.reverse());
    }
    services
}

fn numbers(words: &[&str]) -> [u64; 5] {
    let numbers: Vec<u64> = words.iter().map(|word| word.parse().unwrap()).collect();
    numbers.try_into().unwrap()
}

fn stats([conns, inpkts, outpkts, inbytes, outbytes]: [u64; 5]) -> StatsView {
    StatsView { conns, inpkts, outpkts, inbytes, outbytes }
}

fn rates([cps, inpps, outpps, inbps, outbps]: [u64; 5]) -> RateView {
    RateView { cps, inpps, outpps, inbps, outbps }
}

fn service(text: &str, words: &[&str]) -> ServiceView {
    let ipv6_mark = words[0] == "FWM" && words[2] == "IPv6";
    let (id, rest) = (service_id(words[0], words[1], ipv6_mark), &words[2 + usize::from(ipv6_mark)..]);
    let counted = text.contains("OutBytes");
    let rated = text.contains("OutBPS");
    let spec = if counted || rated { bare(id) } else { flagged(id, rest) };
    ServiceView {
        spec,
        servers: Vec::new(),
        stats: if counted { stats(numbers(rest)) } else { StatsView::default() },
        rates: if rated { rates(numbers(rest)) } else { RateView::default() },
    }
}

fn service_id(kind: &str, name: &str, ipv6_mark: bool) -> ServiceId {
    let protocol = match kind {
        "TCP" => Protocol::TCP,
        "UDP" => Protocol::UDP,
        "SCTP" => Protocol::SCTP,
        "FWM" => {
            let family = if ipv6_mark { Family::V6 } else { Family::V4 };
            return ServiceId::FwMark { mark: name.parse().unwrap(), family };
        }
        other => panic!("service of kind {other}"),
    };
    let end = endpoint(name);
    ServiceId::Address { protocol, address: end.ip(), port: end.port() }
}

pub fn bare(id: ServiceId) -> ServiceSpec {
    let scheduler = "wlc".to_owned();
    let flags = SchedulerFlags::default();
    ServiceSpec { id, scheduler, flags, one_packet: false, persistence: None, engine: None }
}

fn flagged(id: ServiceId, words: &[&str]) -> ServiceSpec {
    let mut spec = ServiceSpec { scheduler: words[0].to_owned(), ..bare(id) };
    let mut words = words[1..].iter();
    while let Some(word) = words.next() {
        match *word {
            "persistent" => {
                let timeout = words.next().unwrap().parse().unwrap();
                let mask =
                    if id.family() == Family::V6 { ClientMask::V6(128) } else { ClientMask::V4(u32::MAX) };
                spec.persistence = Some(Persistence { timeout, mask });
            }
            "mask" => {
                let text = words.next().unwrap();
                let mask = match id.family() {
                    Family::V4 => ClientMask::V4(u32::from(text.parse::<std::net::Ipv4Addr>().unwrap())),
                    Family::V6 => ClientMask::V6(text.parse().unwrap()),
                };
                spec.persistence.as_mut().unwrap().mask = mask;
            }
            "pe" => spec.engine = words.next().map(|name| (*name).to_owned()),
            "ops" => spec.one_packet = true,
            flags => {
                spec.flags.flag1 = flags.contains("fallback") || flags.contains("flag-1");
                spec.flags.flag2 = flags.contains("port") || flags.contains("flag-2");
                spec.flags.flag3 = flags.contains("flag-3");
            }
        }
    }
    spec
}

pub fn server_view(id: ServerId) -> ServerView {
    let forward = Forward::Masquerade;
    ServerView {
        spec: ServerSpec {
            id,
            forward,
            tunnel: Encapsulation::Ipip,
            weight: 1,
            upper_threshold: 0,
            lower_threshold: 0,
        },
        active: 0,
        inactive: 0,
        persistent: 0,
        stats: StatsView::default(),
        rates: RateView::default(),
    }
}

fn server(text: &str, words: &[&str]) -> ServerView {
    let end = endpoint(words[0]);
    let mut view = server_view(ServerId { address: end.ip(), port: end.port() });
    let number = |index: usize| words[index].parse::<u32>().unwrap();
    if text.contains("OutBytes") {
        view.stats = stats(numbers(&words[1..]));
        return view;
    }
    if text.contains("OutBPS") {
        view.rates = rates(numbers(&words[1..]));
        return view;
    }
    (view.active, view.inactive) = (number(3), number(4));
    if text.contains("Uthreshold") {
        (view.spec.upper_threshold, view.spec.lower_threshold) = (number(1), number(2));
    } else if text.contains("PersistConn") {
        (view.spec.weight, view.persistent) = (words[1].parse().unwrap(), number(2));
    } else {
        view.spec.weight = words[2].parse().unwrap();
        view.spec.forward = match words[1] {
            "Masq" => Forward::Masquerade,
            "Tunnel" => Forward::Tunnel,
            "Route" => Forward::Route,
            other => panic!("forwarding method {other}"),
        };
    }
    view
}

fn connection(row: &str) -> ConnectionView {
    let words: Vec<&str> = row.split_whitespace().collect();
    let (minutes, seconds) = words[1].split_once(':').unwrap();
    ConnectionView {
        protocol: match words[0] {
            "IP" => Protocol::IP,
            "TCP" => Protocol::TCP,
            "UDP" => Protocol::UDP,
            other => panic!("connection of {other}"),
        },
        state: words[2].to_owned(),
        client: endpoint(words[3]),
        virtual_address: endpoint(words[4]),
        server: endpoint(words[5]),
        expires: minutes.parse::<u64>().unwrap() * 60 + seconds.parse::<u64>().unwrap(),
        synced: false,
        call_id: None,
    }
}

fn endpoint(text: &str) -> SocketAddr {
    let (host, port) = text.rsplit_once(':').unwrap();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let host = HOSTS.iter().find(|known| known.1 == host).map_or(host, |known| known.0);
    let port =
        PORTS.iter().find(|known| known.0 == port).map_or_else(|| port.parse().unwrap(), |known| known.1);
    SocketAddr::new(host.parse::<IpAddr>().unwrap(), port)
}

/// The tables that a saved file restores, in the order of the kernel.
fn saved(text: &str) -> Vec<ServiceView> {
    let mut services: Vec<ServiceView> = Vec::new();
    for line in text.lines() {
        // An IPv6 host name cannot be typed, so `-S` without `-n` prints what `-R` would refuse.
        let line = line.replace("rs1-6.example.net", "fd00:8::33");
        let (output, asked) = super::run(&line, "", None);
        match asked.into_iter().next() {
            Some(Request::Edit(Edit::AddService(spec))) => {
                let (stats, rates) = (StatsView::default(), RateView::default());
                services.push(ServiceView { spec, servers: Vec::new(), stats, rates });
            }
            Some(Request::Edit(Edit::AddServer(_, spec))) => {
                services.last_mut().unwrap().servers.push(ServerView { spec, ..server_view(spec_id(&line)) });
            }
            other => panic!("{line}: {other:?} {output:?}"),
        }
    }
    services.reverse();
    services.iter_mut().for_each(|service| service.servers.reverse());
    services
}

fn spec_id(line: &str) -> ServerId {
    let end = endpoint(line.split_whitespace().skip_while(|word| *word != "-r").nth(1).unwrap());
    ServerId { address: end.ip(), port: end.port() }
}

/// `master sync daemon (mcast=eth1, syncid=5, …)`.
fn daemon(row: &str) -> SyncDaemon {
    let (head, rest) = row.trim_end_matches(')').split_once(" (").unwrap();
    let role = if head.starts_with("master") { SyncRole::Master } else { SyncRole::Backup };
    let values: Vec<&str> = rest.split(", ").map(|pair| pair.split_once('=').unwrap().1).collect();
    SyncDaemon {
        role,
        interface: values[0].to_owned(),
        sync_id: values[1].parse().unwrap(),
        max_len: values[2].parse().unwrap(),
        group: Some(values[3].parse().unwrap()),
        port: values[4].parse().unwrap(),
        ttl: values[5].parse().unwrap(),
    }
}
