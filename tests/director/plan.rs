//! What a plan says is what happens: 200 random changes under live connections.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use xlvs::config::marks::parse_marks;
use xlvs::config::names::Names;
use xlvs::config::parse::load;
use xlvs::director::plan::{Change, Fate, Plan, Step};
use xlvs::director::protocol::{Reply, Request};

use super::live::{Flow, Live, MARKS};
use crate::support::device::Device as _;

const CASES: u64 = 200;
const FLOWS: usize = 120;

/// xorshift; the same cases at every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % end
    }

    fn of<T: Clone>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())].clone()
    }
}

#[derive(Clone, Debug)]
struct Server {
    name: String,
    host: u8,
    port: Option<u16>,
    active: bool,
    weight: i32,
}

#[derive(Clone, Debug)]
struct Virtual {
    name: String,
    active: bool,
    host: u8,
    port: u16,
    udp: bool,
    mark: u32,
    scheduler: &'static str,
    persistent: u32,
    mask: Option<&'static str>,
    quiesce: bool,
    sorry: Option<u8>,
    timeout: u32,
    servers: Vec<Server>,
}

#[derive(Clone, Debug)]
struct Site {
    network: &'static str,
    tcp_timeout: u32,
    virtuals: Vec<Virtual>,
}

impl Virtual {
    fn text(&self) -> String {
        let Virtual { name, host, port, scheduler, persistent, timeout, .. } = self;
        let mut text = format!(
            "virtual {name} {{\n active = {}\n address = 10.10.1.{host} eth0:{host}\n vip_nmask = 255.255.255.255\n \
             port = {port}\n protocol = {}\n fwmark = {}\n scheduler = {scheduler}\n persistent = {persistent}\n \
             quiesce_server = {}\n timeout = {timeout}\n send = \"?\"\n expect = \"!\"\n",
            u8::from(self.active),
            if self.udp { "udp" } else { "tcp" },
            self.mark,
            u8::from(self.quiesce)
        );
        if let Some(mask) = self.mask {
            let _ = writeln!(text, " pmask = {mask}");
        }
        if let Some(host) = self.sorry {
            let _ = writeln!(text, " sorry_server = 10.8.8.{host}");
        }
        for server in &self.servers {
            let Server { name, host, weight, .. } = server;
            let active = u8::from(server.active);
            let _ = writeln!(
                text,
                " server {name} {{\n  address = 10.8.8.{host}\n  active = {active}\n  weight = {weight}"
            );
            if let Some(port) = server.port {
                let _ = writeln!(text, "  port = {port}");
            }
            text += " }\n";
        }
        text + "}\n"
    }
}

impl Site {
    fn text(&self) -> String {
        let blocks: String = self.virtuals.iter().map(Virtual::text).collect();
        format!(
            "primary = 10.10.1.1\nnetwork = {}\ntcp_timeout = {}\n{blocks}",
            self.network, self.tcp_timeout
        )
    }

    /// Two by address, one of UDP, one by mark; none is like another.
    fn new() -> Site {
        let server =
            |host: u8| Server { name: format!("s{host}"), host, port: None, active: true, weight: 1 };
        let one = |name: &str, host, port, udp, mark, hosts: &[u8]| Virtual {
            name: name.into(),
            active: true,
            host,
            port,
            udp,
            mark,
            scheduler: "rr",
            persistent: if mark == 0 { 0 } else { 300 },
            mask: None,
            quiesce: false,
            sorry: None,
            timeout: 6,
            servers: hosts.iter().copied().map(server).collect(),
        };
        Site {
            network: "nat",
            tcp_timeout: 0,
            virtuals: vec![
                one("web", 30, 80, false, 0, &[33, 34, 35]),
                one("mail", 50, 25, false, 0, &[33, 36]),
                one("dns", 30, 53, true, 0, &[37, 38]),
                one("bundle", 40, 8000, false, 7, &[39, 40]),
            ],
        }
    }

