//! The director as its callers know it: commands in, effects and table out. Configurations go through the real parser.

mod by_hand;
mod drain;
mod estate;
mod flapping;
mod live;
mod load;
mod matrix;
mod notices;
mod overrides;
mod plan;
mod reload;
mod servers;
mod sharing;
mod sorry;
mod trial;
mod watch;
mod words;

use std::sync::Arc;
use std::time::Duration;

use xlvs::config::lvs::LvsConfig;
use xlvs::config::marks::parse_marks;
use xlvs::config::names::Names;
use xlvs::config::parse::load;
use xlvs::config::settings::parse as parse_settings;
use xlvs::director::protocol::{Reply, Request};
use xlvs::director::{ClientId, Command, Director, Effect, Level, Port};
use xlvs::ipvs::edit::Forward;
use xlvs::ipvs::mark::MarkRules;
use xlvs::ipvs::snapshot::Tables;
use xlvs::ipvs::steering::Steering;
use xlvs::ipvs::sync::SyncRole;
use xlvs::ipvs::view::ServiceView;
use xlvs::nanny::Check;
use xlvs::net::addr::{MacAddr, PortRange, Protocol};
use xlvs::net::route::{HostNetwork, InterfaceAddress, Link, Neighbour, Route, RouteKind};
use xlvs::net::time::Instant;
use xlvs::pulse::Hook;

const ARTICLE: &str = include_str!("../config/lvs.cf");
const MARKS: &str = include_str!("../config/iptables");

/// A director on a router whose VIP is already up, and all that it has asked for so far.
struct Site {
    director: Director,
    now: Instant,
    effects: Vec<Effect>,
}

impl Site {
    fn new() -> Self {
        let tables = Arc::new(Tables::new(1));
        let ports = [("eth0", 1), ("eth1", 2)].map(|(name, index)| Port { name: name.into(), index });
        let director = Director::new(Instant::START, tables, 1, ports.into());
        let mut site = Site { director, now: Instant::START, effects: Vec::new() };
        site.command(Command::Network(network()));
        site
    }

    /// The article's site with both servers up.
    fn article() -> Self {
        let mut site = Site::new();
        site.configure(ARTICLE);
        for check in site.started() {
            site.health(&check, true);
        }
        site.effects.clear();
        site
    }

    /// The running check number `index`: started anew by a configuration in which every check differs.
    fn new_check(&mut self, index: usize) -> Arc<Check> {
        self.configure(&ARTICLE.replace("timeout = 6", "timeout = 7"));
        let check = Arc::clone(&self.started()[index]);
        self.effects.clear();
        check
    }

    fn command(&mut self, command: Command) {
        let effects = self.director.handle(self.now, command);
        self.effects.extend(effects);
    }

    fn configure(&mut self, text: &str) {
        let lvs: LvsConfig = load(text, Names::NONE).unwrap();
        let marks: MarkRules = parse_marks(MARKS, Names::NONE).unwrap();
        self.command(Command::Configure { lvs: Box::new(lvs), marks: Arc::new(marks) });
    }

    fn health(&mut self, check: &Arc<Check>, up: bool) {
        self.command(Command::Health { check: Arc::clone(check), up, reason: "said the test".into() });
    }

    fn started(&self) -> Vec<Arc<Check>> {
        let started = |effect: &Effect| match effect {
            Effect::StartCheck(check) => Some(Arc::clone(check)),
            _ => None,
        };
        self.effects.iter().filter_map(started).collect()
    }

    fn stopped(&self) -> usize {
        self.effects.iter().filter(|effect| matches!(effect, Effect::StopCheck(_))).count()
    }

    fn logged(&self, level: Level, text: &str) -> bool {
        self.effects.iter().any(|effect| match effect {
            Effect::Log(at, line) => *at == level && line == text,
            Effect::Event(event) => event.level() == level && event.to_string() == text,
            _ => false,
        })
    }

