//! `make install` and the unit, under a systemd that is process 1.

use std::collections::BTreeMap;
use std::fs;

use super::machine::Machine;
use super::rig::{Rig, wait_until};
use super::upgrade::{Talk, Web};

/// A web server, one on the router itself, which takes a TAP device, and one whose check is a program.
const LVS: &str = "primary = 10.1.0.1
network = nat
nat_router = 10.2.0.254 back:1
keepalive = 1
deadtime = 2
active_cmd = \"/etc/xlvs/told active\"
inactive_cmd = \"/etc/xlvs/told inactive\"
virtual web {
 active = 1
 address = 10.1.0.30 front:1
 vip_nmask = 255.255.255.0
 port = 80
 server one {
  address = 10.2.0.2
  active = 1
 }
}
virtual itself {
 active = 1
 address = 10.1.0.30 front:1
 vip_nmask = 255.255.255.0
 port = 8080
 server router {
  address = 10.2.0.1
  active = 1
 }
}
virtual echo {
 active = 1
 address = 10.1.0.30 front:1
 vip_nmask = 255.255.255.0
 protocol = udp
 port = 7
 send_program = \"/etc/xlvs/check %h\"
 expect = \"fine\"
 server one {
  address = 10.2.0.2
  active = 1
 }
}
";
const LVS_PATH: &str = "/etc/sysconfig/ha/lvs.cf";
const CHECK: &str = "#!/bin/sh\ncurl -sS --noproxy '*' -o /dev/null http://$1/ && echo fine\n";
const TOLD: &str = "#!/bin/sh\necho $1 >>/var/log/told\n";
/// Packet memory for which there is room where systemd may not lift the limit of locked memory, as the unit asks.
const SETTINGS: &str = "frames = 512\n";
const SETTINGS_PATH: &str = "/etc/xlvs/xlvs.toml";
/// systemd waits so long for a sign of life, so that a test need not wait for the unit's 30 s.
const SHORT_WATCHDOG: &str = "[Service]\nWatchdogSec=2\n";

/// A router with what is installed there, and the web servers.
struct Site {
    // Before the namespaces that it is in.
    machine: Machine,
    _webs: [Web; 2],
    rig: Rig,
}

impl Site {
    fn new(lvs: &str) -> Self {
        let rig = Rig::new();
        rig.router.run("sysctl -qw net.ipv4.ip_forward=1");
        let webs = [Web::start(&rig.server, "10.2.0.2:80"), Web::start(&rig.router, "10.2.0.1:8080")];
        let machine = Machine::boot(&rig.router);
        machine.write(LVS_PATH, lvs);
        machine.write(SETTINGS_PATH, SETTINGS);
        for (name, text) in [("/etc/xlvs/check", CHECK), ("/etc/xlvs/told", TOLD)] {
            machine.write(name, text);
            machine.run(&format!("chmod 755 {name}"));
        }
        let (done, said) = machine.install("");
        assert!(done && said.contains("systemctl enable --now xlvs"), "{said}");
        Site { machine, _webs: webs, rig }
    }

    /// Waits until all services have their servers; a router without partner first listens for `deadtime`.
    fn await_servers(&self) {
        wait_until("all servers are in the table", || {
            let (_, listing) = self.machine.try_run("ipvsadm -Ln");
            listing.matches("Masq    1").count() == 3
        });
        wait_until("the address is there", || self.has_address());
    }

    fn has_address(&self) -> bool {
        self.rig.router.ip("-4 -brief address show dev front").contains("10.1.0.30/24")
    }

    fn answers(&self, port: u16) {
        let url = format!("http://10.1.0.30:{port}/");
        let said = self.rig.client.run(&format!("curl -sS --noproxy * --max-time 10 {url}"));
        assert_eq!(said, "served\n");
    }

    /// The main process, to be sent signals.
    fn main_process(&self) -> u32 {
        let process = self.machine.property("MainPID").parse().unwrap();
        assert_ne!(process, 0, "{:?}", self.machine.journal());
        process
    }

    fn is_active(&self) -> String {
        self.machine.try_run("systemctl is-active xlvs").1.trim().to_owned()
    }

    /// Waits until systemd has started it so often again, and it is ready.
    fn await_restarts(&self, restarts: u32) {
        wait_until("systemd starts it again", || self.machine.property("NRestarts") == restarts.to_string());
        wait_until("it is ready", || self.is_active() == "active");
    }

    /// Whether the journal has an entry of the priority with these words.
    fn logged(&self, priority: u8, words: &str) -> bool {
        self.machine.journal().iter().any(|(of, text)| *of == priority && text.contains(words))
    }
}