    /// One change of some kind.
    fn change(&mut self, dice: &mut Dice) {
        let at = dice.below(self.virtuals.len());
        let block = &mut self.virtuals[at];
        match dice.below(22) {
            0 => block.active = !block.active,
            1 => block.port = dice.of(&[80, 81, 8000, 53]),
            2 => block.udp = !block.udp,
            3 => block.mark = dice.of(&[0, 7, 8]),
            4 => block.host = dice.of(&[30, 40, 41, 50]),
            5 => block.scheduler = dice.of(&["wlc", "sh", "wrr", "lblc"]),
            6 => block.persistent = dice.of(&[0, 60, 300]),
            7 => block.mask = dice.of(&[None, Some("255.255.255.0")]),
            8 => block.quiesce = !block.quiesce,
            9 => block.timeout = dice.of(&[6, 9]),
            10 => drop(self.virtuals.remove(at)),
            11 => self.virtuals.reverse(),
            12 => self.network = dice.of(&["nat", "direct", "tunnel"]),
            13 => self.tcp_timeout = dice.of(&[0, 700]),
            14 => block.name += "x",
            15 | 16 => block.sorry = dice.of(&[None, Some(33), Some(37), Some(43), Some(44)]),
            _ => self.change_server(at, dice),
        }
        if self.virtuals.is_empty() {
            *self = Site::new();
        }
    }

    fn change_server(&mut self, at: usize, dice: &mut Dice) {
        let servers = &mut self.virtuals[at].servers;
        let host = 33 + dice.below(11) as u8;
        if servers.len() < 2 {
            return servers.push(Server {
                name: format!("n{host}"),
                host,
                port: None,
                active: true,
                weight: 2,
            });
        }
        let server = dice.below(servers.len());
        match dice.below(6) {
            0 => servers[server].active = !servers[server].active,
            1 => servers[server].weight = dice.of(&[0, 1, 7]),
            2 => servers[server].host = host,
            3 => servers[server].port = dice.of(&[None, Some(8080)]),
            4 => drop(servers.remove(server)),
            _ => servers.push(Server { name: format!("n{host}"), host, port: None, active: true, weight: 2 }),
        }
    }
}

/// Connections of all virtual servers that take any.
fn open_all(live: &mut Live, site: &Site) -> Vec<Flow> {
    let mut flows = Vec::new();
    for index in 0..FLOWS {
        let block = &site.virtuals[index % site.virtuals.len()];
        let port = match block.mark {
            0 => block.port,
            7 => [8000, 8443][index / site.virtuals.len() % 2],
            _ => 9000,
        };
        let protocol = if block.udp && block.mark == 0 { "udp" } else { "tcp" };
        flows.extend(live.open_one(protocol, &format!("10.10.1.{}:{port}", block.host)));
    }
    flows
}

/// What a plan says, and who meets which fate by it.
fn foretold(live: &mut Live, text: &str) -> (Plan, BTreeSet<SocketAddr>, BTreeSet<SocketAddr>) {
    let lvs = load(text, Names::NONE).unwrap();
    let director = live.router.director();
    let forecast = director.forecast(&lvs, None);
    let (mut drained, mut broken) = (BTreeSet::new(), BTreeSet::new());
    live.router.tables().connections.for_each(|connection| match forecast.fate(&connection).0 {
        Fate::Kept => {}
        Fate::Drained => drop(drained.insert(connection.client())),
        Fate::Broken => drop(broken.insert(connection.client())),
    });
    (forecast.count(live.router.tables()), drained, broken)
}

fn templates(live: &Live) -> u64 {
    let mut valid = 0;
    for walk in live.router.tables().templates.walks() {
        if matches!(walk, xlvs::ipvs::persistence::Walk::Valid(_)) {
            walk.for_each(|_| valid += 1);
        }
    }
    valid
}

/// These servers are found well, all others not.
fn look(live: &mut Live, well: &BTreeSet<SocketAddr>) {
    for check in live.running().to_vec() {
        live.health(&check, well.contains(&check.endpoint));
    }
}

/// Some of the servers; of some virtual servers none.
fn some(live: &Live, dice: &mut Dice) -> BTreeSet<SocketAddr> {
    let share = dice.of(&[1, 2, 2, 3, 9, usize::MAX, usize::MAX]);
    let endpoints = live.running().iter().map(|check| check.endpoint);
    endpoints.filter(|_| dice.below(share) != 0).collect()
}