    fn steering(&self) -> Steering {
        let steering = |effect: &Effect| match effect {
            Effect::Steer(steering) => Some(steering.clone()),
            _ => None,
        };
        self.effects.iter().rev().find_map(steering).expect("steering was asked for")
    }

    fn services(&mut self) -> Vec<ServiceView> {
        self.command(Command::Request { client: ClientId(1), request: Request::ListServices });
        match self.effects.pop() {
            Some(Effect::Reply(ClientId(1), Reply::Services { services, .. })) => services,
            other => panic!("the answer is not a list of services: {other:?}"),
        }
    }

    /// `address:port weight` of every server, sorted.
    fn servers(&mut self) -> Vec<String> {
        let services = self.services();
        let servers = services.iter().flat_map(|service| &service.servers);
        let mut servers: Vec<String> = servers
            .map(|server| {
                format!("{}:{} {}", server.spec.id.address, server.spec.id.port, server.spec.weight)
            })
            .collect();
        servers.sort();
        servers
    }
}

fn network() -> HostNetwork {
    let link =
        |index, name: &str| Link { index, name: name.into(), mac: MacAddr([2; 6]), mtu: 1500, up: true };
    let own =
        |link, address: &str| InterfaceAddress { link, address: address.parse().unwrap(), prefix_len: 24 };
    let on_link = |prefix: &str, link| Route {
        destination: prefix.parse().unwrap(),
        gateway: None,
        link,
        metric: 0,
        kind: RouteKind::Unicast,
    };
    HostNetwork {
        links: vec![link(1, "eth0"), link(2, "eth1")],
        addresses: vec![own(1, "10.10.1.31"), own(1, "10.10.1.30"), own(2, "10.8.8.1"), own(2, "10.8.8.30")],
        routes: vec![on_link("10.10.1.0/24", 1), on_link("10.8.8.0/24", 2)],
        neighbours: Vec::new(),
    }
}

#[test]
fn the_article_starts_with_checks_and_an_empty_service() {
    let mut site = Site::new();
    site.configure(ARTICLE);
    assert!(
        site.logged(Level::Info, "starting virtual service http_server active: 80 virtual=http_server"),
        "{:#?}",
        site.effects
    );
    let endpoints: Vec<String> = site.started().iter().map(|check| check.endpoint.to_string()).collect();
    assert_eq!(endpoints, ["10.8.8.33:80", "10.8.8.34:80"]);
    let addresses: Vec<String> = site.effects.iter().filter_map(added).collect();
    assert_eq!(addresses, ["10.10.1.30/32 eth0:1", "10.8.8.30/24 eth1:0"]);
    assert_eq!(site.servers(), Vec::<String>::new(), "a server enters when it is healthy");
}

fn added(effect: &Effect) -> Option<String> {
    match effect {
        Effect::AddAddress(wanted) => {
            let prefix = wanted.prefix_len.map_or("unknown".into(), |prefix| prefix.to_string());
            Some(format!("{}/{prefix} {}", wanted.address, wanted.label.as_deref().unwrap_or("-")))
        }
        _ => None,
    }
}

#[test]
fn servers_enter_and_leave_by_their_health() {
    let mut site = Site::article();
    assert_eq!(site.servers(), ["10.8.8.33:80 1", "10.8.8.34:80 1"]);
    let check = site.new_check(0);
    site.health(&check, false);
    let line = "[inactive] shutting down 10.8.8.33:80 due to connection failure virtual=http_server server=lvs-03 \
                reason=\"said the test\" up_for=0s";
    assert!(site.logged(Level::Warn, line), "{:#?}", site.effects);
    assert_eq!(site.servers(), ["10.8.8.34:80 1"]);
    site.health(&check, true);
    assert!(
        site.logged(
            Level::Info,
            "[ active ] making 10.8.8.33:80 available virtual=http_server server=lvs-03 \
             reason=\"said the test\" down_for=0s"
        ),
        "{:#?}",
        site.effects
    );
    assert_eq!(site.servers(), ["10.8.8.33:80 1", "10.8.8.34:80 1"]);
}