#[test]
fn started_it_serves_and_stopped_it_leaves_nothing() {
    let site = Site::new(LVS);
    let Site { machine, rig, .. } = &site;
    assert_eq!(machine.property("FragmentPath"), "/usr/local/lib/systemd/system/xlvs.service");
    machine.run("systemctl enable xlvs");
    machine.run("systemctl start xlvs");
    let listing = machine.run("ipvsadm -Ln");
    assert!(listing.contains("TCP  10.1.0.30:80 "), "started means that the file is followed: {listing}");
    assert_eq!(site.is_active(), "active");
    site.await_servers();
    site.answers(80);
    site.answers(8080);
    assert!(rig.router.run("ip -o link").contains("xdp"), "a program is attached");

    let (done, said) = machine.install("--uninstall");
    assert!(!done && said.contains("systemctl disable --now xlvs"), "{said}");
    machine.run("systemctl stop xlvs");
    assert_eq!((site.is_active().as_str(), machine.property("Result").as_str()), ("inactive", "success"));
    let addresses = rig.router.ip("-4 -brief address");
    assert!(!site.has_address() && !addresses.contains("10.2.0.254"), "{addresses}");
    assert!(!rig.router.run("ip -o link").contains("xdp"), "no program is attached");
    let told = fs::read_to_string(machine.path("/var/log/told")).unwrap();
    assert!(told.ends_with("active\ninactive\n"), "{told}");
    assert!(site.logged(6, "stopped"), "{:?}", machine.journal());
    let stamped = machine.journal().into_iter().find(|(_, text)| text.contains("Z  INFO"));
    assert_eq!(stamped, None, "the journal knows the time by itself");

    machine.run("systemctl disable xlvs");
    let before = of_etc(machine);
    let (done, said) = machine.install("--uninstall");
    assert!(done, "{said}");
    assert_eq!(machine.property("LoadState"), "not-found");
    assert_eq!(of_etc(machine), before);
    assert!(before[SETTINGS_PATH] == SETTINGS && before.contains_key(LVS_PATH), "{before:?}");
}

/// All files of the site's below `/etc`, with what is in them.
fn of_etc(machine: &Machine) -> BTreeMap<String, String> {
    let names = machine.run("find /etc/xlvs /etc/sysconfig /etc/systemd -type f");
    names.lines().map(|name| (name.to_owned(), fs::read_to_string(machine.path(name)).unwrap())).collect()
}

#[test]
fn a_reload_is_an_upgrade_without_an_interruption() {
    let site = Site::new(LVS);
    let Site { machine, rig, .. } = &site;
    machine.write("/etc/systemd/system/xlvs.service.d/watchdog.conf", SHORT_WATCHDOG);
    machine.run("systemctl daemon-reload && systemctl start xlvs");
    site.await_servers();
    let talk = Talk::begin(rig, 20);
    let listing = || machine.run("ipvsadm -Ln --exact | grep -v '^UDP' | sed 's/ *[0-9]* *[0-9]* *$//'");
    let (mut former, before) = (site.main_process(), listing());
    for _ in 0..2 {
        machine.run("systemctl reload-or-restart xlvs");
        let main = site.main_process();
        assert_ne!(main, former, "another process serves");
        assert_eq!(site.is_active(), "active");
        assert_eq!(listing(), before);
        talk.go_on();
        // It has been heard, and not only been told of.
        let sign = || machine.property("WatchdogTimestampMonotonic");
        let heard = sign();
        wait_until("the new process gives signs of life", || sign() != heard);
        former = main;
    }

    machine.write(LVS_PATH, &LVS.replace("port = 80\n", "port = web\n"));
    let (done, said) = machine.try_run("systemctl reload-or-restart xlvs");
    assert!(!done && said.contains("Job for xlvs.service failed"), "{said}");
    assert_eq!((site.main_process(), site.is_active().as_str(), listing()), (former, "active", before));
    assert!(site.logged(3, "lvs.cf:12"), "{:?}", machine.journal());
    assert!(site.logged(3, "the present process goes on"), "{:?}", machine.journal());
    talk.go_on();

    machine.write(LVS_PATH, &LVS.replace("port = 8080\n", "port = 8081\n"));
    assert!(machine.install("").0, "beside a process that runs");
    machine.run("systemctl reload xlvs");
    wait_until("the file is followed", || machine.run("ipvsadm -Ln").contains(":8081 "));
    talk.go_on();
    assert_eq!(machine.property("NRestarts"), "0");
    let journal = machine.journal();
    assert!(!journal.iter().any(|(_, text)| text.contains("not our child")), "{journal:?}");
    talk.end();
    machine.run("systemctl stop xlvs");
    assert_eq!(machine.property("Result"), "success", "systemd waits for the end of the last process, too");
    assert!(!site.has_address() && site.logged(6, "stopped"), "{:?}", machine.journal());
    assert!(!rig.router.run("ip -o link").contains("xdp"), "no program is attached");
}

#[test]
fn what_fails_is_killed_or_hangs_is_started_again() {
    let site = Site::new("primary = 10.1.0.1\nvirtual {\n");
    let machine = &site.machine;
    machine.write("/etc/systemd/system/xlvs.service.d/watchdog.conf", SHORT_WATCHDOG);
    let (done, _) = machine.try_run("systemctl daemon-reload && systemctl start xlvs");
    assert!(!done && site.logged(3, "lvs.cf:2"), "{:?}", machine.journal());
    machine.write(LVS_PATH, LVS);
    wait_until("a later try succeeds", || site.is_active() == "active");
    site.await_servers();
    machine.run("xlvs server down one --virtual echo");
    machine.run("systemctl reload xlvs");
    let restarts: u32 = machine.property("NRestarts").parse().unwrap();

    machine.run(&format!("kill -KILL {}", site.main_process()));
    site.await_restarts(restarts + 1);
    let has_server = |service: &str| {
        let listing = machine.try_run(&format!("ipvsadm -Ln {service}")).1;
        listing.contains("Masq    1")
    };
    let serves_again = || {
        wait_until("the web server is back", || has_server("-t 10.1.0.30:80") && site.has_address());
        site.answers(80);
        assert!(!has_server("-u 10.1.0.30:7"), "what an operator has decided outlives that");
    };
    serves_again();

    machine.run(&format!("kill -STOP {}", site.main_process()));
    site.await_restarts(restarts + 2);
    let journal = machine.journal();
    assert!(journal.iter().any(|(_, text)| text.contains("Watchdog timeout")), "{journal:?}");
    serves_again();
    machine.run("systemctl stop xlvs");
}