#[test]
fn two_hundred_random_changes_do_what_was_foretold() {
    let (mut drained_in_all, mut broken_in_all, mut refused) = (0, 0, 0);
    for case in 0..CASES {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ case.wrapping_mul(0xd134_2543_de82_ef95));
        let at_once = case % 2 == 0;
        let mut before = Site::new();
        (0..dice.below(4)).for_each(|_| before.change(&mut dice));
        before.network = "nat";
        for block in &mut before.virtuals {
            block.sorry = dice.of(&[None, Some(43), Some(44)]);
            block.quiesce = dice.below(2) == 0;
        }
        let mut live = Live::new(if at_once { "drain_removed = 0" } else { "drain_removed = 60" });
        if live.reload(&before.text()).is_err() {
            refused += 1;
            continue;
        }
        live.heal();
        let mut flows = open_all(&mut live, &before);
        let well = some(&live, &mut dice);
        look(&mut live, &well);
        live.pass(10);
        flows.extend(open_all(&mut live, &before));
        // Those of servers that have failed are cut off already.
        let cut = live.broken(&flows);
        flows.retain(|flow| !cut.contains(flow));
        let mut after = before.clone();
        (0..1 + dice.below(3)).for_each(|_| after.change(&mut dice));
        let story = || format!("case {case}, well {well:?}\n{}\nbecomes\n{}", before.text(), after.text());
        let (plan, drained, broken) = foretold(&mut live, &after.text());
        let known = templates(&live);
        if live.reload(&after.text()).is_err() {
            refused += 1;
            continue;
        }
        let ours: BTreeSet<SocketAddr> = flows.iter().map(|flow| flow.client.into()).collect();
        let counts = (drained.len() as u64, broken.len() as u64);
        assert_eq!(counts, (plan.total.drained, plan.total.broken), "{}\n{plan:#?}", story());
        let [drained, broken] = [drained, broken].map(|clients| &clients & &ours);
        let clients = |flows: BTreeSet<Flow>| -> BTreeSet<SocketAddr> {
            flows.into_iter().map(|flow| flow.client.into()).collect()
        };
        let at_first = clients(live.broken(&flows));
        if !at_once {
            assert_eq!(at_first, broken, "at once: {}\n{plan:#?}", story());
        }
        // Servers that come are not well yet: nobody makes room for them.
        look(&mut live, &well);
        let same_keys = plan.changes.iter().all(|change| !change.subject.starts_with("virtual"));
        if same_keys {
            assert_eq!(templates(&live), known - plan.total.templates, "{}\n{plan:#?}", story());
        }
        live.pass(2);
        assert_eq!(clients(live.broken(&flows)), broken, "{}\n{plan:#?}", story());
        live.pass(60);
        let ended: BTreeSet<SocketAddr> = broken.union(&drained).copied().collect();
        assert_eq!(clients(live.broken(&flows)), ended, "after the deadline: {}\n{plan:#?}", story());
        drained_in_all += drained.len();
        broken_in_all += broken.len();
    }
    assert!(
        drained_in_all > 1000 && broken_in_all > 1000,
        "{drained_in_all} {broken_in_all}: too few to tell"
    );
    assert!(refused < CASES / 4, "{refused} changes of {CASES} were refused");
}

fn plan(live: &Live, text: &str) -> Plan {
    let lvs = load(text, Names::NONE).unwrap();
    live.router.director().forecast(&lvs, None).count(live.router.tables())
}

fn lines(plan: &Plan) -> Vec<String> {
    let line = |Change { step, subject, from, to, toll }: &Change| {
        let [from, to] = [from, to].map(|text| text.as_deref().unwrap_or("-"));
        format!(
            "{step:?} {subject}: {from} > {to} [{} {} {} {}]",
            toll.kept, toll.drained, toll.broken, toll.templates
        )
    };
    plan.changes.iter().map(line).collect()
}