#[test]
fn a_quiesced_server_stays_with_weight_0() {
    let mut site = Site::new();
    site.configure(&ARTICLE.replace("quiesce_server = 0", "quiesce_server = 1"));
    let checks = site.started();
    checks.iter().for_each(|check| site.health(check, true));
    site.health(&checks[1], false);
    assert_eq!(site.servers(), ["10.8.8.33:80 1", "10.8.8.34:80 0"]);
    site.health(&checks[1], true);
    assert_eq!(site.servers(), ["10.8.8.33:80 1", "10.8.8.34:80 1"]);
}

#[test]
fn the_same_configuration_again_touches_nothing() {
    let mut site = Site::article();
    site.configure(ARTICLE);
    let touched = |effect: &&Effect| !matches!(effect, Effect::Resolve(_) | Effect::Log(Level::Warn, _));
    let touched: Vec<&Effect> = site.effects.iter().filter(touched).collect();
    assert!(touched.is_empty(), "{touched:#?}");
    assert_eq!(site.servers(), ["10.8.8.33:80 1", "10.8.8.34:80 1"]);
}

#[test]
fn a_reload_changes_what_the_file_changes() {
    let mut site = Site::article();
    site.configure(&ARTICLE.replacen("weight = 1", "weight = 5", 1));
    assert_eq!(site.servers(), ["10.8.8.33:80 5", "10.8.8.34:80 1"]);
    assert_eq!(site.stopped(), 0, "a new weight needs no new check");
    site.configure(&ARTICLE.replace("persistent = 30", "persistent = 90"));
    let persistence = site.services()[0].spec.persistence;
    assert_eq!(persistence.map(|persistence| persistence.timeout), Some(90));
    assert_eq!(site.servers(), ["10.8.8.33:80 1", "10.8.8.34:80 1"], "servers stay under an edited service");
}

#[test]
fn a_server_that_leaves_the_file_leaves_the_table() {
    let mut site = Site::article();
    site.configure(&ARTICLE.replace("10.8.8.34", "10.8.8.35"));
    assert_eq!(site.servers(), ["10.8.8.33:80 1"]);
    assert_eq!(site.stopped(), 1);
    let started = site.started();
    assert_eq!(started.len(), 1);
    site.health(&started[0], true);
    assert_eq!(site.servers(), ["10.8.8.33:80 1", "10.8.8.35:80 1"]);
}

#[test]
fn another_mark_is_another_service_and_the_old_endpoints_linger() {
    let mut site = Site::article();
    site.configure(&ARTICLE.replace("fwmark = 80", "fwmark = 0"));
    assert_eq!(site.services().len(), 1);
    assert_eq!((site.stopped(), site.started().len()), (0, 0), "the same checks go on");
    assert_eq!(site.servers(), ["10.8.8.33:80 1", "10.8.8.34:80 1"], "and what they know holds");
    site.effects.clear();
    site.now = site.now + Duration::from_secs(60);
    site.command(Command::Tick);
    let ranges: Vec<String> = site.steering().destinations.iter().map(|entry| format!("{entry:?}")).collect();
    assert_eq!(ranges.len(), 1, "no connection uses 443 any more: {ranges:?}");
    assert!(!ranges[0].contains("443"), "no connection uses 443 any more: {ranges:?}");
}

#[test]
fn a_report_of_a_replaced_check_is_ignored() {
    let mut site = Site::new();
    site.configure(ARTICLE);
    let old = site.started();
    site.configure(&ARTICLE.replace("timeout = 6", "timeout = 7"));
    old.iter().for_each(|check| site.health(check, true));
    assert_eq!(site.servers(), Vec::<String>::new());
}