#[test]
fn each_change_says_from_what_to_what_and_at_what_cost() {
    let mut live = Live::with("", &Site::new().text());
    live.open(9, "tcp", "10.10.1.30:80");
    live.open(4, "tcp", "10.10.1.50:25");
    live.open(6, "tcp", "10.10.1.40:8000");
    let mut next = Site::new();
    next.tcp_timeout = 700;
    next.virtuals[0].servers[0].weight = 5;
    next.virtuals[0].servers.remove(1);
    next.virtuals[0].scheduler = "wrr";
    next.virtuals.remove(1);
    next.virtuals[2].servers[0].active = false;
    next.virtuals[1].servers.push(Server {
        name: "new".into(),
        host: 41,
        port: None,
        active: true,
        weight: 1,
    });
    next.virtuals[1].timeout = 9;
    let plan = plan(&live, &next.text());
    assert_eq!(
        lines(&plan),
        [
            "Changed virtual web (TCP 10.10.1.30:80): rr > wrr [0 0 0 0]",
            "Changed server 10.8.8.33:80 of TCP 10.10.1.30:80: Masq weight 1 > Masq weight 5 [3 0 0 0]",
            "Removed server 10.8.8.34:80 of TCP 10.10.1.30:80: Masq weight 1 > - [0 3 0 0]",
            "Changed health check of 10.8.8.37:53 in virtual dns: as it is > started anew [0 0 0 0]",
            "Changed health check of 10.8.8.38:53 in virtual dns: as it is > started anew [0 0 0 0]",
            "Added server 10.8.8.41:53 of UDP 10.10.1.30:53: - > Masq weight 1, when its check succeeds [0 0 0 0]",
            "Removed server 10.8.8.39:8000 of FWM 7: Masq weight 1 > - [0 3 0 3]",
            "Removed virtual mail (TCP 10.10.1.50:25): rr > - [0 4 0 0]",
            "Changed timeouts (tcp tcpfin udp): 900 120 300 > 700 120 300 [0 0 0 0]",
            "Removed address 10.10.1.50: 10.10.1.50/32 on eth0:50 > - [0 0 0 0]",
        ],
        "{plan:#?}"
    );
    let total = plan.total;
    assert_eq!((total.kept, total.drained, total.broken, plan.deadline), (9, 10, 0, 300));
    assert_eq!(lines(&super::plan::plan(&live, &Site::new().text())), Vec::<String>::new());
}

#[test]
fn a_plan_undoes_what_was_done_by_hand_as_the_reload_will() {
    let mut live = Live::with("", &Site::new().text());
    live.router.run("ipvsadm -e -t 10.10.1.30:80 -r 10.8.8.33 -m -w 6");
    live.router.run("ipvsadm -d -t 10.10.1.30:80 -r 10.8.8.34");
    let plan = plan(&live, &Site::new().text());
    assert_eq!(
        lines(&plan),
        [
            "Changed server 10.8.8.33:80 of TCP 10.10.1.30:80: Masq weight 6 > Masq weight 1 [0 0 0 0]",
            "Added server 10.8.8.34:80 of TCP 10.10.1.30:80: - > Masq weight 1 [0 0 0 0]",
        ]
    );
}

#[test]
fn other_marks_and_a_draining_server_are_part_of_it() {
    let mut live = Live::with("", &Site::new().text());
    live.open(4, "tcp", "10.10.1.50:25");
    let order = Request::DrainServer { server: "s36".into(), service: None, deadline: None };
    assert!(matches!(live.ask(order), Reply::Drains(_)));
    let marks = Arc::new(parse_marks(&MARKS.replace("9000", "9001"), Names::NONE).unwrap());
    let lvs = load(&Site::new().text(), Names::NONE).unwrap();
    let plan = live.router.director().forecast(&lvs, Some(&marks)).count(live.router.tables());
    assert_eq!(lines(&plan), ["Changed firewall marks: 3 rules > 3 rules, others [0 0 0 0]"]);
    assert_eq!((plan.total.kept, plan.draining), (4, 2));
    assert_eq!(plan.changes[0].step, Step::Changed);
}

#[test]
fn switches_count_too() {
    let mut live = Live::with("drain_quiesced = true\ndrain_deadline = 30", &Site::new().text());
    live.open(9, "tcp", "10.10.1.30:80");
    let mut next = Site::new();
    next.virtuals[0].servers[0].weight = 0;
    let plan = plan(&live, &next.text());
    assert_eq!((plan.total.kept, plan.total.drained), (6, 3), "{plan:#?}");
}

#[test]
fn a_sorry_server_and_a_server_that_is_quiesced_are_part_of_it() {
    let mut site = Site::new();
    (site.virtuals[0].sorry, site.virtuals[1].quiesce) = (Some(43), true);
    let mut live = Live::with("", &site.text());
    live.open(4, "tcp", "10.10.1.50:25");
    look(&mut live, &["10.8.8.33:25".parse().unwrap()].into());
    let sorry = live.open(5, "tcp", "10.10.1.30:80");
    let mut next = site.clone();
    (next.virtuals[0].sorry, next.virtuals[1].quiesce) = (Some(44), false);
    assert_eq!(
        lines(&plan(&live, &next.text())),
        [
            "Removed sorry server 10.8.8.43:80 of TCP 10.10.1.30:80: Masq weight 1 > - [0 5 0 0]",
            "Changed server 10.8.8.36:25 of TCP 10.10.1.50:25: Masq weight 0 > Masq weight 1, when its check succeeds \
             [0 0 2 0]",
        ]
    );
    live.reload(&next.text()).unwrap();
    assert!(live.broken(&sorry).is_empty());
}