#[test]
fn a_stop_takes_addresses_back_before_the_table() {
    let mut site = Site::article();
    site.command(Command::Stop);
    let position = |wanted: fn(&Effect) -> bool| site.effects.iter().position(wanted).unwrap();
    let address = position(|effect| matches!(effect, Effect::RemoveAddress(_)));
    let service = position(
        |effect| matches!(effect, Effect::Event(event) if event.words().starts_with("shutting down")),
    );
    assert!(address < service, "{:#?}", site.effects);
    assert_eq!(site.stopped(), 2);
    assert!(site.services().is_empty());
}

#[test]
fn commands_of_the_file_are_run_when_the_heart_says_so() {
    let mut site = Site::new();
    let top = "service = lvs\nactive_cmd = true\ninactive_cmd = \"/bin/true now\"";
    site.configure(&ARTICLE.replacen("service = lvs", top, 1));
    site.effects.clear();
    site.command(Command::RunHook(Hook::Inactive));
    let run =
        |effect: &Effect| matches!(effect, Effect::Run { key: "inactive_cmd", words } if words[1] == "now");
    assert!(site.effects.len() == 1 && run(&site.effects[0]), "{:#?}", site.effects);
    site.effects.clear();
    site.command(Command::RunHook(Hook::Active));
    let refused = "active_cmd is not run: true does not begin with an absolute path";
    let said = |effect: &Effect| matches!(effect, Effect::Log(Level::Warn, text) if text == refused);
    assert!(site.effects.len() == 1 && said(&site.effects[0]), "{:#?}", site.effects);
}

#[test]
fn an_inactive_director_is_ready_and_takes_no_client() {
    let adds = |effect: &Effect| matches!(effect, Effect::AddAddress(_));
    let removes = |effect: &Effect| matches!(effect, Effect::RemoveAddress(_));
    let clients =
        |effect: &Effect| matches!(effect, Effect::Steer(steering) if !steering.destinations.is_empty());
    let takes_no_client =
        |effect: &Effect| matches!(effect, Effect::Steer(steering) if steering.destinations.is_empty());
    let steers = |effect: &Effect| matches!(effect, Effect::Steer(_));
    let mut site = Site::new();
    site.command(Command::Deactivate);
    site.effects.clear();
    site.configure(&ARTICLE.replacen("syncdaemon = 0", "syncdaemon = 1\nsyncd_iface = eth1", 1));
    assert!(!site.effects.iter().any(|effect| adds(effect) || clients(effect)));
    assert_eq!(site.services().len(), 1, "the table is there");
    let role = |site: &Site| {
        let mut started = site.effects.iter().filter_map(|effect| match effect {
            Effect::StartSync(running, _) => Some(running.daemon.role),
            _ => None,
        });
        started.next_back()
    };
    assert_eq!(role(&site), Some(SyncRole::Backup));

    site.effects.clear();
    site.command(Command::Activate);
    let first = site.effects.iter().position(adds).expect("addresses");
    assert!(site.effects.iter().position(steers).expect("steering") < first, "{:#?}", site.effects);
    assert_eq!(role(&site), Some(SyncRole::Master));

    site.effects.clear();
    site.command(Command::Deactivate);
    let last = site.effects.iter().rposition(removes).expect("addresses go");
    assert!(
        last < site.effects.iter().position(takes_no_client).expect("steering goes"),
        "{:#?}",
        site.effects
    );
    assert_eq!(role(&site), Some(SyncRole::Backup));
    assert_eq!(role(&site), Some(SyncRole::Backup));
    assert_eq!(site.services().len(), 1, "the table stays");
}

#[test]
fn an_inactive_router_takes_what_other_machines_send_as_servers_alone() {
    let tcp = |port| vec![PortRange::one(Protocol::TCP, port)];
    let steering = Steering {
        destinations: vec![("10.1.0.30/32".parse().unwrap(), tcp(80))],
        servers: vec![([10, 2, 0, 1].into(), tcp(80)), ([10, 2, 0, 100].into(), tcp(80))],
        own: vec![[10, 2, 0, 1].into()],
    };
    let servers = vec![([10, 2, 0, 100].into(), tcp(80))];
    let own = steering.own.clone();
    assert_eq!(steering.of_inactive(), Steering { destinations: Vec::new(), servers, own });
}

#[test]
fn what_cannot_be_run_is_said_and_refused_on_reload() {
    let mut site = Site::new();
    let fos: LvsConfig = load(&ARTICLE.replace("service = lvs", "service = fos"), Names::NONE).unwrap();
    let marks = parse_marks(MARKS, Names::NONE).unwrap();
    let objection = site.director.objection(&fos, &marks).expect("nothing of it can be run");
    assert!(objection.contains("only lvs is"), "{objection}");
    site = Site::article();
    assert!(site.director.objection(&fos, &marks).is_some(), "it would end what runs");
    let same: LvsConfig = load(ARTICLE, Names::NONE).unwrap();
    assert_eq!(site.director.objection(&same, &marks), None);
    let text = "virtual http_server: no saved iptables rule gives mark 80, so no packet reaches it";
    let objection = site.director.objection(&same, &MarkRules::default());
    assert_eq!(objection.as_deref(), Some(text), "a marks file that lost its rule");
}

#[test]
fn a_mark_that_no_rule_gives_is_told_at_the_start() {
    let mut site = Site::new();
    site.configure(&ARTICLE.replace("fwmark = 80", "fwmark = 81"));
    let text = "virtual http_server: no saved iptables rule gives mark 81, so no packet reaches it";
    assert!(site.logged(Level::Warn, text), "{:#?}", site.effects);
}

#[test]
fn an_address_that_vanishes_is_put_back() {
    let mut site = Site::article();
    let mut flushed = network();
    flushed.addresses.retain(|present| present.address != "10.10.1.30".parse::<std::net::IpAddr>().unwrap());
    site.command(Command::Network(flushed));
    let addresses: Vec<String> = site.effects.iter().filter_map(added).collect();
    assert_eq!(addresses, ["10.10.1.30/32 eth0:1"]);
}

fn resolved(effect: &Effect) -> Vec<String> {
    match effect {
        Effect::Resolve(neighbours) => neighbours.iter().map(|(_, address)| address.to_string()).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn a_server_whose_neighbour_entry_goes_is_asked_for_at_once() {
    let mut site = Site::article();
    let mut known = network();
    let entry =
        |address: &str| Neighbour { link: 2, address: address.parse().unwrap(), mac: MacAddr([4; 6]) };
    known.neighbours = vec![entry("10.8.8.33"), entry("10.8.8.34")];
    site.command(Command::Network(known.clone()));
    assert!(!site.effects.iter().any(|effect| matches!(effect, Effect::Resolve(_))), "{:#?}", site.effects);
    known.neighbours.pop();
    site.command(Command::Network(known));
    let asked: Vec<String> = site.effects.iter().flat_map(resolved).collect();
    assert_eq!(asked, ["10.8.8.34"]);
}

#[test]
fn a_directly_routed_server_is_asked_for_until_it_answers() {
    let mut site = Site::new();
    site.configure(&ARTICLE.replace("network = nat", "network = direct"));
    site.started().iter().for_each(|check| site.health(check, true));
    site.effects.clear();
    site.now = site.now + Duration::from_secs(2);
    site.command(Command::Tick);
    let asked: Vec<String> = site.effects.iter().flat_map(resolved).collect();
    assert_eq!(asked, ["10.8.8.33", "10.8.8.34"], "no packet to them can make the kernel ask");
}

#[test]
fn an_interface_that_goes_is_told() {
    let mut site = Site::article();
    let mut without = network();
    without.links.retain(|link| link.name != "eth1");
    site.command(Command::Network(without));
    assert!(site.effects.contains(&Effect::PortGone("eth1".into())), "{:#?}", site.effects);
}

#[test]
fn steering_covers_both_ports_of_the_mark_and_the_servers() {
    let site = {
        let mut site = Site::new();
        site.configure(ARTICLE);
        site.started().iter().for_each(|check| site.health(check, true));
        site
    };
    let steering = site.steering();
    let shown = format!("{steering:?}");
    assert_eq!(steering.destinations.len(), 1, "{shown}");
    assert_eq!(steering.destinations[0].0.to_string(), "10.10.1.30/32", "{shown}");
    let ports: Vec<_> = steering.destinations[0].1.iter().map(|range| range.ports.clone()).collect();
    assert_eq!(ports, [80..=80, 443..=443], "{shown}");
    let servers: Vec<String> = steering.servers.iter().map(|(server, _)| server.to_string()).collect();
    assert_eq!(servers, ["10.8.8.33", "10.8.8.34"], "{shown}");
    assert_eq!(steering.own.len(), 4, "{shown}");
}

#[test]
fn the_network_says_how_all_servers_are_reached() {
    for (network, forward) in [("direct", Forward::Route), ("tunnel", Forward::Tunnel)] {
        let mut site = Site::new();
        let text = ARTICLE.replace("network = nat", &format!("network = {network}"));
        let text = text.replace("fwmark = 80\n", "").replace("weight = 1\n", "weight = 1\n port = 8080\n");
        site.configure(&text);
        for check in site.started() {
            assert_eq!(check.endpoint.port(), 8080, "{network}: a check asks the port that was written");
            site.health(&check, true);
        }
        let shown = format!("{network}: {:?}", site.services());
        let services = site.services();
        let servers: Vec<_> = services.iter().flat_map(|service| &service.servers).collect();
        assert_eq!(servers.len(), 2, "{shown}");
        for server in servers {
            assert_eq!((server.spec.forward, server.spec.id.port), (forward, 80), "{shown}");
        }
        let gateway = |effect: &Effect| match effect {
            Effect::AddAddress(wanted) => wanted.address.to_string() == "10.8.8.1",
            _ => false,
        };
        assert!(
            !site.effects.iter().any(gateway),
            "{network}: only NAT needs an address as the servers' gateway"
        );
    }
}

#[test]
fn a_link_local_gateway_is_resolved_on_the_link_of_its_route() {
    let mut site = Site::new();
    let mut network = network();
    let route = |destination: &str, gateway: Option<&str>, link| Route {
        destination: destination.parse().unwrap(),
        gateway: gateway.map(|gateway| gateway.parse().unwrap()),
        link,
        metric: 1024,
        kind: RouteKind::Unicast,
    };
    network.routes =
        vec![route("fe80::/64", None, 1), route("fe80::/64", None, 2), route("::/0", Some("fe80::fe"), 2)];
    site.command(Command::Network(network));
    site.now = site.now + Duration::from_secs(60);
    site.command(Command::Tick);
    let gateway = Effect::Resolve(vec![(2, "fe80::fe".parse().unwrap())]);
    assert!(site.effects.contains(&gateway), "{:?}", site.effects);
}

#[test]
fn settings_of_the_file_apply_from_the_start() {
    let settings = parse_settings("x.toml", "[sysctl]\ndrop_packet = 2\nsync_threshold = '5 60'\n").unwrap();
    let mut site = Site::new();
    site.command(Command::Sysctls(Box::new(settings.sysctls())));
    for (name, value) in [("drop_packet", "1"), ("sync_threshold", "5\t60"), ("conn_reuse_mode", "1")] {
        let request = Request::Sysctl { name: name.to_owned(), value: None };
        site.command(Command::Request { client: ClientId(1), request });
        let expected = Reply::Text(format!("net.ipv4.vs.{name} = {value}"));
        assert_eq!(site.effects.pop(), Some(Effect::Reply(ClientId(1), expected)));
    }
    assert!(site.director.watches_memory());
}
